"""The base of the families of a point in the plane: its moves, the straight way to a goal, and pictures."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.tasks.vector import TaskVectorEnv

ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
"""A move along each axis, as a fraction of the largest."""

_TURN = np.linspace(0, 2 * np.pi, 97)
_UNIT_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)])


class PointVectorEnv(TaskVectorEnv):
    """A point that starts at the origin; an action, clipped to [-1, 1] on each axis, moves it by `step` times itself.

    The axes are independent: after t steps, no policy can be nearer to its goal on an axis than max(0, |goal| - t
    step), and `optimal_action` is that near on both axes at every t. At every time it thus has the smallest distance of
    all policies, and it is optimal wherever a smaller distance is worth at least as much.

    Args:
        goals: (num_envs, 2) positions.
        episode_length: number of steps before truncation.
        step: largest move along an axis.
    """

    def __init__(self, goals: NDArray[np.float64], episode_length: int, step: float) -> None:
        super().__init__(len(goals), observation_space(), ACTION_SPACE, episode_length)
        self._goals, self._step = np.asarray(goals, dtype=np.float64), step
        self._position = np.zeros((self.num_envs, 2))

    def _restart(self, slots: NDArray[np.intp]) -> None:
        self._position[slots] = 0

    def _move(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Takes one step; returns the remaining vectors to the goals, (num_envs, 2)."""
        self._position += self._step * np.clip(actions, -1, 1, dtype=np.float64)
        return self._goals - self._position

    def _observe(self) -> NDArray[np.float32]:
        return self._position.astype(np.float32)

    def optimal_action(self) -> NDArray[np.float32]:
        """Moves as far towards the goal as a step allows, on each axis separately."""
        return np.clip((self._goals - self._position) / self._step, -1, 1).astype(np.float32)


def observation_space() -> gymnasium.spaces.Box:
    """Space of the position; the plane is unbounded."""
    return gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def straight_to(goals: NDArray[np.float64], step: float) -> Iterator[NDArray[np.float64]]:
    """Yields the remaining vectors to `goals` after each step of the optimal policy from the origin, (num_tasks, 2).

    The iterator is infinite. The arithmetic is the environment's, so that both agree on which side of an edge a point
    lies.
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
    """Draws a filled circle on matplotlib axes."""
    x, y = np.reshape(center, (2, 1)) + radius * _UNIT_CIRCLE
    axes.fill(x, y, color=color, linewidth=0)


def draw_way(axes: Any, way: NDArray[Any]) -> None:
    """Draws the positions of an episode, (steps, 2), as a line from its start; sets equal axes without ticks."""
    if len(way):
        axes.plot(way[:, 0], way[:, 1], color="#2563eb", linewidth=1.2, alpha=0.8)
        axes.plot(way[0, 0], way[0, 1], "o", color="#111827", markersize=4)
    axes.set(xticks=[], yticks=[], aspect="equal")
