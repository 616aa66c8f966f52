"""Which tasks are the same, by their values in the family's own names and types.

Arrays from elsewhere may hold the same tasks in another form: in another order, as float32 or int32, rounded to some
decimals, or as places in another list of choices.
"""

import base64
import contextlib
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.streams import make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks

_SAMPLE = 256  # tasks that tell how precise an array's values are
_ROUNDING = 1e-12  # relative; of values that were computed twice
_DECIMALS = range(5, 13)  # fewer are a choice of values, not a rounding of them
_MOST_NAMES = 4  # of arrays that are compared in each order
_MOST_RECORDS = 64  # of trainings one after another, each from the model of the one before
_NARROW = (np.float16, np.float32)
_ROUNDED = ("float16", "float32", *_DECIMALS)

MOST_RECORDED = 2**22
"""Most training tasks in a model's record: 45 MB of text in its config, of which 64 MiB are read."""


def in_form(family: TaskDistribution, given: Tasks) -> Tasks | None:
    """The tasks with the family's own order and types of arrays; None if they are not tasks of this family."""
    example = family.sample(1, 0)
    if {*given} != {*example} or len({len(given[name]) for name in given}) > 1:
        return None
    arrays = {}
    for name in example:
        values, dtype = given[name], example[name].dtype
        if values.dtype.kind not in "iubf" or values.shape[1:] != example[name].shape[1:]:
            return None
        with np.errstate(invalid="ignore", over="ignore"):
            arrays[name] = values.astype(dtype)
        if dtype.kind != "f" and (arrays[name] != values).any():
            return None
    return Tasks(arrays)


def task_keys(family: TaskDistribution, tasks: Tasks) -> NDArray[np.uint64]:
    """One key per task that depends only on the task's value, shape (num_tasks,); see `Tasks.keys`."""
    return _keys(family.comparable(tasks).arrays)


def training_tasks_record(family: TaskDistribution, tasks: Tasks, most: int = MOST_RECORDED) -> dict[str, Any] | None:
    """A compact record of a model's training tasks, as plain values: their keys, 8 bytes each; None for over `most`.

    If another tool has rounded the tasks, the record says how, by name of the array.
    """
    arrays = family.comparable(tasks).arrays
    keys = np.unique(_keys(arrays)).astype("<u8")
    if len(keys) > most:
        return None
    name, *bases = _bases(family)
    record = {"family": name, "bases": bases, "keys": base64.b64encode(keys.tobytes()).decode()}
    rounded = {name: how for name, values in arrays.items() if (how := _rounding(values))}
    return {**record, "rounded": rounded} if rounded else record


def joined_records(first: Any, second: dict[str, Any] | None) -> dict[str, Any] | None:
    """The record of a model that was trained on the tasks of both records, one after the other.

    Args:
        first: the record of the model that training started from. It may come from anywhere, or be none.
        second: the record of the tasks of the training itself; None if they are unknown.

    Returns:
        One record, `incomplete` if a part of the tasks is unknown, or has no room in it; None if all are unknown.
    """
    if not isinstance(first, dict):
        return None if second is None else {**second, "incomplete": True}
    if second is None:
        return {**first, "incomplete": True}
    if all(first.get(key) == second.get(key) for key in ("family", "bases", "rounded")):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            keys = np.union1d(*(np.frombuffer(base64.b64decode(each["keys"]), "<u8") for each in (first, second)))
            joined = {**first, "keys": base64.b64encode(keys.astype("<u8").tobytes()).decode()}
            return joined if _recorded(joined) <= MOST_RECORDED else {**second, "incomplete": True}
    joined = {**second, "before": first}
    return joined if _recorded(joined) <= MOST_RECORDED else {**second, "incomplete": True}


def _recorded(record: Any) -> int:
    """An upper bound of the number of tasks in a record and those before it, from the letters of their keys."""
    number = 0
    while isinstance(record, dict):
        number += len(str(record.get("keys", ""))) * 3 // 4 // 8
        record = record.get("before")
    return number


