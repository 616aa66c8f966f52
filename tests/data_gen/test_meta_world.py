"""Meta-World: training tasks are the benchmark's training tasks, and the arm moves like the library's arm."""

import pickle
import sys
import warnings

import numpy as np
import pydantic
import pytest
from gymnasium.utils.env_checker import check_env
from test_tasks import (  # noqa: F401 - the contract of every family, with this file's distributions
    test_a_task_has_a_picture,
    test_an_episode_is_truncated_at_its_length_and_never_also_terminated,
    test_observations_are_not_changed_by_later_steps,
    test_returns_have_one_value_per_task_and_the_optimum_is_at_least_random,
    test_tasks_are_saved_and_loaded_equal,
    test_tasks_differ_and_their_disjoint_split_depends_only_on_the_seed,
    test_the_family_states_what_varies,
    test_the_spaces_can_be_recorded_and_written_as_json,
    test_the_vector_and_the_scalar_form_give_the_same_trajectory,
)

from data_gen.agents.optimal import Optimal
from data_gen.agents.random import Random
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from data_gen.tasks.adapted import meta_world
from data_gen.tasks.adapted.meta_world import MetaWorld, _drawn
from data_gen.tasks.base import Tasks
from data_gen.tasks.same import seen_among, seen_in_record, training_tasks_record
from data_gen.tasks.vector import TaskEnv
from icrl.support.errors import ConfigError, UserError

metaworld = pytest.importorskip("metaworld")


@pytest.fixture
def distribution() -> MetaWorld:
    return MetaWorld(episode_length=6)


@pytest.fixture
def ml10(monkeypatch) -> MetaWorld:
    """ML10 with 4 goals per kind of environment, which take a tenth of the time to draw."""
    _drawn.cache_clear()
    monkeypatch.setattr(metaworld, "_N_GOALS", 4)
    yield MetaWorld(benchmark="ML10", goals_seed=3)
    _drawn.cache_clear()


def test_gymnasiums_checker_passes_for_the_scalar_form(distribution):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # The goal is not observed, and Meta-World bounds it by 0 and 0.
        warnings.filterwarnings("ignore", message=".*(infinity|spec|values are equal).*")
        env = TaskEnv(distribution.make_vec(distribution.sample(1, seed=0)))
        check_env(env, skip_render_check=True, skip_close_check=True)


def goals(family: MetaWorld, tasks: Tasks) -> set[tuple[str, bytes]]:
    """The library's identities of the tasks: kind of environment, and the numbers drawn for the goal."""
    return {(maker.task.env_name, vector(maker.task)) for maker in family._makers(tasks)}


def vector(task) -> bytes:
    return pickle.loads(task.data)["rand_vec"].tobytes()


def test_the_training_tasks_are_the_benchmarks_training_tasks_and_the_held_out_ones_its_test_tasks():
    family = MetaWorld()
    benchmark = metaworld.ML1("reach-v3", seed=0)
    training = {("reach-v3", vector(task)) for task in benchmark.train_tasks}
    test = {("reach-v3", vector(task)) for task in benchmark.test_tasks}
    assert len(training) == len(test) == 50 and not training & test
    train, held_out = family.split(50, 50, seed=1)
    assert goals(family, train) == training
    assert goals(family, held_out) == test
    train, held_out = family.split(0.8, 0.2, seed=1)
    assert (len(train), len(held_out)) == (40, 10)
    assert goals(family, train) < training and goals(family, held_out) < test


def test_the_environments_have_the_goals_of_their_tasks():
    family = MetaWorld(episode_length=5)
    train, _ = family.split(3, 1, seed=0)
    envs = family.make_vec(train)
    envs.reset(seed=0)
    benchmark = metaworld.ML1("reach-v3", seed=0)
    for slot in range(3):
        env = benchmark.train_classes["reach-v3"]()
        env.set_task(benchmark.train_tasks[train["goal"][slot]])
        observation, _ = env.reset()
        arm = envs._blocks[0].envs[slot].unwrapped
        np.testing.assert_array_equal(arm._target_pos, env._target_pos)
        np.testing.assert_array_equal(envs._arrays["observation"][slot], observation)
    action = np.full((3, 4), 0.5, np.float32)
    seen, reward, *_ = envs.step(action)
    alone, earned, *_ = env.step(action[2])
    np.testing.assert_array_equal(seen[2], alone)
    assert earned == reward[2]
    assert (seen[:, -3:] == 0).all()  # the goal is not observed


