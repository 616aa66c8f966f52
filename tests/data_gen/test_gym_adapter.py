"""Gymnasium environments as task distributions: Gymnasium's own, MiniGrid's and highway-env's."""

import gymnasium
import numpy as np
import pydantic
import pytest
from gymnasium.wrappers import FilterObservation
from test_tasks import (  # noqa: F401 - the contract of every family, with this file's distributions
    test_a_task_has_a_picture,
    test_an_episode_is_truncated_at_its_length_and_never_also_terminated,
    test_gymnasiums_checker_passes_for_the_scalar_form,
    test_observations_are_not_changed_by_later_steps,
    test_returns_have_one_value_per_task_and_the_optimum_is_at_least_random,
    test_tasks_are_saved_and_loaded_equal,
    test_tasks_differ_and_their_disjoint_split_depends_only_on_the_seed,
    test_the_family_states_what_varies,
    test_the_spaces_can_be_recorded_and_written_as_json,
    test_the_vector_and_the_scalar_form_give_the_same_trajectory,
)

from data_gen.agents.tabular.q_learning import QLearning
from data_gen.generation.generate import generate
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.spaces import leaves
from data_gen.storage.folder import load_info
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from data_gen.tasks.adapted.process_vector import ExpertProcessVectorEnv, ProcessVectorEnv
from data_gen.tasks.base import Tasks, sample_actions
from icrl.config.loader import dump, fingerprint, load_config, validate
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError

MAPS = "gymnasium.envs.toy_text.frozen_lake:generate_random_map"
SEEN = {"name": "FilterObservation", "filter_keys": ["direction", "image"]}

CASES = {
    "pendulum": {"env_id": "Pendulum-v1", "vary": {"g": {"low": 5.0, "high": 15.0}}, "episode_length": 9},
    "frozen_lake": {
        "env_id": "FrozenLake-v1",
        "vary": {"desc": {"call": MAPS, "seeds": 6, "size": 4}, "is_slippery": [True, False]},
        "episode_length": 12,
    },
    "minigrid": {
        "env_id": "minigrid:MiniGrid-Dynamic-Obstacles-6x6-v0",
        "layouts": 40,
        "wrappers": [SEEN],
        "episode_length": 9,
    },
    "highway": {
        "env_id": "highway_env:lane-keeping-v0",
        "vary": {
            "config.state_noise": {"low": 0.01, "high": 1.0, "log": True},
            "config.simulation_frequency": {"low": 5, "high": 20},
        },
        "kwargs": {"config": {"derivative_noise": 0.1}},
        "episode_length": 7,
    },
}
NEEDS = {"minigrid": "minigrid", "highway": "highway_env"}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def made(case: str) -> GymnasiumTasks:
    if case in NEEDS:
        pytest.importorskip(NEEDS[case])
    return GymnasiumTasks(**CASES[case])


@pytest.fixture(params=CASES)
def distribution(request) -> GymnasiumTasks:
    return made(request.param)


def plain(distribution: GymnasiumTasks, tasks: Tasks, row: int) -> gymnasium.Env:
    """The environment of one task, made by hand."""
    if distribution.env_id == "Pendulum-v1":
        return gymnasium.make("Pendulum-v1", max_episode_steps=9, g=float(tasks["g"][row]))
    noise, frequency = (tasks[f"config.{name}"][row] for name in ("state_noise", "simulation_frequency"))
    config = {"state_noise": float(noise), "simulation_frequency": int(frequency), "derivative_noise": 0.1}
    return gymnasium.make("lane-keeping-v0", max_episode_steps=7, config=config)


@pytest.mark.parametrize("case", ["pendulum", "highway"])
def test_a_slot_behaves_like_gymnasiums_own_environment(case):
    distribution = made(case)
    tasks = distribution.sample(8, seed=2)
    envs = distribution.make_vec(tasks)
    alone = [plain(distribution, tasks, row) for row in range(8)]
    observation, _ = envs.reset(seed=list(range(8)))
    streams = SlotStreams(make_seeds(8, 0))
    seen = [env.reset(seed=row)[0] for row, env in enumerate(alone)]
    for _ in range(20):
        for row in range(8):
            for path, leaf in leaves(seen[row]).items():
                np.testing.assert_array_equal(leaves(observation)[path][row], leaf)
        action = sample_actions(distribution.action_space, streams)
        observation, reward, _, truncated, _ = envs.step(action)
        for row, env in enumerate(alone):
            seen[row], earned, _, cut, _ = env.step(action[row])
            assert (earned, cut) == (reward[row], truncated[row])
            if cut:
                seen[row], _ = env.reset()
    envs.close()


