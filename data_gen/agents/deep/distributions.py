"""Action distributions of policies that are stacked networks: factored categoricals and diagonal Gaussians."""

import math
from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from data_gen.agents.deep.encoding import BoxScale
from data_gen.agents.deep.networks import normal, uniform
from data_gen.spaces import one_line
from data_gen.streams import SlotStreams
from icrl.support.errors import UserError


class ActionDistribution(ABC):
    """Distribution of actions for every row of a batch, given the outputs of the policy network."""

    outputs: int
    """Number of outputs of the policy network."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Shapes of the free parameters, which do not depend on the observation."""

    @abstractmethod
    def noise(self, streams: SlotStreams, rows: int) -> Tensor:
        """(N, rows, parts) random numbers that `sample` turns into actions."""

    @abstractmethod
    def sample(self, outputs: Tensor, free: list[Tensor], noise: Tensor) -> Tensor:
        """(N, B, outputs) outputs, free parameters of `shapes` and (N, B, parts) noise -> (N, B, parts) actions."""

    @abstractmethod
    def log_prob_and_entropy(self, outputs: Tensor, free: list[Tensor], actions: Tensor) -> tuple[Tensor, Tensor]:
        """(N, B) log-probabilities of (N, B, parts) actions, summed over the parts, and (N, B) entropies."""

    @abstractmethod
    def to_space(self, actions: Tensor) -> NDArray[Any]:
        """(N, B, parts) actions -> (N x B, ...) elements of the action space."""


def action_distribution(space: gymnasium.Space[Any], agent: str, device: torch.device) -> ActionDistribution:
    """Distribution for an action space. Raises UserError, naming `agent`, for an unsupported space."""
    if isinstance(space, spaces.Discrete):
        return Categorical(np.array([space.n]), np.array([space.start]), (), space.dtype, device)
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.reshape(-1)
        return Categorical(space.nvec.reshape(-1), start, space.shape, space.dtype, device)
    if isinstance(space, spaces.MultiBinary):
        parts = math.prod(space.shape)
        return Categorical(np.full(parts, 2), np.zeros(parts, np.int64), space.shape, space.dtype, device)
    if isinstance(space, spaces.Box):
        return Gaussian(space, device)
    raise UserError(f"{agent} has no policy for actions of {one_line(space)}")


class Categorical(ActionDistribution):
    """Product of categorical distributions, one per part of an action.

    Args:
        sizes: (parts,) number of values that each part can take.
        start: (parts,) first value of each part.
        shape: shape of an element of the action space.
        dtype: type of an element.
        device: device of the actions.
    """

    def __init__(
        self, sizes: NDArray[Any], start: NDArray[Any], shape: tuple[int, ...], dtype: Any, device: torch.device
    ) -> None:
        self.sizes, self.outputs = [int(size) for size in sizes], int(sizes.sum())
        self._start, self._shape, self._dtype, self._device = start.astype(np.int64), shape, dtype, device

    def noise(self, streams: SlotStreams, rows: int) -> Tensor:
        return uniform(streams, self._device, rows, len(self.sizes))

    def sample(self, outputs: Tensor, free: list[Tensor], noise: Tensor) -> Tensor:
        parts = []
        for part, logits in enumerate(outputs.split(self.sizes, dim=-1)):
            cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
            # The first value with a cumulative probability above the uniform number; the clamp covers rounding.
            drawn = (cumulative <= noise[..., part : part + 1]).sum(dim=-1)
            parts.append(drawn.clamp_(max=self.sizes[part] - 1))
        return torch.stack(parts, dim=-1)

    def log_prob_and_entropy(self, outputs: Tensor, free: list[Tensor], actions: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, entropy = 0.0, 0.0
        for part, logits in enumerate(outputs.split(self.sizes, dim=-1)):
            logs = logits.log_softmax(dim=-1)
            log_prob = log_prob + logs.gather(-1, actions[..., part : part + 1]).squeeze(-1)
            entropy = entropy - (logs.exp() * logs).sum(dim=-1)
        return log_prob, entropy  # type: ignore[return-value]

    def to_space(self, actions: Tensor) -> NDArray[Any]:
        values = actions.reshape(-1, len(self.sizes)).cpu().numpy() + self._start
        return values.reshape(-1, *self._shape).astype(self._dtype)


class Gaussian(ActionDistribution):
    """Diagonal Gaussian: the mean is the network's output, and the log standard deviations are free parameters.

    Actions are on the scale of the box: a standard deviation of 1, the initial one, is half the box's range. Actions
    outside the box are clipped on the way to the environment; probabilities are those before clipping.
    """

    def __init__(self, space: spaces.Box, device: torch.device) -> None:
        self._scale, self._device = BoxScale(space), device
        self.outputs, self.shapes = self._scale.size, ((1, self._scale.size),)

    def noise(self, streams: SlotStreams, rows: int) -> Tensor:
        return normal(streams, self._device, rows, self.outputs)

    def sample(self, outputs: Tensor, free: list[Tensor], noise: Tensor) -> Tensor:
        return outputs + free[0].exp() * noise

    def log_prob_and_entropy(self, outputs: Tensor, free: list[Tensor], actions: Tensor) -> tuple[Tensor, Tensor]:
        (log_std,) = free
        distance = (actions - outputs) * (-log_std).exp()
        log_prob = -(0.5 * distance.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        entropy = (log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(dim=-1)
        return log_prob, entropy.expand_as(log_prob)

    def to_space(self, actions: Tensor) -> NDArray[Any]:
        return self._scale.to_space(actions)


def most_likely(distribution: ActionDistribution, outputs: Tensor) -> Tensor:
    """(..., K) outputs -> (..., P) most likely actions."""
    if isinstance(distribution, Categorical):
        return torch.stack([part.argmax(dim=-1) for part in outputs.split(distribution.sizes, dim=-1)], dim=-1)
    return outputs
