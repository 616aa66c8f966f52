"""Gymnasium spaces and their elements: as leaves, as JSON, and in the compact types that store them.

An observation is an array or, for a Dict or Tuple space, a tree of arrays. Code that records or learns sees a tree as
its *leaves*: a flat mapping from dotted paths to arrays, `{"image": ..., "agent.cell": ...}`. An observation that is
itself an array has the single path "".
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from icrl.support.errors import UserError, shown

Space = gymnasium.Space[Any]

MOST_NUMBERS = 2**24
"""Most numbers in one element of a space. A larger space is refused before an array of that size is created."""


_LARGEST_TYPE = 8
"""Most bytes of a number; torch has no larger ones."""

_LONGEST_KEY = 60
"""Most bytes of a key of a Dict space: the keys of three levels and an ending fit into a file name of 255 bytes."""

_KEY = f"use non-empty text of at most {_LONGEST_KEY} bytes, without . or / and without control characters"


def leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a tree of arrays or of a space, by dotted path; an array or a plain space is itself at path ""."""
    return dict(_leaves(tree, ""))


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping | spaces.Dict | tuple | spaces.Tuple):
        yield path, tree
        return
    parts = tree.items() if isinstance(tree, Mapping | spaces.Dict) else enumerate(tree)
    for name, part in parts:
        yield from _leaves(part, f"{path}.{name}" if path else str(name))


def one_line(space: Space) -> str:
    """Text of a space for error messages: without line breaks, and cut in its middle if it is long."""
    return shown(space, quoted=False)


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Tree of the same form, with `function` of the leaves at every path."""
    if isinstance(tree, Mapping | spaces.Dict):
        return {name: map_leaves(function, part, *(other[name] for other in others)) for name, part in tree.items()}
    if isinstance(tree, tuple | spaces.Tuple):
        return tuple(map_leaves(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def column_name(column: str, path: str) -> str:
    """Name of the column that stores the leaf at `path`: `observation`, or `observation.image`."""
    return f"{column}.{path}" if path else column


def to_json(space: Space) -> dict[str, Any]:
    """Plain values of a space, for `info.json` and a model's config.

    Raises UserError for an unsupported space, and for one whose elements hold nothing or too much.
    """
    _check_size(space)
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        nvec = np.full(space.shape, 2)
        return {"type": "MultiDiscrete", "nvec": nvec.tolist(), "start": np.zeros_like(nvec).tolist()}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Dict):
        for name in space:
            if not is_column_name(name):
                raise UserError(f"the key {shown(name)} of a Dict space cannot name a column: {_KEY}")
        return {"type": "Dict", "spaces": {name: to_json(part) for name, part in space.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [to_json(part) for part in space]}
    raise _unsupported(space)


def is_column_name(name: object) -> bool:
    """True if a key of a Dict space can name a column, which is also part of a file name."""
    if not isinstance(name, str) or not name or re.search(r"[./\x00-\x1f\x7f-\x9f\ud800-\udfff]", name):
        return False
    return len(name.encode()) <= _LONGEST_KEY


def _check_size(space: Space) -> None:
    """Raises UserError if elements of a space have no numbers, or more than can be recorded."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        if len(space) == 0:
            raise UserError(f"the space {one_line(space)} is empty: its elements hold nothing; remove it")
        return
    if isinstance(space, spaces.Box) and (space.dtype.kind not in "iufb" or space.dtype.itemsize > _LARGEST_TYPE):
        raise UserError(
            f"the space {one_line(space)} cannot be recorded: use a type of at most 64 bits, such as float32"
        )
    numbers = math.prod(getattr(space, "shape", None) or ())
    if not 0 < numbers <= MOST_NUMBERS:
        kind = f"{type(space).__name__} of shape {space.shape}"
        what = "hold nothing" if numbers == 0 else f"hold {numbers:,} numbers, the limit is {MOST_NUMBERS:,}"
        raise UserError(f"the space {kind} cannot be recorded: its elements {what}; wrap the environment to change it")
    high = None
    if isinstance(space, spaces.Discrete):
        high = int(space.start) + int(space.n) - 1
    elif isinstance(space, spaces.MultiDiscrete):
        parts = zip(
            space.start.ravel().tolist(), space.nvec.ravel().tolist(), strict=True
        )  # as integers without bounds
        high = max(start + count - 1 for start, count in parts)
    if high is not None and high > np.iinfo(np.int64).max:
        raise UserError(f"the space {one_line(space)} cannot be recorded: its largest element is beyond 64 bits")