def test_observations_lie_in_their_space(distribution):
    envs = distribution.make_vec(distribution.sample(3, seed=1))
    observation, _ = envs.reset(seed=0)
    streams = SlotStreams(make_seeds(3, 0))
    for _ in range(2 * distribution.episode_length):
        assert envs.observation_space.contains(observation)
        observation, reward, *_ = envs.step(sample_actions(distribution.action_space, streams))
        assert reward.shape == (3,) and np.isfinite(reward).all()


def test_ranges_are_sampled_up_to_both_ends():
    tasks = made("highway").sample(4000, seed=0)
    noise, frequency = tasks["config.state_noise"], tasks["config.simulation_frequency"]
    assert noise.dtype == np.float64 and frequency.dtype == np.int64
    assert 0.01 <= noise.min() < 0.011 and 0.95 < noise.max() <= 1.0
    assert np.median(noise) == pytest.approx(0.1, rel=0.1)  # log-uniform: half lie below the geometric mean
    assert (np.bincount(frequency, minlength=21)[5:] > 150).all() and frequency.max() == 20


def test_a_family_of_lists_is_finite_and_every_combination_is_a_task():
    family = GymnasiumTasks(env_id="FrozenLake-v1", vary={"is_slippery": [True, False]}, layouts=(7, 9))
    every = family.all_tasks()
    pairs = set(zip(every["is_slippery"].tolist(), every["layout"].tolist(), strict=True))
    assert pairs == {(slippery, layout) for slippery in (0, 1) for layout in (7, 8, 9)} and len(every) == 6
    sampled = family.sample(600, seed=0)
    assert (np.unique(sampled.keys(), return_counts=True)[1] > 60).all()
    assert made("pendulum").all_tasks() is None


def test_the_values_of_a_function_are_listed_without_repeats():
    family = GymnasiumTasks(env_id="FrozenLake-v1", vary={"desc": {"call": MAPS, "seeds": 300, "size": 3}})
    maps = [tuple(family.maker(family.all_tasks(), row).kwargs["desc"]) for row in range(len(family.all_tasks()))]
    assert 10 < len(maps) == len(set(maps)) < 100  # a repeated map could be both trained on and held out
    assert all(len(row) == 3 for row in maps[0])


def test_a_keyword_with_dots_sets_one_key_of_a_mapping_and_keeps_the_others():
    family = made("highway")
    tasks = family.sample(2, seed=0)
    configs = [family.maker(tasks, row).kwargs["config"] for row in range(2)]
    assert [config["derivative_noise"] for config in configs] == [0.1, 0.1]
    assert [config["state_noise"] for config in configs] == tasks["config.state_noise"].tolist()
    assert family.kwargs == {"config": {"derivative_noise": 0.1}}
    assert family.maker(tasks, 0)().unwrapped.config["state_noise"] == tasks["config.state_noise"][0]


def test_a_layout_is_the_same_in_every_episode_but_its_events_are_not():
    """Otherwise obstacles would move the same way in every episode, and a policy could memorise their paths."""
    family = made("minigrid")
    envs = ProcessVectorEnv(
        [family.maker(Tasks({"layout": np.array([3, 3, 4])}), row) for row in range(3)],
        family.observation_space,
        family.action_space,
        family.episode_length,
        processes=0,
    )
    grids = [env.unwrapped for env in envs._blocks[0].envs]
    envs.reset(seed=[1, 2, 1])
    starts = [[grid.grid.encode().tobytes() for grid in grids]]
    paths: list[list] = [[], []]
    for episode in range(2):
        for _ in range(family.episode_length):
            paths[episode].append([obstacle.cur_pos for obstacle in grids[0].obstacles])
            *_, ended, _, _ = envs.step(np.zeros(3, int))  # turning on the spot
            assert not ended.any()
        starts.append([grid.grid.encode().tobytes() for grid in grids])
    assert starts[0] == starts[1] == starts[2]
    assert starts[0][0] == starts[0][1] != starts[0][2]
    assert paths[0] != paths[1]