def test_kinds_take_turns_and_held_out_kinds_are_never_trained_on(ml10):
    benchmark = metaworld.ML10(seed=3)
    assert len(ml10.all_tasks()) == 40 + 20
    train, test = ml10.split(25, 10, seed=0)
    kinds = np.array(ml10.goals.kinds)
    assert set(kinds[train["environment"][:10]]) == set(benchmark.train_classes)
    assert set(kinds[test["environment"][:5]]) == set(benchmark.test_classes)
    assert sorted(np.bincount(train["environment"], minlength=15)[:10]) == [2] * 5 + [3] * 5
    assert goals(ml10, ml10.split(40, 20, seed=0)[0]) == {(t.env_name, vector(t)) for t in benchmark.train_tasks}
    assert goals(ml10, test) < {(t.env_name, vector(t)) for t in benchmark.test_tasks}
    assert ml10.varies == "rewards and dynamics"


def test_every_kind_of_a_benchmark_shares_the_spaces_and_can_be_stepped(ml10):
    train, _ = ml10.split(10, 1, seed=0)
    history = interact(Random(), ml10.make_vec(train), 3, make_seeds(10, 0))
    assert history.observation.shape == (10, 3, 39) and np.isfinite(history.reward).all()


def test_the_scripted_policy_reaches_the_goal():
    family = MetaWorld(episode_length=60)
    train, _ = family.split(4, 1, seed=0)
    reward = interact(Optimal(), family.make_vec(train), 60, make_seeds(4, 0)).reward
    assert (reward[:, -5:] > 9.5).all()  # 10 is the reward of an arm at the goal
    random = interact(Random(), family.make_vec(train), 60, make_seeds(4, 0)).reward
    assert (random[:, -5:] < 5).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"benchmark": "ML12"}, "Input should be 'ML1', 'ML10' or 'ML45'"),
        ({"env": "rech-v3"}, "env 'rech-v3': Meta-World has no such environment; did you mean 'reach-v3'?"),
        ({"benchmark": "ML10", "env": "reach-v3"}, "env 'reach-v3': is for ML1; ML10 has its own kinds: leave env out"),
        ({"episode_length": 501}, "less than or equal to 500"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(parameters, message):
    with pytest.raises(pydantic.ValidationError) as caught:
        MetaWorld(**parameters)
    assert [message in error["msg"] for error in caught.value.errors()] == [True]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((51, 1), "split.train 51: ML1 has 50 training tasks"), ((1, 51), "split.test 51: ML1 has 50 test tasks")],
)
def test_more_tasks_than_the_benchmark_has_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        MetaWorld().split(*sizes, seed=0)


def test_a_task_that_the_benchmark_lacks_is_refused():
    with pytest.raises(UserError, match="environment 0, goal 100: ML1 has no such task"):
        MetaWorld().make_vec(Tasks({"environment": np.array([0]), "goal": np.array([100])}))


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    meta_world._library.cache_clear()
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(pydantic.ValidationError, match=r"pip install --no-deps metaworld"):
        MetaWorld()
    meta_world._library.cache_clear()


def test_an_episode_succeeds_if_the_library_says_so_at_any_step():
    family = MetaWorld(episode_length=80)
    tasks = family.sample(2, seed=0)
    for agent, expected in ((Optimal(), 1), (Random(), 0)):
        envs = family.make_vec(tasks)
        found = interact(agent, envs, 80, make_seeds(2, 0), successes=True)
        envs.close()
        np.testing.assert_array_equal(found.success[:, -1], expected)


def test_held_out_goals_that_another_seed_of_the_benchmark_trains_on_are_recognised(monkeypatch):
    """The numbers of the tasks say nothing: ML1 draws its test goals with `goals_seed` + 1."""
    _drawn.cache_clear()
    monkeypatch.setattr(metaworld, "_N_GOALS", 4)
    own, other = MetaWorld(goals_seed=0), MetaWorld(goals_seed=1)
    (train, held_out), (trained, _) = own.split(4, 4, 0), other.split(4, 4, 0)
    named = {"name": "meta_world", "benchmark": "ML1", "env": "reach-v3", "goals_seed": 1}
    assert seen_in_record(own, held_out, training_tasks_record(other, trained)) == 4
    assert seen_in_record(own, held_out, training_tasks_record(own, train)) == 0
    assert seen_among(own, held_out, trained, named).all()
    assert not seen_among(own, held_out, train, {**named, "goals_seed": 0}).any()
    for wrong in ({"benchmark": "ML2"}, {"env": 3}, {"env": "os:getcwd"}, {"benchmark": "ML10"}):
        with pytest.raises(UserError, match="is not a benchmark of Meta-World"):
            seen_among(own, held_out, trained, {**named, **wrong})
    with pytest.raises(UserError, match="no such task"):
        seen_among(own, held_out, Tasks({"environment": np.array([7]), "goal": np.array([0])}), named)
    _drawn.cache_clear()
