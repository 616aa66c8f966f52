"""RL2: a recurrent policy whose memory lasts over the episodes of a task learns to learn in it.

Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning"; at the same time Wang et al.
2016, "Learning to reinforcement learn". A *trial* is several episodes on one task. The memory lasts over the episodes
and is cleared between trials, every step is told what the step before did and gave, and the sum of rewards over the
trial is what an ordinary policy-gradient method, here PPO, improves: so it learns to explore, and to use what it found.

Axes: T steps of a trial, B trials, F features, H units, K outputs of the policy.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.distributions import action_distribution
from data_gen.agents.sweep import Count, NotNegative, Positive, Share
from data_gen.meta.base import MetaLearner, TrainingTasks, load_optimiser_state, optimiser_state
from data_gen.meta.rl2.recurrent import CORES, Cell
from data_gen.meta.rl2.trials import Batch, Collector, Life, RecurrentNetwork, TrialFeatures
from data_gen.spaces import one_line
from data_gen.streams import Seeds
from icrl.config.components import component
from icrl.support.errors import UserError

_ADAM_EPSILON = 1e-5  # as PPO's here
_EPSILON = 1e-8
_VALUE_RATE = 0.1  # of the running moments of the returns, an iteration: a memory of about ten
_GROWTH = 0.5  # share of the iterations in which trials grow
_AUXILIARY = 1  # purpose of a generator: the initial weights of the task's prediction
_TASKS_MEASURED = 10_000  # at most, for the means and deviations of the tasks' numbers


class RL2Networks(nn.Module):
    """Everything that acting needs, and the values."""

    def __init__(
        self, policy: RecurrentNetwork, value: RecurrentNetwork | None, free_shapes: tuple[tuple[int, ...], ...]
    ) -> None:
        super().__init__()
        self.policy, self.value = policy, value
        self.free = nn.ParameterList([nn.Parameter(torch.zeros(1, *shape)) for shape in free_shapes])
        """The action distribution's parameters that do not depend on the observation."""
        self.return_mean: Tensor
        self.return_std: Tensor
        self.register_buffer("return_mean", torch.zeros(()))  # values are learned on the scale of returns seen of late
        self.register_buffer("return_std", torch.ones(()))