def test_wrappers_are_applied_in_order_with_their_arguments():
    pytest.importorskip("minigrid")
    family = GymnasiumTasks(
        env_id="minigrid:MiniGrid-Empty-5x5-v0",
        layouts=4,
        episode_length=9,
        wrappers=[{"name": "minigrid.wrappers:ViewSizeWrapper", "agent_view_size": 3}, SEEN],
    )
    assert family.observation_space["image"].shape == (3, 3, 3)
    assert isinstance(family.maker(family.all_tasks(), 0)().env, FilterObservation)
    assert not isinstance(family.make_vec(family.all_tasks()), ExpertProcessVectorEnv)


def test_an_environment_that_knows_its_optimal_action_is_an_expert():
    family = GymnasiumTasks(
        env_id="CartPole-v1", layouts=3, wrappers=[{"name": "test_gym_adapter:Upright"}], episode_length=50
    )
    envs = family.make_vec(family.all_tasks())
    observation, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(envs.optimal_action(), observation[:, 2] > 0)


class Upright(gymnasium.Wrapper):
    """CartPole with an optimal action: a push towards the side to which the pole leans."""

    def optimal_action(self):
        return int(self.unwrapped.state[2] > 0)


def test_a_table_learns_a_maze_of_minigrid_from_poses():
    pytest.importorskip("minigrid")
    family = GymnasiumTasks(
        env_id="minigrid:MiniGrid-Empty-5x5-v0",
        kwargs={"max_steps": 30},
        layouts=2,
        episode_length=30,
        wrappers=[{"name": "data_gen.tasks.adapted.minigrid_pose:Pose"}],
    )
    envs = family.make_vec(family.all_tasks())
    observation, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(observation, [[1, 1, 0]] * 2)
    np.testing.assert_array_equal(envs.step(np.array([2, 1]))[0], [[2, 1, 0], [1, 1, 1]])
    history = interact(QLearning(step_size=1.0, initial_value=0.5), envs, 2000, make_seeds(2, 0))
    returns = episode_returns(history.reward, history.ended, int(history.ended.sum(axis=1).min()))
    assert returns[:, -5:].min() > 0.7  # the shortest path, of 5 steps, earns .85


