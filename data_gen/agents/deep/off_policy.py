"""Base class of DQN and SAC: a replay memory, and the schedule of random actions and updates.

Axes: N learners, A actors, B rows of a minibatch, F features.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.base import DeepLearner, HiddenSizes
from data_gen.agents.deep.networks import Activation
from data_gen.agents.deep.normalisation import ObservationScale, RewardScale
from data_gen.agents.deep.replay import Replay
from data_gen.agents.sweep import Count, PerLearner, Positive, Share
from icrl.config.components import component


@dataclass(frozen=True)
class Batch:
    """Minibatch of transitions, each learner's own."""

    features: Tensor
    """(N, B, F)."""
    actions: Tensor
    """(N, B, parts)."""
    rewards: Tensor
    """(N, B)."""
    terminated: Tensor
    """(N, B) bool. A time limit is not termination: the value of the episode's last state is bootstrapped."""
    next_features: Tensor
    """(N, B, F) features after the action; at an episode's end, the features of its last observation."""


@component
class OffPolicy(DeepLearner):
    """Base of the learners with a replay memory. Subclasses define how to act, and how to learn from a minibatch.

    Steps are counted as in Stable-Baselines3: `learning_starts` and `buffer_size` over all actors of a learner,
    `train_every` per actor. The memory holds raw observations and rewards. They are normalised when they are sampled,
    by the statistics at that time.
    """

    actors: Count = 1
    """Number of environments of its task that each learner acts in at once."""
    learning_rate: PerLearner[Positive] = 1e-4
    buffer_size: Count = 100_000
    """Maximum number of transitions in a learner's memory; a shorter lifetime allocates less."""
    learning_starts: Annotated[int, Field(ge=0)] = 100
    """Steps of uniformly random actions before the first update."""
    batch_size: Count = 32
    discount: PerLearner[Share] = 0.99
    train_every: Count = 4
    """Steps per actor between rounds of updates."""
    gradient_steps: Count = 1
    """Updates per round, each from its own minibatch."""
    tau: PerLearner[Share] = 1.0
    """Fraction of the way to the learned parameters that the target parameters move at a time."""
    hidden_sizes: HiddenSizes = (64, 64)
    activation: Activation = "relu"
    normalise_observations: bool = False
    """Standardise the numbers in observations by the learner's running mean and standard deviation."""
    normalise_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""

    @property
    def first_update(self) -> int:
        return max(self.train_every, self.learning_starts // self.actors + 1)

    def begin(self, spec: Spec) -> None:
        lifetime = max(spec.planned_steps, spec.lived_steps or 0)
        capacity = max(1, min(self.buffer_size // self.actors, lifetime))
        self.replay = Replay(self.num_learners, self.actors, capacity, self.device)
        self.rate, self.gamma = self.parameter("learning_rate"), self.parameter("discount", 1)
        self.target_share = self.parameter("tau", 1)
        self.feature_scale = (
            ObservationScale(self.num_learners, self.encoder.is_number, self.device)
            if self.normalise_observations
            else None
        )
        self.reward_scale = RewardScale(self.gamma, self.actors) if self.normalise_rewards else None

    @abstractmethod
    def random_actions(self) -> Tensor:
        """(N, A, parts) uniformly random actions, in the memory's form."""

    @abstractmethod
    def policy_actions(self, features: Tensor) -> Tensor:
        """(N, A, F) features -> (N, A, parts) actions of the current policy, with exploration."""

    @abstractmethod
    def to_space(self, actions: Tensor) -> NDArray[Any]:
        """(N, A, parts) actions -> (N x A, ...) elements of the action space."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Learns from a minibatch."""

    def stepped(self, steps: int) -> None:
        """Called after every actor's step number `steps`, counted from 1, and before any updates of that step."""

    def choose(self, observation: Any) -> NDArray[Any]:
        self.seen = self.encoder.stored(observation)
        features = self.encoder.encode(self.seen).view(self.num_learners, self.actors, -1)
        if self.feature_scale is not None:
            self.feature_scale.add(features)
        if self.steps * self.actors < self.learning_starts:
            self.taken = self.random_actions()
        else:
            self.taken = self.policy_actions(self._scaled(features))
        return self.to_space(self.taken)

    def learn(self, transition: Transition) -> None:
        # Remember the step.
        fields = {f"observation.{path}": leaf for path, leaf in self.seen.items()}
        arrived = self.encoder.stored(transition.next_observation)
        fields |= {f"next_observation.{path}": leaf for path, leaf in arrived.items()}
        fields |= {"action": self.taken.flatten(0, 1)}
        for name, values in (("reward", transition.reward.astype(np.float32)), ("terminated", transition.terminated)):
            fields[name] = torch.from_numpy(np.ascontiguousarray(values)).to(self.device).unsqueeze(1)
        self.replay.add(fields)
        if self.reward_scale is not None:
            ended = self.rows(transition.terminated | transition.truncated)
            self.reward_scale.add(self.rows(transition.reward.astype(np.float32)), ended)
        # Update.
        self.stepped(self.steps)
        if self.steps % self.train_every == 0 and self.steps * self.actors > self.learning_starts:
            for _ in range(self.gradient_steps):
                self.update(self.sample())

    def sample(self) -> Batch:
        """Minibatch from every learner's memory."""
        drawn = self.replay.sample(self.streams.uniform(self.batch_size))

        def features(name: str) -> Tensor:
            return self._scaled(self.encoder.encode({path: drawn[f"{name}.{path}"] for path in self.seen}))

        rewards = drawn["reward"].squeeze(-1)
        return Batch(
            features("observation"),
            drawn["action"],
            rewards if self.reward_scale is None else self.reward_scale.scaled(rewards),
            drawn["terminated"].squeeze(-1),
            features("next_observation"),
        )

    def _scaled(self, features: Tensor) -> Tensor:
        return features if self.feature_scale is None else self.feature_scale(features)
