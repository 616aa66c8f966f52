"""The GridNavi family: VariBAD's goals, rewards and oracle."""

from functools import cache

import numpy as np
import pytest

from data_gen.tasks import Tasks
from data_gen.tasks.grids.grid import MOVES
from data_gen.tasks.grids.grid_navi import GridNavi
from icrl.support.errors import UserError

VARIANTS = [GridNavi(), GridNavi(size=3, episode_length=4), GridNavi(size=4, episode_length=3)]


def brute_force(room: GridNavi, goal, over_moves) -> float:
    """Expected return by recursion over (cell, steps left), without the code under test."""

    @cache
    def value(cell, steps_left):
        if not steps_left:
            return 0.0
        moves = []
        for move in MOVES:
            there = tuple(int(min(max(c + m, 0), room.size - 1)) for c, m in zip(cell, move, strict=True))
            moves.append((1.0 if there == goal else -0.1) + value(there, steps_left - 1))
        return over_moves(moves)

    return value((0, 0), room.episode_length)


@pytest.mark.parametrize("room", VARIANTS)
def test_optimal_and_random_returns_agree_with_brute_force(room):
    tasks = room.all_tasks()
    goals = [tuple(goal) for goal in tasks["goal"].tolist()]
    np.testing.assert_allclose(room.optimal_return(tasks), [brute_force(room, goal, max) for goal in goals], rtol=1e-6)
    random = [brute_force(room, goal, np.mean) for goal in goals]
    np.testing.assert_allclose(room.random_return(tasks), random, rtol=1e-6)


def test_the_papers_oracle_earns_11_07_over_21_goals():
    tasks = GridNavi().all_tasks()
    assert len(tasks) == 21
    assert GridNavi().optimal_return(tasks).mean() == pytest.approx(11.07, abs=0.005)


def test_goals_are_away_from_the_start_and_within_an_episodes_reach():
    goals = {tuple(goal) for goal in GridNavi(size=4, episode_length=3).all_tasks()["goal"].tolist()}
    assert goals == {(0, 2), (0, 3), (1, 2), (2, 0), (2, 1), (3, 0)}


def test_a_step_earns_1_on_the_goal_and_costs_a_tenth_off_it_with_no_early_end():
    envs = GridNavi(size=3, episode_length=5).make_vec(Tasks({"goal": np.array([[0, 2]])}))
    envs.reset(seed=0)
    steps = [envs.step(np.array([action]))[1:4] for action in (4, 4, 0, 3, 4)]
    assert [float(reward[0]) for reward, _, _ in steps] == pytest.approx([-0.1, 1, 1, -0.1, 1])
    assert not any(terminated[0] for _, terminated, _ in steps)
    assert [truncated[0] for _, _, truncated in steps] == [False] * 4 + [True]


@pytest.mark.parametrize("goal", [(0, 0), (1, 1)])
def test_a_goal_beside_the_start_is_refused(goal):
    with pytest.raises(UserError, match="is the start or beside it"):
        GridNavi().make_vec(Tasks({"goal": np.array([(4, 4), goal])}))


def test_bad_rooms_and_goals_are_refused():
    with pytest.raises(ValueError, match="greater than or equal to 3"):
        GridNavi(size=2)
    with pytest.raises(UserError, match="a goal lies outside the 5x5 room"):
        GridNavi().make_vec(Tasks({"goal": np.array([(5, 4)])}))
