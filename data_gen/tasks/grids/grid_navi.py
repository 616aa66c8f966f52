"""GridNavi: VariBAD's small grid, in which the agent has to find a hidden goal and stay there."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import Tasks
from data_gen.tasks.grids.grid import Grid, GridVectorEnv, Size
from icrl.config.components import component
from icrl.support.errors import UserError

_ON_GOAL, _OFF_GOAL = np.float32(1), np.float32(-0.1)


@component
class GridNavi(Grid):
    """GridNavi (Zintgraf et al. 2020, "VariBAD: A Very Good Method for Bayes-Adaptive Deep RL", section 5.1).

    ## Description
    A square room of `size` x `size` cells with one goal cell. The goal is not the start, not one of the cells around
    the start, and not too far away to be reached in an episode: 21 goals in 5x5 cells. Tasks differ in the goal, so
    rewards vary and dynamics do not. The paper's trial is 4 episodes on one task.

    ## Action Space
    `Discrete(5)`: stay, up, down, left, right (the authors' order is stay, up, right, down, left). A move into a wall
    has no effect.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's row and column. The goal is not observed. With `space_size`, the space
    of that larger room, for a model that is evaluated there.

    ## Starting State
    The corner (0, 0).

    ## Rewards
    1 on every step that ends on the goal, and -0.1 on every other step. A goal `d` steps away thus earns at most 16 - d
    - 0.1 (d - 1) in 15 steps, 11.07 on average: the paper's oracle.

    ## Episode End
    Truncation after `episode_length` steps.

    ## Success
    A step that ends on the goal.

    ## Arguments
    `size`, `episode_length`, `space_size`.
    """

    size: Annotated[int, Field(ge=3, le=4096)] = 5
    episode_length: Annotated[int, Field(ge=2)] = 15
    space_size: Size | None = None
    start = "corner"

    def all_tasks(self) -> Tasks:
        """Every goal away from the start that an episode is long enough to reach."""
        cells = self.cells()
        near_enough = self.steps_from_start(cells).min(axis=1) <= self.episode_length
        return Tasks({"goal": cells[near_enough & ~self.beside_start(cells)]})

    def beside_start(self, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for each of (n, 2) cells that is the start or one of the eight cells around the start."""
        start = self.cells()[self.start_cells()]
        return (np.abs(cells - start) <= 1).all(axis=1)

    def make_vec(self, tasks: Tasks) -> "GridNaviVectorEnv":
        return GridNaviVectorEnv(self, tasks)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: rewards the step that reaches the goal on the shortest way and those after it."""
        steps_on_goal = np.maximum(self.episode_length + 1 - self.steps_from_start(tasks["goal"]), 0).mean(axis=1)
        return self._return(steps_on_goal)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: follows the distribution over cells under uniformly random actions, step by step."""
        walk, goal = self.random_walk(), self.number("goal", tasks["goal"])
        occupancy = np.zeros(self.size**2)
        occupancy[self.start_cells()] = 1
        steps_on_goal = np.zeros(len(tasks))
        for _ in range(self.episode_length):
            occupancy = occupancy @ walk
            steps_on_goal += occupancy[goal]
        return self._return(steps_on_goal)

    def _return(self, steps_on_goal: NDArray[np.float64]) -> NDArray[np.float64]:
        return steps_on_goal * float(_ON_GOAL) + (self.episode_length - steps_on_goal) * float(_OFF_GOAL)


class GridNaviVectorEnv(GridVectorEnv):
    """GridNavi with one goal per slot."""

    def __init__(self, room: GridNavi, tasks: Tasks) -> None:
        super().__init__(room, len(tasks))
        self._goal = room.number("goal", tasks["goal"])
        beside = room.beside_start(tasks["goal"])
        if beside.any():
            where = tasks["goal"][beside][0].tolist()
            raise UserError(f"the goal {where} is the start or beside it; GridNavi's goals are farther away")

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        self._move(actions)
        on_goal = self._cell == self._goal
        self._succeed(on_goal)
        return np.where(on_goal, _ON_GOAL, _OFF_GOAL), np.zeros(self.num_envs, dtype=np.bool_)

    def optimal_action(self) -> NDArray[np.int64]:
        """Moves straight to the goal, then stays."""
        return self._towards(self._goal)
