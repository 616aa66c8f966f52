"""The sparse point robot: a goal on a half circle that pays only from near by."""

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

_ON_CIRCLE = 1e-6  # of the radius: how far off the half circle a given goal may lie, for rounding


@component
class SparsePointRobot(TaskDistribution):
    """Sparse 2-D navigation (PEARL: Rakelly et al. 2019).

    "Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context Variables"; it is `sparse-point-robot`
    of the authors' code, rlkit/envs/point_robot.py in katerakelly/oyster.

    ## Description
    A point moves in the plane. Tasks differ in the goal, uniform on the half circle of `radius` about the origin with
    y >= 0, so rewards vary and dynamics do not. The authors take 100 goals at equal angles, 80 to train and 20 to test.

    ## Action Space
    `Box(-1, 1, (2,))`: the move along each axis, in units of `step`; what lies outside is clipped.

    ## Observation Space
    `Box(-inf, inf, (2,))`: the position, and nothing of the goal.

    ## Starting State
    The origin.

    ## Rewards
    1 less the distance to the goal where that is at most `goal_radius` after the move, else 0. The authors' algorithm
    is given less the distance everywhere while it meta-trains, and this reward when it adapts; here it is this reward
    always.

    ## Episode End
    Truncation after `episode_length` steps; reaching the goal does not end an episode.

    ## Arguments
    `radius`, `goal_radius`, `step`, `episode_length`; the defaults are the authors'.
    """

    episode_length: Annotated[int, Field(ge=1)] = 20
    radius: Annotated[float, Field(gt=0)] = 1.0
    goal_radius: Annotated[float, Field(gt=0, le=1)] = 0.2  # beyond 1, being near would cost
    step: Annotated[float, Field(gt=0)] = 0.1

    def __post_init__(self) -> None:
        # The farthest goals are those on an axis: the others are gone for along both at once.
        steps = int(np.ceil((self.radius - self.goal_radius) / self.step - 1e-9))
        if steps > self.episode_length:
            raise ValueError(f"episode_length {self.episode_length} is too short: the goal on the axis is {steps} away")

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
        """What a step that ends at `distance` from the goal earns."""
        return np.where(distance <= self.goal_radius, 1 - distance, 0)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: going straight to the goal has at every time the least distance of all policies (`PointVectorEnv`)."""
        total = np.zeros(len(tasks))
        for _, left in zip(range(self.episode_length), straight_to(tasks["goal"], self.step), strict=False):
            total += self.reward(norm(left))
        return total

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """The half circle of goals, the disc that pays, and the way that one episode took."""
        angle = np.linspace(0, np.pi, 49)
        axes.plot(self.radius * np.cos(angle), self.radius * np.sin(angle), color="#e5e7eb")
        draw_disc(axes, task["goal"][0], self.goal_radius, "#f59e0b")
        draw_way(axes, observation)
        return True


class SparsePointRobotVectorEnv(PointVectorEnv):
    """The sparse point robot with one goal a slot."""

    def __init__(self, family: SparsePointRobot, tasks: Tasks) -> None:
        off = np.abs(norm(tasks["goal"]) / family.radius - 1)
        if not ((off <= _ON_CIRCLE) & (tasks["goal"][:, 1] >= -_ON_CIRCLE * family.radius)).all():
            raise UserError(f"a goal lies off the half circle of radius {family.radius} about the origin with y >= 0")
        super().__init__(tasks["goal"], family.episode_length, family.step)
        self._reward = family.reward

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return self._reward(norm(self._move(actions))), np.zeros(self.num_envs, dtype=np.bool_)
