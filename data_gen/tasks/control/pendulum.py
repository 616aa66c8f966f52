"""Pendulum with varied physics: swing up with a torque that may be weak or strong relative to gravity."""

from typing import Annotated, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import Tasks
from data_gen.tasks.control.varied_physics import VariedPhysics
from data_gen.tasks.vector import TaskVectorEnv
from icrl.config.components import component

_SECONDS = 0.05  # per step
_MAX_SPEED = 8.0
_MAX_TORQUE = 2.0
_START = np.array([[np.pi], [1.0]])  # largest start values of angle and angular velocity


@component
class Pendulum(VariedPhysics):
    """Pendulum swing-up as Gymnasium's Pendulum-v1 has it, with varied physics.

    ## Description
    A rod hangs on a motor that is too weak to lift it at once. Tasks differ in the constants that `vary` names. Each
    such constant is its default times a log-uniform factor in [low, high], so dynamics vary and rewards do not. With
    default constants, the environment equals Gymnasium's Pendulum-v1 step by step.

    | constant | default | meaning |
    |---|---|---|
    | `g` | 10.0 | acceleration of gravity |
    | `m` | 1.0 | mass of the rod |
    | `l` | 1.0 | length of the rod |

    ## Action Space
    `Box(-2, 2, (1,))`: the torque; values outside are clipped.

    ## Observation Space
    `Box` of shape (3,): cosine and sine of the angle, which is 0 upright, and the angular velocity in [-8, 8]. The
    constants are not observed.

    ## Starting State
    Angle uniform in [-pi, pi], angular velocity uniform in [-1, 1].

    ## Rewards
    -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) before the move, with the angle in [-pi, pi].

    ## Episode End
    Truncation after `episode_length` steps.

    ## Arguments
    `vary`, `low`, `high`, `episode_length`. The optimal return is unknown and given as NaN.
    """

    DEFAULTS = {"g": 10.0, "m": 1.0, "l": 1.0}

    vary: tuple[str, ...] = tuple(DEFAULTS)
    episode_length: Annotated[int, Field(ge=1)] = 200

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        high = np.array([1, 1, _MAX_SPEED], dtype=np.float32)
        return gymnasium.spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(-_MAX_TORQUE, _MAX_TORQUE, (1,), np.float32)

    def make_vec(self, tasks: Tasks) -> "PendulumVectorEnv":
        return PendulumVectorEnv(self, tasks)

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws the rod to scale, the constants, and the path of the rod's end in one episode."""
        length = task["l"][0]
        seen = observation if len(observation) else np.array([[-1.0, 0.0, 0.0]])
        across, up = -length * seen[:, 1], length * seen[:, 0]
        axes.plot(across, up, color="#2563eb", linewidth=1.2, alpha=0.8)
        axes.plot([0, across[-1]], [0, up[-1]], color="#111827", linewidth=3, solid_capstyle="round")
        axes.plot(0, length, "o", color="#f59e0b", markersize=6)  # the target of the rod's end
        self.write_constants(axes, task)
        reach = 1.2 * max(length, 1)
        axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        return True


class PendulumVectorEnv(TaskVectorEnv):
    """Pendulum with its own physics in every slot."""

    def __init__(self, family: Pendulum, tasks: Tasks) -> None:
        super().__init__(len(tasks), family.observation_space, family.action_space, family.episode_length)
        constants = family.constants(tasks)
        self._fall = 3 * constants["g"] / (2 * constants["l"])
        # Gymnasium multiplies the torque in the action's precision; an unstable system amplifies the last bit.
        self._lift = (3.0 / (constants["m"] * constants["l"] ** 2)).astype(np.float32)
        self.motion = np.zeros((2, self.num_envs))
        """Angle, which counts whole turns, and angular velocity of every slot: (2, num_envs)."""

    def _restart(self, slots: NDArray[np.intp]) -> None:
        self.motion[:, slots] = _START * (2 * self.streams.uniform_at(slots, 2).T - 1)

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        angle, speed = self.motion
        torque = np.clip(actions[:, 0], -_MAX_TORQUE, _MAX_TORQUE)
        off = (angle + np.pi) % (2 * np.pi) - np.pi
        cost = np.square(off) + 0.1 * np.square(speed) + 0.001 * np.square(torque)
        speed += (self._fall * np.sin(angle) + self._lift * torque) * _SECONDS
        np.clip(speed, -_MAX_SPEED, _MAX_SPEED, out=speed)
        angle += speed * _SECONDS
        return -cost, np.zeros(self.num_envs, dtype=np.bool_)

    def _observe(self) -> NDArray[np.float32]:
        seen = np.empty((self.num_envs, 3), dtype=np.float32)
        angle, speed = self.motion
        seen[:, 0], seen[:, 1], seen[:, 2] = np.cos(angle), np.sin(angle), speed
        return seen
