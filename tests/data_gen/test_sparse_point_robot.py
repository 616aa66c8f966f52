"""The sparse point robot: rewards, optimum, goals, and refusals."""

import itertools

import gymnasium
import numpy as np
import pytest

import data_gen  # noqa: F401 - registers the environments
from data_gen.tasks import Tasks
from data_gen.tasks.points.sparse_point_robot import SparsePointRobot
from icrl.support.errors import UserError


def authors_reward(position, goal, goal_radius=0.2) -> float:
    """The reward of `SparsePointEnv` with `sparsify_rewards`, as in the authors' rlkit/envs/point_robot.py."""
    dense = -np.linalg.norm(np.subtract(position, goal))
    return dense + 1 if dense >= -goal_radius else 0.0


def test_a_step_earns_the_reward_of_the_authors_environment():
    goal = np.array([0.6, 0.8])
    envs = SparsePointRobot().make_vec(Tasks({"goal": goal[None]}))
    envs.reset(seed=0)
    rng, position, paid = np.random.default_rng(0), np.zeros(2), 0
    for step in range(19):
        # To the goal, then at random around it.
        action = np.clip(envs.optimal_action()[0] + rng.normal(size=2) * (step > 8), -2, 2)
        position = position + 0.1 * np.clip(action, -1, 1)
        observation, reward, terminated, *_ = envs.step(action[None])
        np.testing.assert_allclose(observation[0], position, rtol=1e-6)
        assert reward[0] == pytest.approx(authors_reward(position, goal))
        assert not terminated[0]
        paid += reward[0] > 0
    assert 3 < paid < 19


def best_return_on_a_lattice(family: SparsePointRobot, goal, spacing=0.1, reach=12) -> float:
    """Dynamic programming over positions and moves that are multiples of `spacing`."""
    value = np.zeros((2 * reach + 1,) * 2)
    positions = spacing * np.stack(np.mgrid[-reach : reach + 1, -reach : reach + 1], axis=-1)
    rewards = np.array([[authors_reward(position, goal, family.goal_radius) for position in row] for row in positions])
    for _ in range(family.episode_length):
        padded = np.pad(rewards + value, 1, constant_values=-np.inf)
        size = 2 * reach + 1
        value = np.max([padded[i : i + size, j : j + size] for i, j in itertools.product(range(3), repeat=2)], axis=0)
    return value[reach, reach]


@pytest.mark.parametrize("goal", [(0.6, 0.8), (-0.8, 0.6)])
@pytest.mark.parametrize("episode_length", [8, 20])
def test_the_optimum_agrees_with_dynamic_programming(goal, episode_length):
    family = SparsePointRobot(episode_length=episode_length, goal_radius=0.25)
    assert family.optimal_return(Tasks({"goal": np.array([goal])}))[0] == pytest.approx(
        best_return_on_a_lattice(family, goal)
    )


@pytest.mark.parametrize("goal", [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0)])
def test_the_optimal_policy_earns_the_optimum_if_a_step_ends_on_the_edge_of_the_goal_region(goal):
    family, tasks = SparsePointRobot(), Tasks({"goal": np.array([goal])})
    envs = family.make_vec(tasks)
    envs.reset(seed=0)
    total = sum(envs.step(envs.optimal_action())[1][0] for _ in range(family.episode_length))
    assert family.optimal_return(tasks)[0] == pytest.approx(total, abs=1e-5)


def test_goals_lie_on_the_half_circle():
    goals = SparsePointRobot(radius=0.7).sample(2000, seed=0)["goal"]
    np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 0.7)
    assert goals[:, 1].min() >= 0
    assert goals[:, 0].min() < -0.69 and goals[:, 0].max() > 0.69


def test_a_goal_off_the_half_circle_is_refused():
    for goal in [(0.5, 0.5), (0.6, -0.8), (np.nan, 0.0)]:
        with pytest.raises(UserError, match="off the half circle of radius 1"):
            gymnasium.make("icrl/SparsePointRobot-v0", task={"goal": goal})


def test_an_episode_too_short_to_reach_every_goal_is_refused():
    SparsePointRobot(episode_length=8)
    with pytest.raises(ValueError, match=r"episode_length 7 is too short: .* 8"):
        SparsePointRobot(episode_length=7)


@pytest.mark.parametrize(("name", "value"), [("goal_radius", 1.5), ("goal_radius", 0), ("radius", 0), ("step", 0)])
def test_a_parameter_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        SparsePointRobot(**{name: value})
