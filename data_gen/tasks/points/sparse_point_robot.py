"""The sparse point robot: a goal on a half circle that gives a reward only nearby."""

from typing import Annotated, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.points.plane import (
    ACTION_SPACE,
    PointVectorEnv,
    draw_disc,
    draw_way,
    norm,
    observation_space,
    straight_to,
)
from icrl.config.components import component
from icrl.support.errors import UserError

_ON_CIRCLE = 1e-6  # of the radius: distance from the half circle that rounding may give a goal


@component
class SparsePointRobot(TaskDistribution):
    """Sparse 2-D navigation (PEARL: Rakelly et al. 2019).

    "Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context Variables". This is `sparse-point-robot`
    of the authors' code, rlkit/envs/point_robot.py in katerakelly/oyster.

    ## Description
    A point moves in the plane. Tasks differ in the goal, uniform on the half circle of `radius` about the origin with y
    >= 0, so rewards vary and dynamics do not. The authors use 100 goals at equal angles, 80 for training and 20 for
    testing.

    ## Action Space
    `Box(-1, 1, (2,))`: the move along each axis, in units of `step`; values outside are clipped.

    ## Observation Space
    `Box(-inf, inf, (2,))`: the position. The goal is not observed.

    ## Starting State
    The origin.

    ## Rewards
    1 minus the distance to the goal if that distance is at most `goal_radius` after the move, else 0. The authors'
    algorithm gets the negative distance everywhere during meta-training, and this reward during adaptation. Here this
    reward always applies.

    ## Episode End
    Truncation after `episode_length` steps; reaching the goal does not end an episode.

    ## Success
    A step that ends within `goal_radius` of the goal.

    ## Arguments
    `radius`, `goal_radius`, `step`, `episode_length`; the defaults are the authors'.
    """

    episode_length: Annotated[int, Field(ge=1)] = 20
    radius: Annotated[float, Field(gt=0)] = 1.0
    goal_radius: Annotated[float, Field(gt=0, le=1)] = 0.2  # beyond 1, a goal nearby could give a negative reward
    step: Annotated[float, Field(gt=0)] = 0.1

    def __post_init__(self) -> None:
        # The farthest goals are those on an axis: the point approaches all others along both axes at once.
        steps = int(np.ceil((self.radius - self.goal_radius) / self.step - 1e-9))
        if steps > self.episode_length:
            raise ValueError(f"episode_length {self.episode_length} is too short: a goal may be {steps} steps away")

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        return observation_space()

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        return ACTION_SPACE

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        angle = np.random.default_rng(seed).uniform(0, np.pi, num_tasks)
        return Tasks({"goal": self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)})

    def make_vec(self, tasks: Tasks) -> "SparsePointRobotVectorEnv":
        return SparsePointRobotVectorEnv(self, tasks)

    def reward(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reward of a step that ends at `distance` from the goal."""
        return np.where(distance <= self.goal_radius, 1 - distance, 0)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: going straight to the goal has the smallest distance at every time (`PointVectorEnv`)."""
        total = np.zeros(len(tasks))
        for _, left in zip(range(self.episode_length), straight_to(tasks["goal"], self.step), strict=False):
            total += self.reward(norm(left))
        return total

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws the half circle of goals, the disc that gives rewards, and the path of one episode."""
        angle = np.linspace(0, np.pi, 49)
        axes.plot(self.radius * np.cos(angle), self.radius * np.sin(angle), color="#e5e7eb")
        draw_disc(axes, task["goal"][0], self.goal_radius, "#f59e0b")
        draw_way(axes, observation)
        return True


class SparsePointRobotVectorEnv(PointVectorEnv):
    """The sparse point robot with one goal per slot."""

    def __init__(self, family: SparsePointRobot, tasks: Tasks) -> None:
        off = np.abs(norm(tasks["goal"]) / family.radius - 1)
        if not ((off <= _ON_CIRCLE) & (tasks["goal"][:, 1] >= -_ON_CIRCLE * family.radius)).all():
            raise UserError(f"a goal lies off the half circle of radius {family.radius} about the origin with y >= 0")
        super().__init__(tasks["goal"], family.episode_length, family.step)
        self._reward, self._goal_radius = family.reward, family.goal_radius

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        distance = norm(self._move(actions))
        self._succeed(distance <= self._goal_radius)
        return self._reward(distance), np.zeros(self.num_envs, dtype=np.bool_)
