"""Gymnasium spaces as JSON, and the compact types in which their elements are stored."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from configs.errors import UserError


def to_json(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """A space as plain values, for `info.json` and a model's config. Raises UserError for an unsupported space."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, gymnasium.spaces.Box):
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype)}
    raise UserError(f"the space {space} is not supported")


def null_element(space: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The element that stands where there is none, such as the action before the first: the space's first, or zeros.

    Args:
        space: a space as `to_json` gives it.
        shape: of the array to make; a MultiDiscrete's parts are its last axis.
        dtype: of the array to make.
    """
    return np.broadcast_to(np.asarray(space.get("start", 0)), shape).astype(dtype)


def storage_type(space: gymnasium.Space[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and compact type in which elements of `space` are stored. Raises UserError for an unsupported space."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return (), _smallest_integer(int(space.start), int(space.start + space.n - 1))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return space.shape, _smallest_integer(int(space.start.min()), int((space.start + space.nvec - 1).max()))
    if isinstance(space, gymnasium.spaces.Box):
        return space.shape, np.dtype(np.float32) if space.dtype == np.float64 else space.dtype
    raise UserError(f"the space {space} cannot be stored in a learning history")


def _smallest_integer(low: int, high: int) -> np.dtype[Any]:
    return np.min_scalar_type(high) if low >= 0 else np.min_scalar_type(min(low, -high - 1))