def seen_in_record(family: TaskDistribution, tasks: Tasks, record: Any) -> int | None:
    """How many of `tasks` are in a record of training tasks, which may come from anywhere; None if it is not one.

    Of a record that is incomplete, None if there are none: it may have seen them.
    """
    seen, incomplete = np.zeros(len(tasks), np.bool_), False
    for _ in range(_MOST_RECORDS):
        part = _seen_in_part(family, tasks, record)
        if part is None:
            return None
        seen, incomplete = seen | part, incomplete or bool(record.get("incomplete"))
        if "before" not in record:
            return None if incomplete and not seen.any() else int(seen.sum())
        record = record["before"]
    return None


def _seen_in_part(family: TaskDistribution, tasks: Tasks, record: Any) -> NDArray[np.bool_] | None:
    """(num_tasks,) True for each of `tasks` that is in a record, without those before it; None if it is not one."""
    try:
        names = [record["family"], *record.get("bases", [])]
        if not all(isinstance(name, str) for name in names):
            return None
        keys = np.frombuffer(base64.b64decode(record["keys"], validate=True), "<u8")
        rounded = dict(record.get("rounded", {}))
        if not all(type(how) in (str, int) and how in _ROUNDED for how in rounded.values()):
            return None
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    if names[0] not in _bases(family) and type(family).__qualname__ not in names:
        return np.zeros(len(tasks), np.bool_)  # the same numbers mean something else there
    arrays = family.comparable(tasks).arrays
    seen = np.isin(_keys(arrays), keys)
    if rounded:
        alike = {name: _rounded(values, rounded.get(name)) for name, values in arrays.items()}
        seen |= np.isin(_keys(alike), keys)
    return seen


def seen_among(
    family: TaskDistribution,
    tasks: Tasks,
    others: Tasks,
    described: Mapping[str, Any] | None = None,
    any_names: bool = False,
) -> NDArray[np.bool_] | None:
    """True for each of `tasks` that is among `others`, shape (num_tasks,); None if their arrays have other names.

    Args:
        family: the family of `tasks`.
        tasks: in the family's own form.
        others: in any order and any types. Values of less precision, such as those of float32, are compared with it.
        described: the family of `others` as a file names it, if known. Nothing in it is built.
        any_names: compare arrays of other names too, in each order in which their shapes fit.
    """
    own, theirs = family.comparable(tasks), family.comparable(others, described)
    orders: Iterable[tuple[str, ...]] = [tuple(own)] if {*own} == {*theirs} else []
    if any_names and not orders and len([*own]) == len([*theirs]) <= _MOST_NAMES:
        orders = itertools.permutations(theirs)
    seen: NDArray[np.bool_] | None = None
    for order in orders:
        given = [theirs[name] for name in order]
        if all(_same_size(*pair) for pair in zip(own.arrays.values(), given, strict=True)):
            found = _found([own[name] for name in own], given)
            seen = found if seen is None else seen | found
    return seen


