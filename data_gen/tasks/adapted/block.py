"""A block of scalar environments stepped one after another, and the arrays through which others see them.

The arrays may lie in memory that several processes share: one of them writes the seeds and actions and reads the rest,
and each of the others has a block with its slice of them.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.spaces import column_name, leaves
from icrl.support.errors import UserError

Space = gymnasium.Space[Any]
Maker = Callable[[], gymnasium.Env[Any, Any]]
"""Makes a slot's environment. It travels to a process by pickle, and its `str` says in an error what was made."""

RESET, RESET_SEEDED, STEP, ASK_EXPERT = b"r", b"R", b"s", b"e"
"""What a block can be told to do."""

_ALIGNMENT = 64  # bytes, of each array in the memory: a cache line
_LINE = 300  # characters of a foreign error or space that are shown


_Place = tuple[tuple[Any, ...], NDArray[Any]]
"""The keys that lead to a leaf of an observation, and the (slots, ...) array that the leaf is written to."""


class Block:
    """Some slots, stepped one after another, and their part of the arrays."""

    def __init__(
        self,
        makers: Sequence[Maker],
        arrays: dict[str, NDArray[Any]],
        observation_space: Space,
        action_space: Space,
        episode_length: int,
    ) -> None:
        self.makers, self.arrays, self.episode_length = makers, arrays, episode_length
        self.observations = _places(observation_space, arrays, "observation")
        self.finals = _places(observation_space, arrays, "final")
        self.elapsed = [0] * len(makers)
        self.slot = 0  # the one that is being stepped
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
        }

    def run(self, command: bytes) -> None:
        """Does it in every slot. Raises UserError, naming the slot's environment, whatever that raises."""
        try:
            self.commands[command]()
        except (Exception, SystemExit) as error:
            raise UserError(f"{self.makers[self.slot]}: {one_line(error)}") from error

    def reset(self) -> None:
        self.begin([None] * len(self.envs))

    def reset_seeded(self) -> None:
        self.begin(self.arrays["seed"].tolist())

    def begin(self, seeds: Sequence[int | None]) -> None:
        for slot, env in enumerate(self.envs):
            self.slot = slot
            observation, _ = env.reset(seed=seeds[slot])
            for keys, array in self.observations:  # assignment would broadcast a wrong shape
                shape = np.shape(_at(observation, keys))
                if shape != array.shape[1:]:
                    raise ValueError(f"resets to an observation of shape {shape}; its space says {array.shape[1:]}")
            self.write(self.observations, observation)
            self.elapsed[slot] = 0

    def step(self) -> None:
        actions = self.arrays["action"].copy()  # an environment may keep what it is given
        rewards, terminations, truncations = (self.arrays[name] for name in ("reward", "terminated", "truncated"))
        for slot, env in enumerate(self.envs):
            self.slot = slot
            observation, reward, terminated, truncated, _ = env.step(actions[slot])
            self.elapsed[slot] += 1
            truncated = truncated or self.elapsed[slot] >= self.episode_length
            rewards[slot], terminations[slot], truncations[slot] = reward, terminated, truncated and not terminated
            if terminated or truncated:
                self.write(self.finals, observation)
                observation, _ = env.reset()
                self.elapsed[slot] = 0
            self.write(self.observations, observation)

    def ask_expert(self) -> None:
        for slot, env in enumerate(self.envs):
            self.slot = slot
            self.arrays["expert"][slot] = env.get_wrapper_attr("optimal_action")()

    def write(self, places: list["_Place"], observation: Any) -> None:
        for keys, array in places:
            array[self.slot] = _at(observation, keys)

    def close(self) -> None:
        for env in self.envs:
            closed(env)


def made(maker: Maker) -> gymnasium.Env[Any, Any]:
    """The environment. Raises UserError, with what `maker` says of itself, whatever its constructor raises."""
    try:
        return maker()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{maker}: cannot be made: {one_line(error)}") from error


def closed(env: gymnasium.Env[Any, Any]) -> None:
    """Closes it; one that cannot be closed is of no more use either, and what it raises would hide what matters."""
    with contextlib.suppress(Exception):
        env.close()


def check_space(maker: Maker, kind: str, space: Space, expected: Space) -> None:
    """Raises UserError unless the space that `maker`'s environment has is the one that all tasks share."""
    if space != expected:
        raise UserError(
            f"{maker}: has the {kind} space {_short(space)}, and other tasks have {_short(expected)}: "
            "what varies must leave the spaces as they are"
        )


def _forms(num_envs: int, observation_space: Space, action_space: Space) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of every array that the processes share."""
    forms: dict[str, tuple[tuple[int, ...], Any]] = {
        "seed": ((num_envs,), np.uint64),
        "reward": ((num_envs,), np.float64),
        "terminated": ((num_envs,), np.bool_),
        "truncated": ((num_envs,), np.bool_),
        "action": ((num_envs, *(action_space.shape or ())), action_space.dtype),
        "expert": ((num_envs, *(action_space.shape or ())), action_space.dtype),
    }
    for path, leaf in leaves(observation_space).items():
        for kind in ("observation", "final"):
            forms[column_name(kind, path)] = ((num_envs, *leaf.shape), leaf.dtype)
    return forms


def _room(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes that an array takes in the shared memory."""
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT


def memory_size(num_envs: int, observation_space: Space, action_space: Space) -> int:
    """Bytes that the arrays of `num_envs` slots take."""
    return sum(_room(*form) for form in _forms(num_envs, observation_space, action_space).values())


def arrays_in(memory: Any, num_envs: int, observation_space: Space, action_space: Space) -> dict[str, NDArray[Any]]:
    """The arrays that lie in `memory`, by name."""
    arrays, offset = {}, 0
    for name, (shape, dtype) in _forms(num_envs, observation_space, action_space).items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
        offset += _room(shape, dtype)
    return arrays


def _places(space: Space, arrays: dict[str, NDArray[Any]], kind: str) -> list[_Place]:
    found = [arrays[column_name(kind, path)] for path in leaves(space)]
    return list(zip(_keys(space), found, strict=True))


def _keys(space: Space, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each leaf of an observation, in the order of `leaves`."""
    if isinstance(space, gymnasium.spaces.Dict):
        parts: Any = space.items()
    elif isinstance(space, gymnasium.spaces.Tuple):
        parts = enumerate(space)
    else:
        yield before
        return
    for key, part in parts:
        yield from _keys(part, (*before, key))


def _at(observation: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        observation = observation[key]
    return observation


def one_line(error: BaseException) -> str:
    """The error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LINE]


def _short(space: Space) -> str:
    return " ".join(str(space).split())[:_LINE]
