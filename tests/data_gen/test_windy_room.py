"""The Windy Room family: hidden moves, hidden wind, and optima against value iteration."""

from functools import cache

import numpy as np
import pytest

from data_gen.tasks import Tasks
from data_gen.tasks.grids.grid import MOVES
from data_gen.tasks.grids.windy_room import WindyRoom
from icrl.support.errors import UserError

IN_ORDER = np.arange(5)
VARIANTS = [
    WindyRoom(size=3, episode_length=5, wind=0.3),
    WindyRoom(size=4, episode_length=4, start="random", wind=0.5),
    WindyRoom(size=3, episode_length=4, start="corner", shuffle_actions=False, wind=0.1),
    WindyRoom(size=3, episode_length=3, start=(2, 0), wind=0),
]


def one_task(room: WindyRoom, goal=(0, 0), moves=IN_ORDER, wind=0, slots=1):
    rows = {"goal": [goal], "moves": [moves], "wind": [wind]}
    return room.make_vec(Tasks({name: np.repeat(row, slots, axis=0) for name, row in rows.items()}))


def action_values(room: WindyRoom, task, over_actions):
    """Values of the task's own actions in (cell, steps left), by recursion, without the code under test."""
    goal, moves, wind = tuple(task["goal"][0].tolist()), task["moves"][0], task["wind"][0]

    def pushed(cell, move):
        return tuple(int(min(max(c + m, 0), room.size - 1)) for c, m in zip(cell, MOVES[move], strict=True))

    @cache
    def values(cell, steps_left):
        worth = []
        for action in range(5):
            calm = pushed(cell, moves[action])
            ends = [
                (there == goal) + (over_actions(values(there, steps_left - 1)) if steps_left > 1 else 0.0)
                for there in (calm, pushed(calm, wind))
            ]
            worth.append((1 - room.wind) * ends[0] + room.wind * ends[1])
        return worth

    return values


def brute_force(room: WindyRoom, task, over_actions) -> float:
    values = action_values(room, task, over_actions)
    starts = [tuple(map(int, cell)) for cell in room.cells()[room.start_cells()]]
    return np.mean([over_actions(values(start, room.episode_length)) for start in starts])


@pytest.mark.parametrize("room", VARIANTS)
def test_optimal_and_random_returns_agree_with_brute_force(room):
    tasks = room.sample(25, seed=0)
    one = [tasks.take([row]) for row in range(25)]
    np.testing.assert_allclose(room.optimal_return(tasks), [brute_force(room, task, max) for task in one])
    np.testing.assert_allclose(room.random_return(tasks), [brute_force(room, task, np.mean) for task in one])


def test_a_room_without_wind_and_with_moves_in_order_equals_dark_room():
    from data_gen.tasks.grids.dark_room import DarkRoom

    still, dark = WindyRoom(shuffle_actions=False, wind=0), DarkRoom()
    np.testing.assert_allclose(still.optimal_return(still.all_tasks()), dark.optimal_return(dark.all_tasks()))
    np.testing.assert_allclose(still.random_return(still.all_tasks()), dark.random_return(dark.all_tasks()))


def test_the_optimal_action_is_a_best_one_for_the_steps_left():
    room = WindyRoom(size=4, episode_length=6, wind=0.4)
    tasks = room.sample(60, seed=3)
    values = [action_values(room, tasks.take([row]), max) for row in range(60)]
    envs = room.make_vec(tasks)
    observation, _ = envs.reset(seed=0)
    for step in range(2 * room.episode_length):
        best = envs.optimal_action()
        for slot, cell in enumerate(observation.tolist()):
            worth = values[slot](tuple(cell), room.episode_length - step % room.episode_length)
            assert worth[best[slot]] == pytest.approx(max(worth))
        observation, *_ = envs.step((best + (np.arange(60) + step) % 2) % 5)  # some other actions, to reach more cells


def test_every_task_differs_and_can_be_solved():
    room = WindyRoom(size=3, episode_length=2)
    tasks = room.all_tasks()
    assert len(tasks) == len(np.unique(tasks.keys())) == 9 * 120 * 5
    assert (room.optimal_return(tasks) > 0).all()
    assert len(WindyRoom().all_tasks()) == 81 * 120 * 5
    assert len(WindyRoom(size=9, episode_length=2, shuffle_actions=False, wind=0).all_tasks()) == 13  # within 2 steps


@pytest.mark.parametrize(
    ("parameters", "tasks", "varies"),
    [
        ({}, 81 * 120 * 5, "rewards and dynamics"),
        ({"wind": 0}, 81 * 120, "rewards and dynamics"),
        ({"shuffle_actions": False}, 81 * 5, "rewards and dynamics"),
        ({"shuffle_actions": False, "wind": 0}, 81, "rewards"),
    ],
)
def test_the_parameters_decide_what_varies(parameters, tasks, varies):
    room = WindyRoom(**parameters)
    every = room.all_tasks()
    assert (len(every), room.varies) == (tasks, varies)
    assert (len(np.unique(every["moves"], axis=0)) > 1) == room.shuffle_actions
    assert (len(np.unique(every["wind"])) > 1) == (room.wind > 0)


def test_an_action_makes_the_tasks_own_move():
    moves = np.array([3, 0, 4, 2, 1])
    envs = one_task(WindyRoom(size=5), moves=moves)
    for action, move in enumerate(moves):
        envs.reset(seed=0)
        observation, *_ = envs.step(np.array([action]))
        np.testing.assert_array_equal(observation[0] - (2, 2), MOVES[move])


def test_the_wind_pushes_one_cell_in_its_direction_with_its_probability():
    for wind in range(5):
        envs = one_task(WindyRoom(size=5, wind=0.3), wind=wind, slots=4000)
        envs.reset(seed=1)
        observation, *_ = envs.step(np.zeros(4000, int))
        pushed = (observation != (2, 2)).any(axis=1)
        np.testing.assert_array_equal(observation[pushed] - (2, 2), np.tile(MOVES[wind], (pushed.sum(), 1)))
        assert pushed.mean() == pytest.approx(0.3 if wind else 0, abs=0.03)


def test_a_slots_dynamics_do_not_depend_on_other_slots():
    room = WindyRoom(size=5)
    tasks = room.sample(4, seed=2)
    together, alone = room.make_vec(tasks), room.make_vec(tasks.take([2]))
    together.reset(seed=[5, 6, 7, 8])
    alone.reset(seed=[7])
    for step in range(50):
        seen = together.step(np.arange(4) * step % 5)[0]
        np.testing.assert_array_equal(alone.step(np.array([2 * step % 5]))[0][0], seen[2])


@pytest.mark.parametrize(
    ("parameters", "task", "message"),
    [
        ({}, {"goal": (9, 0)}, "a goal lies outside the 9x9 room"),
        ({}, {"moves": [0, 1, 2, 3, 3]}, "moves must be a permutation of 0, 1, 2, 3, 4"),
        ({}, {"wind": 5}, "a task's wind must be one of"),
        (
            {"shuffle_actions": False},
            {"moves": [1, 0, 2, 3, 4]},
            "moves are out of order, but windy_room has shuffle_actions",
        ),
        ({"wind": 0}, {"wind": 1}, "wind is not 0, but windy_room has wind: 0"),
    ],
)
def test_tasks_outside_the_family_are_refused(parameters, task, message):
    with pytest.raises(UserError, match=message):
        one_task(WindyRoom(**parameters), **task)


def test_a_wind_that_always_blows_is_refused():
    with pytest.raises(ValueError, match="less than 1"):
        WindyRoom(wind=1)
