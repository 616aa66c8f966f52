"""HalfCheetah: run forwards or backwards, or at a velocity, with a body that may differ from task to task."""

from typing import Annotated, Literal

from pydantic import Field

from data_gen.tasks.mujoco.locomotion import Locomotion, ModelField
from data_gen.tasks.mujoco.locomotion_env import RewardWeights, Robot
from icrl.config.components import component

_CTRL_COST_WEIGHT = {"none": 0.1, "direction": 0.05, "velocity": 0.05}


@component
class HalfCheetah(Locomotion):
    """HalfCheetah with a goal (Finn et al. 2017, "Model-Agnostic Meta-Learning", section 5.3), a varied body, or both.

    ## Description
    Gymnasium's `HalfCheetah-v5`: a two-legged robot of 14 kg in a vertical plane. Tasks differ in what is rewarded
    (`goal`), in the model fields that `vary` names (dynamics), or in both.

    `goal: direction` alone has two tasks. The literature trains and tests on both of them. Held-out tasks are never
    trained on here, so a split of the two trains on one direction and tests on the other. Name a field in `vary` to
    have both directions in both sets.

    With u uniform in [-`log_scale_limit`, `log_scale_limit`], every varied value has its own factor: 1.3^u for each
    joint's damping, and 1.5^u for each body's mass, each of its three moments of inertia, and each of a geom's three
    friction coefficients, including the floor's (`dennisl88/rand_param_envs`, as used in Rakelly et al. 2019, "PEARL").
    Quantities that MuJoCo derives from masses and inertias are derived again, which the original code did not do.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques at the thigh, shin and foot, back leg first.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: positions without the root's x, then velocities. The task is not observed.

    ## Starting State
    The nominal pose with noise: positions + U[-0.1, 0.1], velocities + 0.1 N(0, 1).

    ## Rewards
    With the action a and v the step's mean velocity along x in m/s:
    - `goal: none`: v - 0.1 |a|^2, as in `HalfCheetah-v5`.
    - `goal: direction`, d = -1 or 1: d v - 0.05 |a|^2, as in the code of MAML and PEARL.
    - `goal: velocity`, v*: -|v - v*| - 0.05 |a|^2, likewise.

    A step lasts 0.05 s, as in PEARL's code. MAML's simulator and measure of v differ, and so do its returns.

    ## Episode End
    Truncation after `episode_length` steps.

    ## Arguments
    `goal`; `vary`, some of `body_mass`, `body_inertia`, `dof_damping`, `geom_friction`; `log_scale_limit`;
    `velocity_range` of the goals (MAML 0 to 2, PEARL 0 to 3); `ctrl_cost_weight`, for another weight of |a|^2;
    `episode_length`.
    """

    goal: Literal["none", "direction", "velocity"] = "direction"
    vary: tuple[ModelField, ...] = ()
    log_scale_limit: Annotated[float, Field(gt=0, le=10)] = 3.0
    velocity_range: tuple[float, float] = (0.0, 2.0)
    ctrl_cost_weight: Annotated[float, Field(ge=0)] | None = None
    episode_length: Annotated[int, Field(ge=1)] = 200

    robot = Robot("half_cheetah.xml", frame_skip=5, reset_noise=0.1, normal_velocities=True, only_floor_contacts=True)

    def reward_weights(self) -> RewardWeights:
        weight = self.ctrl_cost_weight
        return RewardWeights(_CTRL_COST_WEIGHT[self.goal] if weight is None else weight)
