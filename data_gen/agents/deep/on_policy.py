"""Base class of A2C and PPO: actors that collect rollouts, a policy and a value network, and advantages.

Axes: N learners, T steps of a rollout, A actors, F features; B = T x A rows of a rollout.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.advantages import gae
from data_gen.agents.deep.base import DeepLearner, HiddenSizes
from data_gen.agents.deep.distributions import action_distribution
from data_gen.agents.deep.networks import MLP, Activation, Stack
from data_gen.agents.deep.normalisation import ObservationScale, RewardScale
from data_gen.agents.deep.optimisers import Optimiser
from data_gen.agents.sweep import Count, NotNegative, PerLearner, Positive, Share
from icrl.config.components import component

_HIDDEN_GAIN, _POLICY_GAIN = 2**0.5, 0.01
"""Gains of the initial orthogonal matrices. The small gain of the policy's last layer makes the initial policy nearly
uniform (Andrychowicz et al. 2021, "What Matters in On-Policy Reinforcement Learning?")."""


@dataclass(frozen=True)
class Batch:
    """Rows of a rollout; arrays (N, B, ...)."""

    features: Tensor
    actions: Tensor
    advantages: Tensor
    returns: Tensor
    """lambda-returns, the targets of the values."""

    def rows(self, numbers: Tensor) -> "Batch":
        """Rows at (N, b) `numbers`, different ones for each learner."""
        learner = torch.arange(len(numbers), device=numbers.device).unsqueeze(1)
        return Batch(*(array[learner, numbers] for array in vars(self).values()))


@component
class OnPolicy(DeepLearner):
    """Base of the policy-gradient learners. Subclasses define how to learn from a rollout."""

    actors: Count = 8
    """Number of environments of its task that each learner acts in at once."""
    rollout_steps: Count = 5
    """Steps per actor in a rollout, T."""
    learning_rate: PerLearner[Positive] = 7e-4
    final_learning_rate: PerLearner[Share] = 1.0
    """Learning rate at the end of the lifetime, as a fraction of the initial one; linear in between."""
    discount: PerLearner[Share] = 0.99
    gae_lambda: PerLearner[Share] = 1.0
    """Lambda of the advantages: 1 gives n-step returns, 0 one-step returns."""
    entropy_coefficient: PerLearner[NotNegative] = 0.0
    value_coefficient: PerLearner[NotNegative] = 0.5
    max_grad_norm: PerLearner[Positive] = 0.5
    hidden_sizes: HiddenSizes = (64, 64)
    """Hidden layers of the policy network and of the value network, which share no parameters."""
    activation: Activation = "tanh"
    normalise_observations: bool = False
    """Standardise the numbers in observations by the learner's running mean and standard deviation."""
    normalise_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""

    @property
    def first_update(self) -> int:
        return self.rollout_steps

    @property
    def follows_plan(self) -> bool:
        return self.final_learning_rate != 1

    def begin(self, spec: Spec) -> None:
        # Networks: the policy, the value, and free parameters of the distribution, in one stack.
        features, actors = self.encoder.size, self.actors
        self.distribution = action_distribution(spec.action_space, type(self).__name__.lower(), self.device)
        self.policy = MLP((features, *self.hidden_sizes, self.distribution.outputs), self.activation)
        self.value = MLP((features, *self.hidden_sizes, 1), self.activation)
        shapes = [*self.policy.shapes, *self.value.shapes, *self.distribution.shapes]
        self.stack = Stack(self.num_learners, shapes, self.device)
        cuts = (0, len(self.policy.shapes), len(self.policy.shapes) + len(self.value.shapes))
        self.policy_parameters, self.value_parameters, self.free = (
            self.stack.parameters[first:last] for first, last in zip(cuts, (*cuts[1:], None), strict=True)
        )
        gains = [_HIDDEN_GAIN] * len(self.hidden_sizes)
        self.policy.initialise(self.policy_parameters, self.streams, [*gains, _POLICY_GAIN])
        self.value.initialise(self.value_parameters, self.streams, [*gains, 1.0])
        # Optimiser and coefficients, one per learner.
        self.optimiser = self.make_optimiser(self.stack)
        self.coefficient = {name: self.parameter(name) for name in ("entropy_coefficient", "value_coefficient")}
        self.rates = self.parameter("learning_rate"), self.parameter("final_learning_rate")
        self.grad_norm = self.parameter("max_grad_norm")
        self.gamma, self.lambda_ = self.parameter("discount", 1), self.parameter("gae_lambda", 1)
        self.feature_scale = (
            ObservationScale(self.num_learners, self.encoder.is_number, self.device)
            if self.normalise_observations
            else None
        )
        self.reward_scale = RewardScale(self.gamma, actors) if self.normalise_rewards else None
        # Rollout, (N, T, A).
        shape = (self.num_learners, self.rollout_steps, actors)
        self.features = torch.empty(*shape, features, device=self.device)
        self.actions: Tensor | None = None
        self.rewards = torch.empty(shape, device=self.device)
        self.terminated, self.ended, self.cut = (
            torch.empty(shape, dtype=torch.bool, device=self.device) for _ in range(3)
        )
        self.arrival_values = torch.zeros(shape, device=self.device)  # V after each step that is cut

    @abstractmethod
    def make_optimiser(self, stack: Stack) -> Optimiser:
        """The optimiser of all parameters."""

    @abstractmethod
    def update(self) -> None:
        """Learns from the rollout."""

    def choose(self, observation: Any) -> NDArray[Any]:
        features = self._features(observation, seen=True)
        with torch.no_grad():
            outputs = self.policy(self.policy_parameters, features)
            actions = self.distribution.sample(outputs, self.free, self.distribution.noise(self.streams, self.actors))
        step = self.steps % self.rollout_steps
        if self.actions is None:
            self.actions = torch.empty(*self.rewards.shape, actions.shape[-1], dtype=actions.dtype, device=self.device)
        self.features[:, step], self.actions[:, step] = features, actions
        return self.distribution.to_space(actions)

    def learn(self, transition: Transition) -> None:
        step = (self.steps - 1) % self.rollout_steps
        rewards = self.rows(transition.reward.astype(np.float32))
        terminated, truncated = self.rows(transition.terminated), self.rows(transition.truncated)
        if self.reward_scale is not None:
            self.reward_scale.add(rewards, terminated | truncated)
            rewards = self.reward_scale.scaled(rewards)
        last = step == self.rollout_steps - 1
        self.rewards[:, step], self.terminated[:, step] = rewards, terminated
        self.ended[:, step], self.cut[:, step] = terminated | truncated, truncated | last
        if last or transition.truncated.any():
            # All slots, even if only some were cut: the last bits of a value depend on the number of rows.
            with torch.no_grad():
                self.arrival_values[:, step] = self.values(self._features(transition.next_observation, seen=False))
        if last:
            self.update()

    def batch(self, values: Tensor) -> Batch:
        """Batch of the whole rollout, with its advantages.

        Args:
            values: (N, B) V of the rollout's observations.
        """
        values = values.view(self.rewards.shape)
        # The value after a step is that of the next observation in the rollout, unless the step was the rollout's last
        # or was cut off by the time limit.
        next_values = torch.where(self.cut, self.arrival_values, values.roll(-1, dims=1))
        advantages = gae(self.rewards, values, next_values, self.terminated, self.ended, self.gamma, self.lambda_)
        assert self.actions is not None
        return Batch(
            self.features.flatten(1, 2),
            self.actions.flatten(1, 2),
            advantages.flatten(1),
            (advantages + values).flatten(1),
        )

    def evaluate(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, entropies and values, (N, B) each, of (N, B, F) features and (N, B, parts) actions."""
        outputs = self.policy(self.policy_parameters, features)
        log_prob, entropy = self.distribution.log_prob_and_entropy(outputs, self.free, actions)
        return log_prob, entropy, self.values(features)

    def values(self, features: Tensor) -> Tensor:
        """(N, B) V of (N, B, F) features."""
        return self.value(self.value_parameters, features).squeeze(-1)

    def descend(self, losses: Tensor) -> None:
        """Takes one optimiser step down the gradient of (N,) losses, at the current learning rate."""
        initial, fraction = self.rates
        self.stack.differentiate(losses)
        self.optimiser.step(initial * (1 - (1 - fraction) * self.progress), self.grad_norm)

    def _features(self, observation: Any, seen: bool) -> Tensor:
        """(N, A, F) features; with `seen`, they are new and count in the normalisation."""
        features = self.encoder(observation).view(self.num_learners, self.actors, -1)
        if self.feature_scale is None:
            return features
        if seen:
            self.feature_scale.add(features)
        return self.feature_scale(features)
