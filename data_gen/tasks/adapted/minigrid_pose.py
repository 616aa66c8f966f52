"""A wrapper for MiniGrid's mazes: the observation is where the agent stands and looks, the actions are to walk."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

_WALKING = 3  # of MiniGrid's seven actions: turn left, turn right, go ahead


class Pose(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Column, row and heading (right, down, left, up) as `MultiDiscrete([width, height, 4])`; no picking up, no doors.

    MiniGrid's own observation is a view of the cells ahead. This one hides the maze, as Dark Room does its goal: what
    there is has to be found out and remembered, and a tabular learner can do it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        grid: Any = env.unwrapped
        self.grid = grid
        self.observation_space = gymnasium.spaces.MultiDiscrete([grid.width, grid.height, 4])
        self.action_space = gymnasium.spaces.Discrete(_WALKING)

    def observation(self, observation: Any) -> NDArray[np.int64]:
        return np.array([*self.grid.agent_pos, self.grid.agent_dir], dtype=np.int64)
