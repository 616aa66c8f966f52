"""Trials: several episodes on one task, through which a recurrent policy keeps its memory.

Axes: T steps, B environments, F features, P parts of an action, K outputs of the policy network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from data_gen.agents.base import Agent, Spec, TableIndex, Transition
from data_gen.agents.deep.advantages import gae
from data_gen.agents.deep.distributions import ActionDistribution, Categorical, most_likely
from data_gen.agents.deep.encoding import Encoder
from data_gen.meta.rl2.recurrent import Core
from data_gen.spaces import one_line
from data_gen.streams import Seeds, SlotStreams, derive
from icrl.support.errors import UserError

_FEWEST_ROWS = 8
"""Fewest rows per forward pass. With fewer, the matrix library takes code paths with other last bits, so a lifetime
would depend on the number of its neighbours."""
_NOISE_AT_ONCE = 64  # steps per draw of noise: the same numbers as one by one, in fewer operations


class TrialFeatures:
    """Inputs of the network at every step: the observation, and the previous action, reward and end of episode.

    Features in this order: the observation as `Encoder` encodes it; the previous action, one-hot per part or on the
    scale of a Box policy; the previous reward; 1 if the previous step ended its episode, and at the start of a trial;
    with `joint`, the pair of previous observation and action, one-hot, and that one-hot times the reward; with `clock`,
    the fraction of the trial's episodes that are over. At the start of a trial the previous action, reward and pair are
    zeros.

    Args:
        spec: spec of the environments.
        distribution: distribution of the actions.
        joint: add the pairs. Raises UserError if the spaces are not finite.
        clock: add the fraction of the trial's episodes that are over.
    """

    def __init__(self, spec: Spec, distribution: ActionDistribution, joint: bool, clock: bool = False) -> None:
        self.device = torch.device(spec.device)
        self.observation = Encoder(spec.observation_space, self.device)
        sizes = distribution.sizes if isinstance(distribution, Categorical) else None
        self._first = None if sizes is None else torch.tensor(np.cumsum([0, *sizes[:-1]]), device=self.device)
        self._reward = self.observation.size + distribution.outputs
        self.size = self._reward + 2
        """Number of features, F."""
        self._pairs: TableIndex | None = None
        if joint:
            if not isinstance(spec.action_space, spaces.Discrete):
                raise UserError(f"rl2: joint_inputs needs Discrete actions, not {one_line(spec.action_space)}")
            self._pairs = TableIndex(spec.observation_space, "rl2: joint_inputs")
            self._actions = int(spec.action_space.n)
            self.size += 2 * self._pairs.size * self._actions
        self.clock = clock
        self.size += clock

    def first(self, rows: int) -> Tensor:
        """(rows, F) features of the first step of a trial, without its observation."""
        features = torch.zeros(rows, self.size, device=self.device)
        features[:, self._reward + 1] = 1
        return features

    def observe(self, features: Tensor, observation: Any) -> None:
        """Writes observations into (B, F) features."""
        features[:, : self.observation.size] = self.observation(observation)

    def tell_time(self, features: Tensor, passed: Tensor) -> None:
        """Writes the (B,) fraction of the trial that is over into (B, F) features, if they have a clock."""
        if self.clock:
            features[:, -1] = passed.clamp(max=1)

    def following(self, observation: Any, actions: Tensor, reward: NDArray[Any], ended: NDArray[np.bool_]) -> Tensor:
        """(B, F) features of the next step, without its observation.

        Args:
            observation: the observation that the actions responded to.
            actions: (B, P) as sampled from the policy.
            reward: (B,) rewards of the actions.
            ended: (B,) True where the step ended its episode.
        """
        features = torch.zeros(len(actions), self.size, device=self.device)
        # previous action, reward, and end of episode
        rewards = torch.from_numpy(reward.astype(np.float32)).to(self.device)
        if self._first is None:
            features[:, self.observation.size : self._reward] = actions
        else:
            features.scatter_(1, actions + (self.observation.size + self._first), 1.0)
        features[:, self._reward] = rewards
        features[:, self._reward + 1] = torch.from_numpy(ended.astype(np.float32)).to(self.device)
        # pair of observation and action
        if self._pairs is not None:
            seen = torch.from_numpy(self._pairs(np.asarray(observation))).to(self.device)
            pair = (self._reward + 2 + seen * self._actions).unsqueeze(1) + actions
            features.scatter_(1, pair, 1.0)
            features.scatter_(1, pair + self._pairs.size * self._actions, rewards.unsqueeze(1))
        return features


class RecurrentNetwork(nn.Module):
    """A recurrent core with output heads.

    Args:
        core: the recurrent layer.
        features: F.
        outputs: sizes of the groups of outputs; the first group is the policy's, or the value.
        head_units: units of a hidden layer between core and outputs, which also reads the features; 0 for none.
        elements: number of observations if each has its own head, else 1; the first `elements` features are the
            one-hot observation.
    """

    def __init__(self, core: Core, features: int, outputs: list[int], head_units: int, elements: int) -> None:
        super().__init__()
        self.core, self.outputs, self._elements = core, outputs, elements
        self.hidden = nn.Linear(core.units + features, head_units) if head_units else None
        self.head = nn.Linear(head_units or core.units, elements * sum(outputs))
        for layer, gain in ((self.hidden, 2**0.5), (self.head, 0.01)):
            if layer is not None:
                nn.init.orthogonal_(layer.weight, gain)
                nn.init.zeros_(layer.bias)

    def read(self, memory: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        """(..., H) outputs of the core and (..., F) features -> the groups of outputs, (..., size) each."""
        # hidden layer on [memory, features], without concatenating the two
        if self.hidden is not None:
            units = memory.shape[-1]
            memory_matrix, feature_matrix = self.hidden.weight[:, :units], self.hidden.weight[:, units:]
            products = nn.functional.linear(memory, memory_matrix, self.hidden.bias)
            memory = (products + nn.functional.linear(features, feature_matrix)).relu()
        outputs = self.head(memory)
        # of all observations' heads, the outputs of the one that is seen
        if self._elements > 1:
            seen = features[..., : self._elements].argmax(dim=-1, keepdim=True)
            columns = seen * sum(self.outputs) + torch.arange(sum(self.outputs), device=seen.device)
            outputs = outputs.gather(-1, columns)
        return outputs.split(self.outputs, dim=-1)


class Life:
    """A policy in the middle of its trials, one per environment: its memory and the inputs of its next step.

    Args:
        network: the network; its first group of outputs is the policy's.
        features: inputs of the network.
        distribution: distribution of the actions.
        free: parameters of the distribution that do not depend on the observation.
        seeds: (B,) one seed per environment.
        trial_episodes: episodes per trial, for the clock.
        greedy: take the most likely action.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        features: TrialFeatures,
        distribution: ActionDistribution,
        free: list[Tensor],
        seeds: Seeds,
        trial_episodes: int,
        greedy: bool,
    ) -> None:
        self._network, self._features, self._distribution, self._free = network, features, distribution, free
        self._greedy, self._streams = greedy, SlotStreams(derive(seeds, 0))
        self._noise: Iterator[Tensor] = iter(())  # drawn for several steps at a time
        self.memory = network.core.start(len(seeds))
        self._episodes, self._trial_episodes = torch.zeros(len(seeds), device=features.device), trial_episodes
        self.inputs = features.first(len(seeds))
        """(B, F) features of this step."""
        self.actions = torch.empty(0)
        """(B, P) actions of this step, as sampled from the policy."""
        self.outputs: tuple[Tensor, ...] = ()
        """Groups of outputs of this step, (B, ...) each."""

    @torch.no_grad()
    def act(self, observation: Any) -> NDArray[Any]:
        """(B, ...) observations -> (B, ...) actions, as elements of the action space."""
        self._features.observe(self.inputs, observation)
        inputs, memory, rows = _padded(self.inputs), _padded(self.memory), len(self.inputs)
        memory = self._network.core.step(inputs, memory)
        outputs = self._network.read(memory[:, : self._network.core.units], inputs)
        self.memory, self.outputs = memory[:rows], tuple(part[:rows] for part in outputs)
        self.actions = self._chosen(self.outputs[0])
        return self._distribution.to_space(self.actions)

    def observe(self, transition: Transition) -> None:
        """Builds the inputs of the next step from the outcome of the actions."""
        ended = transition.terminated | transition.truncated
        self.inputs = self._features.following(transition.observation, self.actions, transition.reward, ended)
        if self._features.clock:
            self._episodes += torch.from_numpy(ended).to(self._episodes)
            self._features.tell_time(self.inputs, self._episodes / self._trial_episodes)

    def restart(self, over: NDArray[np.bool_]) -> None:
        """Begins new trials where (B,) `over` is True: clears memory, clock and inputs."""
        slots = torch.from_numpy(np.flatnonzero(over)).to(self.inputs.device)
        self.memory[slots] = 0
        self._episodes[slots] = 0
        self.inputs[slots] = self._features.first(len(slots))

    def _chosen(self, outputs: Tensor) -> Tensor:
        """(B, K) outputs -> (B, P) actions: the most likely ones if greedy, else sampled."""
        if self._greedy:
            return most_likely(self._distribution, outputs)
        drawn = next(self._noise, None)
        if drawn is None:
            self._noise = iter(self._distribution.noise(self._streams, _NOISE_AT_ONCE).unbind(1))
            drawn = next(self._noise)
        return self._distribution.sample(outputs.unsqueeze(0), self._free, drawn.unsqueeze(0)).squeeze(0)


