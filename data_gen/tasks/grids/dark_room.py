"""Dark Room: find a hidden goal, remember it, and from then on go straight to it."""

from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import Tasks
from data_gen.tasks.grids.grid import Grid, GridVectorEnv, Size, Start
from icrl.config.components import component


@component
class DarkRoom(Grid):
    """Dark Room (Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation", section 4).

    ## Description
    A square room of `size` x `size` cells with one goal cell. Tasks differ in the goal, so rewards vary and dynamics do
    not. There are size^2 tasks, minus the goals that are too far away to be reached in an episode.

    ## Action Space
    `Discrete(5)`: stay, up, down, left, right. A move into a wall has no effect. With `diagonal`, `MultiDiscrete([3,
    3])`: up, stay or down, and left, stay or right, in one step.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's row and column. The goal is not observed. With `space_size`, the space
    of that larger room, for a model that is evaluated there.

    ## Starting State
    `start`: `center`, `corner` (0, 0), `random` (uniform in each episode), or a cell `[row, column]`.

    ## Rewards
    `reward: every_step`: 1 on every step that ends on the goal. `reward: once`: 1 on the first such step, which
    terminates.

    ## Episode End
    Truncation after `episode_length` steps; with `reward: once`, termination at the goal.

    ## Success
    A step that ends on the goal.

    ## Arguments
    `size`, `episode_length`, `start`, `reward`, `diagonal`, `space_size`. The defaults are Dark Room; Dark Room Hard
    has size 17 and `reward: once`.
    """

    size: Size = 9
    episode_length: Annotated[int, Field(ge=1)] = 20
    start: Start = "center"
    reward: Literal["every_step", "once"] = "every_step"
    diagonal: bool = False
    space_size: Size | None = None

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        return gymnasium.spaces.MultiDiscrete([3, 3]) if self.diagonal else super().action_space

    def moves(self) -> NDArray[np.int64]:
        """(row, column) step of each move; with `diagonal`, nine of them, the column varying fastest."""
        return np.stack(np.divmod(np.arange(9), 3), axis=1) - 1 if self.diagonal else super().moves()

    def steps_from_start(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """Steps to (n, 2) cells from each start, (n, starts); at least 1, since staying is also a step."""
        if not self.diagonal:
            return super().steps_from_start(cells)
        return np.maximum(np.abs(cells[:, None] - self.cells()[self.start_cells()]).max(axis=2), 1)

    def all_tasks(self) -> Tasks:
        """Every goal that an episode is long enough to reach."""
        cells = Tasks({"goal": self.cells()})
        return cells.take(np.flatnonzero(self.optimal_return(cells) > 0))

    def make_vec(self, tasks: Tasks) -> "DarkRoomVectorEnv":
        return DarkRoomVectorEnv(self, tasks)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: rewards the step that reaches the goal on the shortest way and, if `every_step`, those after it."""
        steps_on_goal = self.episode_length + 1 - self.steps_from_start(tasks["goal"])  # (task, start)
        if self.reward == "once":
            return (steps_on_goal > 0).mean(axis=1)
        return np.maximum(steps_on_goal, 0).mean(axis=1)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: follows the distribution over cells under uniformly random actions, step by step."""
        transition, starts = self.random_walk(), self.start_cells()
        goal, rows = self.number("goal", tasks["goal"]), np.arange(len(tasks))
        occupancy = np.zeros((len(tasks), self.size**2))
        occupancy[:, starts] = 1 / len(starts)
        expected = np.zeros(len(tasks))
        for _ in range(self.episode_length):
            occupancy = occupancy @ transition
            expected += occupancy[rows, goal]
            if self.reward == "once":
                occupancy[rows, goal] = 0
        return expected


class DarkRoomVectorEnv(GridVectorEnv):
    """Dark Room with one goal per slot."""

    def __init__(self, room: DarkRoom, tasks: Tasks) -> None:
        super().__init__(room, len(tasks))
        self._goal = room.number("goal", tasks["goal"])
        self._terminates, self._diagonal = room.reward == "once", room.diagonal

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        self._move(3 * actions[:, 0] + actions[:, 1] if self._diagonal else actions)
        on_goal = self._cell == self._goal
        self._succeed(on_goal)
        terminated = on_goal if self._terminates else np.zeros(self.num_envs, dtype=np.bool_)
        return on_goal.astype(np.float32), terminated

    def optimal_action(self) -> NDArray[np.int64]:
        """Moves straight to the goal, then stays."""
        if self._diagonal:
            return 1 + np.sign(self._cells[self._goal] - self._cells[self._cell])
        return self._towards(self._goal)
