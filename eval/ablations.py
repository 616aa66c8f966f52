"""Ablations: the frozen transformer with one part of its context removed or exchanged, to show that it uses that part.

An ablation is the same model with the same seeds on the same tasks. It differs in `entering` alone: the token that
enters the context at a step, given the true one. The current observation is always its own and true. Two of them are
about the episodes before the current one, and keep the current episode as it is:

    no_context               the context is emptied when an episode starts
    context_of_another_task  when an episode starts, the context becomes that of the unchanged transformer on another
                             task after as many steps of its life

The others are about one part of every token:

    rewards_hidden           0 in place of the reward of the step before
    rewards_shuffled         the reward of a random step, among the last steps that fit into a context: the same values
                             as the true ones, without their connection to the steps
    actions_shuffled         a uniformly random action in place of that of the step before
    ends_hidden              no mark where an episode ended

What is random is drawn from the slot's own stream, so that a slot acts the same alone and among many.
"""

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ad_model.in_context import TransformerAgent, WindowLayer, window_cache
from ad_model.token_cache import strand_order
from ad_model.tokens import Columns, model_inputs, starts_episode, without_ends, without_rewards
from data_gen.agents.base import Spec
from data_gen.interaction import Histories
from data_gen.streams import Seeds, SlotStreams, derive
from data_gen.tasks.base import sample_actions
from data_gen.tasks.same import task_keys
from data_gen.tasks.sets import TaskSet
from eval.summary import TRANSFORMER
from icrl.support.errors import ConfigError, UserError

_SHUFFLING = 1  # derives a slot's stream for shuffling from its seed, whose own stream draws the actions


class NoContext(TransformerAgent):
    """The transformer whose context is emptied when an episode starts, as at the start of a lifetime.

    Slots whose episodes end at different steps have contexts of different lengths. All of them stay in one batch: each
    slot's context begins at its own column, and the columns before it are hidden from the model.
    """

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        if "first" not in inspect.signature(self.model.forward).parameters:
            raise UserError(
                "evaluation.ablations: no_context: the code beside the weights is of an earlier version, which cannot "
                "hide a part of the context: leave out evaluation.trust_remote_code, or this ablation"
            )
        self.first = torch.zeros(num_envs, dtype=torch.long, device=self.model.device)
        self.nothing = self.result  # what the first token of a lifetime carries

    def entering(self, token: Columns) -> Columns:
        starts = starts_episode(token)
        if starts.all():
            self.length = self.in_cache = 0
            self.first.zero_()
        elif starts.any():
            self.first[torch.from_numpy(starts)] = self.length
        return _with_rows(token, starts, self.nothing)

    def forget_oldest(self) -> None:
        self.first = (self.first - (self.length - self.keep)).clamp(min=0)
        super().forget_oldest()

    def inputs(self, first: int) -> dict[str, Any]:
        inputs = super().inputs(first)
        return {**inputs, "first": self.first} if bool(self.first.any()) else inputs


class ContextOfAnotherTask(TransformerAgent):
    """The transformer whose context, when an episode starts, becomes that of a life on another task.

    The other life is one of the unchanged transformer, after as many steps, so the context is as long and as good as
    its own would be. `give` has to be called first.
    """

    lives: Columns
    """Token columns of the lives, (num_envs, steps, ...)."""
    givers: NDArray[np.intp]
    """(num_envs,) the slot whose life each slot is given."""

    def give(self, lives: Histories, task_set: TaskSet) -> None:
        """Gives every slot the context of another task.

        Args:
            lives: those of the unchanged transformer on `task_set`, with the same number of slots for every task.
            task_set: the tasks.

        Raises ConfigError if no tasks differ.
        """
        columns, _ = strand_order(lives.columns(), 1, self.model.config.action_space)
        num_envs, steps = lives.reward.shape
        self.lives = {name: values.reshape(num_envs, steps, *values.shape[1:]) for name, values in columns.items()}
        self.givers = np.arange(num_envs).reshape(len(task_set), -1)[other_tasks(task_set)].ravel()

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.step = 0

    def entering(self, token: Columns) -> Columns:
        slots, now = np.flatnonzero(starts_episode(token)), self.step
        self.step += 1
        if not len(slots):
            return token
        for name, tokens in self.tokens.items():
            past = self.lives[name][self.givers[slots], now - self.length : now]
            tokens[slots, : self.length] = torch.from_numpy(past).to(tokens)
        self._read_again(slots)
        # The result of the slot's own last step is not its own either. Only the mark of the episode's end is.
        rows = np.isin(np.arange(len(token["boundary"])), slots)
        others = {name: self.lives[name][self.givers, now] for name in ("previous_action", "previous_reward")}
        return _with_rows(token, rows, others)

    def _read_again(self, slots: NDArray[np.intp]) -> None:
        """Keys and values of the new tokens of some slots."""
        if not self.in_cache:  # nothing is in the cache: all tokens will be read
            return
        rows = {name: tokens[slots, : self.in_cache] for name, tokens in self.tokens.items()}
        fresh = window_cache(self.model, self.in_cache)
        self.model(**model_inputs(rows), past_key_values=fresh, use_cache=True)
        for layer, read in zip(self.cache.layers, fresh.layers, strict=True):
            assert isinstance(layer, WindowLayer) and isinstance(read, WindowLayer)
            layer.keys[slots, :, : self.in_cache] = read.keys
            layer.values[slots, :, : self.in_cache] = read.values


