"""What may differ between tasks that are made out of keyword arguments: a range of numbers, or a list of anything."""

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icrl.support.errors import did_you_mean

_RANGE_KEYS = ("low", "high", "log")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included if they are integers; log-uniformly drawn if `log`.

    A task holds the number itself.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: NDArray[np.float64]) -> NDArray[Any]:
        """The numbers at `share`, between 0 and 1, of the way from low to high."""
        end = self.high + 1 if self.whole else self.high
        if self.log:
            numbers = np.exp(math.log(self.low) + share * (math.log(end) - math.log(self.low)))
        else:
            numbers = self.low + share * (end - self.low)
        if self.whole:
            numbers = np.floor(numbers).astype(np.int64)
        return np.clip(numbers, self.low, self.high)  # what rounding put a hair outside

    def value(self, number: Any) -> Any:
        """The argument that a task's number stands for, as a plain value."""
        return int(number) if self.whole else float(number)

    def holds(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of a task's numbers stand for an argument."""
        inside: NDArray[np.bool_] = (numbers >= self.low) & (numbers <= self.high)
        return inside & (numbers == np.floor(numbers)) if self.whole else inside

    def __str__(self) -> str:
        return f"{'integers' if self.whole else 'numbers'} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of `values`, of any kind. A task holds its place among them, counted from `first`."""

    values: Sequence[Any]
    first: int = 0

    @property
    def places(self) -> NDArray[np.int64]:
        """Every number that a task may hold."""
        return self.first + np.arange(len(self.values))

    def at(self, share: NDArray[np.float64]) -> NDArray[Any]:
        """The places at `share`, between 0 and 1, of the way from the first to the last."""
        return self.places[np.minimum((share * len(self.values)).astype(np.int64), len(self.values) - 1)]

    def value(self, number: Any) -> Any:
        """The value that a task's number stands for."""
        return self.values[int(number) - self.first]

    def holds(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of a task's numbers stand for a value."""
        return np.isin(numbers, self.places)

    def __str__(self) -> str:
        return f"places {self.first} to {self.first + len(self.values) - 1}"


Variation = Range | Choice


def parse_variation(where: str, given: Any) -> Variation:
    """What a config gives for one keyword. Raises ValueError, naming `where`, if it is none or does not vary."""
    if isinstance(given, list):
        twice = [value for place, value in enumerate(given) if _key(value) in map(_key, given[:place])]
        if twice:
            raise ValueError(
                f"{where}: {twice[0]!r} is in the list twice, and a task would be in training and held out"
            )
        return _choice(where, given)
    if isinstance(given, dict) and "call" in given:
        return _choice(where, _called(where, **given))
    if isinstance(given, dict) and {"low", "high"} <= set(given):
        return _range(where, given)
    raise ValueError(f"{where}: give a list of values, low and high, or call and seeds (got {given!r})")


def find_attribute(where: str, name: Any, default_module: str = "") -> Any:
    """What `module:name` stands for. Raises ValueError, naming `where`, if there is none."""
    module, _, attribute = str(name).rpartition(":")
    if not (module or default_module) or not attribute:
        raise ValueError(f"{where}: expected module:name, got {name!r}")
    try:
        found = importlib.import_module(module or default_module)
        return getattr(found, attribute)
    except AttributeError:
        near = did_you_mean(attribute, [valid for valid in dir(found) if not valid.startswith("_")])
        raise ValueError(f"{where}: {found.__name__} has no {attribute!r}{near if 'mean' in near else ''}") from None
    except Exception as error:  # importing may raise anything
        raise ValueError(f"{where}: cannot import {module!r}: {type(error).__name__}: {error}") from error


def _range(where: str, given: dict[str, Any]) -> Range:
    for key in given:
        if key not in _RANGE_KEYS:
            raise ValueError(f"{where}: unknown key {key!r}{did_you_mean(key, _RANGE_KEYS)}")
    low, high, log = given["low"], given["high"], given.get("log", False)
    for key, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{where}.{key}: expected a number, got {value!r}")
    if not isinstance(log, bool):
        raise ValueError(f"{where}.log: expected true or false, got {log!r}")
    if low >= high:
        raise ValueError(f"{where}: low {low} is not below high {high}")
    if log and low <= 0:
        raise ValueError(f"{where}: a log-uniform range is above 0, and low is {low}")
    return Range(low, high, log)


def _choice(where: str, values: list[Any]) -> Choice:
    if len(values) < 2:
        raise ValueError(f"{where}: {len(values)} value does not vary: give two or more, or put it in kwargs")
    return Choice(values)


def _called(where: str, call: str = "", seeds: Any = None, **arguments: Any) -> list[Any]:
    """What the function that `call` names gives for seed=0 ... seeds - 1, each value once."""
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 2:
        raise ValueError(f"{where}.seeds: expected a number of seeds, 2 or more, got {seeds!r}")
    function = find_attribute(f"{where}.call", call)
    try:
        values = [function(seed=seed, **arguments) for seed in range(seeds)]
    except Exception as error:  # it may raise anything
        raise ValueError(f"{where}.call: {call} raised {type(error).__name__}: {error}") from error
    return list({_key(value): value for value in values}.values())


def _key(value: Any) -> str:
    """Equal for equal values, 9 and 9.0 too, but not 1 and true; lists and mappings cannot be hashed."""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(value, sort_keys=True, default=lambda other: getattr(other, "tolist", lambda: repr(other))())
