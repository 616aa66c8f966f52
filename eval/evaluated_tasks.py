"""The tasks of an evaluation, by split and task set, and how many of them the evaluated model has met in training."""

from pathlib import Path
from typing import Any, NamedTuple

from data_gen.experiment import Experiment
from data_gen.spaces import to_json
from data_gen.tasks.base import Tasks
from data_gen.tasks.same import seen_in_record
from data_gen.tasks.sets import TaskSet
from eval.summary import SPLIT_TITLES
from icrl.support.errors import ConfigError
from icrl.support.files import read_json


def evaluated_tasks(experiment: Experiment) -> dict[str, Tasks]:
    """The tasks that are evaluated, by split: held-out ones first, then validation and training tasks.

    A split without tasks is left out. Raises ConfigError if the config asks for validation tasks and there are none.
    """
    settings = experiment.config.evaluation
    counts = {"test": settings.test_tasks, "validation": settings.validation_tasks, "train": settings.train_tasks}
    if settings.validation_tasks and not len(experiment.validation_tasks):
        raise ConfigError(
            f"evaluation.validation_tasks: {settings.validation_tasks}, but the split has no validation tasks: give "
            "split.validation a number, beside a smaller split.train"
        )
    asked = {
        "test": lambda: experiment.test_tasks,
        "validation": lambda: experiment.validation_tasks,
        "train": lambda: experiment.train_tasks,
    }
    return {split: asked[split]().take(slice(count)) for split, count in counts.items() if count}


def evaluated_sets(experiment: Experiment) -> list[TaskSet]:
    """Everything that is evaluated: the splits, and the sets of `evaluation.tasks`.

    Raises ConfigError for a set that cannot be evaluated with this model.
    """
    splits = evaluated_tasks(experiment)
    return [*(TaskSet(name, experiment.family, tasks) for name, tasks in splits.items()), *experiment.task_sets]


class Seen(NamedTuple):
    """Numbers of held-out tasks that the evaluated model has met; None if it has no record of its tasks."""

    trained: int | None
    """Those that it was trained on."""
    chosen: int | None
    """Those that were its validation tasks, by which its checkpoint or its settings may have been chosen."""
    in_sets: dict[str, int | None]
    """By task set, the number of its tasks that the model was trained on."""


def seen_tasks(experiment: Experiment, path: Path) -> Seen:
    """How many of the held-out tasks the model at `path` was trained on, or had as validation tasks.

    Raises ConfigError if there are any, or if it was trained on validation tasks that are evaluated, unless
    `evaluation.allow_seen_tasks`.
    """
    config, splits = experiment.config, evaluated_tasks(experiment)
    record, chosen_record = _records_of_tasks(experiment, path)
    if record is None and config.evaluation.given is None and config.data.given is None:
        # A checkpoint of this run without a record: the split keeps its own tasks apart, but not those of other sets.
        return Seen(0, 0, {each.name: None for each in experiment.task_sets})
    family = experiment.family
    trained = {split: seen_in_record(family, tasks, record) for split, tasks in splits.items() if split != "train"}
    chosen = seen_in_record(family, splits["test"], chosen_record) if "test" in splits else 0
    in_sets = {each.name: seen_in_record(each.family, each.tasks, record) for each in experiment.task_sets}
    met = [
        (trained.get("test"), "was trained on", "test"),
        (chosen, "had as validation tasks", "test"),
        (trained.get("validation"), "was trained on", "validation"),
        *((count, "was trained on", name) for name, count in in_sets.items()),
    ]
    sizes = {each.name: len(each) for each in evaluated_sets(experiment)}
    for count, how, name in met:
        if count and not config.evaluation.allow_seen_tasks:
            raise ConfigError(
                f"evaluation.checkpoint: {path}: the model {how} {count} of the {sizes[name]} "
                f"{SPLIT_TITLES.get(name, name)} tasks: give the seed and the split that it was trained with, or "
                "--allow-seen-tasks to evaluate it all the same"
            )
    return Seen(trained.get("test", 0), chosen, in_sets)


def _records_of_tasks(experiment: Experiment, path: Path) -> tuple[Any, Any]:
    """The records of the training and the validation tasks of the model at `path`; None where it has none."""
    if not (path / "config.json").exists():
        return None, None
    content = read_json(path / "config.json", "use another checkpoint, or train again")
    own = to_json(experiment.family.observation_space)
    if not isinstance(content, dict) or content.get("observation_space") != own:  # other spaces are refused later
        return None, None
    return content.get("training_tasks"), content.get("validation_tasks")
