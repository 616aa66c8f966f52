"""Held-out tasks among the training data are noticed, in whatever form the data holds its tasks."""

import json
import shutil

import numpy as np
import pytest

from data_gen.generation.generate import generate
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from data_gen.tasks.base import Tasks
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.same import in_form, seen_among, seen_in_record, task_keys, training_tasks_record
from icrl.config.components import component
from icrl.config.loader import make_tasks, validate
from icrl.support.errors import ConfigError, UserError
from tests.conftest import TINY, merged


def folder_of_tasks(config, path, tasks, named):
    """A data folder of one history per task, on `tasks`."""
    family, count = config.tasks.build(), len(tasks)
    ended = np.zeros((count, 12), bool)
    ended[:, 5::6] = True
    spaces = {"observation_space": family.observation_space, "action_space": family.action_space}
    columns = {
        "observation": np.zeros((count, 12, *family.observation_space.shape), family.observation_space.dtype),
        "action": np.zeros((count, 12), int),
        "reward": np.zeros((count, 12)),
        "terminated": np.zeros((count, 12), bool),
        "truncated": ended,
        "task": np.arange(count),
    }
    about = Recorded(**spaces, episode_length=6, sources=[{"name": "mine"}], tasks=named, train_tasks=tasks)
    write_histories(path, [columns], about)


def config_on(tmp_path, tasks=None, **changes):
    plain = {**TINY, "output": str(tmp_path / "runs"), "data": {"folder": str(tmp_path / "theirs")}}
    plain = merged(plain, {"model": {"context_episodes": 2}, "training": {"subsample": 1}, **changes})
    return validate({**plain, "tasks": tasks} if tasks else plain)


ROOM = TINY["tasks"]
BANDIT = {"name": "bandit", "arms": 3, "episode_length": 6}


@pytest.mark.parametrize(
    "form",
    [
        lambda tasks: {"goal": tasks["goal"].astype(np.int32)},
        lambda tasks: {"goal": tasks["goal"].astype(np.float32)},
        lambda tasks: {"goal": tasks["goal"].astype(np.uint8)},
        lambda tasks: {"goal": np.where(tasks["goal"] == 0, -0.0, tasks["goal"])},
    ],
)
@pytest.mark.parametrize(
    "named",
    [None, ROOM, {**ROOM, "name": "data_gen.tasks.grids.dark_room:DarkRoom"}, {**ROOM, "name": "unheard.of:DarkRoom"}],
)
def test_held_out_goals_of_another_type_or_under_another_name_of_the_family_are_refused(tmp_path, form, named):
    config = config_on(tmp_path)
    _, held_out = config.tasks.build().split(config.own_split.train, config.own_split.test, config.seed)
    folder_of_tasks(config, tmp_path / "theirs", Tasks(form(held_out)), named)
    with pytest.raises(ConfigError, match="3 of the 3 held-out tasks are among the data's training tasks"):
        generate(config)


def test_arrays_in_another_order_or_of_less_precision_hold_the_same_tasks():
    family = make_tasks("dark_key_to_door")
    train, test = family.split(20, 10, 0)
    assert len([*test]) > 1
    turned = Tasks({name: test[name] for name in reversed([*test])})
    assert seen_among(family, test, turned).all()
    assert not seen_among(family, test, train).any()
    np.testing.assert_array_equal(task_keys(family, test), task_keys(family, turned))
    point = make_tasks("point_navigation")
    tasks = point.sample(9, 0)
    for dtype in (np.float64, np.float32, np.float16):
        rounded = Tasks({name: tasks[name].astype(dtype) for name in tasks})
        assert seen_among(point, tasks, rounded).all(), dtype
        assert not seen_among(point, point.sample(9, 1), rounded).any(), dtype


@pytest.mark.parametrize("name", ["point_navigation", "cart_pole", "bandit", "hopper", "tabular_mdp"])
@pytest.mark.parametrize(
    "stored",
    [
        lambda values: values.astype(np.float32).astype(np.float64),
        lambda values: values.astype(np.float16).astype(np.float64),
        lambda values: np.nextafter(values, np.inf),
        lambda values: np.round(values, 6),
        lambda values: values.reshape(len(values), -1, 1),
    ],
)
def test_held_out_tasks_that_were_rounded_or_reshaped_on_the_way_are_recognised(name, stored):
    family = make_tasks(name)
    train, test = family.split(20, 10, 0)
    assert seen_among(family, test, Tasks({name: stored(test[name]) for name in test})).all()
    assert not seen_among(family, test, Tasks({name: stored(train[name]) for name in train})).any()


@pytest.mark.parametrize("name", ["point_navigation", "cart_pole", "bandit", "hopper", "tabular_mdp"])
@pytest.mark.parametrize(
    "stored",
    [
        lambda values: values.astype(np.float32),
        lambda values: values.astype(np.float16),
        lambda values: np.round(values, 6),
    ],
)
def test_a_model_recognises_training_tasks_that_another_tool_rounded(name, stored):
    family = make_tasks(name)
    train, test = family.split(20, 10, 0)
    rounded = in_form(family, Tasks({name: stored(test[name]) for name in test}))
    record = json.loads(json.dumps(training_tasks_record(family, rounded)))
    assert seen_in_record(family, test, record) == seen_in_record(family, rounded, record) == 10
    assert seen_in_record(family, train, record) == 0


