"""Windy Room: a hidden goal, hidden moves and a hidden wind, so that rewards and dynamics vary."""

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import Tasks
from data_gen.tasks.grids.grid import MOVES, Grid, GridVectorEnv, Size, Start
from icrl.config.components import component
from icrl.support.errors import UserError

_WIND_COLOR = "#9ca3af"


@component
class WindyRoom(Grid):
    """A grid of our own: Dark Room (Laskin et al. 2022) with the windy gridworld (Sutton and Barto 2018, example 6.5).

    ## Description
    A square room of `size` x `size` cells with one goal cell. Tasks differ in the goal (rewards) and in the dynamics:
    which action makes which move (`shuffle_actions`), and which way the wind pushes (`wind`). There are size^2 x 5! x 5
    tasks, minus the goals that are too far away to be reached in an episode. An agent can infer the dynamics from every
    step, but the goal only by reaching it.

    ## Action Space
    `Discrete(5)`: action a makes the move `moves[a]` of the task: 0 stay, 1 up, 2 down, 3 left, 4 right. A move into a
    wall has no effect. After the move, with probability `wind`, the task's wind pushes the agent one more cell, unless
    there is a wall: 0 no wind, 1 up, 2 down, 3 left, 4 right. The wind does not blow at every step, because an agent
    could then never advance against it, and most goals would be out of reach.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's row and column. The goal, the moves and the wind are not observed. With
    `space_size`, the space of that larger room, for a model that is evaluated there.

    ## Starting State
    `start`: `center`, `corner` (0, 0), `random` (uniform in each episode), or a cell `[row, column]`.

    ## Rewards
    1 on every step that ends, wind included, on the goal.

    ## Episode End
    Truncation after `episode_length` steps.

    ## Success
    A step that ends, wind included, on the goal.

    ## Arguments
    `size`, `episode_length`, `start`, `space_size`; `shuffle_actions: false` keeps the moves in order; `wind: 0` turns
    the wind off.
    """

    size: Size = 9
    episode_length: Annotated[int, Field(ge=1)] = 20
    start: Start = "center"
    shuffle_actions: bool = True
    wind: Annotated[float, Field(ge=0, lt=1)] = 0.2
    space_size: Size | None = None

    @property
    def varies(self) -> str:
        return "rewards and dynamics" if self.shuffle_actions or self.wind else "rewards"

    def all_tasks(self) -> Tasks:
        """Every goal that an episode is long enough to reach, with every order of the moves and every wind."""
        goals = self.cells()
        goals = goals[self.steps_from_start(goals).min(axis=1) <= self.episode_length]
        every_order = itertools.permutations(range(len(MOVES)))
        orders = np.array(list(every_order) if self.shuffle_actions else [next(every_order)])
        winds = np.arange(len(MOVES) if self.wind else 1)
        goal, order, wind = np.indices((len(goals), len(orders), len(winds))).reshape(3, -1)
        return Tasks({"goal": goals[goal], "moves": orders[order], "wind": winds[wind]})

    def make_vec(self, tasks: Tasks) -> "WindyRoomVectorEnv":
        return WindyRoomVectorEnv(self, tasks)

    def cells_after(self) -> NDArray[np.int64]:
        """The cell number after each move from each cell and each gust of wind, shape (size^2, 5, 5)."""
        moved = self.next_cells()
        return moved[moved]

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact, by value iteration. The order of the moves does not matter to an agent that knows it."""
        return self._expected_return(tasks, np.max)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact, by the same iteration with the mean over moves instead of the maximum."""
        return self._expected_return(tasks, np.mean)

    def _expected_return(self, tasks: Tasks, over_moves: Callable[..., NDArray[np.float64]]) -> NDArray[np.float64]:
        pairs, row = self.goals_and_winds(tasks)
        for move_values in self.move_values(pairs, over_moves):
            values = over_moves(move_values, axis=-1)
        return values[:, self.start_cells()].mean(axis=1)[row]

    def goals_and_winds(self, tasks: Tasks) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """The distinct (goal's cell number, wind) of the tasks, (pairs, 2), and each task's row among these pairs."""
        both = self.number("goal", tasks["goal"]) * len(MOVES) + tasks["wind"]
        distinct, row = np.unique(both, return_inverse=True)
        return np.stack(np.divmod(distinct, len(MOVES)), axis=1), row

    def move_values(
        self, pairs: NDArray[np.int64], over_moves: Callable[..., NDArray[np.float64]]
    ) -> Iterator[NDArray[np.float64]]:
        """Yields the value of each move with 1 ... episode_length steps left, (pairs, size^2, 5).

        `over_moves` reduces the last axis to the value of a cell, for the steps after the move.
        """
        goal, wind = pairs.T
        after = self.cells_after()
        calm, blown = after[..., 0].ravel(), after[..., wind].transpose(2, 0, 1).reshape(len(pairs), -1)
        values = np.zeros((len(pairs), self.size**2))
        for _ in range(self.episode_length):
            values[np.arange(len(pairs)), goal] += 1  # arriving at a cell is worth its reward and the return after it
            expected = (1 - self.wind) * values[:, calm] + self.wind * np.take_along_axis(values, blown, axis=1)
            move_values = expected.reshape(len(pairs), -1, len(MOVES))
            yield move_values
            values = over_moves(move_values, axis=-1)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws the room, its goal, the wind as arrows, and the path of one episode."""
        super().draw(axes, task, observation, reward)
        row, column = MOVES[task["wind"][0]]
        if self.wind and (row or column):
            shown = self.cells()[self.cells().sum(axis=1) % 2 == 1]
            arrows = np.broadcast_to((column, row), shown.shape).T
            style = {"angles": "xy", "scale_units": "xy", "scale": 2, "pivot": "mid", "width": 0.006}
            axes.quiver(shown[:, 1], shown[:, 0], *arrows, color=_WIND_COLOR, **style)
        return True


class WindyRoomVectorEnv(GridVectorEnv):
    """Windy Room with its own goal, order of the moves and wind in every slot."""

    def __init__(self, room: WindyRoom, tasks: Tasks) -> None:
        super().__init__(room, len(tasks))
        moves, wind = tasks["moves"], tasks["wind"]
        in_order = np.arange(len(MOVES))
        if not (np.sort(moves, axis=1) == in_order).all():
            raise UserError("a task's moves must be a permutation of 0, 1, 2, 3, 4: the move of each action")
        if not room.shuffle_actions and (moves != in_order).any():
            raise UserError("a task's moves are out of order, but windy_room has shuffle_actions: false")
        if not np.isin(wind, in_order).all():
            raise UserError("a task's wind must be one of 0 none, 1 up, 2 down, 3 left, 4 right")
        if not room.wind and wind.any():
            raise UserError("a task's wind is not 0, but windy_room has wind: 0")
        self._room, self._tasks = room, tasks
        self._goal = room.number("goal", tasks["goal"])
        self._wind, self._probability = wind, room.wind
        self._moves, self._first_move = moves.ravel(), np.arange(self.num_envs) * len(MOVES)
        self._after = room.cells_after().ravel()

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        move = self._moves.take(self._first_move + actions)
        blows = self._wind * (self.streams.uniform() < self._probability)
        self._cell = self._after.take((self._cell * len(MOVES) + move) * len(MOVES) + blows)
        on_goal = self._cell == self._goal
        self._succeed(on_goal)
        return on_goal.astype(np.float32), np.zeros(self.num_envs, dtype=np.bool_)

    def optimal_action(self) -> NDArray[np.int64]:
        """The action that makes the best move, by value iteration, with the steps left in each slot."""
        best_move, row = self._plan
        move = best_move[self.episode_length - self.elapsed - 1, row, self._cell]
        return (self._moves.reshape(-1, len(MOVES)) == move[:, None]).argmax(axis=1)

    @cached_property
    def _plan(self) -> tuple[NDArray[np.int8], NDArray[np.intp]]:
        """The best move by (steps left - 1, pair of goal and wind, cell), and the number of each slot's pair."""
        pairs, row = self._room.goals_and_winds(self._tasks)
        moves = [values.argmax(axis=-1).astype(np.int8) for values in self._room.move_values(pairs, np.max)]
        return np.array(moves), row
