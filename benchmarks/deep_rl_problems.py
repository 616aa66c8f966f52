"""The problems on which deep learners are compared with Stable-Baselines3: tasks, hyper-parameters and scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_gen.agents.base import Agent
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.control.varied_physics import VariedPhysics
from icrl.config.components import AGENTS, TASKS, find_component

SEED = 7
"""Seed of the learners' tasks and of everything random in their lifetimes."""


@dataclass(frozen=True)
class Problem:
    """One comparison: the tasks, the algorithm, and the length of training."""

    tasks: dict[str, Any]
    """The task distribution, as in a config."""
    agent: dict[str, Any]
    """The agent, as in a config."""
    steps: int
    """Environment steps per learner, over all its actors."""
    num_final_episodes: int
    """Number of episodes at the end of a lifetime, over all actors, that the score is a mean over."""
    target: float | None = None
    """Score that the median learner should reach."""
    normalised: bool = False
    """True if returns are on the scale where the random policy is 0 and the optimal policy 1."""
    grouped_by: str = ""
    """Name of a task array; results are reported separately for each of its values. Empty for one group."""

    def distribution(self) -> TaskDistribution:
        """Builds the task distribution."""
        return _built(self.tasks, TASKS)  # type: ignore[no-any-return]

    def learner(self) -> Agent:
        """Builds the agent."""
        return _built(self.agent, AGENTS)  # type: ignore[no-any-return]

    def drawn(self, learners: int) -> Tasks:
        """One task per learner.

        Varied physics has its default values. The tasks of a finite family come in turn, in a fixed shuffled order.
        """
        distribution = self.distribution()
        if isinstance(distribution, VariedPhysics):
            return Tasks({name: np.full(learners, value) for name, value in distribution.DEFAULTS.items()})
        every = distribution.all_tasks()
        assert every is not None
        order = np.random.default_rng(SEED).permutation(len(every))
        return every.take(np.resize(order, learners))


def _built(given: dict[str, Any], table: dict[str, str]) -> Any:
    return find_component(given["name"], table)(**{name: value for name, value in given.items() if name != "name"})


_CART_POLE = {"tasks": {"name": "cart_pole"}, "target": 475, "num_final_episodes": 20}
_DARK_ROOM = {"tasks": {"name": "dark_room"}, "target": 0.95, "num_final_episodes": 100, "normalised": True}

PROBLEMS = {
    "cart_pole_ppo": Problem(
        agent={
            "name": "ppo",
            "actors": 8,
            "rollout_steps": 32,
            "batch_size": 256,
            "epochs": 20,
            "discount": 0.98,
            "gae_lambda": 0.8,
            "learning_rate": 1e-3,
            "final_learning_rate": 0.0,
        },
        steps=61_440,
        **_CART_POLE,
    ),
    "cart_pole_a2c": Problem(
        agent={
            "name": "a2c",
            "actors": 8,
            "rollout_steps": 16,
            "learning_rate": 3e-3,
            "final_learning_rate": 0.0,
            "discount": 0.98,
        },
        steps=163_840,
        **_CART_POLE,
    ),
    "dark_room_ppo": Problem(
        agent={
            "name": "ppo",
            "actors": 8,
            "rollout_steps": 40,
            "batch_size": 32,
            "epochs": 4,
            "learning_rate": 1e-3,
            "final_learning_rate": 0.1,
            "activation": "relu",
            "entropy_coefficient": 0.01,
            "discount": 0.95,
        },
        steps=25_600,
        **_DARK_ROOM,
    ),
    "dark_room_a2c": Problem(
        agent={
            "name": "a2c",
            "actors": 8,
            "rollout_steps": 10,
            "learning_rate": 1e-3,
            "final_learning_rate": 0.1,
            "gae_lambda": 0.95,
            "entropy_coefficient": 0.01,
            "discount": 0.95,
        },
        steps=25_600,
        **_DARK_ROOM,
    ),
    "dark_room_dqn": Problem(
        agent={
            "name": "dqn",
            "learning_rate": 1e-3,
            "buffer_size": 20_000,
            "learning_starts": 200,
            "batch_size": 64,
            "discount": 0.9,
            "train_every": 4,
            "target_every": 200,
            "epsilon_end": 0.01,
            "epsilon_fraction": 0.6,
        },
        steps=12_000,
        **_DARK_ROOM,
    ),
    "pendulum_sac": Problem(
        tasks={"name": "pendulum"},
        agent={
            "name": "sac",
            "learning_rate": 1e-3,
            "buffer_size": 20_000,
            "learning_starts": 200,
            "batch_size": 64,
            "hidden_sizes": (64, 64),
        },
        steps=8_000,
        num_final_episodes=10,
        target=-200,
    ),
    "half_cheetah_ppo": Problem(
        tasks={"name": "half_cheetah", "goal": "direction"},
        agent={
            "name": "ppo",
            "actors": 8,
            "rollout_steps": 200,
            "batch_size": 160,
            "epochs": 10,
            "learning_rate": 1e-3,
            "final_learning_rate": 0.1,
            "discount": 0.98,
            "normalise_observations": True,
            "normalise_rewards": True,
        },
        steps=240_000,
        num_final_episodes=80,
        grouped_by="direction",
    ),
}
