"""Task sets of an evaluation, and the larger space that a model needs to read a larger grid."""

from functools import partial

import numpy as np
import pytest
from conftest import TINY

from data_gen.agents.optimal import Optimal
from data_gen.agents.random import Random
from data_gen.agents.tabular.q_learning import QLearning
from data_gen.experiment import Experiment
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from data_gen.tasks.gym_envs import make_vector_env
from data_gen.tasks.same import task_keys
from icrl.config.components import TASKS, find_component
from icrl.config.loader import validate
from icrl.run.fingerprints import data_fingerprint, evaluation_fingerprint, tasks_values
from icrl.support.errors import ConfigError

GRIDS = {"dark_room": 4, "dark_key_to_door": 3, "grid_navi": 4, "windy_room": 4}


def sets_of(tiny, tasks=None, **sets):
    experiment = Experiment(tiny(tasks=tasks or {}, evaluation={"tasks": sets}))
    return experiment, {each.name: each for each in experiment.task_sets}


def test_tasks_of_a_set_are_of_its_own_family_and_equal_no_training_or_validation_task(tiny):
    experiment, sets = sets_of(
        tiny, {"space_size": 6}, larger={"size": 6, "num_tasks": 40}, longer={"episode_length": 9}
    )
    larger, longer = sets["larger"], sets["longer"]
    trained = np.concatenate([experiment.train_tasks["goal"], experiment.validation_tasks["goal"]])
    assert (larger.family.size, larger.family.episode_length, longer.family.episode_length) == (6, 6, 9)
    assert (
        len(larger) == 23 and larger.tasks["goal"].max() == 5
    )  # 36 goals, 13 of which are training or validation goals
    assert len(longer) == 3 and longer.left_out == larger.left_out == len(trained) == 13
    for each in sets.values():
        assert not (each.tasks["goal"][:, None] == trained).all(axis=2).any()
        assert len(np.unique(each.tasks.keys())) == len(each)
    held_out = {*map(tuple, experiment.test_tasks["goal"])}
    assert {*map(tuple, longer.tasks["goal"])} == held_out  # the only goals that are left


def test_sets_of_families_with_equal_tasks_have_the_same_ones_and_follow_the_seed(tiny):
    windy = {"name": "windy_room"}
    experiment, sets = sets_of(tiny, windy, calm={"wind": 0.1}, storm={"wind": 0.6})
    assert len(sets["calm"]) == 3  # evaluation.test_tasks
    for name in sets["calm"].tasks:
        np.testing.assert_array_equal(sets["calm"].tasks[name], sets["storm"].tasks[name])
    other = Experiment(experiment.config.model_copy(update={"seed": 1})).task_sets[0]
    assert (other.tasks.keys() != sets["calm"].tasks.keys()).any()
    trained = task_keys(experiment.family, experiment.train_tasks)
    assert not np.isin(task_keys(sets["calm"].family, sets["calm"].tasks), trained).any()


def test_a_set_of_an_unbounded_family_is_drawn_from_its_own_range(tiny):
    sets = {"again": {"num_tasks": 40}, "uniform": {"prior": "uniform"}}
    values = {
        "tasks": {"name": "bandit", "prior": "odd_arms", "episode_length": 6},
        "split": {"train": 50, "test": 3},
        "evaluation": {"tasks": sets, "test_tasks": 3},
    }
    sets = {each.name: each for each in Experiment(validate({**TINY, **values})).task_sets}
    assert len(sets["again"]) == 40 and len(sets["uniform"]) == 3
    assert sets["again"].left_out == sets["uniform"].left_out == 0
    odd, even = (sets["again"].tasks["mean"][:, first::2].mean() for first in (1, 0))
    assert odd > 0.6 > 0.4 > even  # the prior of the training tasks, where the held-out tasks have the opposite


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"larger": {"size": 5}}, r"tasks\.larger: its observation space is .*\[5, 5\].* but the model's is .*\[4, 4\]"
                                  r".*: give both families the space of the largest room by tasks\.space_size"),
        ({"moves": {"diagonal": True}}, r"tasks\.moves: its action space is .*: change other parameters"),
        ({"near": {"episode_length": 1}}, r"tasks\.near: all of its \d tasks equal training or validation tasks"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_evaluated_is_refused_in_one_line(tiny, sets, message):
    with pytest.raises(ConfigError, match=message) as error:
        sets_of(partial(tiny, split={"train": 0.9, "test": 1}, seed=1), **sets)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", GRIDS)
def test_a_larger_space_changes_nothing_but_the_space(name):
    family = find_component(name, TASKS)
    plain, wide = family(size=GRIDS[name]), family(size=GRIDS[name], space_size=7)
    assert wide.observation_space.nvec.tolist() == [7, 7]
    tasks = plain.sample(5, 0)
    np.testing.assert_array_equal(wide.sample(5, 0).keys(), tasks.keys())
    np.testing.assert_array_equal(wide.optimal_return(tasks), plain.optimal_return(tasks))
    np.testing.assert_array_equal(wide.random_return(tasks), plain.random_return(tasks))
    for agent, sees in ((Random(), "observation"), (Optimal(), "state")):
        lives = [interact(agent, each.make_vec(tasks), 60, make_seeds(5, 0), sees=sees) for each in (plain, wide)]
        np.testing.assert_array_equal(lives[0].action, lives[1].action)
        np.testing.assert_array_equal(lives[0].observation, lives[1].observation)
    interact(QLearning(), wide.make_vec(tasks), 60, make_seeds(5, 0), sees="state")
    registered = make_vector_env(2, name, size=GRIDS[name], space_size=7)
    assert registered.single_observation_space.nvec.tolist() == [7, 7]
    with pytest.raises(ValueError, match="space_size 2 is below size"):
        family(size=GRIDS[name], space_size=2)


def test_pixels_of_a_grid_with_a_larger_space_are_larger_pictures():
    small, large = (
        find_component("pixels", TASKS)(of={"name": "dark_room", "space_size": 6, **more})
        for more in ({"size": 4}, {"size": 6})
    )
    assert small.observation_space == large.observation_space
    envs = small.make_vec(small.all_tasks())
    observation, _ = envs.reset(seed=0)
    assert observation.shape[1:] == (6, 6, 3)
    assert np.argwhere(observation[0, :, :, 0]).tolist() == [[2, 2]]  # the centre of 4 x 4


def test_finished_runs_of_earlier_versions_stay_valid(tiny):
    """A parameter or a key that is new and not set leaves the fingerprints as they were."""
    assert "space_size" not in tasks_values(tiny())
    pixels = validate({**TINY, "tasks": {"name": "pixels", "of": {"name": "dark_room", "size": 4}}})
    assert tasks_values(pixels)["of"].keys() == {"name", "size", "episode_length", "start", "reward", "diagonal"}
    assert data_fingerprint(tiny(tasks={"space_size": 5})) != data_fingerprint(tiny())
    for evaluation in ({"ablations": ["no_context"]}, {"tasks": {"longer": {"episode_length": 9}}}):
        assert evaluation_fingerprint(tiny(evaluation=evaluation)) != evaluation_fingerprint(tiny())
