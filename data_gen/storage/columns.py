"""Checks of a shard's columns, whatever program made the shard."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from data_gen.spaces import Space, column_name, leaves, one_line, storage_type, to_json
from icrl.support.errors import UserError

Columns = dict[str, NDArray[Any]]


def spaces_of_columns(observation_space: Space, action_space: Space) -> dict[str, Space]:
    """The space of a step's value in each column, by name. `optimal_action` is included, recorded or not."""
    seen = {column_name("observation", leaf): space for leaf, space in leaves(observation_space).items()}
    return {**seen, "action": action_space, "optimal_action": action_space}


def checked_columns(
    columns: Mapping[str, NDArray[Any]], known: Mapping[str, Space], shape: tuple[int, int], where: str
) -> Columns:
    """The columns with one value per step, in their stored types.

    Args:
        columns: any columns. Those without one value per step are left out.
        known: the space of each column, from `spaces_of_columns`.
        shape: (histories, steps).
        where: prefix of error messages.

    Raises UserError for a column of another shape, or with values that are not finite or not in their space.
    """
    checked: Columns = {}
    for name, values in columns.items():
        here = f"{where}: {name}"
        if name in known:
            checked[name] = _of_space(np.asarray(values), known[name], shape, here)
        elif name == "reward":
            with np.errstate(over="ignore"):
                rewards = _numbers(_shaped(np.asarray(values), shape, here), here).astype(np.float32)
            checked[name] = finite(rewards, here)
        elif name in ("terminated", "truncated"):
            checked[name] = _numbers(_shaped(np.asarray(values), shape, here), here).astype(bool, copy=False)
    return checked


def checked_numbers(values: NDArray[Any], histories: int, count: int | None, where: str) -> NDArray[np.int64]:
    """(histories,) numbers of tasks, sources and the like, below `count` unless it is None. Raises UserError."""
    numbers = _shaped(np.asarray(values), (histories,), where)
    if numbers.dtype.kind not in "iu":
        raise UserError(f"{where}: has values that are not whole numbers")
    wrong = numbers[(numbers < 0) | (numbers >= (np.inf if count is None else count))]
    if len(wrong):
        limit = "0 or more" if count is None else f"0 or more and below {count}"
        raise UserError(f"{where} {wrong[0]}: must be {limit}")
    return numbers.astype(np.int64)


def finite(values: NDArray[Any], where: str) -> NDArray[Any]:
    """The values. Raises UserError if one is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{where}: has values that are not finite")
    return values


def _of_space(values: NDArray[Any], space: Space, shape: tuple[int, int], where: str) -> NDArray[Any]:
    element, dtype = storage_type(space)
    _numbers(_shaped(values, (*shape, *element), where), where)
    if isinstance(space, spaces.Box):
        with np.errstate(over="ignore", invalid="ignore"):
            stored = finite(values, where).astype(dtype, copy=False)
        if dtype.kind != "f" and (stored != values).any():
            raise UserError(f"{where}: has values that are not {dtype}, the type of {one_line(space)[:80]}")
        return finite(stored, where)
    plain = to_json(space)
    low, count = np.asarray(plain["start"]), np.asarray(plain["n"] if plain["type"] == "Discrete" else plain["nvec"])
    if values.dtype.kind not in "iub" or (values < low).any() or (values >= low + count).any():
        raise UserError(f"{where}: has values that are not in {one_line(space)[:80]}")
    return values.astype(dtype, copy=False)


def _numbers(values: NDArray[Any], where: str) -> NDArray[Any]:
    if values.dtype.kind not in "iubf":
        raise UserError(f"{where}: has values that are not numbers")
    return values


def _shaped(values: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    if values.shape != shape:
        raise UserError(f"{where}: has shape {values.shape}, expected {shape}")
    return values


def check_recordable(observation_space: Space, action_space: Space) -> None:
    """Raises UserError if steps with these spaces cannot be recorded."""
    to_json(observation_space)
    if isinstance(action_space, spaces.Dict | spaces.Tuple):
        raise UserError(
            f"actions of {one_line(action_space)} cannot be recorded: use Discrete, MultiDiscrete, MultiBinary or Box"
        )
    to_json(action_space)
