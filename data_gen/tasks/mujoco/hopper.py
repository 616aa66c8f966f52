"""Hopper: hop on a leg whose masses, inertias, damping and friction differ from task to task."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.mujoco.locomotion import ALL_FIELDS, Locomotion, ModelField
from data_gen.tasks.mujoco.locomotion_env import RewardWeights, Robot
from icrl.config.components import component

_LOWEST_HEALTHY, _HEALTHY_ANGLE, _HEALTHY_STATE = 0.7, 0.2, 100.0  # metres, radians, any unit


@component
class Hopper(Locomotion):
    """Hopper with random parameters (`dennisl88/rand_param_envs`; Rothfuss et al. 2019, "ProMP").

    ## Description
    Gymnasium's `Hopper-v5`: a one-legged robot in a vertical plane. Tasks differ in the model fields that `vary` names:
    dynamics vary and the reward does not. See `half_cheetah` for how fields vary.

    ## Action Space
    `Box(-1, 1, (3,), float32)`: torques at thigh, leg and foot.

    ## Observation Space
    `Box(-inf, inf, (11,), float64)`: positions without the root's x, then velocities, clipped to [-10, 10]. The
    task is not observed.

    ## Starting State
    The nominal pose with noise: positions and velocities + U[-0.005, 0.005].

    ## Rewards
    v + 1 (healthy) - 0.001 |a|^2, where a is the action and v the step's mean velocity along x in m/s, as
    in `Hopper-v5`. (The original code also pays the 1 on the step of the fall.)

    ## Episode End
    Termination when the robot is not healthy: its height is at most 0.7, its angle is 0.2 or more to either side, or
    another position or a velocity is 100 or more. Truncation after `episode_length` steps.

    ## Arguments
    `vary`, some of `body_mass`, `body_inertia`, `dof_damping`, `geom_friction`; `log_scale_limit`; `episode_length`.
    """

    vary: tuple[ModelField, ...] = ALL_FIELDS
    log_scale_limit: Annotated[float, Field(gt=0, le=10)] = 3.0
    episode_length: Annotated[int, Field(ge=1)] = 200

    robot = Robot("hopper.xml", frame_skip=4, reset_noise=5e-3, velocity_limit=10.0)
    terminates = True

    def reward_weights(self) -> RewardWeights:
        return RewardWeights(ctrl_cost_weight=1e-3, healthy_reward=1.0)

    def healthy(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.bool_]:
        bounded = (np.abs(qpos[:, 2:]) < _HEALTHY_STATE).all(axis=1) & (np.abs(qvel) < _HEALTHY_STATE).all(axis=1)
        return bounded & (qpos[:, 1] > _LOWEST_HEALTHY) & (np.abs(qpos[:, 2]) < _HEALTHY_ANGLE)
