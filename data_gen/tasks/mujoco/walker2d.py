"""Walker2d: walk on legs whose masses, inertias, damping and friction differ from task to task."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.mujoco.locomotion import ALL_FIELDS, Locomotion, ModelField
from data_gen.tasks.mujoco.locomotion_env import RewardWeights, Robot
from icrl.config.components import component

_HEALTHY_HEIGHT, _HEALTHY_ANGLE = (0.8, 2.0), 1.0  # metres, radians


@component
class Walker2d(Locomotion):
    """Walker2d with random parameters (`dennisl88/rand_param_envs`; Rakelly et al. 2019, "PEARL", section 6.1).

    ## Description
    Gymnasium's `Walker2d-v5`: a two-legged robot in a vertical plane. Tasks differ in the model fields that `vary`
    names: dynamics vary and the reward does not. See `half_cheetah` for how fields vary.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques at thigh, leg and foot, right leg first.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: positions without the root's x, then velocities, clipped to [-10, 10]. The
    task is not observed.

    ## Starting State
    The nominal pose with noise: positions and velocities + U[-0.005, 0.005].

    ## Rewards
    v + 1 (healthy) - 0.001 |a|^2, where a is the action and v the step's mean velocity along x in m/s, as
    in `Walker2d-v5`. (The original code also pays the 1 on the step of the fall, and its steps are 5 simulator steps
    instead of 4.)

    ## Episode End
    Termination when the robot is not healthy: its height is outside (0.8, 2.0), or its angle is 1 or more to
    either side.
    Truncation after `episode_length` steps.

    ## Arguments
    `vary`, some of `body_mass`, `body_inertia`, `dof_damping`, `geom_friction`; `log_scale_limit`; `episode_length`.
    """

    vary: tuple[ModelField, ...] = ALL_FIELDS
    log_scale_limit: Annotated[float, Field(gt=0, le=10)] = 3.0
    episode_length: Annotated[int, Field(ge=1)] = 200

    robot = Robot("walker2d_v5.xml", frame_skip=4, reset_noise=5e-3, velocity_limit=10.0)
    terminates = True

    def reward_weights(self) -> RewardWeights:
        return RewardWeights(ctrl_cost_weight=1e-3, healthy_reward=1.0)

    def healthy(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.bool_]:
        low, high = _HEALTHY_HEIGHT
        return (qpos[:, 1] > low) & (qpos[:, 1] < high) & (np.abs(qpos[:, 2]) < _HEALTHY_ANGLE)
