"""Ant: run in a direction, at a velocity, or to a position, with a body that may differ from task to task."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.mujoco.locomotion import Locomotion, ModelField
from data_gen.tasks.mujoco.locomotion_env import RewardWeights, Robot
from icrl.config.components import component

_CONTACT_COST_WEIGHT = 5e-4  # in Gymnasium's, MAML's and PEARL's code
_MAML = RewardWeights(0.005, _CONTACT_COST_WEIGHT, healthy_reward=0.05, offset=1.0)
_GYMNASIUM = RewardWeights(0.5, _CONTACT_COST_WEIGHT, healthy_reward=1.0)
_WEIGHTS = {
    "none": _GYMNASIUM,
    "direction": _MAML,
    "velocity": _MAML,
    "angle": _GYMNASIUM,  # PEARL's ant-dir
    "position": RewardWeights(0.1, _CONTACT_COST_WEIGHT),  # PEARL's ant-goal
}
_HEALTHY_HEIGHT = (0.2, 1.0)  # metres


@component
class Ant(Locomotion):
    """Ant with a goal (Finn et al. 2017, "MAML"; Rakelly et al. 2019, "PEARL"), a varied body, or both.

    ## Description
    Gymnasium's `Ant-v5`: a robot with four legs of two joints each, free in space. Tasks differ in what is rewarded
    (`goal`), in the model fields that `vary` names (dynamics), or in both. `goal: direction` alone has two tasks. See
    `half_cheetah` for what that means for a split, and for how fields vary.

    ## Action Space
    `Box(-1, 1, (8,), float32)`: torques at hip and ankle of each leg, the back right leg first.

    ## Observation Space
    `Box(-inf, inf, (105,), float64)`: positions without the torso's x and y, velocities, and the force and torque from
    contacts on each of 13 bodies, clipped to [-1, 1]. The task is not observed. With `goal: position`, the shape is
    (107,): x and y come first, as in PEARL's code, since a robot that does not know its position could not go back to
    where it was rewarded.

    ## Starting State
    The nominal pose with noise: positions + U[-0.1, 0.1], velocities + 0.1 N(0, 1).

    ## Rewards
    Here a is the action, f the contact forces of the observation, (u, v) the torso's mean velocity during the step in
    m/s, and (x, y) the torso's position in m; "healthy" terms are paid while the torso's height is in [0.2, 1.0]:
    - `goal: none`: u + 1 (healthy) - 0.5 |a|^2 - 0.0005 |f|^2, as in `Ant-v5`.
    - `goal: direction`, d = -1 or 1: d u + 0.05 (healthy) - 0.005 |a|^2 - 0.0005 |f|^2, as in MAML's code.
    - `goal: velocity`, u*: 1 - |u - u*| + 0.05 (healthy) - 0.005 |a|^2 - 0.0005 |f|^2, as in MAML's code; the first 1
      makes staying up better than falling over.
    - `goal: angle`, b: u cos b + v sin b + 1 (healthy) - 0.5 |a|^2 - 0.0005 |f|^2, as in PEARL's ant-dir.
    - `goal: position`, (x*, y*): -|x - x*| - |y - y*| - 0.1 |a|^2 - 0.0005 |f|^2, as in PEARL's ant-goal.

    Robot and simulator are Gymnasium's throughout. MAML and PEARL used other bodies and simulators (PEARL has weaker
    motors), so returns are not comparable in value.

    ## Episode End
    Truncation after `episode_length` steps. Termination when the torso leaves its healthy height, except with `goal:
    position`: its rewards are negative, so falling over would cut them short.

    ## Arguments
    `goal`; `vary`, some of `body_mass`, `body_inertia`, `dof_damping`, `geom_friction`; `log_scale_limit`;
    `velocity_range` of the goals; `goal_radius`, in metres, of the disc in which goal positions are uniform;
    `ctrl_cost_weight` and `healthy_reward`, for other weights than those above; `episode_length`.
    """

    goal: Literal["none", "direction", "velocity", "angle", "position"] = "direction"
    vary: tuple[ModelField, ...] = ()
    log_scale_limit: Annotated[float, Field(gt=0, le=10)] = 3.0
    velocity_range: tuple[float, float] = (0.0, 3.0)
    goal_radius: Annotated[float, Field(gt=0)] = 3.0
    ctrl_cost_weight: Annotated[float, Field(ge=0)] | None = None
    healthy_reward: Annotated[float, Field(ge=0)] | None = None
    episode_length: Annotated[int, Field(ge=1)] = 200

    robot = Robot("ant.xml", frame_skip=5, reset_noise=0.1, normal_velocities=True, dimensions=2, contact_forces=True)

    def reward_weights(self) -> RewardWeights:
        weights = _WEIGHTS[self.goal]
        if self.ctrl_cost_weight is not None:
            weights = replace(weights, ctrl_cost_weight=self.ctrl_cost_weight)
        if self.healthy_reward is not None:
            weights = replace(weights, healthy_reward=self.healthy_reward)
        return weights

    @property
    def terminates(self) -> bool:
        return self.goal != "position"

    def healthy(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.bool_]:
        low, high = _HEALTHY_HEIGHT
        finite = np.isfinite(qpos).all(axis=1) & np.isfinite(qvel).all(axis=1)
        return finite & (qpos[:, 2] >= low) & (qpos[:, 2] <= high)
