"""The Dark Key-to-Door family: rewards of key and door, optima and random returns, and the hidden state."""

import itertools
from functools import cache

import numpy as np
import pytest

from data_gen.agents.tabular.q_learning import QLearning
from data_gen.agents.tabular.sarsa import Sarsa
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.grids.dark_key_to_door import DarkKeyToDoor
from data_gen.tasks.grids.grid import MOVES
from icrl.support.errors import UserError

STAY, UP, DOWN, LEFT, RIGHT = range(5)
VARIANTS = [
    DarkKeyToDoor(size=3, episode_length=4),
    DarkKeyToDoor(size=3, episode_length=7, start="corner"),
    DarkKeyToDoor(size=4, episode_length=6, start="center"),
    DarkKeyToDoor(size=3, episode_length=2, start=(2, 1)),
]


def one_task(key, door, **parameters):
    return DarkKeyToDoor(**parameters).make_vec(Tasks({"key": np.array([key]), "door": np.array([door])}))


def brute_force(room: DarkKeyToDoor, key, door, over_moves) -> float:
    """Expected return from a start, by recursion over (cell, key held, steps left), without the code under test."""

    @cache
    def value(cell, has_key, steps_left):
        if not steps_left:
            return 0.0
        moves = []
        for move in MOVES:
            there = tuple(int(min(max(c + m, 0), room.size - 1)) for c, m in zip(cell, move, strict=True))
            if has_key and there == door:
                moves.append(1.0)
            elif not has_key and there == key:
                moves.append(1.0 + value(there, True, steps_left - 1))
            else:
                moves.append(value(there, has_key, steps_left - 1))
        return over_moves(moves)

    starts = [tuple(map(int, cell)) for cell in room.cells()[room.start_cells()]]
    return np.mean([value(start, False, room.episode_length) for start in starts])


def every_pair(room: DarkKeyToDoor) -> Tasks:
    cells = list(itertools.product(range(room.size), repeat=2))
    key, door = zip(*itertools.product(cells, cells), strict=True)
    return Tasks({"key": np.array(key), "door": np.array(door)})


@pytest.mark.parametrize("room", VARIANTS)
def test_optimal_and_random_returns_agree_with_brute_force(room):
    tasks = every_pair(room)
    pairs = [(tuple(key), tuple(door)) for key, door in zip(tasks["key"].tolist(), tasks["door"].tolist(), strict=True)]
    np.testing.assert_allclose(room.optimal_return(tasks), [brute_force(room, *pair, max) for pair in pairs])
    np.testing.assert_allclose(room.random_return(tasks), [brute_force(room, *pair, np.mean) for pair in pairs])


def test_the_papers_room_has_6561_tasks_which_can_all_earn_2():
    room = DarkKeyToDoor()
    tasks = room.all_tasks()
    assert len(tasks) == len(np.unique(tasks.keys())) == 6561
    assert (room.optimal_return(tasks) == 2).all()


@pytest.mark.parametrize("room", VARIANTS)
def test_the_tasks_are_the_pairs_that_can_be_solved_from_some_start(room):
    def best_from(start, pair) -> float:
        alone = DarkKeyToDoor(size=room.size, episode_length=room.episode_length, start=start)
        return brute_force(alone, *pair, max)

    starts = [tuple(map(int, cell)) for cell in room.cells()[room.start_cells()]]
    tasks, pairs = room.all_tasks(), list(itertools.product(map(tuple, room.cells().tolist()), repeat=2))
    solvable = {pair for pair in pairs if max(best_from(start, pair) for start in starts) == 2}
    assert solvable
    found = zip(tasks["key"].tolist(), tasks["door"].tolist(), strict=True)
    assert {(tuple(key), tuple(door)) for key, door in found} == solvable


