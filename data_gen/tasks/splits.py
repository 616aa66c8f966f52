"""The three sets of tasks of an experiment: training, validation and held-out tasks, which never meet.

The training and held-out tasks are those of the family's own `split`. Validation tasks come beside them: from tasks
that neither set uses, and, where too few are left over and `train` is a fraction, out of the training tasks. So the
held-out tasks are the same for every number of validation tasks.
"""

from typing import NamedTuple

import numpy as np

from data_gen.streams import make_seeds
from data_gen.tasks.arrays import Tasks
from data_gen.tasks.base import TaskDistribution
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError
from icrl.support.terminal import say

_VALIDATION_PART = 10
"""In a finite family, one validation task for so many training tasks: 6 of the demo's 65, enough to tell a run that
learns in its context from one that does not."""

_UNBOUNDED_VALIDATION = 64
"""In an unbounded family, whose tasks cost nothing: the interval of a mean over 64 tasks is an eighth of their spread
on either side."""


class Splits(NamedTuple):
    """The three sets of tasks. The validation tasks may be none."""

    train: Tasks
    validation: Tasks
    test: Tasks


def split_tasks(family: TaskDistribution, train: float, validation: float | None, test: float, seed: int) -> Splits:
    """Disjoint training, validation and held-out tasks; a pure function of the arguments.

    Args:
        family: the task distribution.
        train: number of training tasks; a value below 1 is a fraction of a finite family.
        validation: number or fraction of validation tasks; None is the default of `SplitConfig`.
        test: number or fraction of held-out tasks.
        seed: decides which tasks go to which set.

    Raises ConfigError if the family has too few tasks, or if its `split` does not return two sets.
    """
    trained, held_out = two_sets(family, train, test, seed)
    wanted = validation_count(family, validation, len(trained))
    if not wanted:
        return Splits(trained, trained.take(slice(0)), held_out)
    own_seed = validation_seed(seed)
    fresh = family.more_tasks(trained, held_out, wanted, own_seed)
    if len(fresh) < wanted and train < 1:
        taken, trained = _set_aside(trained, wanted - len(fresh), own_seed)
        fresh = Tasks({name: np.concatenate([fresh[name], taken[name]]) for name in trained})
    if validation is not None and len(fresh) < wanted:
        raise ConfigError(
            f"split.validation {validation}: asks for {wanted} tasks beside {len(trained)} training and "
            f"{len(held_out)} held-out tasks, but {type(family).__name__} has only {len(fresh)} more: lower "
            "split.validation, split.train or split.test"
        )
    # A family may know that tasks of different values are the same, such as two seeds of one layout.
    new = ~(family.among(fresh, trained) | family.among(fresh, held_out))
    if not new.all():
        say(
            f"split: {(~new).sum()} of {len(new)} validation tasks are left out: they repeat training or held-out tasks"
        )
    return Splits(trained, fresh.take(np.flatnonzero(new)), held_out)


def two_sets(family: TaskDistribution, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
    """`family.split`. Raises ConfigError if a family's own method does not return two sets of tasks."""
    sets: object = family.split(train, test, seed)
    if not isinstance(sets, tuple | list) or len(sets) != 2 or not all(isinstance(tasks, Tasks) for tasks in sets):
        raise ConfigError(
            f"tasks: {type(family).__name__}.split returned {type(sets).__name__}: return two Tasks, the training and "
            "the held-out tasks; validation tasks come from `more_tasks`"
        )
    trained, held_out = sets
    return trained, held_out


def validation_seed(seed: int) -> int:
    """The seed that validation tasks are drawn with, below 2^32, as every `sample` takes it."""
    return int(make_seeds(1, seed, Purpose.VALIDATION)[0] >> np.uint64(32))


def validation_count(family: TaskDistribution, validation: float | None, num_train: int) -> int:
    """The number of validation tasks that `split.validation` asks for beside `num_train` training tasks."""
    if validation is not None and (validation == 0 or validation >= 1):
        return int(validation)
    every = family.all_tasks()
    if validation is None:
        return _UNBOUNDED_VALIDATION if every is None else max(1, num_train // _VALIDATION_PART)
    if every is None:
        raise ConfigError(
            f"split.validation {validation}: {type(family).__name__} is unbounded, so a fraction of its tasks is "
            "undefined; give a number of tasks"
        )
    return max(1, int(validation * len(every) + 1e-9))


def _set_aside(trained: Tasks, count: int, seed: int) -> tuple[Tasks, Tasks]:
    """Up to `count` distinct tasks out of `trained`, and the tasks that stay, of which there is at least one."""
    keys = trained.keys()
    distinct, first = np.unique(keys, return_index=True)
    chosen = np.random.default_rng(seed).permutation(len(distinct))[: min(count, len(distinct) - 1)]
    stays = ~np.isin(keys, distinct[chosen])
    return trained.take(np.sort(first[chosen])), trained.take(np.flatnonzero(stays))
