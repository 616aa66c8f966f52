"""The base of the grid families: cells and moves, starts of episodes, and pictures of a room and a path in it."""

from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.vector import TaskVectorEnv
from icrl.support.errors import UserError

MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
"""(row, column) steps of the actions stay, up, down, left, right."""

Size = Annotated[int, Field(ge=2, le=4096)]
Start = Literal["center", "corner", "random"] | tuple[int, int]

_HALF = np.array([-0.5, 0.5])
_LINE_COLOR, _GOAL_COLOR, _WAY_COLOR, _START_COLOR = "#e5e7eb", "#f59e0b", "#2563eb", "#111827"


class Grid(TaskDistribution):
    """A square room of `size` x `size` cells, in which the agent observes its own row and column.

    The observation is row and column rather than the cell's number, so that a model can transfer what it learned about
    other goals to a goal in the same row or column.

    The observation space is that of a room of `space_size` x `space_size` cells, by default the room itself. A model
    reads only the space that it was trained with, so the space of the largest room of an evaluation is needed already
    in training. Rows and columns count from the upper left corner in rooms of every size.
    """

    size: int
    start: Start
    space_size: int | None = None

    def __post_init__(self) -> None:
        if self.space_size is not None and self.space_size < self.size:
            raise ValueError(f"space_size {self.space_size} is below size {self.size}: the space has to hold the room")
        if isinstance(self.start, tuple) and not all(0 <= index < self.size for index in self.start):
            raise ValueError(f"start {list(self.start)} lies outside the {self.size}x{self.size} room")

    @property
    def observation_space(self) -> gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.MultiDiscrete([self.space_size or self.size] * 2)

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        return gymnasium.spaces.Discrete(len(MOVES))

    def cells(self) -> NDArray[np.int64]:
        """(row, column) of every cell, shape (size^2, 2)."""
        return np.stack(np.divmod(np.arange(self.size**2), self.size), axis=1)

    def number(self, name: str, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cell numbers of (..., 2) cells. Raises UserError, which names `name`, if one lies outside the room."""
        if ((cells < 0) | (cells >= self.size)).any():
            raise UserError(f"a {name} lies outside the {self.size}x{self.size} room: rows and columns count from 0")
        return cells @ (self.size, 1)

    def moves(self) -> NDArray[np.int64]:
        """(row, column) step of each move, shape (moves, 2)."""
        return MOVES

    def next_cells(self) -> NDArray[np.int64]:
        """The cell number after each move from each cell, (size^2, moves); a move into a wall has no effect."""
        there = np.clip(self.cells()[:, None] + self.moves(), 0, self.size - 1)
        return there[..., 0] * self.size + there[..., 1]

    def start_cells(self) -> NDArray[np.int64]:
        """The numbers of the cells in which an episode starts, all equally likely."""
        if self.start == "random":
            return np.arange(self.size**2)
        named = {"center": (self.size // 2, self.size // 2), "corner": (0, 0)}
        row, column = named[self.start] if isinstance(self.start, str) else self.start
        return np.array([row * self.size + column])

    def steps_from_start(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """Steps to (n, 2) cells from each start, (n, starts); at least 1, since staying is also a step."""
        return np.maximum(np.abs(cells[:, None] - self.cells()[self.start_cells()]).sum(axis=2), 1)

    def random_walk(self) -> NDArray[np.float64]:
        """Probability of each next cell (column) from each cell (row) under uniformly random actions."""
        walk, moves = np.zeros((self.size**2, self.size**2)), len(self.moves())
        np.add.at(walk, (np.arange(self.size**2)[:, None], self.next_cells()), 1 / moves)
        return walk

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws the room, its goal, and the path of one episode."""
        self.draw_room(axes, task["goal"][0], observation, task["goal"][0] if reward[-1:].sum() > 0 else None)
        return True

    def draw_room(self, axes: Any, goal: NDArray[Any], way: NDArray[Any], end: NDArray[Any] | None) -> None:
        """Draws the room, a goal in it, and a path.

        Args:
            goal: (2,) row and column of the goal.
            way: (steps, 2) cells before each step of an episode; may be empty.
            end: (2,) the cell after the last step, if known.
        """
        if end is not None:
            way = np.concatenate([way, end[None]])
        way = np.asarray(way, dtype=np.float64)
        wobble = 0.12 * np.random.default_rng(0).standard_normal(way.shape)  # keeps repeated paths apart
        axes.imshow(np.zeros((self.size, self.size)), cmap="Greys", vmin=0, vmax=1)
        lines = np.arange(-0.5, self.size)
        axes.hlines(lines, -0.5, self.size - 0.5, color=_LINE_COLOR, linewidth=0.6)
        axes.vlines(lines, -0.5, self.size - 0.5, color=_LINE_COLOR, linewidth=0.6)
        axes.fill_between(goal[1] + _HALF, goal[0] - 0.5, goal[0] + 0.5, color=_GOAL_COLOR, linewidth=0)
        if len(way):
            axes.plot(way[:, 1] + wobble[:, 1], way[:, 0] + wobble[:, 0], color=_WAY_COLOR, linewidth=1.2, alpha=0.8)
            axes.plot(way[0, 1], way[0, 0], "o", color=_START_COLOR, markersize=4)
        axes.set(xticks=[], yticks=[], xlim=(-0.5, self.size - 0.5), ylim=(self.size - 0.5, -0.5))


class GridVectorEnv(TaskVectorEnv):
    """A room with one agent per slot; a step is a look-up in the table of next cells."""

    def __init__(self, room: Grid, num_envs: int) -> None:
        super().__init__(num_envs, room.observation_space, room.action_space, room.episode_length)
        self._starts = room.start_cells()
        self._cells = room.cells()
        self._next, self._num_moves = room.next_cells().ravel(), len(room.moves())
        self._cell = np.full(num_envs, self._starts[0])

    def _restart(self, slots: NDArray[np.intp]) -> None:
        if len(self._starts) == 1:
            self._cell[slots] = self._starts[0]
        else:
            choice = self.streams.uniform_at(slots) * len(self._starts)
            self._cell[slots] = self._starts[choice.astype(np.intp)]

    def _move(self, moves: NDArray[Any]) -> None:
        self._cell = self._next.take(self._cell * self._num_moves + moves)

    def _observe(self) -> NDArray[np.int64]:
        return self._cells.take(self._cell, axis=0)

    def _towards(self, goal: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moves on the shortest way to `goal`, cell numbers: first to its row, then to its column, then stay."""
        rows, columns = (self._cells[goal] - self._cells[self._cell]).T
        along_columns = np.where(columns > 0, 4, np.where(columns < 0, 3, 0))
        return np.where(rows > 0, 2, np.where(rows < 0, 1, along_columns))
