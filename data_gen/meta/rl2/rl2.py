"""RL2: a recurrent policy whose memory spans the episodes of a task, and so learns to learn.

Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning"; concurrently Wang et al. 2016,
"Learning to reinforcement learn". A *trial* is several episodes on one task. The memory spans the episodes of a trial
and is cleared between trials. At every step the policy is also given its previous action and reward, and whether the
episode ended. An ordinary policy-gradient method, here PPO, maximises the sum of rewards over the trial. So the policy
learns to explore, and to exploit what it finds.

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
from data_gen.meta.rl2.task_prediction import TaskPrediction
from data_gen.meta.rl2.trials import Batch, Collector, Life, RecurrentNetwork, TrialFeatures
from data_gen.spaces import one_line
from data_gen.streams import Seeds
from icrl.config.components import component
from icrl.support.errors import UserError

_ADAM_EPSILON, _EPSILON = 1e-5, 1e-8  # Adam's as in this project's PPO
_VALUE_RATE = 0.1  # rate of the running moments of the returns, per iteration: a memory of about ten iterations
_GROWTH = 0.5  # fraction of the iterations over which trials grow
_AUXILIARY = 1  # purpose of the generator of `TaskPrediction`'s initial weights
_TASKS_MEASURED = 10_000  # most tasks used for the means and deviations of the predicted numbers


class RL2Networks(nn.Module):
    """The policy, its action distribution's free parameters, and the value function."""

    def __init__(
        self, policy: RecurrentNetwork, value: RecurrentNetwork | None, free_shapes: tuple[tuple[int, ...], ...]
    ) -> None:
        super().__init__()
        self.policy, self.value = policy, value
        self.free = nn.ParameterList([nn.Parameter(torch.zeros(1, *shape)) for shape in free_shapes])
        """Parameters of the action distribution that do not depend on the observation."""
        self.return_mean: Tensor
        self.return_std: Tensor
        self.register_buffer("return_mean", torch.zeros(()))  # values are learned on the scale of recent returns
        self.register_buffer("return_std", torch.ones(()))


