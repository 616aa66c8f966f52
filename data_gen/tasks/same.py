"""Which tasks are the same, by their values in the family's own names and types.

Arrays from elsewhere may hold the same tasks in another form: in another order, as float32 or int32, or as places in
another list of choices.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.tasks.base import TaskDistribution, Tasks


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
    return _keys(dict(family.comparable(tasks).arrays))


def training_tasks_record(family: TaskDistribution, tasks: Tasks) -> dict[str, Any]:
    """A compact record of a model's training tasks, as plain values: their keys, 8 bytes each."""
    keys = np.unique(task_keys(family, tasks)).astype("<u8")
    return {"family": type(family).__qualname__, "keys": base64.b64encode(keys.tobytes()).decode()}


def seen_in_record(family: TaskDistribution, tasks: Tasks, record: Any) -> int | None:
    """How many of `tasks` are in a record of training tasks, which may come from anywhere; None if it is not one."""
    try:
        if not isinstance(record["family"], str):
            return None
        keys = np.frombuffer(base64.b64decode(record["keys"], validate=True), "<u8")
    except (TypeError, KeyError, ValueError):
        return None
    if record["family"] != type(family).__qualname__:
        return 0  # the same numbers mean something else there
    return int(np.isin(task_keys(family, tasks), keys).sum())


def seen_among(
    family: TaskDistribution, tasks: Tasks, others: Tasks, described: Mapping[str, Any] | None = None
) -> NDArray[np.bool_] | None:
    """True for each of `tasks` that is among `others`, shape (num_tasks,); None if their arrays have other names.

    Args:
        family: the family of `tasks`.
        tasks: in the family's own form.
        others: in any order and any types. A type of less precision, such as float32, rounds both.
        described: the family of `others` as a file names it, if known. Nothing in it is built.
    """
    own, theirs = family.comparable(tasks), family.comparable(others, described)
    if {*own} != {*theirs} or any(own[name].shape[1:] != theirs[name].shape[1:] for name in own):
        return None
    pairs = {name: _alike(own[name], theirs[name]) for name in own}
    return np.isin(_keys({name: pair[0] for name, pair in pairs.items()}), _keys({n: p[1] for n, p in pairs.items()}))


def _alike(own: NDArray[Any], theirs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both arrays in a type that both can be compared in: the coarsest float among the two, else the larger integer."""
    floats = [values.dtype for values in (own, theirs) if values.dtype.kind == "f"]
    if floats:
        dtype = min(floats, key=lambda each: each.itemsize)
    else:
        dtype = own.dtype if own.dtype == theirs.dtype else np.result_type(own.dtype, theirs.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        return own.astype(dtype), theirs.astype(dtype)


def _keys(arrays: dict[str, NDArray[Any]]) -> NDArray[np.uint64]:
    # Adding 0 makes -0 into 0, which has other bytes.
    return Tasks(
        {name: arrays[name] + 0 if arrays[name].dtype.kind == "f" else arrays[name] for name in sorted(arrays)}
    ).keys()
