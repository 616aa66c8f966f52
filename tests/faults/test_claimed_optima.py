"""An optimum is claimed only where the policy that the claim rests on earns it, from every start."""

import numpy as np
import pytest

from data_gen.agents.optimal import Optimal
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.streams import make_seeds
from data_gen.tasks.control.cart_pole import CartPole
from data_gen.tasks.points.point_navigation import PointNavigation
from data_gen.tasks.points.sparse_point_robot import SparsePointRobot
from data_gen.tasks.points.water_maze import WaterMaze


def earned(family, tasks, episodes):
    """(tasks, episodes) returns of the optimal agent."""
    envs = family.make_vec(tasks.take(np.repeat(np.arange(len(tasks)), episodes)))
    lived = interact(Optimal(), envs, family.episode_length, make_seeds(envs.num_envs, 7))
    returns = np.where(lived.ended.any(axis=1), episode_returns(lived.reward, lived.ended, 1)[:, 0], np.nan)
    return returns.reshape(len(tasks), episodes)


def test_cart_pole_claims_no_full_length_for_a_pole_that_its_own_policy_loses():
    """These poles are balanced from the middle and every corner of the starts, and fall from others."""
    family = CartPole(low=0.1, high=10)
    tasks = family.sample(400, seed=26).take([270, 286])
    lost = (earned(family, tasks, 600) < family.episode_length).mean(axis=1)
    assert (lost > 0).all()  # or this test would prove nothing
    assert (lost < 0.08).all()
    assert np.isnan(family.optimal_return(tasks)).all()


def test_cart_pole_still_claims_the_optimum_of_poles_that_are_held_safely():
    family = CartPole(low=0.1, high=10)
    tasks = family.sample(60, seed=1)
    claimed = np.flatnonzero(np.isfinite(family.optimal_return(tasks)))
    assert 20 <= len(claimed) <= 45
    assert (earned(family, tasks.take(claimed), 20) == family.episode_length).all()


@pytest.mark.parametrize(
    "family",
    [
        PointNavigation(goal_range=2.0, step=0.37, tolerance=0.05, episode_length=9),
        SparsePointRobot(radius=1.7, goal_radius=0.3, step=0.13, episode_length=14),
        WaterMaze(start="center", episode_length=12, speed=0.21),
        WaterMaze(start="center", reward="once", episode_length=12, speed=0.21),
    ],
    ids=lambda family: f"{type(family).__name__}-{family.episode_length}",
)
def test_what_the_point_families_claim_by_a_formula_is_what_their_policy_earns(family):
    tasks = family.sample(200, seed=3)
    np.testing.assert_allclose(earned(family, tasks, 1)[:, 0], family.optimal_return(tasks), atol=1e-4)
