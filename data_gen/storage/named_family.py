"""The task family that a data folder names, built only if that can run no code of the folder's choice.

A data folder may come from anywhere, and a family can name any code: `{name: module:Class}`, `{name: gymnasium, vary:
{x: {call: "module:function"}}}`, `{name: pixels, of: {name: module:Class}}`. So a family is built if the run's own
config names it with the same parameters. Otherwise, it is built only if it is one of `PLAIN` families and every
parameter, however deeply nested, is a plain number or word, and if its cost is bounded.
"""

import json
import math
import re
from typing import Any

import pydantic

from data_gen.spaces import json_leaves, to_json
from data_gen.storage.folder import check_task_files
from data_gen.storage.info import DataInfo
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.same import in_form
from icrl.config.components import TASKS, find_component
from icrl.run.folder import TASK_FILES, RunFolder, config_text
from icrl.support.errors import UserError
from icrl.support.yaml12 import YAMLFault, read_yaml

PLAIN = (
    *("acrobot", "ant", "bandit", "cart_pole", "dark_key_to_door", "dark_room", "grid_navi", "half_cheetah", "hopper"),
    *("pendulum", "pixels", "point_navigation", "sparse_point_robot", "tabular_mdp", "walker2d", "water_maze"),
    "windy_room",
)
"""Families whose parameters, if plain, cannot name code or files. `gymnasium` and `meta_world` can."""

_WORD = re.compile(r"[\w -]{0,64}")
_LARGEST_NUMBER = 2**16
_MOST_ITEMS = 64  # in a list or mapping of parameters
_MOST_WORK = 2 * 10**10  # multiplications to follow a random walk over all cells; 4 * 10**9 take a second
_MOST_STEPS = 2 * 10**8  # simulated steps of the random policy
_MOST_ROUNDS = 2**17  # steps of all slots at once; 20,000 take a second
_RANDOM_EPISODES, _RANDOM_SLOTS, _SLOTS_AT_ONCE = 256, 32, 2**14  # of `TaskDistribution.random_estimate`


def named_family(folder: RunFolder, info: DataInfo) -> tuple[TaskDistribution, Tasks, bool] | None:
    """The family that complete data names, and the data's tasks; None if it is unknown or may not be built.

    The last value is True if the run's own config names the family.

    Raises UserError if the file of tasks differs from its checksum.
    """
    path = folder.data / TASK_FILES[0]
    check_task_files(folder.data, info, TASK_FILES[0])
    if info.tasks is None or not path.exists():
        return None
    if folder.own_data is None and folder.config.exists():
        own = _own_tasks(folder)
        if own is None or not same_tasks(own, info.tasks):
            return None
        return _build(own), Tasks.load(path), True
    if not is_plain(info.tasks):
        return None
    try:
        family = _build(info.tasks)
        tasks = in_form(family, Tasks.load(path))
        known = tasks is not None and len(tasks) == info.num_train_tasks and _fits(family, info, len(tasks))
        return (family, tasks, False) if known and tasks is not None else None
    except (UserError, pydantic.ValidationError, ValueError, TypeError, ArithmeticError, LookupError):
        return None  # parameters of another version, or nonsense: the scale is unknown


def same_tasks(own: dict[str, Any], named: Any) -> bool:
    """True if a file names the family `own`, a config's tasks as plain values, with no other parameters."""
    if not isinstance(named, dict) or "name" not in named:
        return False
    return all(key in own and own[key] == value for key, value in named.items())


def is_plain(tasks: Any) -> bool:
    """True if building these tasks, from anywhere, runs only code of this project: a `PLAIN` family of plain values."""
    if not isinstance(tasks, dict) or tasks.get("name") not in PLAIN or len(tasks) > _MOST_ITEMS:
        return False
    return all(_is_plain_value(value) for key, value in tasks.items() if key != "name")


def _is_plain_value(value: Any, depth: int = 0) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= _LARGEST_NUMBER
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if depth > 2 or not isinstance(value, list | dict) or len(value) > _MOST_ITEMS:
        return False
    if isinstance(value, list):
        return all(_is_plain_value(item, depth + 1) for item in value)
    # A mapping with a name, or with one in `params`, is a component, which is plain only if it is a plain family.
    if {"name", "params", "call"} & value.keys():
        return "params" not in value and is_plain(value)
    return all(isinstance(key, str) and _is_plain_value(item, depth + 1) for key, item in value.items())


def _own_tasks(folder: RunFolder) -> dict[str, Any] | None:
    """The tasks of the run's own config as plain values; None if the config is not YAML.

    Raises UserError if the config differs from its checksum.
    """
    try:
        own = read_yaml(config_text(folder.config))
    except YAMLFault:
        return None
    tasks = own.get("tasks") if isinstance(own, dict) else None
    return json.loads(json.dumps(tasks, default=str)) if isinstance(tasks, dict) and "name" in tasks else None


def _build(tasks: dict[str, Any]) -> TaskDistribution:
    family: TaskDistribution = find_component(tasks["name"], TASKS)(
        **{key: value for key, value in tasks.items() if key != "name"}
    )
    return family


def _fits(family: TaskDistribution, info: DataInfo, num_tasks: int) -> bool:
    """True if the family has the data's spaces and episodes, and its random return is found in bounded time."""
    if family.episode_length != info.episode_length or family.episode_length > info.history_steps:
        return False
    cells = 1
    for leaf in json_leaves(to_json(family.observation_space)).values():
        cells *= int(leaf.get("n", 1)) * math.prod(_flat(leaf.get("nvec", 1)))
    if cells**2 * family.episode_length * min(num_tasks, cells) > _MOST_WORK:
        return False
    rounds = _RANDOM_EPISODES // _RANDOM_SLOTS * family.episode_length
    if _RANDOM_EPISODES * family.episode_length * num_tasks > _MOST_STEPS:
        return False
    if rounds * -(-num_tasks * _RANDOM_SLOTS // _SLOTS_AT_ONCE) > _MOST_ROUNDS:
        return False
    return (to_json(family.observation_space), to_json(family.action_space)) == (
        info.observation_space,
        info.action_space,
    )


def _flat(values: Any) -> list[int]:
    return [number for value in values for number in _flat(value)] if isinstance(values, list) else [int(values)]
