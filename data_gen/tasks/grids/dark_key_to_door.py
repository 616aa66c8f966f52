"""Dark Key-to-Door: find a hidden key, then a hidden door, and remember both."""

from collections.abc import Iterator
from typing import Annotated, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import Tasks
from data_gen.tasks.grids.grid import Grid, GridVectorEnv, Size, Start
from icrl.config.components import component

_KEY_COLOR = "#059669"


@component
class DarkKeyToDoor(Grid):
    """Dark Key-to-Door (Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation").

    ## Description
    A square room of `size` x `size` cells with a key in one cell and a door in one. Tasks differ in both, so rewards
    vary and dynamics do not. Key and door may share a cell, which gives the paper's 81 x 81 = 6,561 tasks for 9x9
    cells. A pair is left out if an episode is too short to solve it from any start.

    ## Action Space
    `Discrete(5)`: stay, up, down, left, right. A move into a wall has no effect.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's row and column. The key, the door, and whether the agent holds the key
    are not observed; the rewards in the agent's context tell. The state, which a source may use (`sees: state`), is
    `MultiDiscrete([size, size, 2])` and includes whether the key is held, because a table over cells alone cannot learn
    the way. With `space_size`, both are the spaces of that larger room, for a model that is evaluated there.

    ## Starting State
    `start`: `center`, `corner` (0, 0), `random` (uniform in each episode), or a cell `[row, column]`. The agent does
    not hold the key, even if it starts on the key's cell: a step has to end there.

    ## Rewards
    1 on the first step of an episode that ends on the key, and 1 on the first later step that ends on the door; at most
    2 in total.

    ## Episode End
    Termination at the door with the key; truncation after `episode_length` steps.

    ## Success
    The door, with the key.

    ## Arguments
    `size`, `episode_length`, `start`, `space_size`.
    """

    size: Annotated[Size, Field(le=64)] = 9  # a family has size^4 tasks
    episode_length: Annotated[int, Field(ge=2)] = 50
    start: Start = "random"
    space_size: Size | None = None

    def all_tasks(self) -> Tasks:
        """Every pair of a key and a door that an episode from some start is long enough to solve."""
        key, door = np.divmod(np.arange(self.size**4), self.size**2)
        cells = self.cells()
        pairs = Tasks({"key": cells[key], "door": cells[door]})
        return pairs.take(np.flatnonzero((self._steps_to_door(pairs) <= self.episode_length).any(axis=1)))

    def make_vec(self, tasks: Tasks) -> "DarkKeyToDoorVectorEnv":
        return DarkKeyToDoorVectorEnv(self, tasks)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: the shortest way to the key and on to the door, as far as the episode lasts, from each start."""
        to_key, to_door = self.steps_from_start(tasks["key"]), self._steps_to_door(tasks)
        return ((to_key <= self.episode_length) * 1.0 + (to_door <= self.episode_length)).mean(axis=1)

    def _steps_to_door(self, tasks: Tasks) -> NDArray[np.int64]:
        """Steps from each start to the door by way of the key, (num_tasks, starts)."""
        key_to_door = np.maximum(np.abs(tasks["door"] - tasks["key"]).sum(axis=1), 1)
        return self.steps_from_start(tasks["key"]) + key_to_door[:, None]

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: P(key within T steps) + sum over t of P(key first at step t) P(door within T - t steps of the key).

        Both are first-passage probabilities of the same random walk between cells, so one table of cells x targets
        serves all tasks. That takes milliseconds for all 6,561 tasks; the occupancy of (cell, key held) for each task
        would take seconds.
        """
        pairs = np.stack([self.number("key", tasks["key"]), self.number("door", tasks["door"])])
        targets, column = np.unique(pairs, return_inverse=True)
        key, door = column.reshape(pairs.shape)
        within = np.array([reached[self.start_cells()].mean(axis=0) for reached in self._reached(targets)])
        first_at = np.diff(within, axis=0)  # (T, targets): probability that step t is the first to end there
        expected = within[-1, key]
        # n, the number of steps left for the door, increases from 0 as t = T - n, the step of the key, decreases to 1.
        for arrived, reached in zip(first_at[::-1], self._reached(targets), strict=False):
            expected += arrived[key] * reached[targets[key], door]
        return expected

    def _reached(self, targets: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """Yields for n = 0 ... episode_length P(one of n random steps from a cell (row) ends on a target (column))."""
        walk = self.random_walk()
        reached = np.zeros((self.size**2, len(targets)))
        yield reached
        for _ in range(self.episode_length):
            already = reached.copy()
            already[targets, np.arange(len(targets))] = 1
            reached = walk @ already
            yield reached

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws the room, the door as a cell, the key as a diamond, and the path of one episode."""
        last = task["door" if reward.sum() > 1 else "key"][0]
        self.draw_room(axes, task["door"][0], observation, last if reward[-1:].sum() > 0 else None)
        key_row, key_column = task["key"][0]
        axes.plot(key_column, key_row, "D", color=_KEY_COLOR, markersize=6)
        return True


class DarkKeyToDoorVectorEnv(GridVectorEnv):
    """Dark Key-to-Door with one key and one door per slot."""

    def __init__(self, room: DarkKeyToDoor, tasks: Tasks) -> None:
        super().__init__(room, len(tasks))
        self._key, self._door = room.number("key", tasks["key"]), room.number("door", tasks["door"])
        self._has_key = np.zeros(self.num_envs, dtype=np.bool_)

    @property
    def single_state_space(self) -> gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.MultiDiscrete([*self.single_observation_space.nvec, 2])  # type: ignore[attr-defined]

    def state(self) -> NDArray[np.int64]:
        """Row, column, and 1 if the key is held, (num_envs, 3)."""
        return np.column_stack([self._observe(), self._has_key])

    def _restart(self, slots: NDArray[np.intp]) -> None:
        super()._restart(slots)
        self._has_key[slots] = False

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        self._move(actions)
        on_target = self._cell == self._target()
        terminated = on_target & self._has_key
        self._succeed(terminated)
        self._has_key |= on_target
        return on_target.astype(np.float32), terminated

    def _target(self) -> NDArray[np.int64]:
        return np.where(self._has_key, self._door, self._key)

    def optimal_action(self) -> NDArray[np.int64]:
        """Moves straight to the key, then straight to the door."""
        return self._towards(self._target())
