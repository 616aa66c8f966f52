"""The water maze: observations, moves, and the exact optimum over random starts."""

import gymnasium
import numpy as np
import pytest

import data_gen  # noqa: F401 - registers the environments
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.points.water_maze import WaterMaze
from icrl.support.errors import UserError

PLATFORMS = np.array([[0.0, 0.0], [0.3, -0.2], [-0.55, 0.5], [0.0, 0.75]])


@pytest.mark.parametrize("start", ["rim", "random", "center"])
@pytest.mark.parametrize("reward", ["every_step", "once"])
def test_the_optimum_agrees_with_simulation(start, reward):
    slots = 1500
    maze = WaterMaze(start=start, reward=reward, speed=0.11, platform_radius=0.25, episode_length=14)
    envs = maze.make_vec(Tasks({"platform": np.repeat(PLATFORMS, slots, axis=0)}))
    envs.reset(seed=make_seeds(len(PLATFORMS) * slots, 0))
    total, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    for _ in range(maze.episode_length):
        _, earned, terminated, truncated, _ = envs.step(envs.optimal_action())
        total += running * earned
        running &= ~(terminated | truncated)
    returns = total.reshape(len(PLATFORMS), slots)
    error = 5 * returns.std(axis=1).max() / np.sqrt(slots) + 1e-9
    optimal = maze.optimal_return(Tasks({"platform": PLATFORMS}))
    np.testing.assert_allclose(optimal, returns.mean(axis=1), atol=error)


@pytest.mark.parametrize("start", ["rim", "random"])
def test_the_fraction_of_starts_within_reach_agrees_with_counting(start):
    maze = WaterMaze(start=start, pool_radius=1.5, episode_length=60)
    envs = maze.make_vec(Tasks({"platform": np.zeros((40_000, 2))}))
    starts = envs.reset(seed=make_seeds(40_000, 1))[0][:, :2]
    for position in [(0.0, 0.1), (0.4, 0.5), (-1.1, 0.2)]:
        distance = np.linalg.norm(starts - position, axis=1)
        for reach in (0.3, 0.9, 1.6, 2.6, 3.0):
            share = maze._starts_within(reach, np.array([np.linalg.norm(position)]))[0]
            assert share == pytest.approx((distance <= reach).mean(), abs=0.012)


def test_the_platform_is_observed_only_when_reached():
    maze = WaterMaze(start="center")
    envs = maze.make_vec(Tasks({"platform": np.array([[0.55, 0.0]])}))
    observation, _ = envs.reset(seed=0)
    flags, rewards = [observation[0, 2]], []
    for _ in range(6):
        observation, reward, terminated, *_ = envs.step(np.array([[1.0, 0.0]]))
        flags.append(observation[0, 2])
        rewards.append(reward[0])
        assert not terminated[0]
    assert flags == [0, 0, 0, 0, 1, 1, 1]
    assert rewards == flags[1:]


def test_the_reward_comes_once_and_ends_the_episode():
    maze = WaterMaze(start="center", reward="once")
    envs = maze.make_vec(Tasks({"platform": np.array([[0.45, 0.0]])}))
    envs.reset(seed=0)
    for step in range(3):
        observation, reward, terminated, _, infos = envs.step(np.array([[1.0, 0.0]]))
        assert reward[0] == terminated[0] == (step == 2)
    assert infos["final_obs"][0, 2] == 1
    np.testing.assert_array_equal(observation[0], 0)


def test_all_directions_are_equally_fast_and_the_rim_stops_the_swimmer():
    maze = WaterMaze(start="center")
    envs = maze.make_vec(Tasks({"platform": np.zeros((3, 2))}))
    envs.reset(seed=0)
    actions = np.array([[1.0, 1.0], [0.3, 0.4], [-1.0, 0.0]])
    observation, *_ = envs.step(actions)
    np.testing.assert_allclose(np.linalg.norm(observation[:, :2], axis=1), [0.1, 0.05, 0.1], rtol=1e-6)
    for _ in range(40):
        observation, *_ = envs.step(actions)
    np.testing.assert_allclose(observation[:, :2], [[0.5**0.5, 0.5**0.5], [0.6, 0.8], [-1, 0]], rtol=1e-6)


def test_starts_lie_anywhere_on_the_rim_and_differ_between_episodes():
    maze = WaterMaze(episode_length=16)
    envs = maze.make_vec(maze.sample(400, seed=0))
    first, _ = envs.reset(seed=make_seeds(400, 0))
    np.testing.assert_allclose(np.linalg.norm(first[:, :2], axis=1), 1, rtol=1e-6)
    assert abs(first[:, :2].mean(axis=0)).max() < 0.1
    for _ in range(16):
        second, *_ = envs.step(np.zeros((400, 2)))
    assert (np.linalg.norm(second - first, axis=1) > 1e-6).all()


def test_platforms_lie_completely_in_the_pool_and_fill_it_uniformly():
    maze = WaterMaze(pool_radius=2.0, platform_radius=0.5)
    distance = np.linalg.norm(maze.sample(5000, seed=0)["platform"], axis=1)
    assert distance.max() <= 1.5
    assert (distance < 0.75).mean() == pytest.approx(0.25, abs=0.03)  # a quarter of the disc of radius 1.5


def test_a_platform_outside_the_pool_is_refused():
    for platform in [(0.7, 0.7), (np.nan, 0.0)]:
        with pytest.raises(UserError, match="a platform lies outside the pool"):
            gymnasium.make("icrl/WaterMaze-v0", task={"platform": platform})


def test_mazes_without_room_or_time_are_refused():
    with pytest.raises(ValueError, match=r"platform_radius 1\.0 leaves no room in a pool of radius 1\.0"):
        WaterMaze(platform_radius=1.0)
    with pytest.raises(ValueError, match=r"episode_length 15 is too short to cross the pool: .* takes 16 steps"):
        WaterMaze(episode_length=15)
    WaterMaze(episode_length=16)
