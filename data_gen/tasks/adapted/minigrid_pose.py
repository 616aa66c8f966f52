"""A wrapper for MiniGrid's mazes: observations are the agent's position and heading, and actions only walk."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

_WALKING = 3  # the first of MiniGrid's seven actions: turn left, turn right, go ahead


class Pose(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Column, row and heading (right, down, left, up) as `MultiDiscrete([width, height, 4])`; no pick-up, no doors.

    MiniGrid's own observation is a view of the cells ahead. This observation hides the maze, as Dark Room hides its
    goal: the agent has to find out what is there and remember it. A tabular learner can use it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        grid: Any = env.unwrapped
        self.grid = grid
        self.observation_space = gymnasium.spaces.MultiDiscrete([grid.width, grid.height, 4])
        self.action_space = gymnasium.spaces.Discrete(_WALKING)

    def observation(self, observation: Any) -> NDArray[np.int64]:
        return np.array([*self.grid.agent_pos, self.grid.agent_dir], dtype=np.int64)
