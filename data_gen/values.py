"""Checks of the values that environments and agents give, made where they arise and before anything learns from them.

Values are stored in compact types. Without a check, a picture of floats in [0, 1) in a uint8 space would be stored as
zeros, and an observation of -1 in Discrete(256) as 255. A batch of values is checked in two comparisons, which takes a
few microseconds for a step of all environments.

*Native* vector environments, those of this project (`TaskVectorEnv.native`), are trusted: the tests check their values.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from data_gen.spaces import Space, column_name, leaves, one_line, storage_type
from icrl.support.errors import UserError

_ROUNDING = 1e-5  # relative to a bound: a float this far outside of its Box is rounded, not wrong
_SPACE_LENGTH = 80  # most characters shown of a space
_OURS = {"data_gen", "ad_model", "eval", "icrl"}
_CLEARLY_FINITE = 1e30  # for a sum of squares: then every summand is finite in float32
_BOOLEAN = np.dtype(np.bool_)
REWARD = spaces.Box(-np.inf, np.inf, (), np.float64)
"""The space of rewards: finite in float32, the type that stores them."""

TURN_OFF = "--runtime.check_values false turns this check off"


class SpaceCheck:
    """Tells which values of a batch are not in a leaf space, or cannot be stored as they are.

    Args:
        space: the space. Raises UserError if it cannot be recorded.
        rows: the usual number of values in a batch, for which bounds and memory are made once.
    """

    def __init__(self, space: Space, rows: int = 0) -> None:
        self.space = space
        self.shape, self.stored = storage_type(space)
        self._whole = self.stored.kind != "f"
        self._low, self._high = _limits(space, self.stored)
        limits = np.iinfo(self.stored) if self._whole and self.stored.kind != "b" else None
        every = limits is not None and np.all(self._low == limits.min) and np.all(self._high == limits.max)
        self._complete = self.stored if every else None  # a type of which every value is in the space
        # Usual batches, (rows, ...) in the space's own type, are compared without broadcasting and without new memory.
        form = (rows, *self.shape)
        kind = np.dtype(np.int64) if isinstance(space, spaces.Discrete) else np.dtype(space.dtype)
        self._usual = (kind, form) if rows and not every else None
        if self._usual:
            self._lows, self._highs = (np.full(form, bound, kind) for bound in (self._low, self._high))
            self._inside, self._size = np.empty(form, np.bool_), int(np.prod(form))

    def fits(self, values: NDArray[Any]) -> bool:
        """True if all values, (n, ...), are in the space."""
        if (values.dtype, values.shape) == self._usual:
            count = np.count_nonzero(np.greater_equal(values, self._lows, self._inside))
            count += np.count_nonzero(np.less_equal(values, self._highs, self._inside))  # NaN is neither
            return bool(count == 2 * self._size)
        if values.shape[1:] != self.shape:
            return False
        if values.dtype is self._complete:
            return True
        kind = values.dtype.kind
        if kind not in "iubf" or (self._whole and kind == "f"):
            return not self.wrong(values).any()
        count = np.count_nonzero(values >= self._low) + np.count_nonzero(values <= self._high)
        return bool(count == 2 * values.size)

    def wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """(n, ...) True at each value that is not in the space."""
        if values.dtype.kind not in "iubf":
            return np.ones(values.shape, np.bool_)
        inside = (values >= self._low) & (values <= self._high)
        if self._whole and values.dtype.kind == "f":
            inside &= values == np.floor(values)
        return ~inside

    def problem(self, column: str, values: NDArray[Any]) -> tuple[int, str]:
        """The number of the first wrong value of a batch that does not fit, and what is wrong with the value."""
        if values.shape[1:] != self.shape:
            return 0, f"{column} has shape {values.shape[1:]}, but its space has {self.shape}"
        number, *at = (int(place) for place in np.argwhere(self.wrong(values))[0])
        place = f"[{', '.join(map(str, at))}]" if at else ""
        value = values[(number, *at)]
        if values.dtype.kind not in "iubf":
            return number, f"{column}{place} {value!s:.80} (of type {values.dtype}) is not a number"
        if self.space is REWARD:
            return number, f"{column} {value} is not finite in {self.stored}"
        return number, f"{column}{place} {value} (of type {values.dtype}) is not in {short(self.space)}"


class ValueChecks:
    """The checks of one interaction. Each method takes the values of one step of all environments.

    Every method raises UserError, in one line, for the first wrong value. Steps count from 1; step 0 is the reset.

    Args:
        envs: the environments, whose spaces the values have to be in. Native ones are trusted.
        agent: the agent, whose actions are checked unless agent and environments are both this project's.
        named: the name of each slot in errors, such as that of its task.
        state_space: the space of `state`, if the agent is shown it.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        agent: object,
        named: Callable[[int], str] = "slot {}".format,
        state_space: Space | None = None,
    ) -> None:
        self._num_envs, self._agent, self._named = envs.num_envs, type(agent).__name__, named
        self._detail: Callable[[int], str] = getattr(envs, "name_slot", lambda slot: "")
        self._trusts_envs = bool(getattr(envs, "native", False))
        self._trusts_agent = self._trusts_envs and is_ours(type(agent))
        shown = {"observation": envs.single_observation_space, "state": state_space}
        rows = envs.num_envs
        self.idle = self._trusts_agent  # True: nothing is checked
        self._seen = {
            column: {path: (column_name(column, path), SpaceCheck(leaf, rows)) for path, leaf in leaves(space).items()}
            for column, space in shown.items()
            if space is not None
        }
        self._action = SpaceCheck(envs.single_action_space, rows)
        self._reward = SpaceCheck(REWARD)

    def seen(self, parts: Mapping[str, Any], step: int, column: str = "observation") -> None:
        """Checks observations, or states, given as their `leaves`."""
        if self._trusts_envs:
            return
        checks = self._seen[column]
        if parts.keys() != checks.keys():
            what = f"the {column} has the parts {[*parts]}, but its space has {[*checks]}"
            raise UserError(f"{self._at(0, step)}: {what}; correct the environment")
        for path, (name, check) in checks.items():
            self._check(check, name, parts[path], step)

    def acted(self, action: Any, step: int) -> None:
        """Checks the agent's actions."""
        if not self._trusts_agent:
            self._check(self._action, "action", action, step)

    def labelled(self, optimal_action: Any, step: int) -> None:
        """Checks the optimal actions of the environments."""
        if not self._trusts_envs:
            self._check(self._action, "optimal_action", optimal_action, step)

    def rewarded(self, given: Any, terminated: Any, truncated: Any, step: int) -> None:
        """Checks rewards and flags."""
        if self._trusts_envs:
            return
        reward, terminated, truncated = map(np.asarray, (given, terminated, truncated))
        usual = reward.dtype.kind == "f" and reward.shape == (self._num_envs,)
        with np.errstate(over="ignore", invalid="ignore"):
            clear = usual and reward.dot(reward) < _CLEARLY_FINITE
        if not clear:
            self._check(self._reward, "reward", reward, step)
        if terminated.dtype is truncated.dtype is _BOOLEAN and terminated.shape == truncated.shape == reward.shape:
            return
        for column, flags in (("terminated", terminated), ("truncated", truncated)):
            values = np.asarray(flags)
            if values.dtype != np.bool_ or values.shape != (self._num_envs,):
                what = f"{column} is {values.dtype} of shape {values.shape}, not bool of shape ({self._num_envs},)"
                raise UserError(f"{self._at(0, step)}: {what}; correct the environment")

    def _check(self, check: SpaceCheck, column: str, given: Any, step: int) -> None:
        if isinstance(given, np.ndarray) and given.shape[:1] == (self._num_envs,) and check.fits(given):
            return
        values = np.asarray(given)
        rows = len(values) if values.ndim else 0
        if rows == self._num_envs and check.fits(values):
            return
        hint = f" ({TURN_OFF})" if values.shape[1:] == check.shape else ""
        if rows == self._num_envs:
            slot, what = check.problem(column, values)
        else:
            slot, what = 0, f"{column} has {rows} rows for {self._num_envs} environments"
        who = f"the agent {self._agent}" if column == "action" else "the environment, or its space"
        raise UserError(f"{self._at(slot, step)}: {what}; correct {who}{hint}")

    def _at(self, slot: int, step: int) -> str:
        detail = self._detail(slot)
        when = f"step {step}" if step else "at the reset"
        return f"{self._named(slot)}{f' ({detail})' if detail else ''}, {when}"


