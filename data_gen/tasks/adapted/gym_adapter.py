"""Any Gymnasium environment as a task distribution: an id, and what differs between its tasks."""

import copy
import difflib
import functools
import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.typing import NDArray
from pydantic import Field

from data_gen.spaces import storage_type, to_json
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.adapted.block import Space, check_space, closed, made
from data_gen.tasks.adapted.process_vector import SLOTS_AT_ONCE, ExpertProcessVectorEnv, ProcessVectorEnv
from data_gen.tasks.adapted.variation import Choice, Variation, find_attribute, parse_variation
from data_gen.tasks.base import TaskDistribution, Tasks, sample_actions, simulated_random_return
from icrl.config.components import component
from icrl.support.errors import UserError, did_you_mean

_LAYOUT = "layout"
"""The array that holds a task's layout, beside those of the varied keywords."""

_OURS = {
    "max_episode_steps": "give episode_length",
    "render_mode": "leave it out",
    "disable_env_checker": "leave it out",
}
"""Arguments of gymnasium.make that are not the environment's, and what to do instead."""

_RANDOM_RETURN_EPISODES = 8
"""A task; scalar environments are a thousand times slower than the families whose random return takes 256."""


@component
class GymnasiumTasks(TaskDistribution):
    """Tasks made out of any Gymnasium environment, registered by Gymnasium, by a package, or by a module of your own.

    ## Description
    A task is a choice of keyword arguments for `gymnasium.make`, of a layout, or of both:

        tasks:
          name: gymnasium
          env_id: minigrid:MiniGrid-FourRooms-v0
          layouts: 500
          episode_length: 100
          wrappers: [{name: FilterObservation, filter_keys: [direction, image]}]

    Every slot has an environment of its own, and a few processes step them (`data_gen.tasks.adapted.process_vector`). An
    environment, or a wrapper, that has a method `optimal_action()` can be a source's expert.

    ## Action Space
    The environment's: Discrete, MultiDiscrete, MultiBinary or Box.

    ## Observation Space
    The environment's after `wrappers`, the same for all tasks: Discrete, MultiDiscrete, MultiBinary, Box, or a Dict or
    Tuple of these. Whatever else there is (MiniGrid's mission is a text) a wrapper has to leave out.

    ## Starting State
    The environment's. With `layouts`, `reset(seed=layout)` at every episode of the task; what is drawn after that goes
    on from the slot's own generator, so the layout is the task's and slips and moving obstacles are the episode's.

    ## Rewards
    The environment's.

    ## Episode End
    The environment's, and truncation after `episode_length` steps, counted outside the wrappers.

    ## Arguments
    - `env_id`: `CartPole-v1`; `package:Id-v0` imports the package first, which then registers it.
    - `kwargs`: keyword arguments for all tasks.
    - `vary`: what differs between tasks, by keyword: `{low: , high: }` for a range (of integers, both ends included, if
      both ends are integers; `log: true` for a log-uniform one), a list of values, or `{call: "module:function",
      seeds: n, ...}` for the list of what the function gives for `seed=0 ... n-1` and the other arguments given here,
      without repeats. `config.lanes_count` is the key `lanes_count` of the mapping `config`.
    - `layouts`: a number of reset seeds from 0, or `[first, last]`. Where an environment has few layouts, two seeds may
      give the same one, and what is held out may have been trained on: nothing here can tell.
    - `wrappers`: `{name: module:Class, ...}` or the name of one of `gymnasium.wrappers`, applied in order, with their
      arguments.
    - `episode_length`: by default the id's own limit.
    - `varies`: what the tasks differ in, which only you know. It is shown, and nothing else depends on it.
    """

    env_id: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    vary: dict[str, Any] = Field(default_factory=dict)
    layouts: Annotated[int, Field(ge=2)] | tuple[Annotated[int, Field(ge=0)], int] | None = None
    wrappers: list[dict[str, Any]] = Field(default_factory=list)
    episode_length: Annotated[int, Field(ge=0)] = 0
    varies: Literal["rewards", "dynamics", "rewards and dynamics"] = "rewards and dynamics"

    def __post_init__(self) -> None:
        self._spec = _find_spec(self.env_id)
        self._wrappers = [_find_wrapper(place, wrapper) for place, wrapper in enumerate(self.wrappers)]
        self._varied: dict[str, Variation] = {
            name: parse_variation(f"vary.{name}", given) for name, given in self.vary.items()
        }
        self._check_keywords()
        if self.layouts is not None:
            first, last = (0, self.layouts - 1) if isinstance(self.layouts, int) else self.layouts
            if first >= last:
                raise ValueError(f"layouts [{first}, {last}]: has to be two or more, from a first to a greater last")
            self._varied[_LAYOUT] = Choice(range(first, last + 1), first)
        if not self._varied:
            raise ValueError("nothing varies: give `vary` a keyword with a range or a list, or `layouts` a number")
        if self.episode_length == 0:
            if not self._spec.max_episode_steps:
                raise ValueError(f"env_id {self.env_id!r} sets no limit to an episode: give episode_length")
            self.episode_length = self._spec.max_episode_steps

    def _check_keywords(self) -> None:
        for name in [*self.kwargs, *self.vary]:
            if name in _OURS:
                raise ValueError(f"{name!r} is no argument of the environment: {_OURS[name]}")
        for name in self.vary:
            if name == _LAYOUT and self.layouts is not None:
                raise ValueError(f"vary.{name}: layouts varies, and its tasks have that name already")
            nested = [other for other in self.vary if other.startswith(f"{name}.")]
            if nested:
                raise ValueError(f"vary.{nested[0]} lies inside vary.{name}: vary one of them")
            node: Any = self.kwargs
            for key in name.split("."):
                if not isinstance(node, dict):
                    raise ValueError(f"vary.{name}: kwargs give the value {node!r} where a mapping is varied")
                node = node.get(key, {})
            if node != {}:
                raise ValueError(f"vary.{name} is also fixed by kwargs, to {node!r}: take it out of one of them")

    @functools.cached_property
    def _spaces(self) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any], bool]:
        """Observation and action space, and whether there is an expert. Raises UserError if tasks differ in spaces."""
        env = made(self.maker(self._extreme(0.0), 0))
        spaces, expert = (env.observation_space, env.action_space), env.has_wrapper_attr("optimal_action")
        closed(env)
        _check_supported(self.env_id, *spaces)
        last = self.maker(self._extreme(1.0), 0)
        env = made(last)
        check_space(last, "observation", env.observation_space, spaces[0])
        check_space(last, "action", env.action_space, spaces[1])
        closed(env)
        return *spaces, expert

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        return self._spaces[0]

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        return self._spaces[1]

    def all_tasks(self) -> Tasks | None:
        """Every combination of values and layouts, the last one running fastest; None if a range is among them."""
        places = [varied.places for varied in self._varied.values() if isinstance(varied, Choice)]
        if len(places) < len(self._varied):
            return None
        return self._tasks([grid.ravel() for grid in np.meshgrid(*places, indexing="ij")])

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Each keyword and the layout independently and uniformly, or log-uniformly where the range says so."""
        rng = np.random.default_rng(seed)
        return self._tasks([varied.at(rng.random(num_tasks)) for varied in self._varied.values()])

    def make_vec(self, tasks: Tasks) -> ProcessVectorEnv:
        """One environment a slot. Raises UserError for a task outside the family."""
        for name, varied in self._varied.items():
            if name not in tasks or not varied.holds(tasks[name]).all():
                raise UserError(f"a task's {name!r} lies outside the family: it has {varied}")
        makers = [self.maker(tasks, row) for row in range(len(tasks))]
        observation_space, action_space, expert = self._spaces
        kind = ExpertProcessVectorEnv if expert else ProcessVectorEnv
        return kind(makers, observation_space, action_space, self.episode_length)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """An estimate from 8 episodes a task with fixed seeds: the environment is all there is to know."""
        return simulated_random_return(self, tasks, _RANDOM_RETURN_EPISODES, 1, SLOTS_AT_ONCE)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """The environment's own picture of the task's first state; without one, what the task's keywords are."""
        maker = self.maker(task, 0)
        frame = maker.picture()
        if frame is not None:
            axes.imshow(frame)
            axes.set(xticks=[], yticks=[])
            return True
        for place, (name, varied) in enumerate(self._varied.items()):
            low, high = (float(self._extreme(end)[name][0]) for end in (0.0, 1.0))
            axes.barh(place, (task[name][0] - low) / (high - low), color="#93c5fd")
            value = varied.value(task[name][0])
            text = f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            axes.text(0.02, place, text, va="center", color="#111827", fontsize=8)
        axes.set(xlim=(0, 1), xticks=[], yticks=[])
        return True

    def maker(self, tasks: Tasks, row: int) -> "EnvMaker":
        """Makes the environment of the task at `row`."""
        kwargs, layout = copy.deepcopy(self.kwargs), None
        for name, varied in self._varied.items():
            value = varied.value(tasks[name][row])
            if name == _LAYOUT and self.layouts is not None:
                layout = value
                continue
            *parents, last = name.split(".")
            node = kwargs
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = copy.deepcopy(value)
        return EnvMaker(self._spec, kwargs, tuple(self._wrappers), layout)

    def _extreme(self, share: float) -> Tasks:
        """The task at one end of every range and list."""
        return self._tasks([varied.at(np.array([share])) for varied in self._varied.values()])

    def _tasks(self, columns: list[NDArray[Any]]) -> Tasks:
        return Tasks(dict(zip(self._varied, columns, strict=True)))


