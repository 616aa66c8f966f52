"""The split of given data: the data's own files of tasks say which tasks are training, validation and held-out tasks.

Files from elsewhere are not believed. They count only if the data names the very tasks of the config, if they hold
tasks of that family, as many as the record states, and if no two of the three sets meet.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.storage.folder import load_tasks
from data_gen.storage.info import DataInfo
from data_gen.storage.named_family import same_tasks
from data_gen.tasks.arrays import Tasks
from data_gen.tasks.base import TaskDistribution
from data_gen.tasks.same import in_form, seen_among
from data_gen.tasks.splits import Splits, validation_count, validation_seed
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import INFO, TASK_FILES
from icrl.support.errors import UserError
from icrl.support.terminal import say


def plain_tasks(config: ExperimentConfig) -> dict[str, Any]:
    """The config's tasks as a file holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(config.tasks.model_dump(mode="json")))
    return plain


def split_of_data(config: ExperimentConfig, family: TaskDistribution, folder: Path, info: DataInfo) -> Splits | None:
    """The split of the data in `folder`; None if the data does not say it: other tasks, or a file of them is missing.

    Data of earlier versions has no validation tasks: they are the ones that its training and held-out tasks leave over,
    the same for every run on the data, and may be none.

    Args:
        config, family: the experiment's config and its task distribution.
        folder: the data folder.
        info: its record.

    Raises UserError if two sets of tasks meet, or if a file differs from the record.
    """
    if not same_tasks(plain_tasks(config), info.tasks):
        return None
    stored = [load_tasks(folder, info, name) for name in TASK_FILES]
    train, validation, test = (None if tasks is None else in_form(family, tasks) for tasks in stored)
    if not train or not test or (validation is None and stored[1] is not None):
        return None
    stated = (info.num_train_tasks, info.num_validation_tasks, info.num_test_tasks)
    for name, tasks, number in zip(TASK_FILES, (train, validation, test), stated, strict=True):
        if tasks is not None:
            _check_tasks(family, tasks, number, folder / name)
    if validation is None:
        count = 0 if info.num_validation_tasks == 0 else validation_count(family, None, len(train))
        seed = next(seed for seed in (info.split_seed, info.seed, 0) if seed is not None)
        validation = family.more_tasks(train, test, count, validation_seed(abs(seed)))
        validation = validation.take(np.flatnonzero(~_met(family, validation, (train, test))))
    splits = Splits(train, validation, test)
    _check_apart(family, splits, folder)
    return splits


def without_tasks_of_data(family: TaskDistribution, splits: Splits, folder: Path, info: DataInfo) -> Splits:
    """The config's `splits` without the validation tasks that given data comes from, and says how many these are."""
    trained = load_tasks(folder, info, TASK_FILES[0])
    if trained is None or not len(splits.validation):
        return splits
    met = seen_among(family, splits.validation, trained, info.tasks, any_names=info.tasks is None)
    if met is None or not met.any():
        return splits
    say(f"split: {met.sum()} of {len(met)} validation tasks are left out: the given data comes from them")
    return splits._replace(validation=splits.validation.take(np.flatnonzero(~met)))


def _check_tasks(family: TaskDistribution, tasks: Tasks, stated: int | None, path: Path) -> None:
    """Raises UserError if the tasks of a file are not as many as its record states, or are not of the family."""
    if stated is not None and len(tasks) != stated:
        raise UserError(f"{path}: has {len(tasks)} tasks, but its {INFO} states {stated}; get the data again")
    every = family.all_tasks()
    foreign = ~np.all([np.isfinite(tasks[name].reshape(len(tasks), -1)).all(axis=1) for name in tasks], axis=0)
    if every is not None:
        foreign |= ~np.isin(family.comparable(tasks).keys(), family.comparable(every).keys())
    if foreign.any():
        raise UserError(
            f"{path}: {foreign.sum()} of its {len(tasks)} tasks are not tasks of {type(family).__name__}; get other "
            "data, or give split and seeds.split in the config"
        )


def _check_apart(family: TaskDistribution, splits: Splits, folder: Path) -> None:
    """Raises UserError if two of the three sets of given data have a task in common."""
    for what, tasks, others in (
        ("held-out tasks are among its training", splits.test, splits.train),
        ("validation tasks are among its training", splits.validation, splits.train),
        ("validation tasks are among its held-out", splits.validation, splits.test),
    ):
        met = int(_met(family, tasks, (others,)).sum())
        if met:
            raise UserError(
                f"data: {folder}: {met} of its {len(tasks)} {what} tasks, so its split is not used; get other data, or "
                "give split and seeds.split in the config"
            )


def _met(family: TaskDistribution, tasks: Tasks, sets: tuple[Tasks, ...]) -> NDArray[np.bool_]:
    """True for each of `tasks` that is in one of the sets, also if it was rounded on the way, shape (num_tasks,)."""
    met = np.zeros(len(tasks), np.bool_)
    for others in sets if len(tasks) else ():
        seen = seen_among(family, tasks, others)
        met |= family.among(tasks, others) | (seen if seen is not None else False)
    return met
