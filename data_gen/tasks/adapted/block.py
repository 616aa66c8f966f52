"""A block of scalar environments stepped one after another, and the arrays that hold their data.

The arrays may lie in memory that several processes share. One process writes the seeds and actions and reads the rest;
each of the others has a block that works on its slice of the arrays.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.spaces import column_name, leaves
from data_gen.values import TURN_OFF, short
from icrl.support.errors import UserError

Space = gymnasium.Space[Any]
Maker = Callable[[], gymnasium.Env[Any, Any]]
"""Makes the environment of one slot. A maker is pickled to reach a process, and its `str` names the environment in
errors."""

RESET, RESET_SEEDED, STEP, ASK_EXPERT, TRUST = b"r", b"R", b"s", b"e", b"t"
"""The commands of a block."""

_ALIGNMENT = 64  # bytes; each array takes whole cache lines
_LINE = 300  # most characters shown of a foreign error or space


_SUCCESS = ("success", "is_success")
"""Keys of a step's `info` that say if it was a success: Meta-World's and Gymnasium-Robotics'."""

_FLAGS = frozenset((bool, np.bool_))
_REWARDS = frozenset((float, int, np.float64, np.float32))


class _LeafArray(NamedTuple):
    """A leaf of an observation, or an expert's action, and the array that holds it."""

    keys: tuple[Any, ...]
    """The keys that lead to the leaf."""
    array: NDArray[Any]
    """(slots, ...) values in the space's type."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Type and shape of one value."""
    column: str
    space: Space


class _Branch(NamedTuple):
    """A Dict or Tuple space within the observation space."""

    keys: tuple[Any, ...]
    """The keys that lead to it."""
    names: tuple[Any, ...]
    """The keys of its parts."""
    column: str


class _WrongValue(Exception):
    """An environment gave a value that its space does not have."""


