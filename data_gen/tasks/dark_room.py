"""Dark Room: find a goal that cannot be seen, remember where it was, and go there straight ever after."""

from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from configs import component
from configs.errors import UserError
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.vector import TaskVectorEnv

MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
"""(row, column) steps of the actions stay, up, down, left, right."""

_HALF = np.array([-0.5, 0.5])


@component
class DarkRoom(TaskDistribution):
    """Dark Room (Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation", section 4).

    ## Description
    A square room of `size` x `size` cells with one goal cell. Tasks differ in the goal, so rewards vary and dynamics
    do not; there are size^2 tasks, less the goals that are too far to be reached in an episode.

    ## Action Space
    `Discrete(5)`: stay, up, down, left, right. A move into a wall stays.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's row and column, and nothing of the goal. Row and column, not the cell's
    number: a model can then carry over to one goal what it learned of others in the same row or column.

    ## Starting State
    `start`: `center`, `corner` (0, 0), `random` (uniform, anew each episode), or a cell `[row, column]`.

    ## Rewards
    `reward: every_step`: 1 on every step that ends on the goal. `reward: once`: 1 on the first, which terminates.

    ## Episode End
    Truncation after `episode_length` steps; termination at the goal if the reward comes once.

    ## Arguments
    `size`, `episode_length`, `start`, `reward`. Dark Room is the default; Dark Room Hard is size 17 and reward once.
    """

    size: Annotated[int, Field(ge=2)] = 9
    episode_length: Annotated[int, Field(ge=1)] = 20
    start: Literal["center", "corner", "random"] | tuple[int, int] = "center"
    reward: Literal["every_step", "once"] = "every_step"

    def __post_init__(self) -> None:
        if isinstance(self.start, tuple) and not all(0 <= place < self.size for place in self.start):
            raise ValueError(f"start {list(self.start)} lies outside the {self.size}x{self.size} room")

    @property
    def observation_space(self) -> gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.MultiDiscrete([self.size, self.size])

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(len(MOVES))

    def all_tasks(self) -> Tasks:
        """Every goal that an episode is long enough to reach."""
        cells = Tasks({"goal": self.cells()})
        return cells.take(np.flatnonzero(self.optimal_return(cells) > 0))

    def make_vec(self, tasks: Tasks) -> "DarkRoomVectorEnv":
        return DarkRoomVectorEnv(self, tasks)

    def cells(self) -> NDArray[np.int64]:
        """(row, column) of every cell, shape (size^2, 2)."""
        return np.stack(np.divmod(np.arange(self.size**2), self.size), axis=1)

    def next_cells(self) -> NDArray[np.int64]:
        """The cell number that each action leads to from each cell, shape (size^2, 5)."""
        there = np.clip(self.cells()[:, None] + MOVES, 0, self.size - 1)
        return there[..., 0] * self.size + there[..., 1]

    def start_cells(self) -> NDArray[np.int64]:
        """The cell numbers that an episode starts in, each equally likely."""
        if self.start == "random":
            return np.arange(self.size**2)
        named = {"center": (self.size // 2, self.size // 2), "corner": (0, 0)}
        row, column = named[self.start] if isinstance(self.start, str) else self.start
        return np.array([row * self.size + column])

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: the goal is `distance` steps away, and the step that reaches it is rewarded, as are those after it."""
        starts = self.cells()[self.start_cells()]
        distance = np.abs(tasks["goal"][:, None] - starts).sum(axis=2)  # (task, start)
        steps_on_goal = self.episode_length + 1 - np.maximum(distance, 1)
        if self.reward == "once":
            return (steps_on_goal > 0).mean(axis=1)
        return np.maximum(steps_on_goal, 0).mean(axis=1)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: the distribution over cells under uniformly random actions, step by step."""
        cells = self.size**2
        transition = np.zeros((cells, cells))
        np.add.at(transition, (np.arange(cells)[:, None], self.next_cells()), 1 / len(MOVES))
        goal = tasks["goal"] @ (self.size, 1)
        rows = np.arange(len(tasks))
        occupancy = np.zeros((len(tasks), cells))
        occupancy[:, self.start_cells()] = 1 / len(self.start_cells())
        expected = np.zeros(len(tasks))
        for _ in range(self.episode_length):
            occupancy = occupancy @ transition
            expected += occupancy[rows, goal]
            if self.reward == "once":
                occupancy[rows, goal] = 0
        return expected

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """The room, its goal, and the way that one episode took."""
        goal_row, goal_column = task["goal"][0]
        way = np.asarray(observation, dtype=np.float64)
        if len(reward) and reward[-1] > 0:  # the last step ended on the goal, after the last observation
            way = np.concatenate([way, task["goal"][:1]])
        wobble = 0.12 * np.random.default_rng(0).standard_normal(way.shape)  # keeps repeated ways apart
        axes.imshow(np.zeros((self.size, self.size)), cmap="Greys", vmin=0, vmax=1)
        lines = np.arange(-0.5, self.size)
        axes.hlines(lines, -0.5, self.size - 0.5, color="#e5e7eb", linewidth=0.6)
        axes.vlines(lines, -0.5, self.size - 0.5, color="#e5e7eb", linewidth=0.6)
        axes.fill_between(goal_column + _HALF, goal_row - 0.5, goal_row + 0.5, color="#f59e0b", linewidth=0)
        if len(way):
            axes.plot(way[:, 1] + wobble[:, 1], way[:, 0] + wobble[:, 0], color="#2563eb", linewidth=1.2, alpha=0.8)
            axes.plot(way[0, 1], way[0, 0], "o", color="#111827", markersize=4)
        axes.set(xticks=[], yticks=[], xlim=(-0.5, self.size - 0.5), ylim=(self.size - 0.5, -0.5))
        return True


class DarkRoomVectorEnv(TaskVectorEnv):
    """Dark Room with one goal a slot; a step is a look-up in the table of next cells."""

    def __init__(self, room: DarkRoom, tasks: Tasks) -> None:
        super().__init__(len(tasks), room.observation_space, room.action_space, room.episode_length)
        if ((tasks["goal"] < 0) | (tasks["goal"] >= room.size)).any():
            raise UserError(f"a goal lies outside the {room.size}x{room.size} room: rows and columns count from 0")
        self._goal = tasks["goal"] @ (room.size, 1)
        self._terminates = room.reward == "once"
        self._starts = room.start_cells()
        self._cells = room.cells()
        self._next = room.next_cells().ravel()
        self._cell = np.full(self.num_envs, self._starts[0])

    def _restart(self, slots: NDArray[np.intp]) -> None:
        if len(self._starts) == 1:
            self._cell[slots] = self._starts[0]
        else:
            choice = self.streams.uniform_at(slots) * len(self._starts)
            self._cell[slots] = self._starts[choice.astype(np.intp)]

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        self._cell = self._next.take(self._cell * len(MOVES) + actions)
        on_goal = self._cell == self._goal
        terminated = on_goal if self._terminates else np.zeros(self.num_envs, dtype=np.bool_)
        return on_goal.astype(np.float32), terminated

    def _observe(self) -> NDArray[np.int64]:
        return self._cells.take(self._cell, axis=0)

    def optimal_action(self) -> NDArray[np.int64]:
        """Along the rows first, then along the columns, then stay."""
        rows, columns = (self._cells[self._goal] - self._cells[self._cell]).T
        along_columns = np.where(columns > 0, 4, np.where(columns < 0, 3, 0))
        return np.where(rows > 0, 2, np.where(rows < 0, 1, along_columns))
