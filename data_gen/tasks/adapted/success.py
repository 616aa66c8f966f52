"""A wrapper that says when an episode of an environment counts as a success, for the figure `success_rate`."""

from typing import Any

import gymnasium


class ReturnAbove(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Reports success, as `info["success"]`, from the step on at which the episode's return is above `value`.

    In MiniGrid and FrozenLake, which reward nothing but the goal, `value: 0` makes reaching the goal a success.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], value: float) -> None:
        super().__init__(env)
        self.value, self.total = value, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.total = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.total += float(reward)
        return observation, reward, terminated, truncated, {**info, "success": self.total > self.value}
