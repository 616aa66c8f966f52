"""Pixels: any grid of this project, observed as an image."""

import dataclasses
from typing import Annotated, Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.grids.grid import Grid
from data_gen.tasks.vector import TaskVectorEnv
from icrl.config.components import TASKS, component, find_component
from icrl.config.sections import TasksComponent
from icrl.support.errors import ConfigError, did_you_mean

_FLOOR, _AGENT = 0, 255  # in all three colours: an image shows where the agent is, and nothing else


def _a_grid(of: TasksComponent) -> TasksComponent:
    """Returns `of` if it can be built and is a grid. Raises ValueError, which becomes a line of the config's errors."""
    try:
        known = [field.name for field in dataclasses.fields(find_component(of.name, TASKS))]
        unknown = sorted(set(of.params) - set(known))
        if unknown:
            raise ConfigError(f"{of.name} has no parameter {unknown[0]!r}{did_you_mean(unknown[0], known)}")
        grid = of.build()
        seen = grid.observation_space
    except ConfigError as error:
        raise ValueError(str(error)) from error
    if not isinstance(grid, Grid):
        raise ValueError(f"{of.name} is not a grid: its observation is {seen}, not MultiDiscrete([rows, columns])")
    return of


@component
class Pixels(TaskDistribution):
    """A grid of this project as seen by a camera above it; for models that read images.

    ## Description
    The tasks, dynamics, rewards and episodes of the grid `of`; only the observation differs.

    ## Action Space
    The grid's.

    ## Observation Space
    `Box(0, 255, (rows * tile, columns * tile, 3), uint8)`: the agent's cell is white and all others are black. Neither
    the goal nor anything else that the grid hides is visible. With `keep`, a `Dict` of the grid's own observation,
    `cell`, and this `image`. The state is the grid's, for a source that keeps a table (`sees: state`).

    ## Starting State, Rewards, Episode End
    The grid's.

    ## Arguments
    `of`, the grid as a config names it, such as `{name: dark_room, size: 7}`; `tile`, the width of a cell in pixels;
    `keep`.
    """

    of: Annotated[TasksComponent, AfterValidator(_a_grid)]
    tile: Annotated[int, Field(ge=1, le=32)] = 1
    keep: bool = False

    def __post_init__(self) -> None:
        self._grid: TaskDistribution = self.of.build()
        self.episode_length = self._grid.episode_length

    @property
    def varies(self) -> str:
        return self._grid.varies

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        cell = self._grid.observation_space
        rows, columns = cell.nvec * self.tile  # type: ignore[attr-defined]
        image = Box(0, 255, (int(rows), int(columns), 3), np.uint8)
        return gymnasium.spaces.Dict({"cell": cell, "image": image}) if self.keep else image

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        return self._grid.action_space

    def all_tasks(self) -> Tasks | None:
        return self._grid.all_tasks()

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        return self._grid.sample(num_tasks, seed)

    def split(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        return self._grid.split(train, test, seed)

    def more_tasks(self, train: Tasks, test: Tasks, count: int, seed: int) -> Tasks:
        return self._grid.more_tasks(train, test, count, seed)

    def make_vec(self, tasks: Tasks) -> "PixelsVectorEnv":
        return PixelsVectorEnv(self, cast(TaskVectorEnv, self._grid.make_vec(tasks)))

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        return self._grid.optimal_return(tasks)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        return self._grid.random_return(tasks)

    def random_estimate(self, tasks: Tasks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._grid.random_estimate(tasks)

    def images(self) -> NDArray[np.uint8]:
        """The image for each cell, by row and column: (rows, columns, rows * tile, columns * tile, 3)."""
        rows, columns = self._grid.observation_space.nvec  # type: ignore[attr-defined]
        here = np.eye(rows * columns, dtype=bool).reshape(rows, columns, rows, columns, 1)
        image = np.where(here, _AGENT, _FLOOR).astype(np.uint8).repeat(3, axis=-1)
        return image.repeat(self.tile, axis=2).repeat(self.tile, axis=3)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws the grid's own picture."""
        image = observation["image"] if self.keep else observation
        agents = image[:, :: self.tile, :: self.tile, 0] == _AGENT
        _, *cells = np.nonzero(agents)
        return self._grid.draw(axes, task, np.stack(cells, axis=1), reward)


class PixelsVectorEnv(TaskVectorEnv):
    """Another grid's vector environment, with the image of each slot looked up in a table of all images."""

    def __init__(self, pixels: Pixels, grid: TaskVectorEnv) -> None:
        super().__init__(grid.num_envs, pixels.observation_space, grid.single_action_space, grid.episode_length)
        self._grid, self._keep, self._images = grid, pixels.keep, pixels.images()
        grid.elapsed = self.elapsed  # one clock, since an optimal plan may depend on the steps left
        if hasattr(grid, "optimal_action"):
            self.optimal_action = grid.optimal_action

    @property
    def native(self) -> bool:
        return super().native and self._grid.native

    @property
    def single_state_space(self) -> gymnasium.Space[Any]:
        return self._grid.single_state_space

    def state(self) -> Any:
        return self._grid.state()

    def _restart(self, slots: NDArray[np.intp]) -> None:
        self._grid.streams = self.streams  # a reset with seeds makes new streams
        self._grid._restart(slots)

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        result = self._grid._advance(actions)
        self.success = self._grid.success  # one array for both
        return result

    def _observe(self) -> Any:
        cell = self._grid._observe()
        image = self._images[cell[:, 0], cell[:, 1]]
        return {"cell": cell, "image": image} if self._keep else image