@dataclass(frozen=True)
class EnvMaker:
    """Makes the environment of one task, here or in another process."""

    spec: EnvSpec
    kwargs: dict[str, Any]
    wrappers: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = ()
    layout: int | None = None

    def __call__(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        # No TimeLimit (-1): the vector environment counts the steps. No checker: it costs more than CartPole's step.
        try:
            env = gymnasium.make(self.spec, max_episode_steps=-1, disable_env_checker=True, **self.kwargs, **kwargs)
        except TypeError as error:
            unknown = _unknown_keyword(self.spec, self.kwargs)
            if unknown is not None:
                raise unknown from error
            raise
        for wrapper, arguments in self.wrappers:
            env = wrapper(env, **arguments)
        return env if self.layout is None else FixedLayout(env, self.layout)

    def __str__(self) -> str:
        layout = "" if self.layout is None else f", layout {self.layout}"
        return " ".join(f"{self.spec.id} with {self.kwargs}{layout}".split())

    def picture(self) -> NDArray[Any] | None:
        """The first state as the environment renders it, (height, width, 3); None if it does not."""
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame wants a screen, even to draw into an array
        try:
            env = self(render_mode="rgb_array")
            env.reset(seed=0)
            frame = env.render()
            env.close()
        except Exception:  # no such mode, no display, no graphics library
            return None
        return frame if isinstance(frame, np.ndarray) and frame.ndim == 3 else None


class FixedLayout(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Resets to one layout every time; what is drawn after a reset goes on from a generator of the seed given."""

    def __init__(self, env: gymnasium.Env[Any, Any], layout: int) -> None:
        super().__init__(env)
        self.layout = layout
        self.generator: np.random.Generator | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None or self.generator is None:
            self.generator = np.random.default_rng(seed)
        started = self.env.reset(seed=self.layout, options=options)
        self.unwrapped.np_random = self.generator
        return started


def _find_spec(env_id: str) -> EnvSpec:
    """The registered id, after its module is imported. Raises ValueError with the nearest one if there is none."""
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # importing may raise anything
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"env_id {env_id!r}: cannot import {module!r} ({why}): install its package") from error
    spec = gymnasium.registry.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, gymnasium.registry, n=1)
        hint = did_you_mean(name, near) if near else "; a package's ids are registered by its import: package:Id-v0"
        raise ValueError(f"env_id {env_id!r}: there is no such environment{hint}")
    if spec.entry_point is None:
        raise ValueError(f"env_id {env_id!r} has a vector form only, and tasks need one environment a slot")
    return spec


def _unknown_keyword(spec: EnvSpec, kwargs: dict[str, Any]) -> UserError | None:
    """What to say if one of `kwargs` is none of the environment's."""
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    known = inspect.signature(creator).parameters if creator is not None else {}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    unknown = [name for name in kwargs if name not in known and not takes_any]
    if not unknown:
        return None
    valid = [name for name in known if name not in _OURS]
    return UserError(f"{spec.id}: takes no argument {unknown[0]!r}{did_you_mean(unknown[0], valid)}")


def _find_wrapper(place: int, wrapper: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    where = f"wrappers.{place}"
    if "name" not in wrapper:
        raise ValueError(f"{where}: give its name, as module:Class or as one of gymnasium.wrappers")
    found = find_attribute(f"{where}.name", wrapper["name"], "gymnasium.wrappers")
    return found, {key: value for key, value in wrapper.items() if key != "name"}


def _check_supported(env_id: str, observation_space: Space, action_space: Space) -> None:
    """Raises UserError for spaces that cannot be recorded; says how to leave out a part of an observation."""
    try:
        storage_type(action_space)
        sample_actions(action_space, SlotStreams(make_seeds(1, 0)))  # a Box without bounds has no random policy
    except UserError as error:
        raise UserError(f"{env_id}: as actions, {error}") from error
    try:
        to_json(observation_space)
    except UserError as error:
        if not isinstance(observation_space, gymnasium.spaces.Dict):
            raise UserError(f"{env_id}: as observations, {error}") from error
        keys = ", ".join(name for name, part in observation_space.items() if _is_supported(part))
        line = f"wrappers: [{{name: FilterObservation, filter_keys: [{keys}]}}]"
        raise UserError(f"{env_id}: {error}, for instance by {line}") from error


def _is_supported(space: Space) -> bool:
    try:
        to_json(space)
    except UserError:
        return False
    return True