@component
class RL2(MetaLearner):
    """RL2 (Duan et al. 2016).

    Meta-trained by PPO on whole trials. As in the paper, advantages are estimated across the ends of episodes, only a
    trial's end being terminal, and a minibatch is of whole trials, through which gradients flow in full. The paper's
    own settings are a GRU of 256, a separate recurrent value network, discount .99, lambda .3, no entropy bonus, and
    batches of 250,000 steps, with TRPO. What it does not have, each an option: schedules of the learning rate and of an
    entropy bonus, joint inputs, a clock, heads by observation, a hidden layer in the heads, trials that grow, and a
    loss that predicts the task. The bias of the gate that keeps is drawn so that memories last as long as a trial.
    Minibatches are the same in every epoch: which tasks share one is random anyway.

    In a lifetime, the memory is cleared at its start only: it is one trial, however many episodes it has.
    """

    cell: Cell = "gru"
    """The recurrent layer."""
    units: Count = 32
    """Of the recurrent layer, H."""
    head_units: Annotated[int, Field(ge=0)] = 0
    """Of a hidden layer between memory and policy, which sees the step's inputs as well; 0 for none."""
    observation_heads: bool = False
    """A linear layer of its own for each observation reads policy and value off the memory, or off that hidden layer.
    For Discrete observations."""
    joint_inputs: bool = False
    """Show also the pair of previous observation and action, one-hot, and the same times the previous reward. For
    finite spaces."""
    trial_clock: bool = False
    """Show also which share of the trial's episodes are over; in a lifetime that is longer than a trial it stays 1."""
    value: Literal["shared", "separate"] = "shared"
    """Whether the values are read off the policy's memory or a network of their own has one."""
    trial_episodes: Count = 2
    """Episodes of a trial."""
    first_trial_episodes: Count | None = None
    """Episodes of a trial at first, if not all; they grow to all over the first half of the iterations."""
    trials: Count = 512
    """Environments that each iteration collects in, each a trial of full length, or several that end early."""
    minibatches: Count = 4
    """Updates an epoch, each of an equal share of the trials."""
    epochs: Count = 2
    learning_rate: Positive = 3e-3
    final_learning_rate: Share = 0.03
    """Learning rate at the end, as a share of the first."""
    hold: Share = 0.3
    """Share of the iterations that the learning rate and the entropy coefficient stay what they are; then both change
    linearly."""
    entropy_end: Share = 1.0
    """Share of the iterations at which the entropy coefficient has become the final one; the learning rate changes to
    the end."""
    discount: Share = 0.99
    gae_lambda: Share = 0.9
    clip_range: Positive = 0.2
    entropy_coefficient: NotNegative = 0.05
    final_entropy_coefficient: NotNegative = 0.0
    value_coefficient: NotNegative = 0.5
    """Of the squared error of the values, in units of the returns' standard deviation."""
    task_coefficient: NotNegative = 0.0
    """Of a loss that predicts the task from the memory, in meta-training alone; 0 for none."""
    task_arrays: tuple[str, ...] = ()
    """Of the training tasks, what is predicted, by the arrays' names; all numbers are standardised. Empty for all."""
    max_grad_norm: Positive = 0.5
    greedy: bool = False
    """Take the most likely action in a lifetime; meta-training always draws actions."""

    acting_only: ClassVar[frozenset[str]] = frozenset({"greedy"})

    networks: ClassVar[RL2Networks | None] = None

    def __post_init__(self) -> None:
        if self.trials % self.minibatches:
            raise ValueError(f"minibatches {self.minibatches} has to divide trials, which is {self.trials}")
        if self.first_trial_episodes is not None and self.first_trial_episodes > self.trial_episodes:
            raise ValueError(
                f"first_trial_episodes {self.first_trial_episodes} is above trial_episodes {self.trial_episodes}"
            )

        if self.task_arrays and not self.task_coefficient:
            raise ValueError(f"task_arrays {list(self.task_arrays)} are not predicted: give a task_coefficient above 0")

    # --- acting

    def build(self, spec: Spec) -> RL2Networks:
        if spec.episode_length is None:
            raise UserError("rl2 needs to know how long an episode is: wrap the environment in a time limit")
        if self.observation_heads and not isinstance(spec.observation_space, spaces.Discrete):
            raise UserError(
                f"rl2: observation_heads needs Discrete observations, not {one_line(spec.observation_space)}"
            )
        device = torch.device(spec.device)
        self.distribution = action_distribution(spec.action_space, "rl2", device)
        self.features = TrialFeatures(spec, self.distribution, self.joint_inputs, self.trial_clock)
        self.trial_steps = self.trial_episodes * spec.episode_length
        shared = self.value == "shared"
        outputs = [self.distribution.outputs, 1] if shared else [self.distribution.outputs]
        policy = self._network(outputs)
        value = None if shared else self._network([1])
        return RL2Networks(policy, value, self.distribution.shapes).to(device)

    def _network(self, outputs: list[int]) -> RecurrentNetwork:
        core = CORES[self.cell](self.features.size, self.units, self.trial_steps)
        elements = self.features.observation.size if self.observation_heads else 1
        return RecurrentNetwork(core, self.features.size, outputs, self.head_units, elements)

    def begin(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.life = self._life(seeds, self.trial_episodes, self.greedy)

    def act(self, observation: object) -> NDArray[np.generic]:
        return self.life.act(observation)

    def observe(self, transition: Transition) -> None:
        self.life.observe(transition)

    def _life(self, seeds: Seeds, episodes: int, greedy: bool) -> Life:
        networks = self._networks()
        free = list(networks.free)
        return Life(networks.policy, self.features, self.distribution, free, seeds, episodes, greedy)

    def _networks(self) -> RL2Networks:
        return cast(RL2Networks, self.trained_networks)

    # --- meta-training

    def begin_training(self, training: TrainingTasks) -> None:
        self.training, networks = training, self._networks()
        self.task_prediction = self._task_prediction() if self.task_coefficient else None
        parameters = [*networks.parameters()]
        if self.task_prediction is not None:
            parameters += self.task_prediction.parameters()
        self.optimiser = torch.optim.Adam(parameters, eps=_ADAM_EPSILON, fused=True)

    def _task_prediction(self) -> "TaskPrediction":
        tasks = self.training.tasks
        unknown = [name for name in self.task_arrays if name not in [*tasks]]
        if unknown:
            raise UserError(f"rl2: task_arrays: these tasks have no {unknown[0]!r}: choose from {', '.join(tasks)}")
        some = self._task_numbers(np.arange(min(len(tasks), _TASKS_MEASURED)))
        prediction = TaskPrediction(self.units, some)
        generator = self.training.generator(0, _AUXILIARY)
        nn.init.uniform_(prediction.head.weight, -(self.units**-0.5), self.units**-0.5, generator)
        return prediction.to(self.device)

    def _task_numbers(self, rows: NDArray[np.int64]) -> Tensor:
        """(rows, numbers) the predicted arrays of the training tasks at `rows`, side by side."""
        tasks = self.training.tasks
        arrays = [tasks[name][rows].reshape(len(rows), -1) for name in self.task_arrays or tasks]
        return torch.from_numpy(np.concatenate(arrays, axis=1).astype(np.float32))

    def improve(self, iteration: int) -> dict[str, float]:
        """One batch of trials and several epochs of PPO on it. `return` is of an episode, a mean over all of the batch.

        `trial_return` is the sum of rewards over a trial, or over as many steps of trials that end early.
        """
        rows = self.training.rows(self.trials, iteration)
        batch = self.collect(rows, iteration)
        losses = self.update(batch, self.targets(batch, rows, iteration), iteration)
        total = batch.rewards.sum()
        returns = torch.stack([total / batch.ended.sum(), total / self.trials])
        names = ("return", "trial_return", "policy_loss", "value_loss", "entropy", "task_loss")
        found = dict(zip(names, torch.cat([returns, losses]).tolist(), strict=True))
        return found | {"environment_steps": float(batch.rewards.numel())}

    def training_state(self) -> dict[str, Tensor]:
        state = optimiser_state(self.optimiser)
        if self.task_prediction is not None:
            state |= {f"task_prediction.{name}": value for name, value in self.task_prediction.state_dict().items()}
        return state

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        load_optimiser_state(self.optimiser, state)
        if self.task_prediction is not None:
            self.task_prediction.load_state_dict(
                {name.split(".", 1)[1]: value for name, value in state.items() if name.startswith("task_prediction.")}
            )

    def _between(self, first: float, final: float, iteration: int, end: float) -> float:
        """A rate that is held at first, and then goes to its final value, which it has from a share `end` on."""
        held = min(self.hold, end) * self.iterations
        done = (iteration - held) / max(1.0, end * self.iterations - held)
        return first + min(1.0, max(0.0, done)) * (final - first)

    def _episodes(self, iteration: int) -> int:
        """Of a trial in an iteration."""
        first = self.first_trial_episodes or self.trial_episodes
        grown = min(1.0, iteration / max(1.0, _GROWTH * self.iterations))
        return round(first + grown * (self.trial_episodes - first))

    def collect(self, rows: NDArray[np.int64], iteration: int) -> Batch:
        """Trials on the tasks at `rows`, (trials,) numbers of training tasks."""
        episodes = self._episodes(iteration)
        steps = self.trial_steps // self.trial_episodes * episodes
        collector = Collector(lambda seeds: self._life(seeds, episodes, greedy=False), steps, episodes)
        self.training.live(collector, rows, steps, self.training.seeds(self.trials, iteration))
        return collector.batch()

    @torch.no_grad()
    def targets(self, batch: Batch, rows: NDArray[np.int64], iteration: int) -> dict[str, Tensor]:
        """What the loss needs beside the batch, tensors (T, B, ...), from the networks that acted.

        Takes the returns into the moments that values are on the scale of.
        """
        networks, keep, counted = self._networks(), batch.keep(), batch.counted()
        values = self._values(batch.outputs, batch.inputs, keep) * networks.return_std + networks.return_mean
        advantages = batch.advantages(values, self.discount, self.gae_lambda)
        returns = advantages + values
        log_prob, _ = self.distribution.log_prob_and_entropy(batch.outputs[0], list(networks.free), batch.actions)
        weight = counted.float()
        weight /= weight.sum()
        std, mean = torch.std_mean(returns[counted])
        rate = 1.0 if iteration == 0 else _VALUE_RATE
        networks.return_mean.lerp_(mean, rate)
        networks.return_std.lerp_(std, rate)
        mean = (advantages * weight).sum()
        std = ((advantages - mean).square() * weight).sum().sqrt()
        targets = {
            "advantages": (advantages - mean) / (std + _EPSILON),
            "values": (returns - networks.return_mean) / (networks.return_std + _EPSILON),
            "log_prob": log_prob,
            "weight": weight * self.minibatches,  # which sums to about 1 in each
        }
        if keep is not None:
            targets["keep"] = keep
        if self.task_prediction is not None:
            numbers = self._task_numbers(rows).to(self.device)
            targets["task"] = self.task_prediction.standardised(numbers).unsqueeze(0)
        return targets

    def update(self, batch: Batch, targets: dict[str, Tensor], iteration: int) -> Tensor:
        """The epochs of PPO. Returns means of the losses: of policy, of values, the entropy, of the task."""
        final_rate, size = self.learning_rate * self.final_learning_rate, self.trials // self.minibatches
        for group in self.optimiser.param_groups:
            group["lr"] = self._between(self.learning_rate, final_rate, iteration, 1.0)
        entropy = self._between(self.entropy_coefficient, self.final_entropy_coefficient, iteration, self.entropy_end)
        minibatches = []
        for first in range(0, self.trials, size):
            some = slice(first, first + size)
            minibatches.append((batch.part(some), {name: values[:, some] for name, values in targets.items()}))
        losses = torch.zeros(4, device=self.device)
        for _ in range(self.epochs):
            for minibatch in minibatches:
                loss, parts = self._loss(*minibatch, entropy)
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], self.max_grad_norm)
                self.optimiser.step()
                losses += parts
        return losses / (self.epochs * self.minibatches)

    def _loss(self, batch: Batch, target: dict[str, Tensor], entropy_coefficient: float) -> tuple[Tensor, Tensor]:
        """The loss of some trials, and its parts: of the policy, of the values, the entropy, of the task."""
        networks, inputs = self._networks(), batch.inputs
        memory = networks.policy.core(inputs, target.get("keep"))
        outputs = networks.policy.read(memory, inputs)
        log_prob, entropy = self.distribution.log_prob_and_entropy(outputs[0], list(networks.free), batch.actions)
        values = self._values(outputs, inputs, target.get("keep"))
        ratio = (log_prob - target["log_prob"]).exp()
        clipped = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        weight, advantages = target["weight"], target["advantages"]
        policy_loss = -(torch.minimum(ratio * advantages, clipped * advantages) * weight).sum()
        value_loss = ((values - target["values"]).square() * weight).sum()
        mean_entropy = (entropy * weight).sum()
        loss = policy_loss + self.value_coefficient * value_loss - entropy_coefficient * mean_entropy
        task_loss = torch.zeros((), device=self.device)
        if self.task_prediction is not None:
            task_loss = (self.task_prediction.head(memory) - target["task"]).square().mean()
            loss = loss + self.task_coefficient * task_loss
        return loss, torch.stack([policy_loss, value_loss, mean_entropy, task_loss]).detach()

    def _values(self, outputs: Sequence[Tensor], inputs: Tensor, keep: Tensor | None) -> Tensor:
        """(T, B) values in units of the returns' deviation: of the policy's outputs, or the value network's own."""
        networks = self._networks()
        if networks.value is None:
            return outputs[1].squeeze(-1)
        (values,) = networks.value.read(networks.value.core(inputs, keep), inputs)
        return values.squeeze(-1)


class TaskPrediction(nn.Module):
    """Predicts the task's numbers, standardised, from the memory. Thrown away when meta-training is over.

    Args:
        units: H.
        numbers: (tasks, numbers) of some tasks, which their means and deviations are estimated from.
    """

    def __init__(self, units: int, numbers: Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(units, numbers.shape[1])
        nn.init.zeros_(self.head.bias)
        self.std: Tensor
        self.mean: Tensor
        self.register_buffer("std", numbers.std(dim=0, correction=0))
        self.register_buffer("mean", numbers.mean(dim=0))

    def standardised(self, numbers: Tensor) -> Tensor:
        """(tasks, numbers) -> what is predicted of them."""
        return (numbers - self.mean) / (self.std + _EPSILON)
