"""The Dark Room family: dynamics, rewards, optima, splits, and both Gymnasium forms."""

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import data_gen  # noqa: F401 - registers the environments
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.grids.grid import MOVES
from icrl.support.errors import ConfigError, UserError

VARIANTS = [
    DarkRoom(),
    DarkRoom(size=4, episode_length=5),
    DarkRoom(size=5, episode_length=7, start="corner", reward="once"),
    DarkRoom(size=4, episode_length=6, start="random"),
    DarkRoom(size=4, episode_length=6, start="random", reward="once"),
    DarkRoom(size=5, episode_length=8, start=(1, 3)),
]


def brute_force_optimum(room: DarkRoom, goal, start) -> float:
    """Value iteration over (cell, steps left), without the code under test."""
    values = dict.fromkeys(itertools.product(range(room.size), repeat=2), 0.0)
    for _ in range(room.episode_length):
        updated = {}
        for cell in values:
            best = -np.inf
            for move in MOVES:
                there = tuple(int(np.clip(c + m, 0, room.size - 1)) for c, m in zip(cell, move, strict=True))
                hit = there == tuple(goal)
                best = max(best, hit + (0.0 if hit and room.reward == "once" else values[there]))
            updated[cell] = best
        values = updated
    return values[tuple(start)]


@pytest.mark.parametrize("room", VARIANTS)
def test_optimal_returns_agree_with_value_iteration(room):
    tasks = room.all_tasks()
    starts = room.cells()[room.start_cells()]
    expected = [np.mean([brute_force_optimum(room, goal, start) for start in starts]) for goal in tasks["goal"]]
    np.testing.assert_allclose(room.optimal_return(tasks), expected)


def test_the_papers_optimum_is_16_54_on_average():
    assert DarkRoom().optimal_return(DarkRoom().all_tasks()).mean() == pytest.approx(16.54, abs=0.01)


@pytest.mark.parametrize("room", VARIANTS[1:])
def test_random_returns_agree_with_simulation(room):
    tasks = room.all_tasks()
    simulated = super(DarkRoom, room).random_return(tasks)  # the base class simulates
    exact = room.random_return(tasks)
    assert abs(simulated - exact).max() < 0.35
    assert (simulated - exact).mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("room", VARIANTS)
def test_the_optimal_action_earns_the_optimal_return(room):
    tasks = room.all_tasks()
    repeats = 60 if room.start == "random" else 1
    envs = room.make_vec(tasks)
    envs.reset(seed=make_seeds(len(tasks), 0))
    total = np.zeros(len(tasks))
    episodes = np.zeros(len(tasks))
    while episodes.min() < repeats:
        _, reward, terminated, truncated, _ = envs.step(envs.optimal_action())
        running = episodes < repeats
        total += reward * running
        episodes += terminated | truncated
    error = total / repeats - room.optimal_return(tasks)
    assert abs(error).max() < (0.8 if repeats > 1 else 1e-9)


def test_an_unknown_parameter_is_a_type_error_as_in_gymnasiums_own_environments():
    with pytest.raises(TypeError, match="'dark_room' has no parameter 'render_mode'"):
        gymnasium.make("icrl/DarkRoom-v0", render_mode="rgb_array")


@pytest.mark.parametrize("env_id", ["icrl/DarkRoom-v0", "icrl/DarkRoomHard-v0"])
def test_gymnasiums_checker_passes(env_id, recwarn):
    check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)
    assert not [str(warning.message) for warning in recwarn if "UserWarning" in str(warning.category)]


