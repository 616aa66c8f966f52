"""Components: task distributions, agents and objectives, named in a config and built from its parameters.

A component is a dataclass whose fields are its parameters. The class that uses them is also the only place that
declares their types, ranges and defaults:

    @component
    class QLearning(Agent):
        step_size: Annotated[float, Field(gt=0, le=1)] = 0.5

A config names the component: `{name: q_learning, step_size: 0.3}`. The tables below map names to classes, given as
strings, so that reading a config imports only the classes that it uses. Your own class does not need an entry:
`name: my_module:MyClass`.
"""

import dataclasses
import importlib
import importlib.util
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform

import pydantic
import pydantic.dataclasses

from icrl.support.errors import ConfigError, did_you_mean, shown

TASKS = {
    "acrobot": "data_gen.tasks.control.acrobot:Acrobot",
    "ant": "data_gen.tasks.mujoco.ant:Ant",
    "bandit": "data_gen.tasks.tabular.bandit:Bandit",
    "cart_pole": "data_gen.tasks.control.cart_pole:CartPole",
    "dark_key_to_door": "data_gen.tasks.grids.dark_key_to_door:DarkKeyToDoor",
    "dark_room": "data_gen.tasks.grids.dark_room:DarkRoom",
    "grid_navi": "data_gen.tasks.grids.grid_navi:GridNavi",
    "gymnasium": "data_gen.tasks.adapted.gym_adapter:GymnasiumTasks",
    "half_cheetah": "data_gen.tasks.mujoco.half_cheetah:HalfCheetah",
    "hopper": "data_gen.tasks.mujoco.hopper:Hopper",
    "meta_world": "data_gen.tasks.adapted.meta_world:MetaWorld",
    "pendulum": "data_gen.tasks.control.pendulum:Pendulum",
    "pixels": "data_gen.tasks.grids.pixels:Pixels",
    "point_navigation": "data_gen.tasks.points.point_navigation:PointNavigation",
    "sparse_point_robot": "data_gen.tasks.points.sparse_point_robot:SparsePointRobot",
    "tabular_mdp": "data_gen.tasks.tabular.tabular_mdp:TabularMDP",
    "walker2d": "data_gen.tasks.mujoco.walker2d:Walker2d",
    "water_maze": "data_gen.tasks.points.water_maze:WaterMaze",
    "windy_room": "data_gen.tasks.grids.windy_room:WindyRoom",
}

AGENTS = {
    "a2c": "data_gen.agents.deep.a2c:A2C",
    "actor_critic": "data_gen.agents.tabular.actor_critic:ActorCritic",
    "bandit_epsilon_greedy": "data_gen.agents.bandits.epsilon_greedy:EpsilonGreedy",
    "beb": "data_gen.agents.tabular.beb:BEB",
    "dqn": "data_gen.agents.deep.dqn:DQN",
    "epsilon_annealed": "data_gen.agents.epsilon_annealed:EpsilonAnnealed",
    "gittins": "data_gen.agents.bandits.gittins:Gittins",
    "maml": "data_gen.meta.maml.maml:MAML",
    "mdp_epsilon_greedy": "data_gen.agents.tabular.epsilon_greedy:EpsilonGreedy",
    "opsrl": "data_gen.agents.tabular.psrl:OPSRL",
    "optimal": "data_gen.agents.optimal:Optimal",
    "optimistic_thompson": "data_gen.agents.bandits.thompson:OptimisticThompson",
    "pearl": "data_gen.meta.pearl.pearl:PEARL",
    "ppo": "data_gen.agents.deep.ppo:PPO",
    "psrl": "data_gen.agents.tabular.psrl:PSRL",
    "q_learning": "data_gen.agents.tabular.q_learning:QLearning",
    "random": "data_gen.agents.random:Random",
    "rl2": "data_gen.meta.rl2.rl2:RL2",
    "sac": "data_gen.agents.deep.sac:SAC",
    "sarsa": "data_gen.agents.tabular.sarsa:Sarsa",
    "thompson": "data_gen.agents.bandits.thompson:Thompson",
    "ucb1": "data_gen.agents.bandits.ucb1:UCB1",
    "ucrl2": "data_gen.agents.tabular.ucrl2:UCRL2",
}


def _objectives() -> dict[str, str]:
    """The table of objectives, one per file of `ad_model/objectives/`: `q_learning.py` has the class `QLearning`.

    The package is located without importing it, since the import takes seconds.
    """
    package = importlib.util.find_spec("ad_model")
    folder = Path(package.submodule_search_locations[0]) / "objectives" if package else Path()  # type: ignore[index]
    names = sorted(path.stem for path in folder.glob("[a-z]*.py") if path.stem != "base")
    return {name: f"ad_model.objectives.{name}:{name.title().replace('_', '')}" for name in names}


OBJECTIVES = _objectives()

Class = TypeVar("Class", bound=type)


@dataclass_transform(field_specifiers=(pydantic.Field,))
def component(cls: Class) -> Class:
    """Makes `cls` a dataclass that validates its arguments: a wrong type, range or name raises at construction."""
    cls._true_is_not_one = pydantic.field_validator("*", mode="before")(classmethod(_true_is_not_one))  # type: ignore[attr-defined]
    decorate: Callable[[Any], Any] = pydantic.dataclasses.dataclass(
        config=pydantic.ConfigDict(
            extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, use_attribute_docstrings=True
        )
    )
    decorated: Class = decorate(cls)
    return decorated


def _true_is_not_one(cls: Any, value: Any, info: pydantic.ValidationInfo) -> Any:
    """Refuses true and false for a parameter that is a number; pydantic reads them as 1 and 0."""
    if isinstance(value, bool) and not allows_bool(cls.__pydantic_fields__[info.field_name].annotation):
        raise ValueError("is true or false, but must be another kind of value")
    return value


def allows_bool(annotation: Any) -> bool:
    """True if `true` is a value that the annotation names: `bool`, a Literal with it, or Any."""
    if typing.get_origin(annotation) is typing.Literal:
        return any(isinstance(choice, bool) for choice in typing.get_args(annotation))
    return annotation in (bool, Any) or any(allows_bool(part) for part in typing.get_args(annotation))


def find_component(name: str, table: dict[str, str]) -> type:
    """The class that `name` stands for: an entry of `table`, or any importable `module:Class`.

    Raises ConfigError, with the nearest valid name, if the class does not exist.
    """
    target = table.get(name, name)
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise ConfigError(f"unknown name {shown(name)}{did_you_mean(name, table)} (or give your own as module:Class)")
    try:
        cls: Any = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # the user's own module may raise anything
        raise ConfigError(
            f"cannot import {shown(target)}: {type(error).__name__}: {shown(error, quoted=False)}"
        ) from error
    if not (isinstance(cls, type) and pydantic.dataclasses.is_pydantic_dataclass(cls)):
        raise ConfigError(f"{target!r} is not a component: decorate the class with @icrl.component")
    return cast(type, cls)


def parameters(built: Any) -> dict[str, Any]:
    """The parameters of a component instance, defaults included, as plain values."""
    return {field.name: getattr(built, field.name) for field in dataclasses.fields(built) if field.init}