def _same_size(own: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """True if a task of both has as many numbers, such as (n,) and (n, 1)."""
    return own[:1].size == theirs[:1].size and theirs.dtype.kind in "iubf"


def _found(own: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> NDArray[np.bool_]:
    """(n,) True for each of own tasks that is among theirs, array by array, but for the rounding of their values."""
    pairs = [_flat(*pair) for pair in zip(own, theirs, strict=True)]
    # Tasks that are alike have sums that are nearly alike; only those are compared number by number.
    weights = [make_seeds(pair[0].shape[1], number) / 2.0**64 + 0.5 for number, pair in enumerate(pairs)]
    sums = [(mine @ weight, given @ weight, allowed @ weight)
            for (mine, given, allowed), weight in zip(pairs, weights, strict=True)]  # fmt: skip
    mine, other, room = (np.sum(parts, axis=0) for parts in zip(*sums, strict=True))
    room = 2 * room + _ROUNDING * np.sum(
        [np.abs(pair[0]) @ weight for pair, weight in zip(pairs, weights, strict=True)], axis=0
    )
    order = np.argsort(other, kind="stable")
    ordered = other[order]
    first, last = np.searchsorted(ordered, mine - room, "left"), np.searchsorted(ordered, mine + room, "right")
    seen = np.zeros(len(mine), np.bool_)
    for row in np.flatnonzero(first < last):
        rows = order[first[row] : last[row]]
        for values, given, allowed in pairs:
            if values.dtype.kind == given.dtype.kind != "f":
                near = given[rows] == values[row]
            else:
                near = np.abs(given[rows].astype(np.float64) - values[row]) <= allowed[row]
            rows = rows[near.all(axis=1)]
        seen[row] = len(rows) > 0
    return seen


def _flat(own: NDArray[Any], theirs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Both arrays as (n, numbers), and how far apart equal values of `own` may be, in the form of `own`."""
    mine, given = own.reshape(len(own), -1), theirs.reshape(len(theirs), -1)
    size = np.abs(mine.astype(np.float64))
    last = 2 * np.finfo(own.dtype).eps if own.dtype.kind == "f" else 0.0  # a step or two of the type's last digit
    allowed = max(_ROUNDING, last) * size
    narrow, decimals = _precision(given) if own.dtype.kind == "f" else (None, 0)
    if narrow is not None:
        about = np.finfo(narrow)
        allowed = allowed + np.maximum(0.501 * about.eps * size, about.smallest_subnormal)
    if decimals:
        allowed = allowed + 0.51 * 10.0**-decimals
    return mine, given, allowed


def _precision(values: NDArray[Any]) -> tuple[np.dtype[Any] | None, int]:
    """The narrowest type, and the fewest decimals, that the values were rounded to; (None, 0) if to neither.

    Values that someone chose, such as 0.5, are exact and not rounded.
    """
    sample = values[:_SAMPLE].astype(np.float32 if values.dtype.itemsize < 4 else values.dtype)
    exact = sample.astype(np.float64)
    if not (np.round(exact, _DECIMALS[0] - 2) != exact).any():
        return None, 0
    with np.errstate(over="ignore"):
        narrow = [np.dtype(kind) for kind in _NARROW if (sample.astype(kind) == sample).all()]
    decimals = [number for number in _DECIMALS if (np.round(sample, number) == sample).all()]
    return narrow[0] if narrow else None, decimals[0] if decimals else 0


def _rounding(values: NDArray[Any]) -> str | int | None:
    """The type, or the number of decimals, that the values lost digits of their own type to; None if to neither."""
    if values.dtype.kind != "f":
        return None
    narrow, decimals = _precision(values)
    if narrow is not None and narrow.itemsize < values.dtype.itemsize:
        return narrow.name
    last_digit = np.spacing(np.abs(values[:_SAMPLE]).max(initial=0))
    return decimals if decimals and 10.0**-decimals > last_digit else None


def _rounded(values: NDArray[Any], how: str | int | None) -> NDArray[Any]:
    """The values after they were stored in a narrower type, or with so many decimals."""
    if values.dtype.kind != "f" or how is None:
        return values
    if isinstance(how, int):
        return np.round(values, how)
    with np.errstate(over="ignore"):
        return values.astype(how).astype(values.dtype)


def _bases(family: TaskDistribution) -> list[str]:
    """The names of the family's class and of the families that it is derived from."""
    return [
        kind.__qualname__
        for kind in type(family).__mro__
        if issubclass(kind, TaskDistribution) and kind is not TaskDistribution
    ]


def _keys(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint64]:
    # Adding 0 makes -0 into 0, which has other bytes.
    return Tasks(
        {name: arrays[name] + 0 if arrays[name].dtype.kind == "f" else arrays[name] for name in sorted(arrays)}
    ).keys()
