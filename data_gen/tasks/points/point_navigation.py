"""Point navigation: walk to a goal in the plane that only the reward reveals."""

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


@component
class PointNavigation(TaskDistribution):
    """2-D navigation (Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 5.3).

    ## Description
    A point moves in the plane. Tasks differ in the goal, uniform in the square [-goal_range, goal_range]^2, so rewards
    vary and dynamics do not.

    ## Action Space
    `Box(-1, 1, (2,))`: the move along each axis, in units of `step`; values outside are clipped. The authors' own
    environment has moves in [-0.1, 0.1]^2, and they train in a normalised form of it, which has the actions used here.

    ## Observation Space
    `Box(-inf, inf, (2,))`: the position. The goal is not observed.

    ## Starting State
    The origin.

    ## Rewards
    The negative Euclidean distance to the goal after the move.

    ## Episode End
    Termination when the goal is less than `tolerance` away on both axes; truncation after `episode_length` steps.

    ## Success
    Termination at the goal.

    ## Arguments
    `goal_range`, `step`, `tolerance`, `episode_length`; the defaults are the authors'. With them, the optimal return is
    -0.50 on average. The paper's "oracle" with its -2.29 is not an optimum but a stochastic policy, trained with the
    goal in its observation.
    """

    episode_length: Annotated[int, Field(ge=1)] = 100
    goal_range: Annotated[float, Field(gt=0)] = 0.5
    step: Annotated[float, Field(gt=0)] = 0.1
    tolerance: Annotated[float, Field(ge=0)] = 0.01

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        return observation_space()

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        return ACTION_SPACE

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        goals = np.random.default_rng(seed).uniform(-self.goal_range, self.goal_range, (num_tasks, 2))
        return Tasks({"goal": goals})

    def make_vec(self, tasks: Tasks) -> "PointNavigationVectorEnv":
        return PointNavigationVectorEnv(self, tasks)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: the return of going straight to the goal.

        This policy has the smallest distance of all policies at every time (`PointVectorEnv`). It comes within the
        tolerance of the goal, which ends the episode, no later than any other policy, and no step earns more than 0.
        """
        total = np.zeros(len(tasks))
        running = np.ones(len(tasks), dtype=np.bool_)
        for _, left in zip(range(self.episode_length), straight_to(tasks["goal"], self.step), strict=False):
            total -= running * norm(left)
            running &= ~(np.abs(left) < self.tolerance).all(axis=1)
            if not running.any():
                break
        return total

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws the square of goals, this goal, and the path of one episode."""
        reach = self.goal_range
        axes.fill([-reach, reach, reach, -reach], [-reach, -reach, reach, reach], color="#e5e7eb", linewidth=0)
        draw_disc(axes, task["goal"][0], 0.05 * reach, "#f59e0b")  # large enough to be seen easily
        draw_way(axes, observation)
        return True


class PointNavigationVectorEnv(PointVectorEnv):
    """Point navigation with one goal per slot."""

    def __init__(self, family: PointNavigation, tasks: Tasks) -> None:
        if not (np.abs(tasks["goal"]) <= family.goal_range).all():
            raise UserError(f"a goal lies outside the square [-{family.goal_range}, {family.goal_range}]^2")
        super().__init__(tasks["goal"], family.episode_length, family.step)
        self._tolerance = family.tolerance

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        left = self._move(actions)
        close = np.abs(left) < self._tolerance
        arrived = close[:, 0] & close[:, 1]
        self._succeed(arrived)
        return -norm(left), arrived
