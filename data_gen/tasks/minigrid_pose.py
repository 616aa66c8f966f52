"""A wrapper for MiniGrid: the observation is where the agent stands and which way it looks, and nothing else."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


class Pose(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Column, row and heading (right, down, left, up) as `MultiDiscrete([width, height, 4])`.

    MiniGrid's own observation is a view of the cells ahead. This one hides the maze, as Dark Room does its goal: what
    there is has to be found out and remembered, and a tabular learner can do it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.grid: Any = env.unwrapped
        self.observation_space = gymnasium.spaces.MultiDiscrete([self.grid.width, self.grid.height, 4])

    def observation(self, observation: Any) -> NDArray[np.int64]:
        return np.array([*self.grid.agent_pos, self.grid.agent_dir], dtype=np.int64)
