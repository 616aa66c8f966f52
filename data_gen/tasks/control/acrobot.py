"""Acrobot with varied physics: swing two links up with a motor in the joint between them."""

from typing import Annotated, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import Tasks
from data_gen.tasks.control.varied_physics import VariedPhysics
from data_gen.tasks.vector import TaskVectorEnv
from icrl.config.components import component

_SECONDS = 0.2  # per step
_GRAVITY = 9.8
_MAX_SPEED_1 = 4 * np.pi
_MAX_SPEED_2 = 9 * np.pi
_START = 0.1  # largest start value of both angles and both velocities
_GOAL_HEIGHT = 1.0


@component
class Acrobot(VariedPhysics):
    """Acrobot (Sutton 1996) as Gymnasium's Acrobot-v1 has it, with varied physics.

    "Generalization in Reinforcement Learning: Successful Examples Using Sparse Coarse Coding".

    ## Description
    Two links hang from a fixed joint; the joint between them has a motor. Tasks differ in the constants that `vary`
    names. Each such constant is its default times a log-uniform factor in [low, high], so dynamics vary and rewards do
    not. With default constants, the environment equals Gymnasium's Acrobot-v1 step by step, with the dynamics of Sutton
    and Barto's book.

    | constant | default | meaning |
    |---|---|---|
    | `link_length_1` | 1.0 | length of the first link |
    | `link_mass_1`, `link_mass_2` | 1.0 | masses of the links |
    | `link_com_pos_1`, `link_com_pos_2` | 0.5 | distance of a link's centre of mass along the link |
    | `link_moi` | 1.0 | moment of inertia of each link |

    The second link's length does not occur in the equations of motion, so it is not a constant here.

    ## Action Space
    `Discrete(3)`: a torque of -1, 0 or 1 on the joint between the links.

    ## Observation Space
    `Box` of shape (6,): cosine and sine of the first link's angle, which is 0 hanging down, and of the second link's
    angle relative to the first; then both angular velocities, clipped to 4 pi and 9 pi. The constants are not observed.

    ## Starting State
    Angles and velocities uniform in [-0.1, 0.1].

    ## Rewards
    -1 on every step, except 0 on a step that terminates.

    ## Episode End
    Termination when the free end is higher than 1: -cos(angle_1) - cos(angle_1 + angle_2) > 1. As in Gymnasium, both
    links count as of length 1, whatever `link_length_1` is. Truncation after `episode_length` steps.

    ## Success
    Termination.

    ## Arguments
    `vary`, `low`, `high`, `episode_length`. The optimal return is unknown and given as NaN.
    """

    DEFAULTS = {
        "link_length_1": 1.0,
        "link_mass_1": 1.0,
        "link_mass_2": 1.0,
        "link_com_pos_1": 0.5,
        "link_com_pos_2": 0.5,
        "link_moi": 1.0,
    }

    vary: tuple[str, ...] = tuple(DEFAULTS)
    episode_length: Annotated[int, Field(ge=1)] = 500

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        high = np.array([1, 1, 1, 1, _MAX_SPEED_1, _MAX_SPEED_2], dtype=np.float32)
        return gymnasium.spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(3)

    def make_vec(self, tasks: Tasks) -> "AcrobotVectorEnv":
        return AcrobotVectorEnv(self, tasks)

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws both links with length 1, as the goal counts them, the constants, and the path of the free end."""
        seen = observation if len(observation) else np.array([[1.0, 0, 1, 0, 0, 0]])
        cosine_1, sine_1, cosine_2, sine_2 = seen[:, :4].T
        joint = np.stack([sine_1, -cosine_1], axis=1)
        end = joint + np.stack([sine_1 * cosine_2 + cosine_1 * sine_2, sine_1 * sine_2 - cosine_1 * cosine_2], axis=1)
        axes.plot([-2.1, 2.1], [_GOAL_HEIGHT, _GOAL_HEIGHT], color="#f59e0b")
        axes.plot(*end.T, color="#2563eb", linewidth=1.2, alpha=0.8)
        links = np.stack([np.zeros(2), joint[-1], end[-1]])
        axes.plot(*links.T, "o-", color="#111827", linewidth=2, markersize=4)
        self.write_constants(axes, task)
        axes.set(xticks=[], yticks=[], xlim=(-2.3, 2.3), ylim=(-2.3, 3.3), aspect="equal")
        return True


class AcrobotVectorEnv(TaskVectorEnv):
    """Acrobot with its own physics in every slot."""

    def __init__(self, family: Acrobot, tasks: Tasks) -> None:
        super().__init__(len(tasks), family.observation_space, family.action_space, family.episode_length)
        constant = family.constants(tasks)
        length, mass_1, mass_2 = constant["link_length_1"], constant["link_mass_1"], constant["link_mass_2"]
        center_1, center_2, inertia = constant["link_com_pos_1"], constant["link_com_pos_2"], constant["link_moi"]
        # The mass matrix is [[inertia_1 + 2 coupling cos, d2], [d2, inertia_2]] with d2 = inertia_2 + coupling cos,
        # where cos is the cosine of the second angle.
        self._coupling = mass_2 * length * center_2
        self._inertia_2 = mass_2 * center_2**2 + inertia
        self._inertia_1 = mass_1 * center_1**2 + mass_2 * length**2 + inertia + self._inertia_2
        self._weight_1 = (mass_1 * center_1 + mass_2 * length) * _GRAVITY
        self._weight_2 = mass_2 * center_2 * _GRAVITY
        self.motion = np.zeros((4, self.num_envs))
        """Both angles, then both angular velocities, of every slot: (4, num_envs)."""

    def _restart(self, slots: NDArray[np.intp]) -> None:
        self.motion[:, slots] = _START * (2 * self.streams.uniform_at(slots, 4).T - 1)

    def _derivative(self, motion: NDArray[np.float64], torque: NDArray[np.float64]) -> NDArray[np.float64]:
        """Time derivative of the (4, num_envs) motion: Sutton and Barto 1998, section 11.3."""
        speed_1, speed_2 = motion[2:]
        (sine_1, sine_2), (cosine_1, cosine_2) = _sine_and_cosine(motion[:2])
        coupled = self._coupling * cosine_2
        swing = self._coupling * sine_2
        d1 = self._inertia_1 + 2 * coupled
        d2 = self._inertia_2 + coupled
        phi_2 = self._weight_2 * (sine_1 * cosine_2 + cosine_1 * sine_2)
        phi_1 = self._weight_1 * sine_1 + phi_2 - swing * speed_2 * (speed_2 + 2 * speed_1)
        ratio = d2 / d1
        change = np.empty_like(motion)
        change[:2] = motion[2:]
        change[3] = (torque + ratio * phi_1 - swing * speed_1 * speed_1 - phi_2) / (self._inertia_2 - ratio * d2)
        change[2] = -(d2 * change[3] + phi_1) / d1
        return change

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        torque = actions - 1.0
        start = self.motion
        slope_1 = self._derivative(start, torque)  # the fourth-order Runge-Kutta method
        slope_2 = self._derivative(start + _SECONDS / 2 * slope_1, torque)
        slope_3 = self._derivative(start + _SECONDS / 2 * slope_2, torque)
        slope_4 = self._derivative(start + _SECONDS * slope_3, torque)
        self.motion = start + _SECONDS / 6 * (slope_1 + 2 * (slope_2 + slope_3) + slope_4)
        angles = self.motion[:2]
        angles -= 2 * np.pi * np.rint(angles / (2 * np.pi))
        np.clip(self.motion[2], -_MAX_SPEED_1, _MAX_SPEED_1, out=self.motion[2])
        np.clip(self.motion[3], -_MAX_SPEED_2, _MAX_SPEED_2, out=self.motion[3])
        (sine_1, sine_2), (cosine_1, cosine_2) = _sine_and_cosine(angles)
        terminated = -cosine_1 - (cosine_1 * cosine_2 - sine_1 * sine_2) > _GOAL_HEIGHT
        self._succeed(terminated)
        return terminated - 1.0, terminated

    def _observe(self) -> NDArray[np.float32]:
        seen = np.empty((self.num_envs, 6), dtype=np.float32)
        sine, cosine = _sine_and_cosine(self.motion[:2])
        seen[:, 0:4:2], seen[:, 1:4:2], seen[:, 4:] = cosine.T, sine.T, self.motion[2:].T
        return seen


def _sine_and_cosine(angle: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sine and cosine from the tangent of half the angle, to within 4e-16.

    With AVX-512, NumPy computes double-precision tangents eight at a time, but not sines and cosines: for 4,096 angles,
    these two take 70 microseconds and this function takes 10. Six of them for each link would be most of a step's work.
    """
    tangent = np.tan(0.5 * angle)
    fraction = 2 / (1 + tangent * tangent)
    return tangent * fraction, fraction - 1
