"""The Stable-Baselines3 side of the comparison: its learners with our hyper-parameters, on our tasks."""

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from benchmarks.deep_rl_problems import Problem
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.control.cart_pole import CartPole
from data_gen.tasks.control.pendulum import Pendulum
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.mujoco.half_cheetah import HalfCheetah
from icrl.config.components import parameters
from icrl.support.errors import UserError

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"a2c": A2C, "ppo": PPO, "dqn": DQN, "sac": SAC}

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}

_ON_POLICY = {
    "rollout_steps": "n_steps",
    "discount": "gamma",
    "gae_lambda": "gae_lambda",
    "entropy_coefficient": "ent_coef",
    "value_coefficient": "vf_coef",
    "max_grad_norm": "max_grad_norm",
}
_OFF_POLICY = {
    "buffer_size": "buffer_size",
    "learning_starts": "learning_starts",
    "batch_size": "batch_size",
    "discount": "gamma",
    "train_every": "train_freq",
    "gradient_steps": "gradient_steps",
    "tau": "tau",
}
ARGUMENTS: dict[str, dict[str, str]] = {
    "a2c": _ON_POLICY | {"rms_epsilon": "rms_prop_eps"},
    "ppo": _ON_POLICY
    | {
        "batch_size": "batch_size",
        "epochs": "n_epochs",
        "clip_range": "clip_range",
        "normalise_advantages": "normalize_advantage",
    },
    "dqn": _OFF_POLICY
    | {
        "target_every": "target_update_interval",
        "epsilon_start": "exploration_initial_eps",
        "epsilon_end": "exploration_final_eps",
        "epsilon_fraction": "exploration_fraction",
        "max_grad_norm": "max_grad_norm",
    },
    "sac": _OFF_POLICY | {"entropy_coefficient": "ent_coef"},
}
"""Names of our parameters and of Stable-Baselines3's, where they mean the same, by agent."""

MAPPED_APART = {
    "activation",
    "actors",
    "double",
    "final_learning_rate",
    "hidden_sizes",
    "learning_rate",
    "normalise_observations",
    "normalise_rewards",
    "rms_decay",
    "target_entropy",
}
"""Our parameters that Stable-Baselines3 takes in another form or at another place."""


class Recorder(DummyVecEnv):
    """A DummyVecEnv that records the rewards as the environments gave them, and the ends of episodes."""

    def __init__(self, makers: list[Any]) -> None:
        super().__init__(makers)
        self.rewards: list[NDArray[Any]] = []
        self.ended: list[NDArray[Any]] = []

    def step_wait(self) -> Any:
        step = super().step_wait()
        self.rewards.append(step[1].copy())  # a copy: on-policy algorithms add values to it at time limits
        self.ended.append(step[2])
        return step


class ScalarDarkRoom(gymnasium.Env[Any, Any]):
    """Dark Room in plain Python; for one environment, this is many times faster than arrays of one row."""

    def __init__(self, room: DarkRoom, goal: NDArray[Any]) -> None:
        self.observation_space, self.action_space = room.observation_space, room.action_space
        self._next, self._cells = room.next_cells().tolist(), [*room.cells()]
        self._goal = int(np.flatnonzero((room.cells() == goal).all(axis=1))[0])
        (self._start,) = room.start_cells().tolist()
        self._length = room.episode_length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._cell, self._elapsed = self._start, 0
        return self._cells[self._cell], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._cell, self._elapsed = self._next[self._cell][action], self._elapsed + 1
        return self._cells[self._cell], float(self._cell == self._goal), False, self._elapsed >= self._length, {}


def scalar_env(distribution: TaskDistribution, task: Tasks) -> gymnasium.Env[Any, Any]:
    """One environment of the task: Gymnasium's own if it has one, because users of Stable-Baselines3 would use that."""
    limit: dict[str, Any] = {"max_episode_steps": distribution.episode_length, "disable_env_checker": True}
    if isinstance(distribution, DarkRoom):
        return ScalarDarkRoom(distribution, task["goal"][0])
    if isinstance(distribution, HalfCheetah):
        weights = {"forward_reward_weight": float(task["direction"][0]), "ctrl_cost_weight": 0.05}
        return gymnasium.make("HalfCheetah-v5", **weights, **limit)
    names: dict[type[TaskDistribution], str] = {CartPole: "CartPole-v1", Pendulum: "Pendulum-v1"}
    return gymnasium.make(names[type(distribution)], **limit)


def make_algorithm(problem: Problem, task: Tasks, seed: int, recorder: type[DummyVecEnv] = Recorder) -> BaseAlgorithm:
    """A Stable-Baselines3 learner with the parameters of the problem's agent, in environments of `task`.

    Raises UserError for Double DQN, which Stable-Baselines3 does not have.
    """
    name, given = problem.agent["name"], parameters(problem.learner())
    if given.get("double"):
        raise UserError("dqn.double: Stable-Baselines3 has no Double DQN to compare with")
    distribution = problem.distribution()
    envs: VecEnv = recorder([lambda: scalar_env(distribution, task)] * given["actors"])
    if given.get("normalise_observations") or given.get("normalise_rewards"):
        envs = VecNormalize(
            envs,
            norm_obs=given.get("normalise_observations", False),
            norm_reward=given.get("normalise_rewards", False),
            gamma=given["discount"],
        )
    network: dict[str, Any] = {"net_arch": list(given["hidden_sizes"])}
    if "activation" in given:
        network["activation_fn"] = ACTIVATIONS[given["activation"]]
    if name == "a2c":
        network["optimizer_kwargs"] = {"alpha": given["rms_decay"], "eps": given["rms_epsilon"], "weight_decay": 0}
    arguments = {theirs: given[ours] for ours, theirs in ARGUMENTS[name].items()}
    if name == "sac":
        arguments["target_entropy"] = "auto" if given["target_entropy"] is None else given["target_entropy"]
    rate, final = given["learning_rate"], given.get("final_learning_rate", 1.0)
    return ALGORITHMS[name](
        policy="MlpPolicy",
        env=envs,
        learning_rate=lambda remaining: rate * (final + (1 - final) * remaining),
        policy_kwargs=network,
        device="cpu",
        seed=seed,
        **arguments,
    )


def train(problem: Problem, task: Tasks, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Trains one learner; returns its rewards and episode ends, each of shape (actors, steps)."""
    algorithm = make_algorithm(problem, task, seed)
    algorithm.learn(problem.steps, log_interval=None)
    assert algorithm.env is not None
    recorder: Any = algorithm.env.unwrapped
    steps = problem.steps // algorithm.n_envs
    rewards, ended = np.stack(recorder.rewards, axis=1), np.stack(recorder.ended, axis=1)
    algorithm.env.close()
    return rewards[:, :steps], ended[:, :steps]