def test_values_that_someone_chose_are_not_taken_for_rounded_ones():
    family = GymnasiumTasks(env_id="CartPole-v1", vary={"gravity": {"low": 1, "high": 20}}, episode_length=6)
    assert not seen_among(family, Tasks({"gravity": np.array([9.8 + 1e-5, 5.0001])}),
                          Tasks({"gravity": np.array([9.8, 5.0])})).any()  # fmt: skip


@component
class MyRoom(DarkRoom):
    """A family of one's own that shares its tasks with Dark Room."""


@pytest.mark.parametrize(("own", "named"), [("dark_room", f"{__name__}:MyRoom"), (f"{__name__}:MyRoom", "dark_room")])
def test_a_derived_family_shares_its_tasks_with_the_one_that_it_is_derived_from(tmp_path, own, named):
    config = config_on(tmp_path, {**ROOM, "name": own})
    family = config.tasks.build()
    _, held_out = family.split(config.own_split.train, config.own_split.test, config.seed)
    folder_of_tasks(config, tmp_path / "theirs", held_out, {**ROOM, "name": named})
    with pytest.raises(ConfigError, match="3 of the 3 held-out tasks"):
        generate(config)
    trained = MyRoom(size=4) if own == "dark_room" else DarkRoom(size=4)
    assert seen_in_record(family, held_out, training_tasks_record(trained, held_out)) == 3
    assert seen_in_record(make_tasks("grid_navi"), held_out, training_tasks_record(trained, held_out)) == 0


def test_arrays_under_other_names_are_compared_or_refused(tmp_path, capsys):
    config = config_on(tmp_path)
    _, held_out = config.tasks.build().split(config.own_split.train, config.own_split.test, config.seed)
    renamed, more = {"target": held_out["goal"]}, {**held_out.arrays, "weight": np.ones(len(held_out))}
    for arrays, named, message in (
        (renamed, None, "3 of the 3 held-out tasks"),
        (renamed, config.tasks.model_dump(mode="json"), "cannot be told from the data's; name the arrays alike"),
        (more, config.tasks.model_dump(mode="json"), "cannot be told from the data's; name the arrays alike"),
    ):
        shutil.rmtree(tmp_path / "theirs", ignore_errors=True)
        folder_of_tasks(config, tmp_path / "theirs", Tasks(arrays), named)
        with pytest.raises(ConfigError, match=message):
            generate(config)
    shutil.rmtree(tmp_path / "theirs")
    folder_of_tasks(config, tmp_path / "theirs", Tasks(more), None)
    generate(config)
    assert "the held-out tasks were not compared with the data's" in capsys.readouterr().err


def test_choices_are_compared_by_value_and_not_by_place(monkeypatch):
    def family(**vary):
        return GymnasiumTasks(env_id="CartPole-v1", vary=vary, episode_length=6)

    ours, theirs = family(gravity=[1, 2, 3, 4]), family(gravity=[4, 3, 2.0, 5])
    described = json.loads(json.dumps({"name": "gymnasium", "vary": theirs.vary}))
    tasks, others = ours.all_tasks(), theirs.all_tasks().take([0, 2])  # 4 and 2
    assert seen_among(ours, tasks, others, described).tolist() == [False, True, False, True]
    assert seen_among(ours, tasks, ours.all_tasks().take([1]), None).tolist() == [False, True, False, False]
    words, mixed = family(mode=["a", "b", {"c": 1}]), {"vary": {"mode": [{"c": 1.0}, "b"]}}
    assert seen_among(words, words.all_tasks(), Tasks({"mode": np.array([0])}), mixed).tolist() == [False, False, True]
    ranged = {"vary": {"gravity": {"low": 0.0, "high": 9.0}}}
    assert seen_among(ours, tasks, Tasks({"gravity": np.array([3.0])}), ranged).tolist() == [False, False, True, False]
    called = {"vary": {"gravity": {"call": "unheard.of:function", "seeds": 3}}}
    with pytest.raises(UserError, match="held-out tasks cannot be told"):
        seen_among(ours, tasks, others, called)
    np.testing.assert_array_equal(task_keys(ours, tasks.take([3])), task_keys(theirs, others.take([0])))


NUMBERS, MIXED, RANGE = [1, 2, 3], [2, 3.0, "auto"], {"low": 1, "high": 9}


@pytest.mark.parametrize("own", [NUMBERS, MIXED, RANGE], ids=str)
@pytest.mark.parametrize("theirs", [NUMBERS, MIXED, RANGE], ids=str)
def test_a_value_is_recognised_whether_a_list_of_numbers_or_another_list_or_a_range_holds_it(own, theirs):
    def tasks_of(vary):
        """The family, its tasks 2 and 3, and what a file says of it."""
        family = GymnasiumTasks(env_id="CartPole-v1", vary={"mode": vary}, episode_length=6)
        numbers = [vary.index(value) for value in (2, 3)] if isinstance(vary, list) else [2, 3]
        return family, Tasks({"mode": np.array(numbers)}), {"vary": {"mode": vary}}

    (family, tasks, _), (other, trained, named) = tasks_of(own), tasks_of(theirs)
    assert seen_among(family, tasks, trained, named).all()
    assert seen_in_record(family, tasks, training_tasks_record(other, trained)) == 2


def test_tasks_of_another_form_are_recognised():
    room = make_tasks("dark_room")
    assert in_form(room, Tasks({"goal": np.array([[1.0, 2.0]])}))["goal"].dtype == np.int64
    assert in_form(room, Tasks({"goal": np.array([[1.5, 2.0]])})) is None
    assert in_form(room, Tasks({"aim": np.array([[1, 2]])})) is None
    assert in_form(room, Tasks({"goal": np.array([[1, 2, 3]])})) is None
