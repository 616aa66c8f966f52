"""Any Gymnasium environment as a task distribution, given its id and what differs between its tasks."""

import copy
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.adapted.block import check_space, closed, made
from data_gen.tasks.adapted.gym_lookup import RESERVED, check_supported, find_spec, find_wrapper, unknown_keyword
from data_gen.tasks.adapted.layouts import first_states
from data_gen.tasks.adapted.process_vector import SLOTS_AT_ONCE, ExpertProcessVectorEnv, ProcessVectorEnv
from data_gen.tasks.adapted.variation import Choice, Variation, parse_variation, values_of
from data_gen.tasks.base import TaskDistribution, Tasks, simulated_random_estimate
from icrl.config.components import component
from icrl.support.errors import ConfigError, UserError
from icrl.support.terminal import say

_LAYOUT = "layout"
"""Name of the array that holds a task's layout, next to the arrays of the varied keywords."""

_MOST_LISTED = 2**24
"""Most combinations of values and layouts that are listed; each takes 8 bytes per name."""

_RANDOM_RETURN_EPISODES = 8
"""Episodes per task. Scalar environments are a thousand times slower than the families that use 256."""


@component
class GymnasiumTasks(TaskDistribution):
    """Tasks made from any Gymnasium environment, registered by Gymnasium, by a package, or by a module of your own.

    ## Description
    A task is a choice of keyword arguments for `gymnasium.make`, of a layout, or of both:

        tasks:
          name: gymnasium
          env_id: minigrid:MiniGrid-FourRooms-v0
          layouts: 500
          episode_length: 100
          wrappers: [{name: FilterObservation, filter_keys: [direction, image]}]

    Every slot has its own environment, and a few processes step them (`data_gen.tasks.adapted.process_vector`). An
    environment or a wrapper that has a method `optimal_action()` can be a source's expert.

    ## Action Space
    The environment's: Discrete, MultiDiscrete, MultiBinary or Box.

    ## Observation Space
    The environment's after `wrappers`, the same for all tasks: Discrete, MultiDiscrete, MultiBinary, Box, or a Dict or
    Tuple of these. A wrapper has to remove any other part, such as MiniGrid's mission, which is a text.

    ## Starting State
    The environment's. With `layouts`, every episode of a task starts with `reset(seed=layout)`. After the reset, the
    environment draws from the slot's own generator. The layout therefore belongs to the task, while slips and moving
    obstacles differ between episodes.

    ## Rewards
    The environment's.

    ## Episode End
    The environment's, and truncation after `episode_length` steps, counted outside the wrappers.

    ## Arguments
    - `env_id`: the environment's id, such as `CartPole-v1`; `package:Id-v0` first imports the package, which registers
      the id.
    - `kwargs`: keyword arguments for all tasks.
    - `vary`: what differs between tasks, by keyword. `{low: , high: }` is a range (of integers, both ends included, if
      both ends are integers; `log: true` makes it log-uniform). A list gives the values. `{call: "module:function",
      seeds: n, ...}` gives the distinct results of the function for `seed=0 ... n-1` and the other arguments given
      here. `config.lanes_count` is the key `lanes_count` of the mapping `config`.
    - `layouts`: a number of reset seeds from 0, or `[first, last]`. Where an environment has few layouts, two seeds may
      give the same one: held-out layouts that begin like a training layout are left out of the split, which says so.
    - `wrappers`: `{name: module:Class, ...}` or the name of a class in `gymnasium.wrappers`, with its arguments;
      applied in order.
    - `episode_length`: by default the id's own limit.
    - `varies`: what the tasks differ in, which only you know. It is displayed and has no other effect.
    """

    env_id: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    vary: dict[str, Any] = Field(default_factory=dict)
    layouts: Annotated[int, Field(ge=2)] | tuple[Annotated[int, Field(ge=0)], int] | None = None
    wrappers: list[dict[str, Any]] = Field(default_factory=list)
    episode_length: Annotated[int, Field(ge=0)] = 0
    varies: Literal["rewards", "dynamics", "rewards and dynamics"] = "rewards and dynamics"

    def __post_init__(self) -> None:
        self._spec = find_spec(self.env_id)
        self._wrappers = [find_wrapper(position, wrapper) for position, wrapper in enumerate(self.wrappers)]
        self._varied: dict[str, Variation] = {
            name: parse_variation(f"vary.{name}", given) for name, given in self.vary.items()
        }
        self._check_keywords()
        if self.layouts is not None:
            first, last = (0, self.layouts - 1) if isinstance(self.layouts, int) else self.layouts
            if first >= last:
                raise ValueError(f"layouts [{first}, {last}]: give two or more layouts, with first below last")
            self._varied[_LAYOUT] = Choice(range(first, last + 1), first)
        if not self._varied:
            raise ValueError("nothing varies: give `vary` a keyword with a range or a list, or `layouts` a number")
        if self.episode_length == 0:
            if not self._spec.max_episode_steps:
                raise ValueError(f"env_id {self.env_id!r} has no episode limit of its own: give episode_length")
            self.episode_length = self._spec.max_episode_steps

    def _check_keywords(self) -> None:
        """Raises ValueError for a keyword that is reserved, nested in another, or both fixed and varied."""
        for name in [*self.kwargs, *self.vary]:
            if name in RESERVED:
                raise ValueError(f"{name!r} is not an argument of the environment: {RESERVED[name]}")
        for name in self.vary:
            if name == _LAYOUT and self.layouts is not None:
                raise ValueError(f"vary.{name}: the name is taken by `layouts`: give one of the two")
            nested = [other for other in self.vary if other.startswith(f"{name}.")]
            if nested:
                raise ValueError(f"vary.{nested[0]} lies inside vary.{name}: vary only one of them")
            node: Any = self.kwargs
            for key in name.split("."):
                if not isinstance(node, dict):
                    raise ValueError(f"vary.{name}: kwargs give the value {node!r} where a mapping is needed")
                node = node.get(key, {})
            if node != {}:
                raise ValueError(f"vary.{name} is also fixed by kwargs, to {node!r}: remove it from one of them")

    @functools.cached_property
    def _spaces(self) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any], bool]:
        """Observation space, action space, and True if there is an expert. Raises UserError if spaces differ."""
        # Compare the tasks at both ends of every range or list; `make_vec` checks the others.
        env = made(self.maker(self._extreme(0.0), 0))
        spaces, expert = (env.observation_space, env.action_space), env.has_wrapper_attr("optimal_action")
        closed(env)
        check_supported(self.env_id, *spaces)
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
        """Every combination of values and layouts, the last name varying fastest; None if a range is among them.

        More combinations than `_MOST_LISTED` are not listed but drawn, as those of a range are.
        """
        choices = [varied for varied in self._varied.values() if isinstance(varied, Choice)]
        if len(choices) < len(self._varied) or math.prod(len(choice.values) for choice in choices) > _MOST_LISTED:
            return None
        indices = [choice.places for choice in choices]
        return self._tasks([grid.ravel() for grid in np.meshgrid(*indices, indexing="ij")])

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Draws each keyword and the layout independently and uniformly, or log-uniformly if the range says so."""
        rng = np.random.default_rng(seed)
        return self._tasks([varied.at(rng.random(num_tasks)) for varied in self._varied.values()])

    def split(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        """As for every family, without held-out tasks whose layout is that of a training task.

        Two seeds may give one layout. Says how many held-out tasks it leaves out for that reason. Raises ConfigError if
        none is left, or if the environment does not follow its seed.
        """
        trained, held_out = super().split(train, test, seed)
        if self.layouts is None:
            return trained, held_out
        new = ~self._repeats(trained, held_out)
        if not new.any():
            raise ConfigError(
                f"tasks.layouts: {self.env_id}: every held-out layout begins like a training layout, so they are one "
                "task: leave out layouts, and vary arguments that make a difference"
            )
        if not new.all():
            say(f"tasks.layouts: {(~new).sum()} of {len(new)} held-out tasks are left out: they repeat training tasks")
        return trained, held_out.take(np.flatnonzero(new))

    def more_tasks(self, train: Tasks, test: Tasks, count: int, seed: int) -> Tasks:
        """As for a family without a `split` of its own: this one only leaves out repeated layouts, as `among` does."""
        return self._first_new(self._unused(len(train), len(test), count, seed), train, test, count)

    def among(self, tasks: Tasks, others: Tasks) -> NDArray[np.bool_]:
        """True for each of `tasks` that has the arguments and the layout of one of `others`, shape (num_tasks,)."""
        return super().among(tasks, others) if self.layouts is None else self._repeats(others, tasks)

    def _repeats(self, trained: Tasks, held_out: Tasks) -> NDArray[np.bool_]:
        """True for each held-out task with the arguments and the layout of a training task, shape (num_tasks,)."""
        others = [name for name in trained if name != _LAYOUT]
        groups = [Tasks({name: tasks[name] for name in others}) for tasks in (trained, held_out)]
        keys = [
            group.keys() if others else np.zeros(len(tasks), np.uint64)
            for group, tasks in zip(groups, (trained, held_out), strict=True)
        ]
        repeats = np.zeros(len(held_out), dtype=np.bool_)
        for key in np.intersect1d(keys[0], keys[1]):  # tasks with other arguments cannot be the same
            rows, own = (np.flatnonzero(each == key) for each in keys)
            wanted = [trained[_LAYOUT][rows].tolist(), held_out[_LAYOUT][own].tolist()]
            maker = dataclasses.replace(self.maker(trained, int(rows[0])), layout=None)
            seen = first_states(maker, [*wanted[0], *wanted[1]])
            known = {seen[layout] for layout in wanted[0]}
            repeats[own] = [seen[layout] in known for layout in wanted[1]]
        return repeats

    def comparable(self, tasks: Tasks, described: Mapping[str, Any] | None = None) -> Tasks:
        """The tasks with values in place of places in lists; raises UserError for a list that only code can make."""
        given = described.get("vary") if described else None
        vary = given if isinstance(given, dict) else self.vary
        arrays = {}
        for name in tasks:
            varied = None if name == _LAYOUT else self._varied.get(name)
            if varied is not None and name in vary and vary[name] != self.vary[name]:
                if isinstance(vary[name], dict) and "call" in vary[name]:
                    raise UserError(
                        f"tasks.vary.{name}: the data names another function, {vary[name]['call']!r}, which is not "
                        "called, so held-out tasks cannot be told from its training tasks: give the same as the data"
                    )
                try:
                    varied = parse_variation(f"vary.{name}", vary[name])
                except ValueError as error:
                    raise UserError(f"tasks of the data: {error}") from error
            arrays[name] = tasks[name] if varied is None else values_of(varied, tasks[name])
        return Tasks(arrays)

    def make_vec(self, tasks: Tasks) -> ProcessVectorEnv:
        """One environment per slot. Raises UserError for a task outside the family."""
        for name, varied in self._varied.items():
            if name not in tasks or not varied.holds(tasks[name]).all():
                raise UserError(f"a task's {name!r} lies outside the family: expected {varied}")
        makers = [self.maker(tasks, row) for row in range(len(tasks))]
        observation_space, action_space, expert = self._spaces
        kind = ExpertProcessVectorEnv if expert else ProcessVectorEnv
        return kind(makers, observation_space, action_space, self.episode_length)

    def random_estimate(self, tasks: Tasks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An estimate from 8 episodes per task; a foreign environment can only be simulated."""
        return simulated_random_estimate(self, tasks, _RANDOM_RETURN_EPISODES, 1, SLOTS_AT_ONCE)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws the environment's picture of the task's first state, or else the values of the task's keywords."""
        maker = self.maker(task, 0)
        frame = maker.picture()
        if frame is not None:
            axes.imshow(frame)
            axes.set(xticks=[], yticks=[])
            return True
        for bar, (name, varied) in enumerate(self._varied.items()):
            low, high = (float(self._extreme(end)[name][0]) for end in (0.0, 1.0))
            axes.barh(bar, (task[name][0] - low) / (high - low), color="#93c5fd")
            value = varied.value(task[name][0])
            text = f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            axes.text(0.02, bar, text, va="center", color="#111827", fontsize=8)
        axes.set(xlim=(0, 1), xticks=[], yticks=[])
        return True

    def maker(self, tasks: Tasks, row: int) -> "EnvMaker":
        """A maker of the environment of the task at `row`."""
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
        """One task with every range and list at the same end: `share` 0 is the first, 1 the last."""
        return self._tasks([varied.at(np.array([share])) for varied in self._varied.values()])

    def _tasks(self, columns: list[NDArray[Any]]) -> Tasks:
        return Tasks(dict(zip(self._varied, columns, strict=True)))


@dataclass(frozen=True)
class EnvMaker:
    """Makes the environment of one task, in this process or in another."""

    spec: EnvSpec
    kwargs: dict[str, Any]
    wrappers: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = ()
    layout: int | None = None

    def __call__(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        # No TimeLimit (-1): the vector environment counts the steps. No checker: checks cost more than CartPole's step.
        try:
            env = gymnasium.make(self.spec, max_episode_steps=-1, disable_env_checker=True, **self.kwargs, **kwargs)
        except TypeError as error:
            unknown = unknown_keyword(self.spec, self.kwargs)
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
        """The first state as rendered by the environment, (height, width, 3); None if rendering fails."""
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame needs a screen even to draw into an array
        try:
            env = self(render_mode="rgb_array")
            env.reset(seed=0)
            frame = env.render()
            env.close()
        except Exception:  # no such mode, no display, no graphics library
            return None
        return frame if isinstance(frame, np.ndarray) and frame.ndim == 3 else None


class FixedLayout(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Resets to the same layout every time; after a reset, draws continue from a generator with the given seed."""

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