class Block:
    """Several slots, stepped one after another, and their slice of the arrays."""

    def __init__(
        self,
        makers: Sequence[Maker],
        arrays: dict[str, NDArray[Any]],
        observation_space: Space,
        action_space: Space,
        episode_length: int,
    ) -> None:
        self.makers, self.arrays, self.episode_length = makers, arrays, episode_length
        self.observations = _leaf_arrays(observation_space, arrays, "observation")
        self.finals = _leaf_arrays(observation_space, arrays, "final")
        self.branches = [*_branches(observation_space)]
        self.expert = [_leaf_array((), arrays["expert"], "optimal_action", action_space)]
        self.checked = True  # False: values are cast to the space's type without a check
        self.steps = 0  # since the last reset of all slots, for errors
        self.elapsed = [0] * len(makers)
        self.success = [math.nan] * len(makers)  # of the running episodes; NaN until an environment reports it
        self.slot = 0  # the slot being stepped, for errors
        self.envs: list[gymnasium.Env[Any, Any]] = []
        for maker in makers:
            self.envs.append(made(maker))
            check_space(maker, "observation", self.envs[-1].observation_space, observation_space)
            check_space(maker, "action", self.envs[-1].action_space, action_space)
        self.commands = {
            RESET: self.reset,
            RESET_SEEDED: self.reset_seeded,
            STEP: self.step,
            ASK_EXPERT: self.ask_expert,
            TRUST: self.trust,
        }

    def run(self, command: bytes) -> None:
        """Carries out a command in every slot. Raises UserError, which names the environment, on any error."""
        try:
            self.commands[command]()
        except _WrongValue as error:
            raise UserError(f"{self.makers[self.slot]}, {error}") from error
        except (Exception, SystemExit) as error:
            raise UserError(f"{self.makers[self.slot]}: {one_line(error)}") from error

    def reset(self) -> None:
        """Starts an episode in every slot, each environment continuing its own generator."""
        self.begin([None] * len(self.envs))

    def reset_seeded(self) -> None:
        """Starts an episode in every slot with the seeds in the arrays."""
        self.begin(self.arrays["seed"].tolist())

    def begin(self, seeds: Sequence[int | None]) -> None:
        """Resets every slot with its seed."""
        self.steps = 0
        for slot, env in enumerate(self.envs):
            self.slot = slot
            observation, _ = env.reset(seed=seeds[slot])
            self.write_observation(self.observations, observation)
            self.elapsed[slot], self.success[slot] = 0, math.nan

    def step(self) -> None:
        """Takes one step in every slot; a slot whose episode ends is reset in the same step."""
        actions = self.arrays["action"].copy()  # an environment may keep what it is given
        rewards, terminations, truncations = (self.arrays[name] for name in ("reward", "terminated", "truncated"))
        self.steps += 1
        for slot, env in enumerate(self.envs):
            self.slot = slot
            observation, reward, terminated, truncated, info = env.step(actions[slot])
            self.elapsed[slot] += 1
            if info:
                self.success[slot] = np.fmax(self.success[slot], _success(info))
            if self.checked and (type(terminated) not in _FLAGS or type(truncated) not in _FLAGS):
                self.check_flags(terminated=terminated, truncated=truncated)
            if self.checked and type(reward) not in _REWARDS:
                self.check_reward(reward)
            truncated = truncated or self.elapsed[slot] >= self.episode_length
            rewards[slot], terminations[slot], truncations[slot] = reward, terminated, truncated and not terminated
            if terminated or truncated:
                self.write_observation(self.finals, observation)
                observation, _ = env.reset()
                self.elapsed[slot] = 0
                self.arrays["success"][slot], self.success[slot] = self.success[slot], math.nan
            self.write_observation(self.observations, observation)

    def ask_expert(self) -> None:
        """Writes the present action of each slot's expert to the arrays."""
        for slot, env in enumerate(self.envs):
            self.slot = slot
            self.write(self.expert, env.get_wrapper_attr("optimal_action")())

    def trust(self) -> None:
        """From now on, casts values to their space's type without a check."""
        self.checked = False

    def write_observation(self, leaf_arrays: list[_LeafArray], observation: Any) -> None:
        """Writes an observation of the current slot. Raises _WrongValue if a value would change, or a part be lost."""
        self.write(leaf_arrays, observation)
        for keys, names, column in self.branches:  # every part that the space has is there
            given = self.part(observation, keys, column) if keys else observation
            if self.checked and len(given) != len(names):
                more = [repr(name) for name in given if name not in names] if isinstance(given, Mapping) else []
                what = f"has the part {more[0]}" if more else f"has {len(given)} parts"
                raise self.wrong(column, f"{what}, but its space has {', '.join(map(repr, names))}"[:_LINE])

    def write(self, leaf_arrays: list[_LeafArray], observation: Any) -> None:
        """Writes the parts of a value of the current slot to the arrays. Raises _WrongValue if one would change."""
        for number, (keys, array, dtype, shape, *_) in enumerate(leaf_arrays):
            value = observation
            if keys:
                value = self.part(observation, keys, leaf_arrays[number].column)
            # Nearly always the space's own type and shape; anything else is looked at.
            if getattr(value, "dtype", None) is not dtype or value.shape != shape:
                self.check(leaf_arrays[number], value)
            array[self.slot] = value

    def check(self, leaf: _LeafArray, given: Any) -> None:
        """Raises _WrongValue unless the array of `leaf` can hold the value without a change but rounding."""
        value = np.asarray(given)
        if value.shape != leaf.shape:  # would be broadcast silently
            raise self.wrong(leaf.column, f"has shape {value.shape}, but its space has {leaf.shape}", "")
        if not self.checked or np.can_cast(value.dtype, leaf.dtype, "safe"):
            return
        if value.dtype.kind not in "iubf":
            raise self.wrong(leaf.column, f"has type {value.dtype}, which is not a number")
        if leaf.dtype.kind == "f":  # that it is in its space is checked for all slots at once
            return
        with np.errstate(invalid="ignore"):
            changed = value.astype(leaf.dtype) != value
        if changed.any():
            what = f"{value[changed].flat[0]} (of type {value.dtype}) is not in {short(leaf.space)}"
            raise self.wrong(leaf.column, what)

    def part(self, observation: Any, keys: tuple[Any, ...], column: str) -> Any:
        """The part of an observation that `keys` lead to. Raises _WrongValue if there is none."""
        try:
            for key in keys:
                observation = observation[key]
        except (LookupError, TypeError) as error:
            raise self.wrong(column, f"is missing: {one_line(error)}", "") from error
        return observation

    def check_reward(self, reward: Any) -> None:
        """Raises _WrongValue for a reward that is not one number; its size is checked for all slots at once."""
        if np.shape(reward) or np.asarray(reward).dtype.kind not in "iubf":
            raise self.wrong("reward", f"{reward!r} is not a number"[:_LINE])

    def check_flags(self, **flags: Any) -> None:
        """Raises _WrongValue for a flag that is neither true nor false."""
        for column, flag in flags.items():
            if np.shape(flag) or np.asarray(flag).dtype.kind not in "iubf" or flag not in (0, 1):
                raise self.wrong(column, f"{flag!r} is not a boolean")

    def wrong(self, column: str, what: str, hint: str = f" ({TURN_OFF})") -> "_WrongValue":
        """The error for a value of the current slot."""
        when = f"step {self.steps}" if self.steps else "at the reset"
        return _WrongValue(f"{when}: {column} {what}; correct the environment, or its space{hint}")

    def close(self) -> None:
        """Closes every environment."""
        for env in self.envs:
            closed(env)


