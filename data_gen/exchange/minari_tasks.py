"""Which task of a family a Minari data set is of, by what it says of its environment."""

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
"""What builds one task of a family of ours, by the environment's `family` and `task`."""

_NOT_THE_TASKS = ("render_mode",)
"""Arguments of an environment that change nothing that is recorded."""


@dataclass(frozen=True)
class Home:
    """What a data set says of the task that it is of."""

    where: str
    """The data set, for errors."""
    spec: EnvSpec | None
    """Its environment."""
    family: Mapping[str, Any] | None = None
    """The family as a config names it, if `export_minari` wrote the data set."""
    task: Mapping[str, Any] | None = None
    """The task's arrays by name, likewise."""


def locate(tasks: Mapping[str, Any], homes: Sequence[Home]) -> tuple[dict[str, Any], TaskDistribution, Tasks]:
    """The family with all its parameters, built, and each data set's task in it.

    Args:
        tasks: the family as a config names it. Only this is built, never what a data set names.
        homes: of the data sets.

    Raises ConfigError if there is no such family, UserError if a data set's task is not in it or cannot be told.
    """
    if "name" not in tasks:
        raise UserError(f"tasks: {dict(tasks)} has no name; write them as a config does")
    given = [f"{key}={json.dumps(value)}" for key, value in tasks.items() if key != "name"]
    distribution: TaskDistribution = load_tasks(str(tasks["name"]), given)
    family = _complete(tasks)
    found = [_task(family, distribution, home) for home in homes]
    arrays = {}
    for name, example in distribution.sample(1, 0).arrays.items():
        try:
            said = np.array([task[name] for task in found])
            arrays[name] = said.astype(example.dtype)
            if said.shape[1:] != example.shape[1:] or (example.dtype.kind != "f" and (arrays[name] != said).any()):
                raise ValueError(f"expected {example.dtype} of shape {example.shape[1:]}, got {said[0].tolist()}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"tasks: {name}: a data set does not say it as its family does ({error})") from error
    return family, distribution, Tasks(arrays)


def _task(family: dict[str, Any], distribution: TaskDistribution, home: Home) -> Mapping[str, Any]:
    """The task's arrays by name."""
    if home.family is not None and home.task is not None:
        _check_family(family, home.family, home.where)
        return home.task
    if home.spec is None:
        raise UserError(
            f"{home.where}: does not name its environment, so that its task cannot be told; leave out tasks"
        )
    if home.spec.entry_point == ENTRY_POINT:
        said = {key: value for key, value in home.spec.kwargs.items() if key not in ("family", "task", "task_seed")}
        _check_family(family, {"name": home.spec.kwargs.get("family"), **said}, home.where)
        if home.spec.kwargs.get("task") is None:
            raise UserError(f"{home.where}: its environment was made without `task`, so that its task cannot be told")
        task: Mapping[str, Any] = home.spec.kwargs["task"]
        return task
    if isinstance(distribution, GymnasiumTasks):
        return _varied(distribution, home.spec, home.where)
    raise UserError(f"{home.where}: is of {home.spec.id}, not of the tasks {family['name']!r}")


def _check_family(family: dict[str, Any], said: Mapping[str, Any], where: str) -> None:
    """Raises UserError unless both are the same, with all that `said` does not name at its default."""
    same = said.get("name") == family["name"] and all(family.get(key) == value for key, value in said.items())
    with contextlib.suppress(ConfigError, pydantic.ValidationError):  # it may lack what has no default
        if same and _complete(said) == family:
            return
    raise UserError(f"{where}: is of the tasks {dict(said)}, and not of {family}")


def _complete(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """The family with all its parameters, as `info.json` has it."""
    return _plain(TasksComponent.model_validate(dict(tasks)).model_dump(mode="json"))


def _varied(distribution: GymnasiumTasks, spec: EnvSpec, where: str) -> dict[str, Any]:
    """The task whose keyword arguments the environment was made with."""
    env_id = distribution.env_id.rpartition(":")[2]
    if spec.id != env_id:
        raise UserError(f"{where}: is of {spec.id}, and tasks.env_id is {env_id}")
    if distribution.layouts is not None:
        raise UserError(f"{where}: cannot say which of tasks.layouts is its own; leave out tasks")
    made_with = _plain({key: value for key, value in spec.kwargs.items() if key not in _NOT_THE_TASKS})
    task: dict[str, Any] = {}
    for name, given in distribution.vary.items():
        variation, value = parse_variation(name, given), _at(made_with, name, where)
        if isinstance(variation, Choice):
            task[name] = next((place for place in variation.places if _plain(variation.value(place)) == value), None)
        else:
            known = isinstance(value, int | float) and bool(variation.holds(np.array([value]))[0])
            task[name] = value if known else None
        if task[name] is None:
            raise UserError(f"{where}: its {name} is {value!r}, which is not in tasks.vary: {given}")
    expected = {**gymnasium.spec(env_id).kwargs, **distribution.maker(_row(task), 0).kwargs}
    if _plain(expected) != made_with:
        raise UserError(f"{where}: its environment was made with {made_with}, and that task of the family {expected}")
    return task


def _at(made_with: Mapping[str, Any], name: str, where: str) -> Any:
    """The argument `name`, which may be the key of a mapping: `config.lanes_count`."""
    node: Any = made_with
    for key in name.split("."):
        if not isinstance(node, Mapping) or key not in node:
            raise UserError(
                f"{where}: does not say its {name}, which tasks.vary: its environment left it at its default"
            )
        node = node[key]
    return node


def _row(task: Mapping[str, Any]) -> Tasks:
    return Tasks({name: np.array([value]) for name, value in task.items()})


def _plain(value: Any) -> Any:
    """The value as a data set's JSON has it: arrays and tuples as lists."""
    return json.loads(json.dumps(value, default=lambda other: getattr(other, "tolist", lambda: repr(other))()))
