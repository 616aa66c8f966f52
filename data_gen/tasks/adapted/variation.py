"""Variations of keyword arguments, from which tasks are made: a range of numbers, or a list of any values."""

import hashlib
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

_FIRST_HASH = 2.0**900
"""A number larger than those of any environment, and small enough for sums of many."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included if they are integers; drawn log-uniformly if `log`.

    A task holds the number itself.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def whole(self) -> bool:
        """True if the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: NDArray[np.float64]) -> NDArray[Any]:
        """The numbers at the fractions `share`, between 0 and 1, of the way from low to high."""
        end = self.high + 1 if self.whole else self.high
        if self.log:
            numbers = np.exp(math.log(self.low) + share * (math.log(end) - math.log(self.low)))
        else:
            numbers = self.low + share * (end - self.low)
        if self.whole:
            numbers = np.floor(numbers).astype(np.int64)
        return np.clip(numbers, self.low, self.high)  # rounding may land just outside

    def value(self, number: Any) -> Any:
        """The argument that a task's number stands for, as a Python number."""
        return int(number) if self.whole else float(number)

    def holds(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """True for each of the tasks' numbers that stands for an argument."""
        inside: NDArray[np.bool_] = (numbers >= self.low) & (numbers <= self.high)
        return inside & (numbers == np.floor(numbers)) if self.whole else inside

    def __str__(self) -> str:
        return f"{'integers' if self.whole else 'numbers'} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of `values`, of any type. A task holds an index into the values, counted from `first`."""

    values: Sequence[Any]
    first: int = 0

    @property
    def places(self) -> NDArray[np.int64]:
        """Every index that a task may hold. Allocates them: only for as many as can be listed."""
        return self.first + np.arange(len(self.values))

    def at(self, share: NDArray[np.float64]) -> NDArray[Any]:
        """The indices at the fractions `share`, between 0 and 1, of the way from the first to the last."""
        return self.first + np.minimum((share * len(self.values)).astype(np.int64), len(self.values) - 1)

    def value(self, number: Any) -> Any:
        """The value that a task's index stands for."""
        return self.values[int(number) - self.first]

    def holds(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """True for each of the tasks' indices that stands for a value."""
        inside: NDArray[np.bool_] = (numbers >= self.first) & (numbers < self.first + len(self.values))
        return inside & (numbers == np.floor(numbers))

    def __str__(self) -> str:
        return f"indices {self.first} to {self.first + len(self.values) - 1}"


Variation = Range | Choice


def parse_variation(where: str, given: Any) -> Variation:
    """The variation that a config gives for one keyword.

    Raises ValueError, which names `where`, if the config does not give a variation or if the variation has one value.
    """
    if isinstance(given, list):
        twice = [value for index, value in enumerate(given) if _key(value) in map(_key, given[:index])]
        if twice:
            raise ValueError(f"{where}: {twice[0]!r} is in the list twice, so a task could be in training and held out")
        return _choice(where, given)
    if isinstance(given, dict) and "call" in given:
        return _choice(where, _called(where, **given))
    if isinstance(given, dict) and {"low", "high"} <= set(given):
        return _range(where, given)
    raise ValueError(f"{where}: give a list of values, low and high, or call and seeds (got {given!r})")


def values_of(variation: Variation, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """The values that tasks' numbers stand for, shape (tasks,), the same however a config lists them.

    Ranges, lists of numbers and lists that also hold other values can have values in common. So a value that is not a
    number becomes one that no list has: its hash, above `_FIRST_HASH`.
    """
    if isinstance(variation, Range):
        return np.asarray(numbers).astype(np.float64)
    places = variation.places
    table = np.array([_as_number(variation.value(place)) for place in places], dtype=np.float64)
    index = np.clip(np.asarray(numbers).astype(np.int64) - variation.first, 0, len(places) - 1)
    return table[index]


def _as_number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    digest = hashlib.sha256(_key(_whole(value)).encode()).digest()
    return _FIRST_HASH * (1 + int.from_bytes(digest[:6], "little") / 2**48)


def _whole(value: Any) -> Any:
    """The value with 9 in place of 9.0 at every depth."""
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def find_attribute(where: str, name: Any, default_module: str = "") -> Any:
    """The object that `module:name` names. Raises ValueError, which names `where`, if it does not exist."""
    module, _, attribute = str(name).rpartition(":")
    if not (module or default_module) or not attribute:
        raise ValueError(f"{where}: expected module:name, got {name!r}")
    try:
        imported = importlib.import_module(module or default_module)
        return getattr(imported, attribute)
    except AttributeError:
        near = did_you_mean(attribute, [valid for valid in dir(imported) if not valid.startswith("_")])
        raise ValueError(f"{where}: {imported.__name__} has no {attribute!r}{near if 'mean' in near else ''}") from None
    except Exception as error:  # importing may raise any error
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
        raise ValueError(f"{where}: a log-uniform range must lie above 0, but low is {low}")
    return Range(low, high, log)


def _choice(where: str, values: list[Any]) -> Choice:
    if len(values) < 2:
        raise ValueError(f"{where}: a list of {len(values)} does not vary: give two or more values, or use kwargs")
    return Choice(values)


def _called(where: str, call: str = "", seeds: Any = None, **arguments: Any) -> list[Any]:
    """The distinct results of the function that `call` names, for seed=0 ... seeds - 1."""
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 2:
        raise ValueError(f"{where}.seeds: expected a number of seeds, 2 or more, got {seeds!r}")
    function = find_attribute(f"{where}.call", call)
    try:
        values = [function(seed=seed, **arguments) for seed in range(seeds)]
    except Exception as error:  # the function may raise any error
        raise ValueError(f"{where}.call: {call} raised {type(error).__name__}: {error}") from error
    return list({_key(value): value for value in values}.values())


def _key(value: Any) -> str:
    """A key that is equal for equal values (9 and 9.0, but not 1 and true); lists and mappings have no hash."""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(value, sort_keys=True, default=lambda other: getattr(other, "tolist", lambda: repr(other))())
