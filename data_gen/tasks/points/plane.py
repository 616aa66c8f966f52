"""What the families of a point in the plane share: how it moves, the way straight to a goal, and a picture."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.tasks.vector import TaskVectorEnv

ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
"""A step along each axis, as a share of the largest."""

_TURN = np.linspace(0, 2 * np.pi, 97)
_UNIT_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)])


class PointVectorEnv(TaskVectorEnv):
    """A point that starts at the origin; an action moves it by `step` times itself, each axis clipped to [-1, 1].

    The axes do not hinder each other: after t steps no policy is nearer to its goal on an axis than
    max(0, |goal| - t step), and `optimal_action` is as near as that on both axes at every t. So it has at every time
    the least distance of all policies, and is optimal wherever a smaller distance is worth at least as much.

    Args:
        goals: (num_envs, 2) positions.
        episode_length: steps to truncation.
        step: largest move along an axis.
    """

    def __init__(self, goals: NDArray[np.float64], episode_length: int, step: float) -> None:
        super().__init__(len(goals), observation_space(), ACTION_SPACE, episode_length)
        self._goals, self._step = np.asarray(goals, dtype=np.float64), step
        self._position = np.zeros((self.num_envs, 2))

    def _restart(self, slots: NDArray[np.intp]) -> None:
        self._position[slots] = 0

    def _move(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Takes one step; what is then left to the goals, (num_envs, 2)."""
        self._position += self._step * np.clip(actions, -1, 1, dtype=np.float64)
        return self._goals - self._position

    def _observe(self) -> NDArray[np.float32]:
        return self._position.astype(np.float32)

    def optimal_action(self) -> NDArray[np.float32]:
        """As far towards the goal as a step goes, on each axis for itself."""
        return np.clip((self._goals - self._position) / self._step, -1, 1).astype(np.float32)


def observation_space() -> gymnasium.spaces.Box:
    """The position; the plane has no end."""
    return gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def straight_to(goals: NDArray[np.float64], step: float) -> Iterator[NDArray[np.float64]]:
    """What is left to `goals` after each step of the optimal policy from the origin, (num_tasks, 2), without end.

    In the environment's own arithmetic, so that both agree on which side of an edge a point lies.
    """
    position = np.zeros_like(goals)
    while True:
        position += np.clip(goals - position, -step, step)
        yield goals - position


def norm(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of (..., 2) vectors."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


def draw_disc(axes: Any, center: NDArray[np.float64], radius: float, color: str) -> None:
    """A filled circle on matplotlib axes."""
    x, y = np.reshape(center, (2, 1)) + radius * _UNIT_CIRCLE
    axes.fill(x, y, color=color, linewidth=0)


def draw_way(axes: Any, way: NDArray[Any]) -> None:
    """The positions of an episode, (steps, 2), as a line from its start; and axes without ticks or distortion."""
    if len(way):
        axes.plot(way[:, 0], way[:, 1], color="#2563eb", linewidth=1.2, alpha=0.8)
        axes.plot(way[0, 0], way[0, 1], "o", color="#111827", markersize=4)
    axes.set(xticks=[], yticks=[], aspect="equal")
