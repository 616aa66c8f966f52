"""The interaction loop: any agent in any vector environment, recorded. Generation and evaluation are this function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from configs.errors import UserError
from data_gen.agents.base import Agent, Spec, Transition
from data_gen.spaces import storage_type
from data_gen.streams import Seeds, derive


@dataclass(frozen=True)
class Histories:
    """Learning histories: what happened in a batch of lifetimes, `num_steps` steps each, episodes one after another.

    `observation` (histories, steps, ...) and `action` (histories, steps, ...) in compact types, `reward` (histories,
    steps) float32, `terminated` and `truncated` (histories, steps) bool: whether step t ended its episode.
    """

    observation: NDArray[Any]
    action: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def columns(self) -> dict[str, NDArray[Any]]:
        return dict(vars(self))

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Whether step t was the last of its episode, however it ended; shape (histories, steps)."""
        return self.terminated | self.truncated


def interact(
    agent: Agent,
    envs: VectorEnv[Any, Any, Any],
    num_steps: int,
    seeds: Seeds,
    planned_steps: int | None = None,
    progress: Callable[[int], object] = lambda steps: None,
) -> Histories:
    """Lets `agent` live `num_steps` steps in `envs` from a new start, and records them.

    Args:
        agent: reset here; nothing of an earlier life remains.
        envs: a vector environment in SAME_STEP mode.
        num_steps: steps in every environment.
        seeds: (num_envs,) one seed an environment, from which its own and its agent's randomness follow.
        planned_steps: the lifetime that the agent's schedules run over, if it is not `num_steps`.
        progress: called after each step with the number of environment steps just made.
    """
    if envs.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
        raise UserError(f"{type(envs).__name__}: needs autoreset_mode SAME_STEP; NEXT_STEP records phantom steps")
    num_envs = envs.num_envs
    spec = spec_of(envs, planned_steps or num_steps)
    observations = _empty(num_steps, num_envs, spec.observation_space)
    actions = _empty(num_steps, num_envs, spec.action_space)
    rewards = np.empty((num_steps, num_envs), dtype=np.float32)
    terminations = np.empty((num_steps, num_envs), dtype=np.bool_)
    truncations = np.empty((num_steps, num_envs), dtype=np.bool_)

    agent.reset(spec, num_envs, derive(seeds, 0))
    observation, _ = envs.reset(seed=derive(seeds, 1))  # type: ignore[arg-type]
    for step in range(num_steps):
        action = agent.act(observation)
        following, reward, terminated, truncated, infos = envs.step(action)
        arrived = infos.get("final_obs", following)
        agent.observe(Transition(observation, action, reward, terminated, truncated, arrived))
        observations[step], actions[step], rewards[step] = observation, action, reward
        terminations[step], truncations[step] = terminated, truncated
        observation = following
        progress(num_envs)
    # The loop writes whole rows (steps, envs), which is fast; readers want (envs, steps).
    columns = (observations, actions, rewards, terminations, truncations)
    return Histories(*(np.ascontiguousarray(column.swapaxes(0, 1)) for column in columns))


def spec_of(envs: VectorEnv[Any, Any, Any], num_steps: int) -> Spec:
    """What an agent is told about `envs` and a lifetime of `num_steps` steps."""
    return Spec(
        observation_space=envs.single_observation_space,
        action_space=envs.single_action_space,
        num_steps=num_steps,
        optimal_action=getattr(envs, "optimal_action", None),
    )


def _empty(num_steps: int, num_envs: int, space: gymnasium.Space[Any]) -> NDArray[Any]:
    shape, dtype = storage_type(space)
    return np.empty((num_steps, num_envs, *shape), dtype=dtype)