@component
class RL2(MetaLearner):
    """RL2 (Duan et al. 2016): a recurrent policy, meta-trained by PPO on whole trials.

    As in the paper, advantages are estimated across the ends of episodes, only the end of a trial is terminal, and a
    minibatch consists of whole trials, through which gradients flow in full. The paper's own settings are TRPO, a GRU
    of 256 units, a separate recurrent value network, discount .99, lambda .3, no entropy bonus, and batches of 250,000
    steps. Options that the paper does not have: schedules of the learning rate and the entropy bonus, joint inputs, a
    clock, one head per observation, a hidden layer in the heads, growing trials, and an auxiliary loss that predicts
    the task. The bias of the gate that keeps the state is drawn so that memories can last as long as trials.
    Minibatches are the same in every epoch: which tasks share a minibatch is random anyway.

    A lifetime is one trial, however many episodes it has: the memory is cleared at its start only.
    """

    cell: Cell = "gru"
    """Type of the recurrent layer."""
    units: Annotated[Count, Field(le=2**14)] = 32
    """Units of the recurrent layer, H."""
    head_units: Annotated[int, Field(ge=0)] = 0
    """Units of a hidden layer between memory and heads, which also reads the step's inputs; 0 for no hidden layer."""
    observation_heads: bool = False
    """Give each observation its own linear layer, which reads policy and value from the memory or the hidden layer.
    Needs Discrete observations."""
    joint_inputs: bool = False
    """Show also the pair of previous observation and action, one-hot, and that one-hot times the previous reward. Needs
    finite spaces."""
    trial_clock: bool = False
    """Show also the fraction of the trial's episodes that are over; in a lifetime longer than a trial it stays at 1."""
    value: Literal["shared", "separate"] = "shared"
    """Value function: a head on the policy's memory (`shared`), or a recurrent network of its own (`separate`)."""
    trial_episodes: Count = 2
    """Episodes per trial."""
    first_trial_episodes: Count | None = None
    """Episodes per trial at first, which grow to `trial_episodes` over the first half of the iterations; None for no
    growth."""
    trials: Count = 512
    """Environments per iteration. Each collects one trial of full length, or several that end early."""
    minibatches: Count = 4
    """Updates per epoch, each on an equal part of the trials."""
    epochs: Count = 2
    learning_rate: Positive = 3e-3
    final_learning_rate: Share = 0.03
    """Learning rate at the end, as a fraction of `learning_rate`."""
    hold: Share = 0.3
    """Fraction of the iterations in which the learning rate and the entropy coefficient keep their first values; then
    both change linearly."""
    entropy_end: Share = 1.0
    """Fraction of the iterations after which the entropy coefficient has its final value; the learning rate changes
    until the end."""
    discount: Share = 0.99
    gae_lambda: Share = 0.9
    clip_range: Positive = 0.2
    entropy_coefficient: NotNegative = 0.05
    final_entropy_coefficient: NotNegative = 0.0
    value_coefficient: NotNegative = 0.5
    """Coefficient of the squared error of the values, in units of the returns' standard deviation."""
    task_coefficient: NotNegative = 0.0
    """Coefficient of a loss that predicts the task from the memory, in meta-training only; 0 for no such loss."""
    task_arrays: tuple[str, ...] = ()
    """Names of the task arrays to predict; their numbers are standardised. Empty for all arrays."""
    max_grad_norm: Positive = 0.5
    greedy: bool = False
    """Take the most likely action in a lifetime; meta-training always samples actions."""

    acting_only: ClassVar[frozenset[str]] = frozenset({"greedy"})

    networks: ClassVar[RL2Networks | None] = None

    def __post_init__(self) -> None:
        if self.trials % self.minibatches:
            raise ValueError(f"minibatches {self.minibatches} does not divide trials {self.trials}")
        if self.first_trial_episodes is not None and self.first_trial_episodes > self.trial_episodes:
            raise ValueError(
                f"first_trial_episodes {self.first_trial_episodes} is above trial_episodes {self.trial_episodes}"
            )

        if self.task_arrays and not self.task_coefficient:
            raise ValueError(f"task_arrays {list(self.task_arrays)} are not predicted: set task_coefficient above 0")

    # --- acting

    def build(self, spec: Spec) -> RL2Networks:
        if spec.episode_length is None:
            raise UserError("rl2: the length of an episode is unknown: wrap the environment in a time limit")
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

    def _task_prediction(self) -> TaskPrediction:
        """A new `TaskPrediction`, with initial weights that follow from the seed of meta-training."""
        tasks = self.training.tasks
        unknown = [name for name in self.task_arrays if name not in [*tasks]]
        if unknown:
            raise UserError(f"rl2: task_arrays: {unknown[0]!r} is not a task array: choose from {', '.join(tasks)}")
        measured = self._task_numbers(np.arange(min(len(tasks), _TASKS_MEASURED)))
        prediction = TaskPrediction(self.units, measured)
        generator = self.training.generator(0, _AUXILIARY)
        nn.init.uniform_(prediction.head.weight, -(self.units**-0.5), self.units**-0.5, generator)
        return prediction.to(self.device)

    def _task_numbers(self, rows: NDArray[np.int64]) -> Tensor:
        """(rows, numbers) the arrays to predict, of the training tasks at `rows`, flattened and concatenated."""
        tasks = self.training.tasks
        arrays = [tasks[name][rows].reshape(len(rows), -1) for name in self.task_arrays or tasks]
        return torch.from_numpy(np.concatenate(arrays, axis=1).astype(np.float32))

    def improve(self, iteration: int) -> dict[str, float]:
        """Collects a batch of trials and runs several epochs of PPO on it.

        `return` is the mean return per episode: all rewards of the batch, divided by the number of episodes that ended.
        `trial_return` is the sum of rewards per environment: over a full trial, or as many steps of trials that end
        early.
        """
        # collect
        rows = self.training.rows(self.trials, iteration)
        batch = self.collect(rows, iteration)
        # advantages and value targets, then the update
        losses = self.update(batch, self.targets(batch, rows, iteration), iteration)
        # metrics, read from the device at once
        total = batch.rewards.sum()
        returns = torch.stack([total / batch.ended.sum(), total / self.trials])
        names = ("return", "trial_return", "policy_loss", "value_loss", "entropy", "task_loss")
        metrics = dict(zip(names, torch.cat([returns, losses]).tolist(), strict=True))
        return metrics | {"environment_steps": float(batch.rewards.numel())}

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
        """A scheduled value: `first` for the fraction `hold` of the iterations, then linear to `final` at `end`."""
        constant = min(self.hold, end) * self.iterations
        done = (iteration - constant) / max(1.0, end * self.iterations - constant)
        return first + min(1.0, max(0.0, done)) * (final - first)

    def _episodes(self, iteration: int) -> int:
        """Episodes per trial in an iteration."""
        first = self.first_trial_episodes or self.trial_episodes
        grown = min(1.0, iteration / max(1.0, _GROWTH * self.iterations))
        return round(first + grown * (self.trial_episodes - first))

    def collect(self, rows: NDArray[np.int64], iteration: int) -> Batch:
        """Runs the policy in trials on the tasks at `rows`, (trials,) indices of training tasks."""
        episodes = self._episodes(iteration)
        steps = self.trial_steps // self.trial_episodes * episodes
        collector = Collector(lambda seeds: self._life(seeds, episodes, greedy=False), steps, episodes)
        self.training.live(collector, rows, steps, self.training.seeds(self.trials, iteration))
        return collector.batch()

    @torch.no_grad()
    def targets(self, batch: Batch, rows: NDArray[np.int64], iteration: int) -> dict[str, Tensor]:
        """Inputs of the loss beside the batch, tensors (T, B, ...), computed with the networks that acted.

        Returns standardised `advantages`, standardised returns as targets of the `values`, the actions' `log_prob`,
        the `weight` of each step in the loss, `keep` if trials restart, and the `task` if it is predicted (1, B, ...).
        Also updates the running moments of the returns, by which values are standardised.
        """
        networks, keep, counted = self._networks(), batch.keep(), batch.counted()
        # advantages and returns
        values = self._values(batch.outputs, batch.inputs, keep) * networks.return_std + networks.return_mean
        advantages = batch.advantages(values, self.discount, self.gae_lambda)
        returns = advantages + values
        log_prob, _ = self.distribution.log_prob_and_entropy(batch.outputs[0], list(networks.free), batch.actions)
        weight = counted.float()
        weight /= weight.sum()
        # running moments of the returns
        std, mean = torch.std_mean(returns[counted])
        rate = 1.0 if iteration == 0 else _VALUE_RATE
        networks.return_mean.lerp_(mean, rate)
        networks.return_std.lerp_(std, rate)
        # standardised targets
        mean = (advantages * weight).sum()
        std = ((advantages - mean).square() * weight).sum().sqrt()
        targets = {
            "advantages": (advantages - mean) / (std + _EPSILON),
            "values": (returns - networks.return_mean) / (networks.return_std + _EPSILON),
            "log_prob": log_prob,
            "weight": weight * self.minibatches,  # sums to about 1 in each minibatch
        }
        if keep is not None:
            targets["keep"] = keep
        if self.task_prediction is not None:
            numbers = self._task_numbers(rows).to(self.device)
            targets["task"] = self.task_prediction.standardised(numbers).unsqueeze(0)
        return targets

    def update(self, batch: Batch, targets: dict[str, Tensor], iteration: int) -> Tensor:
        """Runs the epochs of PPO. Returns (4,) means of the policy loss, value loss, entropy and task loss."""
        # schedules
        final_rate, size = self.learning_rate * self.final_learning_rate, self.trials // self.minibatches
        for group in self.optimiser.param_groups:
            group["lr"] = self._between(self.learning_rate, final_rate, iteration, 1.0)
        entropy_coefficient = self._between(
            self.entropy_coefficient, self.final_entropy_coefficient, iteration, self.entropy_end
        )
        # minibatches of whole trials, the same in every epoch
        minibatches = []
        for first in range(0, self.trials, size):
            trials = slice(first, first + size)
            minibatches.append((batch.part(trials), {name: values[:, trials] for name, values in targets.items()}))
        # update
        losses = torch.zeros(4, device=self.device)
        for _ in range(self.epochs):
            for minibatch in minibatches:
                loss, parts = self._loss(*minibatch, entropy_coefficient)
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], self.max_grad_norm)
                self.optimiser.step()
                losses += parts
        return losses / (self.epochs * self.minibatches)

    def _loss(self, batch: Batch, target: dict[str, Tensor], entropy_coefficient: float) -> tuple[Tensor, Tensor]:
        """The loss of a minibatch, and its (4,) parts: policy loss, value loss, entropy and task loss."""
        # forward pass
        networks, inputs = self._networks(), batch.inputs
        memory = networks.policy.core(inputs, target.get("keep"))
        outputs = networks.policy.read(memory, inputs)
        log_prob, entropy = self.distribution.log_prob_and_entropy(outputs[0], list(networks.free), batch.actions)
        values = self._values(outputs, inputs, target.get("keep"))
        # clipped policy loss, value loss and entropy bonus
        ratio = (log_prob - target["log_prob"]).exp()
        clipped = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        weight, advantages = target["weight"], target["advantages"]
        policy_loss = -(torch.minimum(ratio * advantages, clipped * advantages) * weight).sum()
        value_loss = ((values - target["values"]).square() * weight).sum()
        mean_entropy = (entropy * weight).sum()
        loss = policy_loss + self.value_coefficient * value_loss - entropy_coefficient * mean_entropy
        # auxiliary loss: predict the task from the memory
        task_loss = torch.zeros((), device=self.device)
        if self.task_prediction is not None:
            task_loss = (self.task_prediction.head(memory) - target["task"]).square().mean()
            loss = loss + self.task_coefficient * task_loss
        return loss, torch.stack([policy_loss, value_loss, mean_entropy, task_loss]).detach()

    def _values(self, outputs: Sequence[Tensor], inputs: Tensor, keep: Tensor | None) -> Tensor:
        """(T, B) values on the standardised scale, from the policy's outputs or the separate value network."""
        networks = self._networks()
        if networks.value is None:
            return outputs[1].squeeze(-1)
        (values,) = networks.value.read(networks.value.core(inputs, keep), inputs)
        return values.squeeze(-1)
