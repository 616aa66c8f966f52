"""The contract of every task family, on which the pipeline relies."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import data_gen
from data_gen.agents.optimal import Optimal
from data_gen.agents.random import Random
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.spaces import leaves, map_leaves, to_json
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks, sample_actions
from data_gen.tasks.mujoco.locomotion import Locomotion
from data_gen.tasks.vector import TaskEnv
from icrl.config.components import TASKS, find_component
from icrl.support.errors import UserError

CASES = {
    "acrobot": ("acrobot", {"episode_length": 40}),
    "ant_direction": ("ant", {"goal": "direction", "episode_length": 15}),
    "ant_goal": ("ant", {"goal": "position", "episode_length": 15}),
    "ant_velocity_and_parameters": ("ant", {"goal": "velocity", "vary": ["body_mass"], "episode_length": 15}),
    "bandit": ("bandit", {}),
    "gaussian_bandit": ("bandit", {"reward": "gaussian", "arms": 3, "episode_length": 4}),
    "shifted_bandit": ("bandit", {"prior": "odd_arms"}),
    "cart_pole": ("cart_pole", {"episode_length": 30}),
    "dark_key_to_door": ("dark_key_to_door", {"size": 4, "episode_length": 12}),
    "dark_room": ("dark_room", {"size": 5, "episode_length": 7}),
    "dark_room_random_start": ("dark_room", {"size": 5, "episode_length": 7, "start": "random", "reward": "once"}),
    "dark_room_diagonal": ("dark_room", {"size": 5, "episode_length": 7, "diagonal": True}),
    "grid_navi": ("grid_navi", {}),
    "half_cheetah_direction": ("half_cheetah", {"goal": "direction", "episode_length": 15}),
    "half_cheetah_velocity_and_parameters": (
        "half_cheetah",
        {"goal": "velocity", "vary": ["body_mass", "geom_friction"], "episode_length": 15},
    ),
    "hopper": ("hopper", {"episode_length": 40}),
    "pendulum": ("pendulum", {"episode_length": 30}),
    "pixels": ("pixels", {"of": {"name": "dark_room", "size": 5, "episode_length": 7}}),
    "pixels_and_cell": (
        "pixels",
        {"of": {"name": "dark_room", "size": 5, "episode_length": 7, "start": "random"}, "keep": True},
    ),
    "point_navigation": ("point_navigation", {"episode_length": 20}),
    "sparse_point_robot": ("sparse_point_robot", {}),
    "tabular_mdp": ("tabular_mdp", {}),
    "walker2d": ("walker2d", {"episode_length": 40}),
    "water_maze": ("water_maze", {"episode_length": 30}),
    "windy_room": ("windy_room", {"size": 5, "episode_length": 9}),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture
def distribution(case) -> TaskDistribution:
    return made(case)


def made(case: str) -> TaskDistribution:
    name, parameters = CASES[case]
    return find_component(name, TASKS)(**parameters)


def few(distribution: TaskDistribution, count: int = 3) -> Tasks:
    return distribution.sample(count, seed=1)


def assert_equal(first, second) -> None:
    assert leaves(first).keys() == leaves(second).keys()
    for path, leaf in leaves(first).items():
        np.testing.assert_array_equal(leaf, leaves(second)[path])


def test_every_family_has_a_case():
    assert {name for name, _ in CASES.values()} >= set(TASKS) - {"gymnasium", "meta_world"}


def test_gymnasiums_checker_passes_for_the_scalar_form(distribution):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*(infinity|spec|render|symmetric and normalized).*")
        check_env(TaskEnv(distribution.make_vec(few(distribution, 1))), skip_render_check=True, skip_close_check=True)


def test_observations_and_actions_lie_in_their_spaces(distribution):
    envs = distribution.make_vec(few(distribution))
    streams = SlotStreams(make_seeds(3, 0))
    observation, _ = envs.reset(seed=make_seeds(3, 1))
    for _ in range(2 * distribution.episode_length):
        assert envs.observation_space.contains(observation)
        assert envs.single_state_space.contains(map_leaves(lambda leaf: leaf[0], envs.state()))
        action = sample_actions(distribution.action_space, streams)
        assert envs.action_space.contains(action)
        observation, reward, terminated, truncated, _ = envs.step(action)
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert np.isfinite(reward).all()


def test_the_vector_and_the_scalar_form_give_the_same_trajectory(distribution):
    """Runs several episodes, to check a slot's task, its random stream and its final observations."""
    tasks, steps = few(distribution), max(8, 3 * distribution.episode_length + 2)
    seeds = [11, 12, 13]
    envs = distribution.make_vec(tasks)
    alone = [TaskEnv(distribution.make_vec(tasks.take([slot]))) for slot in range(3)]
    observation, _ = envs.reset(seed=seeds)
    for slot, env in enumerate(alone):
        assert_equal(env.reset(seed=seeds[slot])[0], map_leaves(lambda leaf, s=slot: leaf[s], observation))
    streams = SlotStreams(make_seeds(3, 2))
    ends = 0
    for _ in range(steps):
        action = sample_actions(distribution.action_space, streams)
        observation, reward, terminated, truncated, infos = envs.step(action)
        arrived = infos.get("final_obs", observation)
        for slot, env in enumerate(alone):
            outcome = env.step(action[slot])
            assert_equal(outcome[0], map_leaves(lambda leaf, s=slot: leaf[s], arrived))
            assert outcome[1:4] == (reward[slot], terminated[slot], truncated[slot])
            if outcome[2] or outcome[3]:
                ends += 1
                assert infos["_final_obs"][slot]
                assert_equal(env.reset()[0], map_leaves(lambda leaf, s=slot: leaf[s], observation))
    assert ends >= 3