def test_key_then_door_each_earn_1_and_the_door_ends_the_episode():
    envs = one_task((0, 1), (1, 1), size=3, episode_length=20, start="corner")
    envs.reset(seed=0)
    recorded = []
    for action in (DOWN, RIGHT, UP, STAY, DOWN):  # over the door without the key, then to the key, then back
        observation, reward, terminated, truncated, infos = envs.step(np.array([action]))
        recorded.append((reward[0], terminated[0], truncated[0]))
    assert recorded == [(0, False, False), (0, False, False), (1, False, False), (0, False, False), (1, True, False)]
    np.testing.assert_array_equal(infos["final_obs"][0], [1, 1])
    np.testing.assert_array_equal(infos["final_state"][0], [1, 1, 1])
    np.testing.assert_array_equal(observation[0], [0, 0])
    np.testing.assert_array_equal(envs.state()[0], [0, 0, 0])  # the next episode begins without the key


def test_a_key_in_the_doors_cell_takes_two_steps():
    envs = one_task((0, 0), (0, 0), size=3, episode_length=20, start="corner")
    envs.reset(seed=0)
    _, reward, terminated, _, _ = envs.step(np.array([STAY]))
    assert (reward[0], terminated[0]) == (1, False)
    _, reward, terminated, _, _ = envs.step(np.array([STAY]))
    assert (reward[0], terminated[0]) == (1, True)


def test_the_state_but_not_the_observation_tells_whether_the_key_is_held():
    envs = one_task((0, 1), (4, 4), size=5, start="corner")
    envs.reset(seed=0)
    assert envs.single_observation_space.shape == (2,)
    assert envs.single_state_space.nvec.tolist() == [5, 5, 2]
    held = []
    for action in (RIGHT, LEFT):
        observation, *_ = envs.step(np.array([action]))
        state = envs.state()
        np.testing.assert_array_equal(state[:, :2], observation)
        held.append(state[0, 2])
    assert held == [1, 1]


def test_q_learning_solves_the_room_from_the_state_but_not_from_the_cell():
    room = DarkKeyToDoor(size=5, episode_length=20)
    envs, seeds = room.make_vec(room.sample(64, seed=0)), make_seeds(64, 0)

    def final_return(sees: str) -> float:
        recorded = interact(QLearning(step_size=1.0, epsilon_start=0.1), envs, 2000, seeds, sees=sees)
        return recorded.reward[:, -400:].sum() / recorded.ended[:, -400:].sum()

    assert final_return("state") > 1.95
    assert final_return("observation") < 1.8


@pytest.mark.parametrize("learner", [QLearning, Sarsa])
def test_a_learner_that_remembers_its_reward_learns_as_one_that_sees_the_key(learner):
    room = DarkKeyToDoor(size=4, episode_length=12)
    envs, seeds = room.make_vec(room.sample(32, seed=0)), make_seeds(32, 0)
    remembering = interact(learner(remembered_rewards=1), envs, 600, seeds, sees="observation")
    seeing = interact(learner(), envs, 600, seeds, sees="state")
    for name in ("action", "reward", "ended"):
        np.testing.assert_array_equal(getattr(remembering, name), getattr(seeing, name))


def test_a_memory_that_makes_the_table_too_large_is_refused():
    envs = DarkKeyToDoor(size=64).make_vec(Tasks({"key": np.array([(0, 1)]), "door": np.array([(4, 4)])}))
    with pytest.raises(UserError, match="16,781,312 rows of observations and memory are too many: 16,777,216"):
        interact(QLearning(remembered_rewards=4096), envs, 1, make_seeds(1, 0))


def test_bad_rooms_and_tasks_are_refused():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        DarkKeyToDoor(episode_length=1)
    with pytest.raises(ValueError, match=r"start \[0, 9\] lies outside the 9x9 room"):
        DarkKeyToDoor(start=(0, 9))
    with pytest.raises(UserError, match="a door lies outside the 4x4 room"):
        one_task((0, 0), (4, 0), size=4)
    with pytest.raises(UserError, match="a key lies outside the 4x4 room"):
        one_task((0, -1), (0, 0), size=4)