class RewardsHidden(TransformerAgent):
    """The transformer with reward 0 in every token."""

    def entering(self, token: Columns) -> Columns:
        return without_rewards(token)


class EndsHidden(TransformerAgent):
    """The transformer without a mark where an episode ended."""

    def entering(self, token: Columns) -> Columns:
        return without_ends(token)


class RewardsShuffled(TransformerAgent):
    """The transformer with every reward exchanged for that of a random step.

    The step is drawn from the last steps, the newest included, as many as fit into a context.
    """

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.rewards = np.empty((num_envs, self.capacity), np.float32)
        self.shuffling, self.step = SlotStreams(derive(seeds, _SHUFFLING)), 0

    def entering(self, token: Columns) -> Columns:
        step, self.step = self.step, self.step + 1
        if step == 0:  # nothing happened before a lifetime starts
            return token
        self.rewards[:, (step - 1) % self.capacity] = token["previous_reward"]
        drawn = (self.shuffling.uniform() * min(step, self.capacity)).astype(np.intp)
        return {**token, "previous_reward": self.rewards[np.arange(len(drawn)), drawn]}


class ActionsShuffled(TransformerAgent):
    """The transformer with a uniformly random action in place of every previous one."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.actions = spec.action_space
        self.shuffling, self.step = SlotStreams(derive(seeds, _SHUFFLING)), 0

    def entering(self, token: Columns) -> Columns:
        step, self.step = self.step, self.step + 1
        return {**token, "previous_action": sample_actions(self.actions, self.shuffling)} if step else token


ABLATIONS: dict[str, type[TransformerAgent]] = {
    "no_context": NoContext,
    "context_of_another_task": ContextOfAnotherTask,
    "rewards_hidden": RewardsHidden,
    "rewards_shuffled": RewardsShuffled,
    "actions_shuffled": ActionsShuffled,
    "ends_hidden": EndsHidden,
}
"""The agents of `evaluation.ablations`, by name."""


def ablation_name(ablation: str) -> str:
    """Name of an ablation among the agents: `transformer (no context)`."""
    return f"{TRANSFORMER} ({ablation.replace('_', ' ')})"


def other_tasks(task_set: TaskSet) -> NDArray[np.intp]:
    """For each task of a set the number of a task that has another value, each number once.

    Raises ConfigError if the set has no two different tasks, or if one task makes up more than half of it.
    """
    keys = task_keys(task_set.family, task_set.tasks)
    order = np.argsort(keys, kind="stable")
    shift = int(np.unique(keys, return_counts=True)[1].max())  # in this order, equal tasks are neighbours
    if 2 * shift > len(keys):
        raise ConfigError(
            f"evaluation.ablations: context_of_another_task needs two different tasks or more in every set, but "
            f"{task_set.name} has {len(keys)}: raise the set's number of tasks, or leave out this ablation"
        )
    others = np.empty(len(keys), np.intp)
    others[order] = np.roll(order, shift)
    return others


def _with_rows(token: Columns, rows: NDArray[np.bool_], others: Columns) -> Columns:
    """The token with the columns of `others` in some rows, (num_envs,)."""
    changed = dict(token)
    for name, values in others.items():
        changed[name] = np.where(rows.reshape(-1, *[1] * (values.ndim - 1)), values, token[name]).astype(values.dtype)
    return changed