def test_a_family_given_by_a_config_can_generate_data(tmp_path):
    values = {
        "name": "lake",
        "output": str(tmp_path),
        "tasks": {"name": "gymnasium", **CASES["frozen_lake"]},
        "data": {"sources": [{"name": "q_learning"}], "histories_per_task": 2, "episodes": 8, "shards": 2},
        "model": {"context_episodes": 1},
        "training": {"subsample": 1},
        "runtime": {"workers": 1},
    }
    config = validate(values)
    (tmp_path / "again.yaml").write_text(dump(config))
    assert fingerprint(load_config(tmp_path / "again.yaml").tasks) == fingerprint(config.tasks)
    generate(config)
    info = load_info(run_folder(config))
    assert info.observation_space == {"type": "Discrete", "n": 16, "start": 0}
    assert info.num_histories == 2 * info.num_train_tasks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"env_id": "FrozenLak-v1"},
            "env_id 'FrozenLak-v1': is not a registered environment; did you mean 'FrozenLake-v1'",
        ),
        ({"env_id": "no_such_package:A-v0"}, "cannot import 'no_such_package' .*: install its package"),
        ({"vary": {}}, "nothing varies: give `vary` a keyword with a range or a list, or `layouts` a number"),
        ({"vary": {"success_rate": 0.3}}, "vary.success_rate: give a list of values, low and high, or call and seeds"),
        ({"vary": {"success_rate": {"low": 0.5, "high": 0.2}}}, "vary.success_rate: low 0.5 is not below high 0.2"),
        (
            {"vary": {"success_rate": {"low": 0, "high": 1, "log": True}}},
            "log-uniform range must lie above 0, but low is 0",
        ),
        ({"vary": {"success_rate": {"low": 0, "high": "1"}}}, "success_rate.high: expected a number, got '1'"),
        ({"vary": {"success_rate": {"low": 0, "high": 1, "lag": 1}}}, "unknown key 'lag'; did you mean 'log'"),
        ({"vary": {"is_slippery": [True]}}, "vary.is_slippery: a list of 1 does not vary"),
        ({"vary": {"is_slippery": [True, False, True]}}, "vary.is_slippery: True is in the list twice"),
        ({"kwargs": {"is_slippery": True}}, "vary.is_slippery is also fixed by kwargs, to True"),
        (
            {"kwargs": {"max_episode_steps": 3}},
            "'max_episode_steps' is not an argument of the environment: give episode_le",
        ),
        ({"vary": {"a": [1, 2], "a.b": [1, 2]}}, "vary.a.b lies inside vary.a"),
        ({"layouts": (4, 4)}, r"layouts \[4, 4\]: give two or more layouts"),
        ({"vary": {"desc": {"call": f"{MAPS}s", "seeds": 3}}}, "no 'generate_random_maps'; did you mean 'generate_ra"),
        (
            {"vary": {"desc": {"call": MAPS, "seeds": 3, "sise": 4}}},
            "raised TypeError: .*unexpected keyword argument 'sise'",
        ),
        ({"wrappers": [{"name": "FlattenObservatio"}]}, "wrappers.0.name: .*; did you mean 'FlattenObservation'"),
        ({"wrappers": [{"filter_keys": []}]}, "wrappers.0: give a name"),
        ({"env_id": "minigrid:MiniGrid-Empty-5x5-v0"}, "has no episode limit of its own: give episode_length"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(changes, message):
    if "minigrid" in str(changes):
        pytest.importorskip("minigrid")
    with pytest.raises(pydantic.ValidationError, match=message) as caught:
        GymnasiumTasks(**{"env_id": "FrozenLake-v1", "vary": {"is_slippery": [True, False]}, **changes})
    assert len(caught.value.errors()) == 1
    assert "\n" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"vary": {"is_slipery": [1, 2]}}, "FrozenLake-v1: takes no argument 'is_slipery'; did you mean 'is_slippery'"),
        (
            {"vary": {"map_name": ["4x4", "8x8"]}},
            r"'8x8'.*has the observation space Discrete\(64\), but other tasks have",
        ),
        ({"vary": {"map_name": ["4x4", "5x5"]}}, "with {'map_name': '5x5'}: cannot be made: KeyError: '5x5'"),
        (
            {"env_id": "minigrid:MiniGrid-Empty-5x5-v0", "layouts": 2, "episode_length": 9},
            r"Mission.*wrappers: \[{name: FilterObservation, filter_keys: \[direction, image\]}\]$",
        ),
    ],
)
def test_problems_found_by_making_an_environment_are_reported_in_one_line(parameters, message):
    if "minigrid" in str(parameters):
        pytest.importorskip("minigrid")
    family = GymnasiumTasks(**{"env_id": "FrozenLake-v1", **parameters})
    with pytest.raises(UserError, match=message) as caught:
        family.make_vec(family.sample(2, seed=0))
    assert "\n" not in str(caught.value)


def test_a_space_that_differs_in_the_middle_of_a_list_is_found_when_its_slot_is_made():
    family = GymnasiumTasks(
        env_id="FrozenLake-v1", vary={"desc": [["SF", "FG"], ["SFF", "FFF", "FFG"], ["SH", "FG"]]}, episode_length=5
    )
    with pytest.raises(UserError, match=r"has the observation space Discrete\(9\), but other tasks have Discrete\(4\)"):
        family.make_vec(family.all_tasks())


@pytest.mark.parametrize("task", [{"is_slippery": np.array([2])}, {"is_slipery": np.array([0])}])
def test_a_task_outside_the_family_is_refused(task):
    family = GymnasiumTasks(env_id="FrozenLake-v1", vary={"is_slippery": [True, False]})
    with pytest.raises(UserError, match="'is_slippery' lies outside the family: expected indices 0 to 1"):
        family.make_vec(Tasks(task))


def test_more_tasks_than_a_finite_family_has_are_refused():
    with pytest.raises(ConfigError, match=r"ask for 2 \+ 1 tasks, but GymnasiumTasks has 2"):
        GymnasiumTasks(env_id="FrozenLake-v1", vary={"is_slippery": [True, False]}).split(2, 1, seed=0)