def _success(info: dict[str, Any]) -> float:
    """1 if a step's info reports success, 0 if it reports that there is none, NaN if it does not say."""
    for name in _SUCCESS:
        value = info.get(name)
        if isinstance(value, (bool, int, float, np.bool_, np.number)):
            return float(value > 0)
    return math.nan


def made(maker: Maker) -> gymnasium.Env[Any, Any]:
    """The environment that `maker` makes. Raises UserError, which names `maker`, on any error."""
    try:
        return maker()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{maker}: cannot be made: {one_line(error)}") from error


def closed(env: gymnasium.Env[Any, Any]) -> None:
    """Closes an environment, and ignores any error that it raises.

    An environment that cannot be closed is of no further use, and its error would hide the error that matters.
    """
    with contextlib.suppress(Exception):
        env.close()


def check_space(maker: Maker, kind: str, space: Space, expected: Space) -> None:
    """Raises UserError unless the space of `maker`'s environment is the one that all tasks share."""
    if space != expected:
        raise UserError(
            f"{maker}: has the {kind} space {_short(space)}, but other tasks have {_short(expected)}: "
            "what varies must not change the spaces"
        )


def _forms(num_envs: int, observation_space: Space, action_space: Space) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and data type of every array in the memory, by name."""
    forms: dict[str, tuple[tuple[int, ...], Any]] = {
        "seed": ((num_envs,), np.uint64),
        "reward": ((num_envs,), np.float64),
        "terminated": ((num_envs,), np.bool_),
        "truncated": ((num_envs,), np.bool_),
        "success": ((num_envs,), np.float32),
        "action": ((num_envs, *(action_space.shape or ())), action_space.dtype),
        "expert": ((num_envs, *(action_space.shape or ())), action_space.dtype),
    }
    for path, leaf in leaves(observation_space).items():
        for kind in ("observation", "final"):
            forms[column_name(kind, path)] = ((num_envs, *leaf.shape), leaf.dtype)
    return forms


def _padded_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes that an array takes in the memory, padded to the alignment."""
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT


def memory_size(num_envs: int, observation_space: Space, action_space: Space) -> int:
    """Bytes of memory for the arrays of `num_envs` slots."""
    return sum(_padded_bytes(*form) for form in _forms(num_envs, observation_space, action_space).values())


def arrays_in(memory: Any, num_envs: int, observation_space: Space, action_space: Space) -> dict[str, NDArray[Any]]:
    """Views of the arrays in `memory`, by name."""
    arrays, offset = {}, 0
    for name, (shape, dtype) in _forms(num_envs, observation_space, action_space).items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
        offset += _padded_bytes(shape, dtype)
    return arrays


def _leaf_arrays(space: Space, arrays: dict[str, NDArray[Any]], kind: str) -> list[_LeafArray]:
    parts = zip(_keys(space), leaves(space).items(), strict=True)
    return [
        _leaf_array(keys, arrays[column_name(kind, path)], column_name("observation", path), leaf)
        for keys, (path, leaf) in parts
    ]


def _leaf_array(keys: tuple[Any, ...], array: NDArray[Any], column: str, space: Space) -> _LeafArray:
    return _LeafArray(keys, array, array.dtype, array.shape[1:], column, space)


def _branches(space: Space, before: tuple[Any, ...] = ()) -> Iterator[_Branch]:
    """Yields the Dict and Tuple spaces within an observation space, outer ones first."""
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        parts: dict[Any, Space] = dict(space.items() if isinstance(space, gymnasium.spaces.Dict) else enumerate(space))
        yield _Branch(before, tuple(parts), column_name("observation", ".".join(map(str, before))))
        for key, part in parts.items():
            yield from _branches(part, (*before, key))


def _keys(space: Space, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys that lead to each leaf of an observation, in the order of `leaves`."""
    if isinstance(space, gymnasium.spaces.Dict):
        parts: Any = space.items()
    elif isinstance(space, gymnasium.spaces.Tuple):
        parts = enumerate(space)
    else:
        yield before
        return
    for key, part in parts:
        yield from _keys(part, (*before, key))


def one_line(error: BaseException) -> str:
    """An error as a single line of limited length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LINE]


def _short(space: Space) -> str:
    return " ".join(str(space).split())[:_LINE]
