"""The comparison with Stable-Baselines3: both sides get the same tasks, parameters and measure."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from benchmarks import deep_rl
from benchmarks.deep_rl import POINTS, curve, episodes, groups
from benchmarks.deep_rl_problems import PROBLEMS, Problem
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.base import sample_actions
from icrl.config.components import parameters

stable_baselines = pytest.importorskip("benchmarks.stable_baselines", reason="a development extra")


def buildable(name: str) -> Problem:
    """The problem called `name`. Skips the test if a package that it needs is missing."""
    if PROBLEMS[name].tasks["name"] == "half_cheetah":
        pytest.importorskip("mujoco")
    return PROBLEMS[name]


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_consists_of_whole_rollouts_and_both_sides_can_be_built(name):
    problem = buildable(name)
    agent = problem.learner()
    rollout = agent.actors * getattr(agent, "rollout_steps", 1)
    assert problem.steps % rollout == 0
    assert problem.steps // agent.actors * agent.actors == problem.steps
    algorithm = stable_baselines.make_algorithm(problem, problem.drawn(1), seed=0)
    assert algorithm.n_envs == agent.actors


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_parameter_reaches_stable_baselines(name):
    """If the mapping missed one of this project's parameters, the benchmark would compare different learners."""
    problem = buildable(name)
    mapped = {*stable_baselines.ARGUMENTS[problem.agent["name"]], *stable_baselines.MAPPED_APART}
    assert set(parameters(problem.learner())) <= mapped
    algorithm = stable_baselines.make_algorithm(problem, problem.drawn(1), seed=0)
    for ours, theirs in stable_baselines.ARGUMENTS[problem.agent["name"]].items():
        value = getattr(algorithm, theirs, None)
        if theirs in ("clip_range", "train_freq", "rms_prop_eps"):  # stored in another form
            continue
        assert value == getattr(problem.learner(), ours), theirs


@pytest.mark.parametrize("name", ["cart_pole_ppo", "dark_room_a2c", "pendulum_sac", "half_cheetah_ppo"])
def test_both_sides_act_in_the_same_environment(name):
    """Steps this project's vector environment beside the scalar environment that Stable-Baselines3 gets."""
    problem = buildable(name)
    distribution, tasks = problem.distribution(), problem.drawn(2)
    envs, streams = distribution.make_vec(tasks), SlotStreams(make_seeds(2, 0))
    observation, _ = envs.reset(seed=make_seeds(2, 1))
    scalars = [stable_baselines.scalar_env(distribution, tasks.take([slot])) for slot in range(2)]
    for slot, env in enumerate(scalars):
        env.reset(seed=0)
        if hasattr(envs, "motion") and isinstance(envs.motion, np.ndarray):  # classic control
            env.unwrapped.state = envs.motion[:, slot].copy()
    exact = name != "half_cheetah_ppo"  # the cheetah's start cannot be set, so only its reward is checked
    for step in range(distribution.episode_length if name == "dark_room_a2c" else 6):
        action = sample_actions(distribution.action_space, streams)
        observation, reward, terminated, truncated, infos = envs.step(action)
        arrived = infos.get("final_obs", observation)
        for slot, env in enumerate(scalars):
            seen, earned, over, cut, info = env.step(action[slot])
            assert (over, cut) == (terminated[slot], truncated[slot])
            if exact:
                np.testing.assert_allclose(arrived[slot], seen, rtol=1e-6, atol=1e-6, err_msg=f"step {step}")
                assert reward[slot] == pytest.approx(earned, rel=1e-5, abs=1e-6)
            else:
                direction = tasks["direction"][slot]
                cost = 0.05 * np.square(action[slot]).sum()
                assert earned == pytest.approx(direction * info["x_velocity"] - cost, rel=1e-5)
    assert {env.spec.max_episode_steps for env in scalars if env.spec} <= {distribution.episode_length}


def test_stable_baselines_rewards_are_recorded_as_the_environment_returned_them():
    """At a time limit, Stable-Baselines3's on-policy learners add the last state's value to the reward, in place."""
    problem = PROBLEMS["dark_room_a2c"]
    problem = dataclasses.replace(problem, steps=40 * problem.learner().actors)
    rewards, ended = stable_baselines.train(problem, problem.drawn(1), seed=0)
    assert set(np.unique(rewards)) <= {0, 1}
    assert (np.flatnonzero(ended[0]) == [19, 39]).all()


def test_episodes_are_counted_over_all_actors_in_the_order_of_their_ends():
    rewards = np.array([[1, 2, 3, 4, 5], [10, 20, 30, 40, 50]])
    ended = np.array([[False, True, False, False, True], [True, False, True, False, False]])
    step, returns = episodes(rewards, ended)
    assert step.tolist() == [0, 1, 2, 4]
    assert returns.tolist() == [10, 3, 50, 12]
    points = curve(step, returns, steps=5)
    assert len(points) == POINTS
    assert points[~np.isnan(points)].tolist() == [10, 3, 50, 12]


def test_learners_of_a_finite_family_get_different_tasks_and_groups_contain_all_of_them():
    assert len(np.unique(PROBLEMS["dark_room_a2c"].drawn(81).keys())) == 81
    problem = PROBLEMS["half_cheetah_ppo"]
    pytest.importorskip("mujoco")
    shares = groups(problem, problem.drawn(16))
    assert [len(rows) for rows in shares.values()] == [8, 8]


def test_the_figure_is_drawn_from_recorded_results(tmp_path, monkeypatch):
    figures = {"groups": {"all": {"steps": [1, 2], "scores": [0.5], "curve": {}}}}
    figures["groups"]["all"]["curve"] = {key: [None, 0.5] for key in ("low", "median", "high", "mean")}
    monkeypatch.setattr(deep_rl, "recorded", lambda side: {"cart_pole_ppo": figures} if side == "ours" else {})
    deep_rl.plot(tmp_path / "deep_rl.png")
    assert (tmp_path / "deep_rl.png").stat().st_size > 1000


def test_a_scalar_dark_room_is_a_gymnasium_environment():
    problem = PROBLEMS["dark_room_a2c"]
    env = stable_baselines.scalar_env(problem.distribution(), problem.drawn(1))
    assert isinstance(env, gymnasium.Env)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
