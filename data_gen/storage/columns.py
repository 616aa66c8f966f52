"""What has to be true of a shard's columns, whoever made it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from data_gen.spaces import Space, column_name, leaves, one_line, storage_type, to_json
from icrl.support.errors import UserError

Columns = dict[str, NDArray[Any]]


def spaces_of_columns(observation_space: Space, action_space: Space) -> dict[str, Space]:
    """By column, the space that a step's value is of; `optimal_action` is among them, whether it is there or not."""
    seen = {column_name("observation", leaf): space for leaf, space in leaves(observation_space).items()}
    return {**seen, "action": action_space, "optimal_action": action_space}


def checked_columns(
    columns: Mapping[str, NDArray[Any]], known: Mapping[str, Space], shape: tuple[int, int], where: str
) -> Columns:
    """The columns with a value a step, those of `columns` that are such, in their stored types.

    Args:
        columns: any of them; others are left out.
        known: as of `spaces_of_columns`.
        shape: (histories, steps).
        where: for errors.

    Raises UserError for one of another shape, or with values that are not of its space, or not finite.
    """
    found: Columns = {}
    for name, values in columns.items():
        place = f"{where}: {name}"
        if name in known:
            found[name] = _of_space(np.asarray(values), known[name], shape, place)
        elif name == "reward":
            found[name] = finite(_numbers(_shaped(np.asarray(values), shape, place), place).astype(np.float32), place)
        elif name in ("terminated", "truncated"):
            found[name] = _numbers(_shaped(np.asarray(values), shape, place), place).astype(bool, copy=False)
    return found


def checked_numbers(values: NDArray[Any], histories: int, count: int | None, where: str) -> NDArray[np.int64]:
    """(histories,) numbers of tasks, sources and the like, below `count` where that is known. Raises UserError."""
    numbers = _shaped(np.asarray(values), (histories,), where)
    if numbers.dtype.kind not in "iu":
        raise UserError(f"{where}: has values that are no whole numbers")
    wrong = numbers[(numbers < 0) | (numbers >= (np.inf if count is None else count))]
    if len(wrong):
        limit = "from 0 on" if count is None else f"of the {count} that there are"
        raise UserError(f"{where} {wrong[0]} is no number {limit}")
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
        stored = finite(values, where).astype(dtype, copy=False)
        if dtype.kind != "f" and (stored != values).any():
            raise UserError(f"{where}: has values that are no {dtype}, as those of {one_line(space)[:80]} are")
        return finite(stored, where)
    plain = to_json(space)
    low, count = np.asarray(plain["start"]), np.asarray(plain["n"] if plain["type"] == "Discrete" else plain["nvec"])
    if values.dtype.kind not in "iub" or (values < low).any() or (values >= low + count).any():
        raise UserError(f"{where}: has values that are not in {one_line(space)[:80]}")
    return values.astype(dtype, copy=False)


def _numbers(values: NDArray[Any], where: str) -> NDArray[Any]:
    if values.dtype.kind not in "iubf":
        raise UserError(f"{where}: has values that are no numbers")
    return values


def _shaped(values: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    if values.shape != shape:
        raise UserError(f"{where}: has shape {values.shape}, where {shape} is expected")
    return values


def check_recordable(observation_space: Space, action_space: Space) -> None:
    """Raises UserError if steps with these spaces cannot be recorded."""
    to_json(observation_space)
    if isinstance(action_space, spaces.Dict | spaces.Tuple):
        raise UserError(f"actions of {action_space} cannot be recorded: Discrete, MultiDiscrete or Box can")
    to_json(action_space)
