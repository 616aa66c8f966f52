"""States of an environment right after `reset(seed=layout)`, to tell layouts apart.

The first observation alone does not tell: a goal may be hidden in it. So two layouts are one if their first
observations, the environment's own plain attributes (numbers, words, arrays and tensors, and collections and objects
of these) and, where it renders to an array, the pictures are all equal. Attributes that differ between two resets with
one seed, such as counters, and those that hold the seed itself are ignored, and so are random generators.
"""

import contextlib
import hashlib
import numbers
import os
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.spaces import leaves
from data_gen.tasks.adapted.block import closed, one_line
from icrl.support.errors import ConfigError

_DEEPEST = 8
_MOST_VALUES = 20_000  # of one environment's attributes; the rest is not compared

_TRIED_AGAIN = 4  # layouts, to find the attributes that change from reset to reset
_SHORT = 32  # bytes that are kept as they are

_SKIPPED = ("_np_random", "_np_random_seed", "np_random", "spec", "observation_space", "action_space", "metadata")

_PLAIN = (numbers.Number, np.generic, str, bytes, bytearray, range, array, type(None))

State = dict[str, bytes]
"""A digest for each attribute, by its path."""


def first_states(make: Callable[..., gymnasium.Env[Any, Any]], layouts: Sequence[int]) -> dict[int, bytes]:
    """A digest of each layout: layouts with equal digests are one.

    Raises ConfigError if two resets with one seed give different first observations: such an environment has no
    layouts.
    """
    env = make()
    try:
        seen = {layout: _first_observation(env, layout, str(make)) for layout in dict.fromkeys(layouts)}
        # Attributes only of those layouts that begin alike.
        states = {layout: _state(env, layout) for layout in _equal(seen)}
        again = {layout: _state(env, layout) for layout in [*states][:_TRIED_AGAIN]}
        drawn = "rgb_array" in (env.metadata.get("render_modes") or ())
    finally:
        closed(env)
    # An attribute that changes between two resets with one seed is not part of the layout.
    noise = _seeds(states)
    for layout, second in again.items():
        first = states[layout]
        noise |= {path for path in first.keys() | second.keys() if first.get(path) != second.get(path)}
    for layout, state in states.items():
        kept = sorted((path, value) for path, value in state.items() if path not in noise)
        seen[layout] += _digest(repr(kept))
    return _with_pictures(make, seen) if drawn else seen


def _equal(digests: Mapping[int, bytes]) -> list[int]:
    """The layouts whose digest another layout has, too."""
    counts = Counter(digests.values())
    return [layout for layout, digest in digests.items() if counts[digest] > 1]


def _first_observation(env: gymnasium.Env[Any, Any], layout: int, name: str) -> bytes:
    """A digest of the first observation. Raises ConfigError if a second reset with one seed gives another one."""
    digests = []
    for _ in range(2):
        try:
            observation, _ = env.reset(seed=layout)
        except Exception as error:  # the environment may raise anything
            raise ConfigError(f"tasks.layouts: {name}: reset(seed={layout}) raised {one_line(error)}") from error
        digests.append(_digest(repr([_digest(np.asarray(part)) for part in leaves(observation).values()])))
    if digests[0] != digests[1]:
        raise ConfigError(
            f"tasks.layouts: {name}: two resets with the seed {layout} give different first observations, so it "
            "ignores its seed and has no layouts: leave out layouts, or draw from self.np_random"
        )
    return digests[0]


def _state(env: gymnasium.Env[Any, Any], layout: int) -> State:
    env.reset(seed=layout)
    return dict(_attributes(env.unwrapped))


def _seeds(states: Mapping[int, State]) -> set[str]:
    """Attributes that hold the seed itself."""
    seed = {layout: _digest(layout) for layout in states}
    every = {path for state in states.values() for path in state}
    return {path for path in every if all(state.get(path) == seed[layout] for layout, state in states.items())}


def _with_pictures(make: Callable[..., gymnasium.Env[Any, Any]], digests: dict[int, bytes]) -> dict[int, bytes]:
    """The digests, told apart by the pictures of those layouts that are otherwise equal."""
    equal = _equal(digests)
    if not equal:
        return digests
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame needs a screen even to draw into an array
    told = dict(digests)
    with contextlib.suppress(Exception):  # no such mode, no display, no graphics library
        env = make(render_mode="rgb_array")
        try:
            for layout in equal:
                env.reset(seed=layout)
                told[layout] = digests[layout] + _digest(np.asarray(env.render()))
        finally:
            closed(env)
        return told
    return digests


def _attributes(env: Any) -> Iterator[tuple[str, bytes]]:
    """Yields the path and a digest of the environment's plain values, at most `_MOST_VALUES` of them."""
    waiting: list[tuple[str, Any, int]] = [("env", env, 0)]
    seen: set[int] = {id(env)}
    count = 0
    while waiting and count < _MOST_VALUES:
        path, value, depth = waiting.pop()
        if value is not env and (
            isinstance(value, gymnasium.Env | gymnasium.Space | np.random.Generator) or callable(value)
        ):
            continue
        is_array = isinstance(value, np.ndarray) and value.dtype != object
        if is_array or isinstance(value, _PLAIN):
            count += 1
            yield path, _digest(value)
            continue
        parts = _collected(value)
        if parts is None:  # an object
            count += 1
            yield f"{path}:type", _digest(type(value).__qualname__)
            numbers_inside = _as_array(value)
            if numbers_inside is not None:
                yield path, _digest(numbers_inside)
                continue
            parts = [(key, part) for key, part in _own_attributes(value).items() if key not in _SKIPPED]
        if depth == _DEEPEST or (depth and id(value) in seen and not isinstance(value, list | tuple | dict)):
            continue
        seen.add(id(value))
        waiting += [(f"{path}.{key}", part, depth + 1) for key, part in parts]


def _collected(value: Any) -> list[tuple[Any, Any]] | None:
    """The parts of a collection by their keys or places; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple | deque):
        return list(enumerate(value))
    if isinstance(value, np.ndarray):  # of objects; its text leaves most of them out
        return list(enumerate(value.ravel().tolist()))
    if isinstance(value, set | frozenset):
        return list(enumerate(sorted(map(repr, value))))
    return None


def _as_array(value: Any) -> NDArray[Any] | None:
    """The numbers of a tensor of another library, or None."""
    if not hasattr(type(value), "__array__"):
        return None
    with contextlib.suppress(Exception):  # a tensor that is on another device, or needs a gradient
        converted = np.asarray(value)
        return converted if converted.dtype != object else None
    return None


def _own_attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, also those of a class with `__slots__`."""
    names = [name for kind in type(value).__mro__ for name in np.atleast_1d(getattr(kind, "__slots__", ())).tolist()]
    slots = {name: getattr(value, name) for name in names if not name.startswith("__") and hasattr(value, name)}
    return {**slots, **getattr(value, "__dict__", {})}


def _digest(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return hashlib.sha256(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()).digest()
    if isinstance(value, np.generic):
        value = value.item()
    text = repr(value).encode()
    return text if len(text) < _SHORT else hashlib.sha256(text).digest()