def test_one_seed_gives_slot_i_the_start_of_the_scalar_form_with_that_seed_plus_i(distribution):
    tasks = few(distribution)
    observation, _ = distribution.make_vec(tasks).reset(seed=np.int64(7))
    for slot in range(3):
        alone, _ = TaskEnv(distribution.make_vec(tasks.take([slot]))).reset(seed=7 + slot)
        assert_equal(alone, map_leaves(lambda leaf, s=slot: leaf[s], observation))


def test_another_number_of_seeds_is_refused(distribution):
    with pytest.raises(UserError, match="give one integer, or 3"):
        distribution.make_vec(few(distribution)).reset(seed=[1, 2])


def test_tasks_of_another_family_are_refused(distribution):
    with pytest.raises(UserError):
        distribution.make_vec(Tasks({"nothing": np.zeros(3)})).reset(seed=0)


def test_observations_are_not_changed_by_later_steps(distribution):
    envs = distribution.make_vec(few(distribution))
    streams = SlotStreams(make_seeds(3, 0))
    first, _ = envs.reset(seed=make_seeds(3, 1))
    copy = map_leaves(np.copy, first)
    for _ in range(2 * distribution.episode_length):
        envs.step(sample_actions(distribution.action_space, streams))
    assert_equal(first, copy)


def test_an_episode_is_truncated_at_its_length_and_never_also_terminated(distribution):
    envs = distribution.make_vec(few(distribution))
    streams, elapsed = SlotStreams(make_seeds(3, 0)), np.zeros(3, int)
    envs.reset(seed=make_seeds(3, 1))
    for _ in range(2 * distribution.episode_length):
        *_, terminated, truncated, _ = envs.step(sample_actions(distribution.action_space, streams))
        elapsed += 1
        assert not (terminated & truncated).any()
        assert (elapsed[truncated] == distribution.episode_length).all()
        assert (elapsed <= distribution.episode_length).all()
        elapsed[terminated | truncated] = 0


def test_tasks_differ_and_their_disjoint_split_depends_only_on_the_seed(distribution):
    finite = distribution.all_tasks()
    sizes = (0.5, 0.5) if finite is not None else (200, 100)
    train, test = distribution.split(*sizes, seed=3)
    again, _ = distribution.split(*sizes, seed=3)
    assert len(train) and len(test)
    assert (train.keys() == again.keys()).all()
    keys = np.concatenate([train.keys(), test.keys()])
    assert len(np.unique(keys)) == len(keys)
    if finite is None:
        assert (len(train), len(test)) == (200, 100)
        assert not np.isin(distribution.split(*sizes, seed=4)[1].keys(), keys).any()


