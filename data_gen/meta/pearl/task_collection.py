"""Actors that collect transitions for off-policy meta-learning: random, or with a policy conditioned on a latent."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_gen.agents.base import Agent, Spec, Transition
from data_gen.agents.deep.encoding import Encoder
from data_gen.meta.pearl.context_encoder import latent_noise
from data_gen.meta.pearl.soft_actions import SoftActions
from data_gen.streams import Seeds, SlotStreams, derive


class Collector(Agent):
    """Acts and records transitions as compact tensors.

    Args:
        encoder: encoder of observations.
        actions: policy for the action space.
    """

    def __init__(self, encoder: Encoder, actions: SoftActions) -> None:
        self.encoder, self.actions = encoder, actions

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.streams = SlotStreams(derive(seeds, 0))
        self._steps: list[dict[str, Tensor]] = []
        self.begin(num_envs)

    def begin(self, num_envs: int) -> None:
        """Begins a new lifetime in every slot; `streams` is already set."""

    @abstractmethod
    def choose(self, features: Tensor) -> Tensor:
        """(slots, F) features of observations -> (slots, parts) stored actions."""

    def act(self, observation: Any) -> NDArray[Any]:
        self._seen = self.encoder.stored(observation)
        self._taken = self.choose(self.encoder.encode(self._seen))
        return self.actions.to_space(self._taken)

    def observe(self, transition: Transition) -> None:
        self._steps.append(transition_fields(self.encoder, self._seen, self._taken, transition))

    def fields(self) -> dict[str, Tensor]:
        """All recorded transitions, (slots, steps, values) by name."""
        return {name: torch.stack([step[name] for step in self._steps], dim=1) for name in self._steps[0]}


class RandomActor(Collector):
    """Takes uniformly random actions, each for `hold` steps.

    A random walk stays near its start; held actions find rewards that are far away.
    """

    def __init__(self, encoder: Encoder, actions: SoftActions, hold: int) -> None:
        super().__init__(encoder, actions)
        self._hold = hold

    def choose(self, features: Tensor) -> Tensor:
        if len(self._steps) % self._hold == 0:
            self._action = self.actions.random(self.streams)
        return self._action


class LatentActor(Collector):
    """Follows the policy with a latent variable, drawn from a belief for every episode.

    Args:
        policy: (1, slots, F + L) -> (1, slots, policy_outputs).
        mean, variance: (slots, L) mean and variance of each slot's belief.
    """

    def __init__(
        self, encoder: Encoder, actions: SoftActions, policy: nn.Module, mean: Tensor, variance: Tensor
    ) -> None:
        super().__init__(encoder, actions)
        self._policy, self._mean, self._deviation = policy, mean, variance.sqrt()

    def begin(self, num_envs: int) -> None:
        self.latents = torch.empty_like(self._mean)
        self._draw(np.arange(num_envs))

    def choose(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = self._policy(torch.cat([features, self.latents], dim=1).unsqueeze(0))
            return self.actions.sample(outputs, self.streams)

    def observe(self, transition: Transition) -> None:
        super().observe(transition)
        self._draw(np.flatnonzero(transition.terminated | transition.truncated))

    def _draw(self, slots: NDArray[np.intp]) -> None:
        if len(slots):
            index = torch.from_numpy(slots).to(self._mean.device)
            drawn = latent_noise(self.streams, slots, self._mean)
            self.latents[index] = self._mean[index] + self._deviation[index] * drawn


def prior_belief(num_slots: int, latent_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and variance of z under the prior N(0, 1), each (slots, L)."""
    shape = (num_slots, latent_size)
    return torch.zeros(shape, device=device), torch.ones(shape, device=device)


def transition_fields(
    encoder: Encoder, seen: dict[str, Tensor], taken: Tensor, transition: Transition
) -> dict[str, Tensor]:
    """One step of all slots as compact tensors, (slots, values) by name.

    Time limits are left out: values are bootstrapped through them, and only termination ends the future.
    """
    arrived = encoder.stored(transition.next_observation)
    rewards = torch.from_numpy(transition.reward.astype(np.float32))
    terminated = torch.from_numpy(np.ascontiguousarray(transition.terminated))
    return {
        **{f"observation.{path}": leaf for path, leaf in seen.items()},
        "action": taken,
        "reward": rewards.to(taken.device).unsqueeze(1),
        "terminated": terminated.to(taken.device).unsqueeze(1),
        **{f"next_observation.{path}": leaf for path, leaf in arrived.items()},
    }
