"""Tensors for networks: observations of a Gymnasium space as features, and network outputs as actions of a Box."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from data_gen.spaces import leaves, one_line, storage_type
from icrl.support.errors import UserError

_BYTE = 255.0

_MOST_FEATURES = 2**24
"""Most features of an observation. A larger space is refused before its one-hot vectors are allocated."""


class Encoder:
    """Turns observations into features: Discrete ones into one-hot vectors, bytes divided by 255, others as they are.

    The features of a Dict or Tuple observation are those of its leaves, one after another. The features of an image are
    all its numbers. In a MultiDiscrete observation, every integer has its own one-hot vector.

    Args:
        space: space of the observations.
        device: device of the features.

    Raises UserError for an unsupported space.
    """

    def __init__(self, space: gymnasium.Space[Any], device: torch.device) -> None:
        self.device = device
        self._leaves = {path: _Leaf(leaf, device) for path, leaf in leaves(space).items()}
        if not self._leaves:
            raise UserError(f"networks cannot read observations of {one_line(space)}: the space is empty")
        self.size = sum(leaf.size for leaf in self._leaves.values())
        """Number of features, F."""
        if not 0 < self.size <= _MOST_FEATURES:
            raise UserError(
                f"networks cannot read observations of {one_line(space)[:80]}: {self.size:,} features; the limits are "
                f"1 and {_MOST_FEATURES:,}"
            )
        self.is_number = torch.cat([torch.full((leaf.size,), leaf.numbers) for leaf in self._leaves.values()])
        """(F,) True for a number, which may be normalised; False for a part of a one-hot vector."""

    def stored(self, observation: Any) -> dict[str, Tensor]:
        """Leaves of observations as compact tensors (rows, values), to keep and encode later."""
        return {path: self._leaves[path].stored(values) for path, values in leaves(observation).items()}

    def encode(self, stored: dict[str, Tensor]) -> Tensor:
        """(..., values) leaves, as returned by `stored` -> (..., F) float32 features."""
        return torch.cat([leaf.encode(stored[path]) for path, leaf in self._leaves.items()], dim=-1)

    def __call__(self, observation: Any) -> Tensor:
        """Observations with a leading axis of rows -> (rows, F) features."""
        return self.encode(self.stored(observation))


class _Leaf:
    """One leaf of an observation space."""

    def __init__(self, space: gymnasium.Space[Any], device: torch.device) -> None:
        self.device, self.numbers = device, isinstance(space, spaces.Box | spaces.MultiBinary)
        self.scale = _BYTE if space.dtype == np.uint8 and isinstance(space, spaces.Box) else 1.0
        if self.numbers:
            self.values = self.size = int(np.prod(storage_type(space)[0], dtype=np.int64))
            return
        if isinstance(space, spaces.Discrete):
            sizes, self.start = np.array([space.n]), np.array([space.start])
        elif isinstance(space, spaces.MultiDiscrete):
            sizes, self.start = space.nvec.reshape(-1).astype(np.int64), space.start.reshape(-1).astype(np.int64)
        else:
            raise UserError(f"networks cannot read observations of {one_line(space)}")
        self.values, self.size = len(sizes), int(sizes.sum())
        self.first = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)

    def stored(self, values: Any) -> Tensor:
        """(rows, ...) elements of the space -> (rows, values) in a compact type."""
        rows = np.asarray(values).reshape(len(values), self.values)
        if not self.numbers:
            rows = (rows - self.start).astype(np.int32)
        elif rows.dtype not in (np.uint8, np.float32):
            rows = rows.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)

    def encode(self, rows: Tensor) -> Tensor:
        """(..., values) as returned by `stored` -> (..., size) float32 features."""
        if self.numbers:
            return rows.to(torch.float32) / self.scale if self.scale != 1 else rows.to(torch.float32)
        one_hot = torch.zeros(*rows.shape[:-1], self.size, device=self.device)
        return one_hot.scatter_(-1, rows + self.first, 1.0)


class BoxScale:
    """Scale of a Box's actions for networks: [-1, 1] stands for the box's range.

    For a number with a single bound, [-1, 1] has length 2 and one end at that bound. A number without bounds keeps its
    scale. In a box of integers, actions are rounded to the nearest integer.

    Args:
        space: the Box.
    """

    def __init__(self, space: spaces.Box) -> None:
        low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
        self.space, self.size = space, len(low)
        below, above = np.isfinite(low), np.isfinite(high)
        bounded = below & above
        self._centre, self._reach = np.zeros(self.size), np.ones(self.size)
        self._centre[bounded] = low[bounded] / 2 + high[bounded] / 2
        self._reach[bounded] = high[bounded] / 2 - low[bounded] / 2
        self._centre[below & ~above] = low[below & ~above] + 1
        self._centre[above & ~below] = high[above & ~below] - 1
        self._low, self._high = low, high

    def to_space(self, actions: Tensor) -> np.ndarray[Any, Any]:
        """(..., size) actions on the network's scale -> (rows, *shape) elements of the box, clipped to its bounds."""
        scaled = self._centre + self._reach * actions.reshape(-1, self.size).cpu().numpy().astype(np.float64)
        clipped = np.clip(scaled, self._low, self._high)
        if np.issubdtype(self.space.dtype, np.integer):
            clipped = np.rint(clipped)
        return clipped.reshape(-1, *self.space.shape).astype(self.space.dtype)
