"""The table of figures: numbers checked by hand, and a user's own figure that appears wherever figures do."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from scipy.stats import trim_mean

from ad_model.train import train
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from eval import figures
from eval.evaluate import evaluate
from eval.figures import FIGURES, Figure, Scores, load_figures
from eval.report import write_report
from eval.summary import load_summary, split_figures
from eval.summary_text import describe
from eval.tracking import scalars
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError
from icrl.support.hub import Repository
from publish.model import model_parcel

RETURNS = np.arange(24, dtype=float).reshape(2, 3, 4) / 24  # (tasks, seeds, episodes)


def worst_lifetime(scores):
    """The mean return of each task's worst lifetime."""
    return scores.episodes.mean(axis=2).min(axis=1, keepdims=True)


worst_lifetime.title = "worst of {num_final_episodes}"


def lucky_tasks(scores):
    """The number of tasks with a positive return: one number per split."""
    return int((scores.episodes.max(axis=(1, 2)) > 0).sum())


lucky_tasks.unit, lucky_tasks.scales = "tasks", ("return",)


def broken(scores):
    """An invalid figure: it leaves out one task."""
    return scores.episodes[1:, :, 0]


def endless(scores):
    """Not a number that a record can hold."""
    return np.full(scores.episodes.shape[:2], np.inf)


def untitled(scores):
    """A title that is not text."""
    return scores.final_steps


untitled.title = 3


def braces(scores):
    """Braces in the title are no field."""
    return scores.final_steps


braces.title = "set {x} | y"


def unnumbered(scores):
    """No number at all."""
    return float("nan")


@pytest.fixture
def evaluated(tiny):
    """An evaluated tiny experiment with two figures of the user's own."""
    own = [f"{__name__}:worst_lifetime", f"{__name__}:lucky_tasks"]
    config = tiny(evaluation={"figures": own})
    generate(config)
    train(config)
    evaluate(config)
    write_report(config)
    return config


def test_the_figures_of_the_table_equal_numbers_computed_by_hand():
    unknown = np.full((1, 3, 4), np.nan)  # a task without a scale does not count
    final = np.array([[0.1, 0.2, np.nan], [0.4, 0.5, 0.6], [0.9, 0.9, 0.9]])
    scores = Scores(np.concatenate([RETURNS, unknown]), final)
    found = split_figures(list(FIGURES), {"return": scores, "normalised_return": scores}, 1.0, 72)
    values = found.normalised_return
    for key, expected in (
        ("first_episode", RETURNS[:, :, 0]),
        ("final_episodes", RETURNS.mean(axis=2)),  # the last ten of four episodes are all four
        ("area_under_curve", RETURNS.mean(axis=2)),
        ("final_steps", final[1:2]),  # a lifetime of the first task ends no episode there
    ):
        assert values[key].iqm == pytest.approx(trim_mean(expected.ravel(), 0.25)), key
        assert values[key].mean == pytest.approx(expected.mean()), key
        assert values[key].interval == (None, None), key  # two tasks are too few
    assert values["episodes_to_0.8"] is None
    assert "episodes_to_0.8" not in found.returns  # this figure needs normalised returns
    high = Scores(RETURNS + np.array([0, 0.2, 0.4, 0.6]), final[:2])
    assert split_figures(list(FIGURES), {"return": high, "normalised_return": high}, 1.0, 72).normalised_return[
        "episodes_to_0.8"
    ] == (3)


def test_a_users_own_figure_appears_wherever_figures_do(evaluated):
    folder, title = run_folder(evaluated), "worst of 3"
    summary = load_summary(folder)
    raw = json.loads(folder.summary.read_text())
    assert {"key": "worst_lifetime", "title": title, "unit": "return"}.items() <= raw["figures"][-2].items()
    worst = raw["agents"]["random"]["test"]["return"]["worst_lifetime"]
    assert worst["iqm"] is not None and 0 <= worst["iqm"] <= raw["agents"]["random"]["test"]["return"][
        "area_under_curve"]["iqm"]  # fmt: skip
    assert raw["agents"]["optimal"]["test"]["return"]["lucky_tasks"] == 3
    assert "lucky_tasks" not in raw["agents"]["optimal"]["test"]["normalised_return"]
    # terminal
    head, *rows = describe(summary).splitlines()
    assert title in head
    shown = summary.agents["optimal"]["test"].normalised_return["worst_lifetime"]
    assert f"{shown.iqm:.2f}" in next(row for row in rows if " optimal " in row)
    # trackers
    assert scalars(summary)["evaluation/test/optimal/normalised_return/worst_lifetime"] == shown.iqm
    assert scalars(summary)["evaluation/test/optimal/return/lucky_tasks"] == 3
    # report
    assert f"<th>{title}</th>" in folder.report.read_text()
    # model card: its table and its metadata
    card = model_parcel(Experiment(evaluated), Repository("me/model", "model")).files["README.md"].decode()
    assert f"| {title} |" in card
    (result,) = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    assert "normalised_return_worst_lifetime" in {metric["type"] for metric in result["metrics"]}


def test_one_entry_adds_a_figure_to_the_table(evaluated, monkeypatch):
    best = Figure("best_episode", "best episode", "return", lambda scores: scores.episodes.max(axis=2))
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, best))
    evaluate(evaluated, overwrite=True)
    summary = load_summary(run_folder(evaluated))
    assert "best episode" in describe(summary)
    assert summary.agents["optimal"]["test"].returns["best_episode"].iqm > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "does not name a function: write module:function"),
        ("no_such_module:f", "cannot import 'no_such_module:f': ModuleNotFoundError"),
        (f"{__name__}:nothing", "AttributeError"),
        (f"{__name__}:broken", r"broken: ValueError: returned the shape \(2, 2\)"),
        (f"{__name__}:RETURNS", "RETURNS: TypeError"),
        (f"{__name__}:endless", "endless: ValueError: returned a value that is infinite"),
        (f"{__name__}:untitled", r"untitled\.title: 3 must be one line of text"),
    ],
)
def test_an_invalid_figure_is_refused(tiny, name, message):
    with pytest.raises(ConfigError, match=message):
        load_figures(tiny(evaluation={"figures": [name]}).evaluation.figures)


def test_odd_titles_and_no_number_are_shown_as_they_are(evaluated):
    config = evaluated.model_copy(
        update={
            "evaluation": evaluated.evaluation.model_copy(
                update={"figures": (f"{__name__}:braces", f"{__name__}:unnumbered")}
            )
        }
    )
    evaluate(config, overwrite=True)
    summary = load_summary(run_folder(config))
    assert "set {x} | y" in describe(summary)
    assert summary.agents["random"]["test"].returns["unnumbered"] is None
    card = model_parcel(Experiment(config), Repository("me/model", "model")).files["README.md"].decode()
    assert "set {x} \\| y" in card


def test_two_figures_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.figures\.1: .*worst_lifetime"):
        load_figures([f"{__name__}:worst_lifetime"] * 2)


def test_figures_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FIGURES[0].key = "other"