def space_from_json(plain: Mapping[str, Any]) -> Space:
    """Space from the plain values of `to_json`; a MultiBinary space comes back as MultiDiscrete.

    Raises ValueError for an unknown type of space.
    """
    kind = plain["type"]
    if kind == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(plain["nvec"]), start=np.array(plain["start"]))
    if kind == "Box":
        shape, dtype = tuple(plain["shape"]), np.dtype(plain["dtype"])
        if dtype.kind not in "iufb" or dtype.subdtype is not None:
            raise ValueError(f"a Box of {str(dtype)[:40]} is not a space of numbers")
        low, high = (_bounds(plain[name], none, shape, dtype) for name, none in (("low", -np.inf), ("high", np.inf)))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Dict":
        return spaces.Dict({name: space_from_json(part) for name, part in plain["spaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(part) for part in plain["spaces"]])
    raise ValueError(f"{kind!r} is not a space")


def check_json(plain: dict[str, Any]) -> None:
    """Raises ValueError or another error if a file's plain values are not a space as `to_json` writes it."""
    numbers = sum(math.prod(leaf.get("shape", ())) for leaf in json_leaves(plain).values())
    if numbers > MOST_NUMBERS:
        raise ValueError("is implausibly large")
    if to_json(space_from_json(plain)) != plain:
        raise ValueError("is not a space as this project writes it")


def json_leaves(space: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Leaves of a space in the form of `to_json`, by the same dotted paths as the `leaves` of the space."""
    if space["type"] not in ("Dict", "Tuple"):
        return {path: space}
    parts = space["spaces"].items() if space["type"] == "Dict" else enumerate(space["spaces"])
    return {at: leaf for name, part in parts for at, leaf in json_leaves(part, f"{path}.{name}".lstrip(".")).items()}


def null_element(space: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Placeholder for a missing element, such as the action before the first one: the space's first element, or zeros.

    Args:
        space: a space in the form of `to_json`.
        shape: shape of the result; the parts of a MultiDiscrete are its last axis.
        dtype: type of the result.
    """
    return np.broadcast_to(np.asarray(space.get("start", 0)), shape).astype(dtype)


def storage_type(space: Space) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and compact type in which elements of a leaf space are stored. Raises UserError for an unsupported one."""
    if isinstance(space, spaces.Discrete):
        return (), _smallest_integer(int(space.start), int(space.start + space.n - 1))
    if isinstance(space, spaces.MultiDiscrete):
        return space.shape, _smallest_integer(int(space.start.min()), int((space.start + space.nvec - 1).max()))
    if isinstance(space, spaces.MultiBinary):
        return space.shape, np.dtype(np.uint8)
    if isinstance(space, spaces.Box):
        return space.shape, np.dtype(np.float32) if space.dtype == np.float64 else np.dtype(space.dtype)
    raise _unsupported(space)


def _unsupported(space: Space) -> UserError:
    if type(space).__module__.split(".")[0] == "gym":
        return UserError(
            f"{one_line(space)} is a space of the package gym, the predecessor of gymnasium: convert the environment, "
            "such as by shimmy's GymV26CompatibilityV0, or make its spaces with gymnasium.spaces"
        )
    if isinstance(space, spaces.Dict | spaces.Tuple):  # only of actions, since those of observations have leaves
        return UserError(
            f"actions of {one_line(space)} cannot be recorded: use Discrete, MultiDiscrete, MultiBinary or Box"
        )
    known = "Discrete, MultiDiscrete, MultiBinary, Box, and Dict and Tuple of these"
    return UserError(
        f"the space {one_line(space)} cannot be recorded; supported are {known}. Wrap the environment to remove "
        "the space"
    )


def _smallest_integer(low: int, high: int) -> np.dtype[Any]:
    """Smallest integer type that holds `low` to `high`."""
    found = np.min_scalar_type(high) if low >= 0 else np.min_scalar_type(min(low, -high - 1))
    return np.dtype(found.str)  # NumPy finds the C type `unsigned long long`, which torch does not take for uint64


def _bound(values: NDArray[Any]) -> Any:
    """Plain values of a Box's bound: a single one if all are equal, and None in place of an infinite bound."""
    plain = np.where(np.isfinite(values), values.astype(np.float64), np.nan).astype(object)
    plain[plain != plain] = None
    return plain.flat[0] if plain.size and all(value == plain.flat[0] for value in plain.flat) else plain.tolist()


def _bounds(plain: Any, none: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A Box's bound from its plain values, with `none` in place of None."""
    values = np.array(plain, dtype=np.float64)  # None becomes NaN
    values = np.where(np.isnan(values), none, values)
    if dtype.kind in "iu":  # float64 rounds the limits of 64-bit types to numbers beyond them
        limits = np.iinfo(dtype)
        at_limit = np.where(values >= float(limits.max), limits.max, limits.min).astype(dtype)
        inside = (values > float(limits.min)) & (values < float(limits.max))
        return np.broadcast_to(np.where(inside, np.where(inside, values, 0).astype(dtype), at_limit), shape)
    return np.broadcast_to(values.astype(dtype), shape)