@pytest.mark.parametrize("params", [{}, {"reward": "once", "size": 5}, {"start": "random"}])
def test_scalar_and_vector_forms_give_the_same_trajectories(params):
    goals = np.array([[2, 2], [0, 1], [3, 4]])
    vector = gymnasium.make_vec(
        "icrl/DarkRoom-v0", num_envs=3, vectorization_mode="vector_entry_point", tasks={"goal": goals}, **params
    )
    scalars = [gymnasium.make("icrl/DarkRoom-v0", task={"goal": goal}, **params) for goal in goals]
    seeds = [11, 12, 13]
    observation, _ = vector.reset(seed=seeds)
    for slot, env in enumerate(scalars):
        np.testing.assert_array_equal(env.reset(seed=seeds[slot])[0], observation[slot])
    rng = np.random.default_rng(0)
    for _ in range(150):
        actions = rng.integers(5, size=3)
        following, reward, terminated, truncated, infos = vector.step(actions)
        for slot, env in enumerate(scalars):
            seen, earned, over, cut, _ = env.step(actions[slot])
            assert (earned, over, cut) == (reward[slot], terminated[slot], truncated[slot])
            if over or cut:
                np.testing.assert_array_equal(seen, infos["final_obs"][slot])
                assert infos["_final_obs"][slot]
                seen, _ = env.reset()
            np.testing.assert_array_equal(seen, following[slot])


def test_autoreset_happens_in_the_same_step_and_keeps_the_task():
    room = DarkRoom(size=5, episode_length=4)
    envs = room.make_vec(Tasks({"goal": np.array([[2, 4]])}))
    envs.reset(seed=0)
    for _ in range(3):  # three episodes: two moves right to the goal, then two into the wall
        for step in range(4):
            observation, reward, terminated, truncated, infos = envs.step(np.array([4]))
            assert reward[0] == (step >= 1)
            assert truncated[0] == (step == 3)
            assert not terminated[0]
        np.testing.assert_array_equal(infos["final_obs"][0], [2, 4])
        np.testing.assert_array_equal(observation[0], [2, 2])


def test_a_random_start_depends_only_on_the_slots_own_seed():
    room = DarkRoom(start="random")
    tasks, seeds = room.all_tasks().take(np.arange(6)), make_seeds(6, 3)
    together = room.make_vec(tasks)
    alone = room.make_vec(tasks.take([4]))
    first, _ = together.reset(seed=seeds)
    np.testing.assert_array_equal(alone.reset(seed=seeds[4:5])[0][0], first[4])
    for _ in range(60):
        seen = together.step(np.arange(6) % 5)[0]
        np.testing.assert_array_equal(alone.step(np.array([4]))[0][0], seen[4])


def test_the_split_is_disjoint_complete_and_reproducible():
    room = DarkRoom()
    train, test = room.split(0.8, 0.2, seed=5)
    assert (len(train), len(test)) == (65, 16)
    assert len(np.unique(np.concatenate([train.keys(), test.keys()]))) == 81
    again = room.split(0.8, 0.2, seed=5)
    np.testing.assert_array_equal(train["goal"], again[0]["goal"])
    assert not np.array_equal(train["goal"], room.split(0.8, 0.2, seed=6)[0]["goal"])


def test_a_goal_that_no_episode_reaches_is_not_a_task():
    room = DarkRoom(size=9, start="corner", episode_length=4)
    assert len(room.all_tasks()) == 15  # the cells within four steps of the corner
    assert (room.optimal_return(room.all_tasks()) > 0).all()
    assert (room.optimal_return(room.sample(500, seed=0)) > 0).all()


def test_more_tasks_than_exist_are_refused():
    with pytest.raises(ConfigError, match=r"ask for 80 \+ 2 tasks, but DarkRoom has 81"):
        DarkRoom().split(80, 2, seed=0)


def test_tasks_are_saved_as_arrays_and_a_damaged_file_is_named(tmp_path):
    tasks = DarkRoom().all_tasks()
    tasks.save(tmp_path / "tasks.npz")
    np.testing.assert_array_equal(Tasks.load(tmp_path / "tasks.npz")["goal"], tasks["goal"])
    (tmp_path / "tasks.npz").write_bytes((tmp_path / "tasks.npz").read_bytes()[:50])
    with pytest.raises(UserError, match=r"tasks\.npz: is not a file of tasks"):
        Tasks.load(tmp_path / "tasks.npz")


def test_a_goal_outside_the_room_is_refused():
    with pytest.raises(UserError, match="outside the 9x9 room"):
        gymnasium.make("icrl/DarkRoom-v0", task={"goal": (0, 9)})


def test_a_task_with_another_name_is_refused():
    with pytest.raises(UserError, match="arrays of shapes"):
        gymnasium.make("icrl/DarkRoom-v0", task={"gaol": (0, 1)})
