"""Task sets: tasks that are evaluated together, and the family that they belong to.

An evaluation has the splits of the experiment's own family, and the sets that `evaluation.tasks` names, whose family
has other parameters: larger rooms, longer episodes, another range of velocities. The tasks of such a set are drawn from
its own family, without those that equal a training or validation task by value, so that a new family is measured and
never a memory. A set does not depend on its name: two sets whose families have the same tasks, such as two strengths of
the wind, get the same ones, and can be compared task by task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_gen.spaces import to_json
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.same import task_keys
from icrl.support.errors import ConfigError

_DRAWS = 4  # draws per wanted task of a family without a list of its tasks; some may repeat


@dataclass(frozen=True)
class TaskSet:
    """Tasks that are evaluated together."""

    name: str
    """Name of the split, or the set's own."""
    family: TaskDistribution
    tasks: Tasks
    changes: dict[str, Any] | None = None
    """Parameters in which the family differs from the experiment's; None for the splits of that family itself."""
    left_out: int = 0
    """Number of tasks that were left out because they equal training or validation tasks."""

    def __len__(self) -> int:
        return len(self.tasks)


def draw_set(
    name: str,
    family: TaskDistribution,
    changes: dict[str, Any],
    own: TaskDistribution,
    known: Sequence[Tasks],
    num_tasks: int,
    seed: int,
) -> TaskSet:
    """Up to `num_tasks` distinct tasks of `family` that do not equal a known task.

    Tasks are compared by the values of their arrays alone, whatever the other parameters of their families: of a larger
    room, the goals are left out that are training goals of the smaller one. Tasks whose arrays have other names or
    shapes are never equal.

    Args:
        name: the set's name, for errors.
        family: the family of the set.
        changes: its parameters that differ from those of `own`.
        own: the experiment's family.
        known: the training and the validation tasks, of `own`.
        num_tasks: number of tasks; all new tasks if there are fewer.
        seed: decides which tasks are taken.

    Raises ConfigError if the family's spaces are not those of `own`, or if no task is new.
    """
    _check_spaces(name, own, family)
    every = family.all_tasks()
    if every is None:
        every = family.sample(_DRAWS * num_tasks, seed)
    else:
        every = every.take(np.random.default_rng(seed).permutation(len(every)))
    keys = task_keys(family, every)
    first = np.sort(np.unique(keys, return_index=True)[1])
    new = first[~np.isin(keys[first], np.concatenate([task_keys(own, tasks) for tasks in known]))]
    left_out, taken = len(first) - len(new), every.take(new[:num_tasks])
    # A family may know that tasks of different values are one, such as two seeds of one layout, if it is the same list.
    for tasks in known:
        if len(taken) and (task_keys(family, tasks) == task_keys(own, tasks)).all():
            repeats = family.among(taken, tasks)
            left_out, taken = left_out + int(repeats.sum()), taken.take(np.flatnonzero(~repeats))
    if not len(taken):
        raise ConfigError(
            f"evaluation.tasks.{name}: all of its {len(first)} tasks equal training or validation tasks by value: make "
            "the set larger, or train on fewer tasks (split.train)"
        )
    return TaskSet(name, family, taken, changes, left_out)


def _check_spaces(name: str, own: TaskDistribution, family: TaskDistribution) -> None:
    """Raises ConfigError if the spaces of the set `name` are not those of the experiment's family."""
    for kind in ("observation_space", "action_space"):
        read, found = (to_json(getattr(each, kind)) for each in (own, family))
        if read == found:
            continue
        advice = "change other parameters"
        if kind == "observation_space" and hasattr(family, "space_size"):
            advice = "give both families the space of the largest room by tasks.space_size, and train with it"
        raise ConfigError(
            f"evaluation.tasks.{name}: its {kind.replace('_', ' ')} is {found}, but the model's is {read}: {advice}"
        )
