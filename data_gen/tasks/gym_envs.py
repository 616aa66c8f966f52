"""Every task distribution as registered Gymnasium environments, scalar and vector."""

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.vector import TaskEnv
from icrl.config.components import TASKS, find_component
from icrl.support.errors import UserError


def register(env_id: str, family: str, **params: Any) -> None:
    """Registers `family` with Gymnasium by strings, so that nothing is imported before an environment is made."""
    gymnasium.register(
        env_id,
        entry_point="data_gen.tasks.gym_envs:make_env",
        vector_entry_point="data_gen.tasks.gym_envs:make_vector_env",
        kwargs={"family": family, **params},
    )


def make_env(family: str, task: dict[str, Any] | None = None, task_seed: int = 0, **params: Any) -> TaskEnv:
    """Entry point of the registered scalar environments.

    Args:
        family: name of a task distribution; `params` are its parameters.
        task: one task as a mapping from names to values, such as {"goal": (2, 3)}; by default, a task drawn with
            `task_seed`.
    """
    rows = None if task is None else {name: [value] for name, value in task.items()}
    return TaskEnv(make_vector_env(1, family, rows, task_seed, **params))


def make_vector_env(
    num_envs: int, family: str, tasks: dict[str, Any] | None = None, task_seed: int = 0, **params: Any
) -> VectorEnv[Any, Any, Any]:
    """Entry point of the registered vector environments.

    Args:
        num_envs: number of slots.
        family: name of a task distribution; `params` are its parameters.
        tasks: one task per slot, as a mapping from names to arrays with a leading slot axis; by default, tasks drawn
            with `task_seed`.

    Raises UserError if `tasks` has wrong names, shapes or types, and TypeError for an unknown parameter.
    """
    cls = find_component(family, TASKS)
    unknown = params.keys() - {field.name for field in dataclasses.fields(cls)}
    if unknown:  # a TypeError as in Gymnasium: callers that try `render_mode` then retry without
        raise TypeError(f"{family!r} has no parameter {min(unknown)!r}")
    distribution: TaskDistribution = cls(**params)
    sampled: Tasks = distribution.sample(num_envs, task_seed)
    if tasks is None:
        return distribution.make_vec(sampled)
    given = {name: _as_given(name, tasks[name], sampled[name].dtype) for name in sampled if name in tasks}
    wrong = set(tasks) ^ set(sampled) or [name for name in given if given[name].shape != sampled[name].shape]
    if wrong:
        expected = {name: sampled[name].shape for name in sampled}
        raise UserError(f"tasks of {family!r} are arrays of shapes {expected}; check {', '.join(sorted(wrong))}")
    return distribution.make_vec(Tasks(given))


def _as_given(name: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The value in the family's data type. Raises UserError if the conversion would change the value."""
    try:
        plain = np.asarray(value)
        array = plain.astype(dtype)
        same = bool((array == plain).all()) or dtype.kind == "f"
    except (TypeError, ValueError):
        same = False
    if not same:
        raise UserError(f"tasks: {name} must be numbers of type {dtype} (got {value!r})")
    return array
