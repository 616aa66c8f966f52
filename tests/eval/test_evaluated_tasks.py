"""Evaluation by split: choices can be made on validation tasks, and nothing sees held-out tasks before they are due."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import seal

from ad_model.train import train
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.meta.training import check_meta_learners
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.same import training_tasks_record
from eval.before import check_run
from eval.evaluate import evaluate
from eval.report import write_report
from eval.summary import TRANSFORMER, load_summary
from eval.summary_text import NO_HELD_OUT, describe
from eval.tracking import scalars
from icrl.cli import run_experiment
from icrl.run.fingerprints import evaluation_fingerprint
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError
from icrl.support.hub import Repository
from publish.model import model_parcel

ROOM = {"tasks": {"size": 5}, "split": {"train": 12, "validation": 5, "test": 8}}


@pytest.fixture
def trained(tiny):
    """A function that makes a config with three sets of tasks, whose training is finished."""

    def make(**evaluation):
        config = tiny(**ROOM, evaluation=evaluation)
        generate(config)
        train(config)
        return config

    return make


def card(config):
    files = model_parcel(Experiment(config), Repository("me/mine", "model")).files
    return files["README.md"].decode()


def test_every_split_that_is_asked_for_is_evaluated_and_shown_in_order(trained):
    config = trained(test_tasks=3, validation_tasks=9, train_tasks=4)
    evaluate(config)
    summary, folder = load_summary(run_folder(config)), run_folder(config)
    assert summary.splits == ["test", "validation", "train"]
    assert [*summary.agents[TRANSFORMER]] == summary.splits
    table = pd.read_parquet(folder.returns)
    assert {split: rows["task"].nunique() for split, rows in table.groupby("split")} == {
        "test": 3,
        "validation": 5,
        "train": 4,
    }
    text, page = describe(summary), write_report(config).read_text()
    assert text.index("held-out tasks ") < text.index("validation tasks ") and "training tasks " not in text
    assert page.index("<td>held-out</td>") < page.index("<td>validation</td>") < page.index("<td>training</td>")
    assert NO_HELD_OUT not in text and NO_HELD_OUT not in page
    assert {name.split("/")[1] for name in scalars(summary)} == {"test", "validation", "train"}
    shown = card(config)
    assert shown.index("On held-out tasks, ") < shown.index("On validation tasks, ")
    assert "_, held_out = family.split(12, 8, seed=0)" in shown


def test_settings_can_be_compared_on_validation_tasks_alone(trained):
    config = trained(test_tasks=0, validation_tasks=5, train_tasks=0)
    evaluate(config)
    summary = load_summary(run_folder(config))
    assert (summary.splits, summary.main_title, summary.held_out_tasks) == (["validation"], "validation", 0)
    assert (summary.seen_tasks, summary.seen) == (0, "")
    text, page, shown = describe(summary), write_report(config).read_text(), card(config)
    assert NO_HELD_OUT in text and "held-out tasks  " not in text
    assert f"{NO_HELD_OUT[0].upper()}{NO_HELD_OUT[1:]}." in page and "<td>held-out</td>" not in page
    assert "A frozen transformer on validation dark_room tasks." in page
    assert "On validation tasks, " in shown and f"Note: {NO_HELD_OUT}" in shown
    assert "dark_room, validation tasks" in shown
    assert {name.split("/")[1] for name in scalars(summary)} == {"validation"}


def test_training_tasks_alone_can_be_evaluated(trained):
    config = trained(test_tasks=0, train_tasks=3)
    evaluate(config)
    summary = load_summary(run_folder(config))
    assert summary.splits == ["train"]
    assert "training tasks " in describe(summary)
    assert "A frozen transformer on training dark_room tasks." in write_report(config).read_text()


def test_an_evaluation_of_no_task_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"evaluation\.test_tasks: leaves no task"):
        tiny(evaluation={"test_tasks": 0, "train_tasks": 0})
    without = tiny(split={"validation": 0}, evaluation={"validation_tasks": 2})
    for refuse in (check_run, evaluate):
        with pytest.raises(
            ConfigError, match=r"evaluation\.validation_tasks: 2, but the split has no validation tasks"
        ):
            generate(without)
            train(without)
            refuse(Experiment(without))


def test_validation_tasks_are_in_the_fingerprint_of_the_evaluation_if_they_are_evaluated(tiny):
    assert evaluation_fingerprint(tiny()) == evaluation_fingerprint(tiny(evaluation={"validation_tasks": 0}))
    assert evaluation_fingerprint(tiny()) != evaluation_fingerprint(tiny(evaluation={"validation_tasks": 1}))


class Hidden(Exception):
    """Raised where held-out tasks are looked at."""


def test_no_stage_before_the_evaluation_of_held_out_tasks_sees_any(tiny, monkeypatch):
    config = tiny(**ROOM, evaluation={"test_tasks": 0, "validation_tasks": 5})
    held_out = Experiment(config).test_tasks.keys()
    make_vec, played = DarkRoom.make_vec, []

    def look(self):
        raise Hidden

    def watched(self, tasks):
        played.append(tasks.keys())
        assert not np.isin(played[-1], held_out).any()
        return make_vec(self, tasks)

    monkeypatch.setattr(Experiment, "test_tasks", property(look))
    monkeypatch.setattr(DarkRoom, "make_vec", watched)
    check_meta_learners(Experiment(config))
    run_experiment(config)  # checks, data, training, and an evaluation without held-out tasks
    assert len(np.unique(np.concatenate(played))) == 12 + 5
    with pytest.raises(Hidden):
        run_experiment(config.model_copy(update={"evaluation": tiny().evaluation, "name": "other"}))


def test_validation_tasks_among_later_held_out_tasks_are_refused_or_stated(tiny, trained):
    config = trained()
    model = run_folder(config).checkpoints / "step-000006" / "model"
    content = json.loads((model / "config.json").read_text())
    own, splits = config.tasks.build(), Experiment(config).splits
    assert content["validation_tasks"] == training_tasks_record(own, splits.validation)
    # A model that was chosen on two of the tasks that are held out here.
    chosen = training_tasks_record(own, splits.test.take([0, 2]))
    (model / "config.json").write_text(json.dumps({**content, "validation_tasks": chosen}))
    seal(model.parent)
    given = {"checkpoint": str(model), "test_tasks": 8}
    with pytest.raises(ConfigError, match="the model had as validation tasks 2 of the 8 held-out tasks"):
        evaluate(tiny(**ROOM, name="second", evaluation=given))
    allowed = tiny(**ROOM, name="second", evaluation={**given, "allow_seen_tasks": True})
    evaluate(allowed)
    summary = load_summary(run_folder(allowed))
    assert (summary.seen_tasks, summary.chosen_tasks) == (0, 2)
    assert "the transformer had as validation tasks 2 of the 8 held-out tasks" in describe(summary)


def test_a_model_that_was_trained_on_validation_tasks_is_not_chosen_by_them(tiny, trained):
    config = trained()
    model = run_folder(config).checkpoints / "step-000006" / "model"
    content = json.loads((model / "config.json").read_text())
    record = training_tasks_record(config.tasks.build(), Experiment(config).validation_tasks)
    (model / "config.json").write_text(json.dumps({**content, "training_tasks": record}))
    seal(model.parent)
    given = {"checkpoint": str(model), "test_tasks": 0, "validation_tasks": 5}
    with pytest.raises(ConfigError, match="the model was trained on 5 of the 5 validation tasks"):
        evaluate(tiny(**ROOM, name="second", evaluation=given))
