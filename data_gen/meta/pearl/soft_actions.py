"""Action spaces for soft actor-critic: a policy over the actions, critics of the actions, and the soft value.

Axes: N networks of a stack (1 policy, 2 critics), R rows, F features, L dimensions of a latent variable, A actions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from data_gen.agents.deep.encoding import BoxScale
from data_gen.agents.deep.networks import normal, uniform
from data_gen.agents.deep.sac import squashed_gaussian
from data_gen.spaces import one_line
from data_gen.streams import SlotStreams
from icrl.support.errors import UserError

_DISCRETE_ENTROPY = 0.5
"""Target entropy of a discrete policy, as a fraction of the largest; Christodoulou's .98 leaves it close to random."""


class SoftActions(ABC):
    """Actions of a policy, stored as (R, parts), and their values by two critics."""

    parts: int
    """Numbers per stored action."""
    features: int
    """Numbers that describe an action to a network."""
    policy_outputs: int
    critic_inputs: int
    """Features of the action that the critics read."""
    critic_outputs: int
    target_entropy: float
    """Default target entropy, in nats."""

    @abstractmethod
    def random(self, streams: SlotStreams) -> Tensor:
        """(slots, parts) uniformly random actions."""

    @abstractmethod
    def sample(self, outputs: Tensor, streams: SlotStreams | None) -> Tensor:
        """(1, slots, policy_outputs) -> (slots, parts) sampled actions; without streams, the mean or most likely."""

    @abstractmethod
    def to_space(self, actions: Tensor) -> NDArray[Any]:
        """(slots, parts) -> (slots, ...) elements of the action space."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """(..., parts) stored actions -> (..., features) numbers."""

    @abstractmethod
    def noise(self, generator: torch.Generator, *rows: int) -> Tensor:
        """(*rows, numbers) standard normal noise, as much as `soft_value` needs."""

    @abstractmethod
    def taken_values(self, critics: Callable[[Tensor], Tensor], states: Tensor, actions: Tensor) -> Tensor:
        """(2, R) values Q(s, a) of (R, F) states and (R, parts) stored actions, by two critics."""

    @abstractmethod
    def soft_value(
        self, critics: Callable[[Tensor], Tensor], states: Tensor, outputs: Tensor, noise: Tensor, alpha: Tensor
    ) -> tuple[Tensor, Tensor]:
        """V(s) = E[min_k Q_k(s, a) - alpha log pi(a|s)], a ~ pi, and E[log pi(a|s)], each (R,).

        Minus the mean of V is the policy's loss. With target critics, V is the value after a transition (Haarnoja et
        al. 2018b, equations 3 and 9).

        Args:
            critics: (2, R, F + critic_inputs) -> (2, R, critic_outputs).
            states: (R, F).
            outputs: (1, R, policy_outputs) of the policy in these states.
            noise: (R, numbers).
            alpha: () coefficient of the entropy.
        """


def soft_actions(space: gymnasium.Space[Any], agent: str, device: torch.device) -> SoftActions:
    """The `SoftActions` of an action space. Raises UserError, naming `agent`, if the space is not supported."""
    if isinstance(space, spaces.Discrete):
        return SoftDiscrete(space, device)
    if isinstance(space, spaces.Box) and space.is_bounded():
        return SoftBox(space, device)
    raise UserError(f"{agent} needs Discrete actions, or Box actions with finite bounds, not {one_line(space)}")


class SoftBox(SoftActions):
    """A tanh-squashed Gaussian on the scale where [-1, 1] is the box; the critics read the action."""

    def __init__(self, space: spaces.Box, device: torch.device) -> None:
        self._scale, self._device = BoxScale(space), device
        self.parts = self.features = self.critic_inputs = self._scale.size
        self.policy_outputs, self.critic_outputs = 2 * self.parts, 1
        self.target_entropy = -float(self.parts)

    def random(self, streams: SlotStreams) -> Tensor:
        return 2 * uniform(streams, self._device, self.parts) - 1

    def sample(self, outputs: Tensor, streams: SlotStreams | None) -> Tensor:
        if streams is None:
            return outputs[0, :, : self.parts].tanh()
        return squashed_gaussian(outputs, normal(streams, self._device, self.parts).unsqueeze(0))[0].squeeze(0)

    def to_space(self, actions: Tensor) -> NDArray[Any]:
        return self._scale.to_space(actions)

    def encode(self, actions: Tensor) -> Tensor:
        return actions

    def noise(self, generator: torch.Generator, *rows: int) -> Tensor:
        return torch.randn(*rows, self.parts, generator=generator, device=self._device)

    def taken_values(self, critics: Callable[[Tensor], Tensor], states: Tensor, actions: Tensor) -> Tensor:
        return critics(torch.cat([states, actions], dim=1).expand(2, -1, -1)).squeeze(2)

    def soft_value(
        self, critics: Callable[[Tensor], Tensor], states: Tensor, outputs: Tensor, noise: Tensor, alpha: Tensor
    ) -> tuple[Tensor, Tensor]:
        actions, log_prob = squashed_gaussian(outputs, noise.unsqueeze(0))
        q = self.taken_values(critics, states, actions.squeeze(0))
        return torch.minimum(q[0], q[1]) - alpha * log_prob.squeeze(0), log_prob.squeeze(0)


class SoftDiscrete(SoftActions):
    """A categorical policy; the critics give the values of all actions, so that expectations over actions are exact.

    Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings".
    """

    def __init__(self, space: spaces.Discrete, device: torch.device) -> None:
        self._space, self._device, actions = space, device, int(space.n)
        self.parts, self.critic_inputs = 1, 0
        self.features = self.policy_outputs = self.critic_outputs = actions
        self.target_entropy = _DISCRETE_ENTROPY * float(np.log(actions))

    def random(self, streams: SlotStreams) -> Tensor:
        return (uniform(streams, self._device, 1) * self.features).long().clamp_(max=self.features - 1)

    def sample(self, outputs: Tensor, streams: SlotStreams | None) -> Tensor:
        if streams is None:
            return outputs.squeeze(0).argmax(dim=1, keepdim=True)
        cumulative = outputs.squeeze(0).softmax(dim=1).cumsum(dim=1)
        # The first action whose cumulative probability is above the uniform number; the last if rounding leaves none.
        drawn = (cumulative <= uniform(streams, self._device, 1)).sum(dim=1, keepdim=True)
        return drawn.clamp_(max=self.features - 1)

    def to_space(self, actions: Tensor) -> NDArray[Any]:
        return (actions.squeeze(1).cpu().numpy() + self._space.start).astype(self._space.dtype)

    def encode(self, actions: Tensor) -> Tensor:
        return one_hot(actions.squeeze(-1), self.features).float()

    def noise(self, generator: torch.Generator, *rows: int) -> Tensor:
        return torch.empty(*rows, 0, device=self._device)

    def taken_values(self, critics: Callable[[Tensor], Tensor], states: Tensor, actions: Tensor) -> Tensor:
        return critics(states.expand(2, -1, -1)).gather(2, actions.expand(2, -1, -1)).squeeze(2)

    def soft_value(
        self, critics: Callable[[Tensor], Tensor], states: Tensor, outputs: Tensor, noise: Tensor, alpha: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_probs = outputs.squeeze(0).log_softmax(dim=1)
        probabilities, q = log_probs.exp(), critics(states.expand(2, -1, -1))
        value = (probabilities * (torch.minimum(q[0], q[1]) - alpha * log_probs)).sum(dim=1)
        return value, (probabilities * log_probs).sum(dim=1)
