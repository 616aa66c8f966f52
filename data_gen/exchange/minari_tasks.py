"""Finds the task of a Minari data set within a task family, from the environment that the data set names."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pydantic
from gymnasium.envs.registration import EnvSpec

from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from data_gen.tasks.adapted.variation import Choice, parse_variation
from data_gen.tasks.base import TaskDistribution, Tasks
from icrl.config.loader import load_tasks
from icrl.config.sections import TasksComponent
from icrl.support.errors import ConfigError, UserError

ENTRY_POINT = "data_gen.tasks.gym_envs:make_env"
"""Entry point that builds one task of a family of this project, from its arguments `family` and `task`."""

_NOT_THE_TASKS = ("render_mode",)
"""Arguments of an environment that do not affect what is recorded."""


@dataclass(frozen=True)
class Home:
    """A data set's own description of its task."""

    where: str
    """The data set's name in error messages."""
    spec: EnvSpec | None
    """The data set's environment."""
    family: Mapping[str, Any] | None = None
    """The family as a config names it, if `export_minari` wrote the data set."""
    task: Mapping[str, Any] | None = None
    """The task's arrays by name, if `export_minari` wrote the data set."""


def locate(tasks: Mapping[str, Any], homes: Sequence[Home]) -> tuple[dict[str, Any], TaskDistribution, Tasks]:
    """Builds the family and finds each data set's task in it. Returns the complete parameters, the family, the tasks.

    Args:
        tasks: the family as a config names it. Only this family is built, never an environment that a data set names.
        homes: the descriptions of the data sets.

    Raises ConfigError for an unknown family, UserError if a data set's task is not in the family or is unknown.
    """
    if "name" not in tasks:
        raise UserError(f"tasks: {dict(tasks)} has no name; write the tasks as in a config")
    given = [f"{key}={json.dumps(value)}" for key, value in tasks.items() if key != "name"]
    distribution: TaskDistribution = load_tasks(str(tasks["name"]), given)
    family = _complete(tasks)
    located = [_task(family, distribution, home) for home in homes]
    # The stated values in the family's types. Only floats may change in the conversion, by rounding.
    arrays = {}
    for name, example in distribution.sample(1, 0).arrays.items():
        try:
            stated = np.array([task[name] for task in located])
            arrays[name] = stated.astype(example.dtype)
            if stated.shape[1:] != example.shape[1:] or (example.dtype.kind != "f" and (arrays[name] != stated).any()):
                raise ValueError(f"expected {example.dtype} of shape {example.shape[1:]}, got {stated[0].tolist()}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"tasks: {name}: the value in a data set does not fit the family ({error})") from error
    return family, distribution, Tasks(arrays)


def _task(family: dict[str, Any], distribution: TaskDistribution, home: Home) -> Mapping[str, Any]:
    """The arrays of the described task by name. Raises UserError if the task is not in the family or is unknown."""
    if home.family is not None and home.task is not None:
        _check_family(family, home.family, home.where)
        return home.task
    if home.spec is None:
        raise UserError(f"{home.where}: does not name its environment, so its task is unknown; leave out tasks")
    if home.spec.entry_point == ENTRY_POINT:
        stated = {key: value for key, value in home.spec.kwargs.items() if key not in ("family", "task", "task_seed")}
        _check_family(family, {"name": home.spec.kwargs.get("family"), **stated}, home.where)
        if home.spec.kwargs.get("task") is None:
            raise UserError(f"{home.where}: its environment was made without `task`, so its task is unknown")
        task: Mapping[str, Any] = home.spec.kwargs["task"]
        return task
    if isinstance(distribution, GymnasiumTasks):
        return _varied(distribution, home.spec, home.where)
    raise UserError(f"{home.where}: its environment {home.spec.id} is not in the task family {family['name']!r}")


def _check_family(family: dict[str, Any], stated: Mapping[str, Any], where: str) -> None:
    """Raises UserError unless both families are the same; parameters missing in `stated` have their defaults."""
    same = stated.get("name") == family["name"] and all(family.get(key) == value for key, value in stated.items())
    with contextlib.suppress(ConfigError, pydantic.ValidationError):  # a parameter without a default may be missing
        if same and _complete(stated) == family:
            return
    raise UserError(f"{where}: its tasks are {dict(stated)}, not {family}")


def _complete(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """The family with all its parameters, as in `info.json`."""
    return _plain(TasksComponent.model_validate(dict(tasks)).model_dump(mode="json"))


def _varied(distribution: GymnasiumTasks, spec: EnvSpec, where: str) -> dict[str, Any]:
    """The task of a `gymnasium` family whose keyword arguments the environment was made with.

    Raises UserError if the family does not contain that task.
    """
    env_id = distribution.env_id.rpartition(":")[2]
    if spec.id != env_id:
        raise UserError(f"{where}: its environment is {spec.id}, but tasks.env_id is {env_id}")
    if distribution.layouts is not None:
        raise UserError(f"{where}: its layout cannot be found in tasks.layouts; leave out tasks")
    made_with = _plain({key: value for key, value in spec.kwargs.items() if key not in _NOT_THE_TASKS})
    # find the value of every varied argument
    task: dict[str, Any] = {}
    for name, given in distribution.vary.items():
        variation, value = parse_variation(name, given), _at(made_with, name, where)
        if isinstance(variation, Choice):
            task[name] = next((index for index in variation.places if _plain(variation.value(index)) == value), None)
        else:
            known = isinstance(value, int | float) and bool(variation.holds(np.array([value]))[0])
            task[name] = value if known else None
        if task[name] is None:
            raise UserError(f"{where}: its {name} is {value!r}, which is not in tasks.vary: {given}")
    # the remaining arguments have to be the family's own
    expected = {**gymnasium.spec(env_id).kwargs, **distribution.maker(_row(task), 0).kwargs}
    if _plain(expected) != made_with:
        raise UserError(f"{where}: its environment was made with {made_with}, but the family's with {expected}")
    return task


def _at(made_with: Mapping[str, Any], name: str, where: str) -> Any:
    """The argument `name`. A dotted name leads into nested mappings: `config.lanes_count`."""
    node: Any = made_with
    for key in name.split("."):
        if not isinstance(node, Mapping) or key not in node:
            raise UserError(f"{where}: its environment does not set {name}, which is in tasks.vary; leave out tasks")
        node = node[key]
    return node


def _row(task: Mapping[str, Any]) -> Tasks:
    return Tasks({name: np.array([value]) for name, value in task.items()})


def _plain(value: Any) -> Any:
    """The value as JSON in a data set stores it: arrays and tuples as lists."""
    return json.loads(json.dumps(value, default=lambda other: getattr(other, "tolist", lambda: repr(other))()))