def _padded(rows: Tensor) -> Tensor:
    """(B, ...) rows, followed by rows of zeros up to `_FEWEST_ROWS`."""
    missing = _FEWEST_ROWS - len(rows)
    return rows if missing <= 0 else torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])


@dataclass(frozen=True)
class Batch:
    """Collected trials; tensors (T, B, ...)."""

    inputs: Tensor
    """(T, B, F)."""
    actions: Tensor
    """(T, B, P)."""
    outputs: list[Tensor]
    """Groups of outputs of the policy network while it acted, (T, B, ...) each."""
    rewards: Tensor
    ended: Tensor
    """(T, B) True where the step ended its episode."""
    over: Tensor
    """(T, B) True where the step ended its trial."""

    def part(self, trials: slice) -> "Batch":
        """The trials of some of the environments; inputs and actions are contiguous."""
        return Batch(
            self.inputs[:, trials].contiguous(),
            self.actions[:, trials].contiguous(),
            [group[:, trials] for group in self.outputs],
            *(flat[:, trials] for flat in (self.rewards, self.ended, self.over)),
        )

    def keep(self) -> Tensor | None:
        """(T, B) 0 where a trial begins after another and 1 elsewhere; None if every environment has only one trial."""
        if not self.over[:-1].any():
            return None
        keep = torch.ones_like(self.rewards)
        keep[1:] = (~self.over[:-1]).float()
        return keep

    def counted(self) -> Tensor:
        """(T, B) True where a step counts in the loss: all steps but the last one of a trial that collection cut off.

        The future of that last step is unknown, but its value is the bootstrap of the steps before it.
        """
        counted = torch.ones_like(self.over)
        counted[-1] = self.over[-1]
        return counted

    def advantages(self, values: Tensor, discount: float, gae_lambda: float) -> Tensor:
        """(T, B) generalised advantage estimates across the ends of episodes; zero for steps that do not count.

        Args:
            values: (T, B) values of the steps' inputs.
            discount: discount of rewards, per step, also across the ends of episodes.
            gae_lambda: lambda of generalised advantage estimation.
        """
        cut = ~self.counted()
        ended = self.over | cut.roll(-1, dims=0) | cut  # the step before a cut one bootstraps from the cut one's value
        advantages = gae(
            self.rewards.unsqueeze(0),
            values.unsqueeze(0),
            values.roll(-1, dims=0).unsqueeze(0),
            self.over.unsqueeze(0),
            ended.unsqueeze(0),
            torch.tensor([[discount]], device=values.device),
            torch.tensor([[gae_lambda]], device=values.device),
        ).squeeze(0)
        return advantages.masked_fill_(cut, 0)