def test_tasks_are_saved_and_loaded_equal(distribution, tmp_path):
    tasks = few(distribution, 5)
    tasks.save(tmp_path / "tasks.npz")
    loaded = Tasks.load(tmp_path / "tasks.npz")
    assert list(loaded) == list(tasks)
    for name in tasks:
        assert tasks[name].dtype.kind in "biuf" and loaded[name].dtype == tasks[name].dtype
        np.testing.assert_array_equal(loaded[name], tasks[name])


def test_returns_have_one_value_per_task_and_the_optimum_is_at_least_random(distribution):
    tasks = few(distribution, 4)
    optimal, random = distribution.optimal_return(tasks), distribution.random_return(tasks)
    assert optimal.shape == random.shape == (4,)
    assert np.isfinite(random).all()
    assert (np.isnan(optimal) | (optimal >= random - 1e-6)).all()


def test_the_random_return_agrees_with_simulation(distribution):
    if type(distribution).random_return is TaskDistribution.random_return:
        pytest.skip("the random return is a simulation")
    tasks = few(distribution, 4)
    simulated, error = mean_return(Random(), distribution, tasks, 64)
    if isinstance(distribution, Locomotion):  # its random return is an estimate too, from a quarter as many episodes
        error = error * np.sqrt(1 + 4)
    assert distribution.random_return(tasks) == pytest.approx(simulated, abs=5 * error.max() + 1e-6)


def test_the_optimal_policy_earns_the_optimal_return(distribution):
    tasks = few(distribution, 4)
    optimal = distribution.optimal_return(tasks)
    if np.isnan(optimal).any() or not hasattr(distribution.make_vec(tasks), "optimal_action"):
        pytest.skip("the optimal return or policy is unknown")
    earned, error = mean_return(Optimal(), distribution, tasks, 64)
    assert optimal == pytest.approx(earned, abs=5 * error.max() + 1e-5)


def mean_return(agent, distribution: TaskDistribution, tasks: Tasks, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean return of an episode on each task, and its standard error."""
    envs = distribution.make_vec(tasks.take(np.repeat(np.arange(len(tasks)), slots)))
    steps = 4 * distribution.episode_length
    history = interact(agent, envs, steps, make_seeds(envs.num_envs, 5))
    returns = episode_returns(history.reward, history.ended, 4).reshape(len(tasks), -1)
    return returns.mean(axis=1), returns.std(axis=1) / np.sqrt(returns.shape[1])


def test_the_spaces_can_be_recorded_and_written_as_json(distribution):
    assert to_json(distribution.observation_space) and to_json(distribution.action_space)
    history = interact(Random(), distribution.make_vec(few(distribution)), 5, make_seeds(3, 0))
    for name, column in history.columns().items():
        assert column.shape[:2] == (3, 5), name


def test_the_family_states_what_varies(distribution):
    assert distribution.varies in ("rewards", "dynamics", "rewards and dynamics")


def test_a_task_has_a_picture(distribution):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    nothing = map_leaves(lambda space: np.empty((0, *space.shape), space.dtype), distribution.observation_space)
    assert distribution.draw(axes, few(distribution, 1), nothing, np.empty(0))
    assert axes.has_data()


def test_registered_environments_can_be_made_by_name():
    names = sorted(name for name in gymnasium.registry if name.startswith("icrl/"))
    assert data_gen.__doc__ and len(names) >= 20
    for name in names:
        env = gymnasium.make(name)
        assert env.observation_space.contains(env.reset(seed=0)[0])
        envs = gymnasium.make_vec(name, num_envs=2, vectorization_mode="vector_entry_point")
        assert envs.observation_space.contains(envs.reset(seed=0)[0])


@pytest.mark.parametrize("goal", [(2.7, 3.9), "corner", ((1, 2), (3,))])
def test_a_task_that_does_not_fit_the_familys_type_is_refused(goal):
    with pytest.raises(UserError, match="goal must be numbers of type int64"):
        gymnasium.make("icrl/DarkRoom-v0", task={"goal": goal})
