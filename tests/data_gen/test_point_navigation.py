"""Point navigation: moves, rewards, ends, and an optimum that no other policy exceeds."""

import itertools

import gymnasium
import numpy as np
import pytest

import data_gen  # noqa: F401 - registers the environments
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.base import sample_actions
from data_gen.tasks.points.point_navigation import PointNavigation
from icrl.support.errors import UserError


def test_a_move_is_a_tenth_of_the_clipped_action_and_costs_the_remaining_distance():
    env = gymnasium.make("icrl/PointNavigation-v0", task={"goal": (0.3, -0.4)}).unwrapped
    np.testing.assert_array_equal(env.reset(seed=0)[0], [0, 0])
    seen, reward, terminated, truncated, _ = env.step(np.array([0.5, 0.0], np.float32))
    np.testing.assert_allclose(seen, [0.05, 0])
    assert reward == pytest.approx(-np.hypot(0.25, 0.4))
    assert not (terminated or truncated)
    seen, reward, *_ = env.step(np.array([7.0, -3.0], np.float32))
    np.testing.assert_allclose(seen, [0.15, -0.1], rtol=1e-6)
    assert reward == pytest.approx(-np.hypot(0.15, 0.3))


@pytest.mark.parametrize(("position", "ends"), [((0.0, 0.0), True), ((0.009, -0.009), True), ((0.0, 0.011), False)])
def test_an_episode_ends_within_the_tolerance_of_the_goal_on_both_axes(position, ends):
    goal = np.array([0.05, 0.02])
    envs = PointNavigation().make_vec(Tasks({"goal": goal[None]}))
    envs.reset(seed=0)
    _, _, terminated, _, infos = envs.step(((goal + position) / 0.1)[None])
    assert terminated[0] == ends
    assert ("final_obs" in infos) == ends


def best_return_on_a_lattice(family: PointNavigation, goal: tuple[int, int], spacing: float, reach: int) -> float:
    """Dynamic programming over positions and moves on multiples of `spacing`, without the code under test."""
    moves = range(-round(family.step / spacing), round(family.step / spacing) + 1)
    positions = list(itertools.product(range(-reach, reach + 1), repeat=2))
    value = dict.fromkeys(positions, 0.0)
    for _ in range(family.episode_length):
        arrival = {}
        for position in positions:
            off = [spacing * (a - b) for a, b in zip(position, goal, strict=True)]
            ends = abs(off[0]) < family.tolerance and abs(off[1]) < family.tolerance
            arrival[position] = -np.hypot(*off) + (0.0 if ends else value[position])
        value = {
            (x, y): max(arrival.get((x + dx, y + dy), -np.inf) for dx in moves for dy in moves) for x, y in positions
        }
    return value[0, 0]


@pytest.mark.parametrize("goal", [(0, 0), (1, 0), (5, -3), (-4, 6)])
@pytest.mark.parametrize("episode_length", [1, 5])
def test_the_optimum_agrees_with_dynamic_programming(goal, episode_length):
    family = PointNavigation(goal_range=0.3, episode_length=episode_length)
    tasks = Tasks({"goal": 0.05 * np.array([goal])})
    expected = best_return_on_a_lattice(family, goal, spacing=0.05, reach=8)
    assert family.optimal_return(tasks)[0] == pytest.approx(expected, abs=1e-12)


def test_no_random_policy_exceeds_the_optimum():
    family = PointNavigation(episode_length=8, tolerance=0.1)  # wide, so that random policies end episodes too
    tasks = family.sample(500, seed=0)
    envs, streams = family.make_vec(tasks), SlotStreams(make_seeds(500, 1))
    envs.reset(seed=0)
    total, running = np.zeros(500), np.ones(500, bool)
    for _ in range(8):
        toward = 0.5 * envs.optimal_action() + sample_actions(family.action_space, streams)
        _, reward, terminated, truncated, _ = envs.step(toward)
        total += running * reward
        running &= ~(terminated | truncated)
    assert (total <= family.optimal_return(tasks) + 1e-6).all()


def test_the_mean_optimum_is_minus_a_half_where_the_papers_trained_oracle_has_2_29():
    family = PointNavigation()
    assert family.optimal_return(family.sample(50_000, seed=0)).mean() == pytest.approx(-0.504, abs=0.01)


def test_goals_fill_the_square():
    goals = PointNavigation(goal_range=2.0).sample(4000, seed=0)["goal"]
    assert abs(goals).max() == pytest.approx(2, abs=0.01)
    np.testing.assert_allclose(goals.mean(axis=0), 0, atol=0.1)


def test_a_goal_outside_the_square_is_refused():
    for goal in [(0.0, 0.6), (np.nan, 0.0)]:
        with pytest.raises(UserError, match=r"outside the square \[-0.5, 0.5\]\^2"):
            gymnasium.make("icrl/PointNavigation-v0", task={"goal": goal})


@pytest.mark.parametrize("name", ["goal_range", "step", "episode_length"])
def test_a_parameter_of_zero_is_refused(name):
    with pytest.raises(ValueError, match=name):
        PointNavigation(**{name: 0})