class Collector(Agent):
    """Acts in trials and records them for learning.

    Args:
        life: (B,) seeds -> a policy at the start of its trials.
        steps: T.
        trial_episodes: episodes per trial; where a trial ends early, another begins on the same task.
    """

    def __init__(self, life: Callable[[Seeds], Life], steps: int, trial_episodes: int) -> None:
        self._begin, self._steps, self._trial_episodes = life, steps, trial_episodes

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.life: Life = self._begin(seeds)
        self._step, shape = 0, (self._steps, num_envs)
        self._inputs = torch.empty(*shape, self.life.inputs.shape[1], device=self.life.inputs.device)
        self._actions: list[Tensor] = []
        self._outputs: list[tuple[Tensor, ...]] = []
        self._rewards = np.empty(shape, dtype=np.float32)
        self._ended, self._over = np.empty(shape, dtype=np.bool_), np.empty(shape, dtype=np.bool_)
        self._episodes = np.zeros(num_envs, dtype=np.int64)

    def act(self, observation: Any) -> NDArray[Any]:
        actions = self.life.act(observation)
        self._inputs[self._step] = self.life.inputs
        self._actions.append(self.life.actions)
        self._outputs.append(self.life.outputs)
        return actions

    def observe(self, transition: Transition) -> None:
        self.life.observe(transition)
        ended = transition.terminated | transition.truncated
        self._episodes += ended
        over = self._episodes == self._trial_episodes
        self._rewards[self._step], self._ended[self._step], self._over[self._step] = transition.reward, ended, over
        self._step += 1
        if over.any():
            self._episodes[over] = 0
            self.life.restart(over)

    def batch(self) -> Batch:
        """The collected trials as one batch."""
        device = self._inputs.device
        return Batch(
            self._inputs,
            torch.stack(self._actions),
            [torch.stack(group) for group in zip(*self._outputs, strict=True)],
            *(torch.from_numpy(values).to(device) for values in (self._rewards, self._ended, self._over)),
        )
