"""The water maze: swim until a hidden platform is found, remember it, and from then on swim straight to it."""

from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.points.plane import ACTION_SPACE, draw_disc, draw_way, norm
from data_gen.tasks.vector import TaskVectorEnv
from icrl.config.components import component
from icrl.support.errors import UserError

_TINY = 1e-12  # replaces a distance of 0 in a division


@component
class WaterMaze(TaskDistribution):
    """A continuous water maze (Morris 1981, "Spatial localization does not require the presence of local cues").

    ## Description
    A round pool of `pool_radius` with a hidden round platform. Tasks differ in the platform's position, uniform over
    the positions where the whole platform lies in the pool, so rewards vary and dynamics do not. The Watermaze of
    Algorithm Distillation (Laskin et al. 2022) is the same task seen through a camera; here the position is observed.

    ## Action Space
    `Box(-1, 1, (2,))`: the velocity in units of `speed`. A velocity longer than 1 is shortened to 1, so that no
    direction is faster than another.

    ## Observation Space
    `Box` of shape (3,): the position relative to the pool's middle, and 1 on the platform, else 0. The platform is seen
    only when it is reached.

    ## Starting State
    `start`: `rim` (uniform on the rim in each episode), `random` (uniform in the pool, platform included, in each
    episode), or `center`.

    ## Rewards
    `reward: every_step`: 1 on every step that ends on the platform. `reward: once`: 1 on the first such step, which
    terminates.

    ## Episode End
    Truncation after `episode_length` steps; with `reward: once`, termination on the platform.

    ## Success
    A step that ends on the platform.

    ## Arguments
    `pool_radius`, `platform_radius`, `speed`, `start`, `reward`, `episode_length`. An episode has to be long enough to
    cross the pool.
    """

    episode_length: Annotated[int, Field(ge=1)] = 50
    pool_radius: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    platform_radius: Annotated[float, Field(gt=0)] = 0.2
    speed: Annotated[float, Field(gt=0)] = 0.1
    start: Literal["rim", "random", "center"] = "rim"
    reward: Literal["every_step", "once"] = "every_step"

    def __post_init__(self) -> None:
        if self.platform_radius >= self.pool_radius:
            raise ValueError(
                f"platform_radius {self.platform_radius} leaves no room in a pool of radius {self.pool_radius}"
            )
        longest = 2 * (self.pool_radius - self.platform_radius)  # from the rim to a platform at the opposite rim
        if self.episode_length * self.speed < longest - 1e-9:
            raise ValueError(
                f"episode_length {self.episode_length} is too short to cross the pool: "
                f"at speed {self.speed} that takes {int(np.ceil(longest / self.speed - 1e-9))} steps"
            )

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        rim = self.pool_radius
        low, high = np.array([-rim, -rim, 0], dtype=np.float32), np.array([rim, rim, 1], dtype=np.float32)
        return gymnasium.spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        return ACTION_SPACE

    @property
    def farthest_platform(self) -> float:
        """Largest distance of a platform's middle from the pool's middle."""
        return self.pool_radius - self.platform_radius

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        in_disc = _in_disc(np.random.default_rng(seed).uniform(size=(num_tasks, 2)))
        return Tasks({"platform": self.farthest_platform * in_disc})

    def make_vec(self, tasks: Tasks) -> "WaterMazeVectorEnv":
        return WaterMazeVectorEnv(self, tasks)

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact, averaged over the starts: the agent swims straight to the platform.

        Step k ends on the platform if the start lies within `platform_radius + k speed` of the platform's middle, and
        so do the steps after k. The expected number of steps on the platform is the sum of the probabilities of these
        events.
        """
        distance = norm(tasks["platform"])
        steps = range(1, self.episode_length + 1) if self.reward == "every_step" else [self.episode_length]
        reached = [self._starts_within(self.platform_radius + step * self.speed, distance) for step in steps]
        return np.sum(reached, axis=0)

    def _starts_within(self, reach: float, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fraction of starts that lie within `reach` of points at `distance` from the pool's middle."""
        pool = self.pool_radius
        if self.start == "center":
            return (distance <= reach).astype(np.float64)
        apart = np.maximum(distance, _TINY)
        # Angles, seen from each middle, at which the two circles cross; clipped if one circle contains the other.
        at_pool = _arccos((apart**2 + pool**2 - reach**2) / (2 * apart * pool))
        if self.start == "rim":
            return at_pool / np.pi
        at_point = _arccos((apart**2 + reach**2 - pool**2) / (2 * apart * reach))
        # The intersection of the discs is two circular sectors minus the kite that both sectors contain.
        kite = apart * pool * np.sin(at_pool)
        return (pool**2 * at_pool + reach**2 * at_point - kite) / (np.pi * pool**2)

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws the pool, its platform, and the path of one episode."""
        draw_disc(axes, np.zeros(2), self.pool_radius, "#e5e7eb")
        draw_disc(axes, task["platform"][0], self.platform_radius, "#f59e0b")
        draw_way(axes, observation[:, :2])
        return True


class WaterMazeVectorEnv(TaskVectorEnv):
    """The water maze with one platform per slot."""

    def __init__(self, maze: WaterMaze, tasks: Tasks) -> None:
        super().__init__(len(tasks), maze.observation_space, maze.action_space, maze.episode_length)
        if not (norm(tasks["platform"]) <= maze.farthest_platform + 1e-9).all():
            raise UserError(
                f"a platform lies outside the pool: its middle has to be within {maze.farthest_platform} of the pool's"
            )
        self._platform = np.asarray(tasks["platform"], dtype=np.float64)
        self._maze = maze
        self._position = np.zeros((self.num_envs, 2))
        self._on_platform = np.zeros(self.num_envs, dtype=np.bool_)

    def _restart(self, slots: NDArray[np.intp]) -> None:
        if self._maze.start == "center":
            self._position[slots] = 0
        else:
            chance = self.streams.uniform_at(slots, 2)
            if self._maze.start == "rim":
                chance[:, 0] = 1
            self._position[slots] = self._maze.pool_radius * _in_disc(chance)
        self._on_platform[slots] = self._reached(self._position[slots], self._platform[slots])

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        velocity = actions.astype(np.float64)
        self._position += velocity * (self._maze.speed / np.maximum(norm(velocity), 1))[:, None]
        # An agent that swims beyond the rim is put back onto it, towards the pool's middle.
        self._position *= (self._maze.pool_radius / np.maximum(norm(self._position), self._maze.pool_radius))[:, None]
        self._on_platform = self._reached(self._position, self._platform)
        self._succeed(self._on_platform)
        ends = self._maze.reward == "once"
        terminated = self._on_platform.copy() if ends else np.zeros(self.num_envs, dtype=np.bool_)
        return self._on_platform.astype(np.float32), terminated

    def _reached(self, position: NDArray[np.float64], platform: NDArray[np.float64]) -> NDArray[np.bool_]:
        return norm(platform - position) <= self._maze.platform_radius

    def _observe(self) -> NDArray[np.float32]:
        seen = np.empty((self.num_envs, 3), dtype=np.float32)
        seen[:, :2], seen[:, 2] = self._position, self._on_platform
        return seen

    def optimal_action(self) -> NDArray[np.float32]:
        """Swims straight to the platform's middle."""
        velocity = (self._platform - self._position) / self._maze.speed
        return (velocity / np.maximum(norm(velocity), 1)[:, None]).astype(np.float32)


def _in_disc(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps (n, 2) uniform numbers to points uniform in the unit disc; on the rim where the first number is 1."""
    radius, angle = np.sqrt(chance[:, 0]), 2 * np.pi * chance[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _arccos(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arccos(np.clip(cosine, -1, 1))