def check_recorded(columns: Mapping[str, NDArray[Any]], named: Callable[[int], str]) -> None:
    """Checks that all floats of recorded columns, (histories, steps, ...), are finite.

    Native environments keep to their spaces, but a parameter of 1e39 still gives rewards that float32 cannot hold, and
    a network of NaN gives actions that no environment understands.

    Raises UserError, in one line, for the earliest value that is not finite.
    """
    wrong = []
    for column, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            places = np.argwhere(~np.isfinite(values))
            place = tuple(int(part) for part in places[places[:, 1].argmin()])
            wrong.append((place[1], column, place[0], values[place]))
    if wrong:
        step, column, slot, value = min(wrong)  # an action comes before the observation that it leads to
        advice = (
            "lower the agent's learning rate" if column == "action" else "use smaller parameters of the task family"
        )
        raise UserError(f"{named(slot)}, step {step + 1}: {column} {value} is not finite in {value.dtype}; {advice}")


def check_learners(diverged: NDArray[np.bool_] | None, agent: str, named: Callable[[int], str]) -> None:
    """Says which learners have diverged: their networks are NaN or infinite, so they act without having learned.

    Raises UserError if all of them have.
    """
    if diverged is None or not diverged.any():
        return
    first = named(int(diverged.argmax()))
    what = f"{first}: the networks of {agent} are NaN or infinite at the end: it diverged; lower its learning rate"
    if diverged.all():
        raise UserError(what)
    print(f"warning: {what} ({diverged.sum()} of {len(diverged)} learners)", file=sys.stderr)


def is_ours(kind: type) -> bool:
    """True for a class of this project, as opposed to one of the user's."""
    return kind.__module__.partition(".")[0] in _OURS


def short(space: Space) -> str:
    """Text of a space for an error message."""
    return one_line(space)[:_SPACE_LENGTH]


def _limits(space: Space, stored: np.dtype[Any]) -> tuple[Any, Any]:
    """The lowest and the highest value of a leaf space, each a number or an array."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    assert isinstance(space, spaces.Box)
    low, high = space.low, space.high
    if stored.kind == "f":
        most = np.finfo(stored).max
        low, high = (np.clip(bound.astype(np.float64), -float(most), float(most)) for bound in (low, high))
        size = np.maximum(*(np.where(np.abs(bound) < most, np.abs(bound), 0) for bound in (low, high)))
        room = _ROUNDING * size
        low, high = ((bound + sign * room) for bound, sign in ((low, -1), (high, 1)))
        low, high = (np.clip(bound, -float(most), float(most)).astype(space.dtype) for bound in (low, high))
    return _plain(low), _plain(high)


def _plain(bound: NDArray[Any]) -> Any:
    """A bound as one number if all are equal."""
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound
