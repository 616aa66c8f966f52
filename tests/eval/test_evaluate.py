"""Evaluation and report of a tiny run: files, figures checked by hand, refusals, and the page in a real browser."""

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from ad_model.train import train
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.tasks import Tasks
from eval.ablations import ablation_name
from eval.before import check_run
from eval.evaluate import evaluate
from eval.report import write_report
from eval.results import scores_array
from eval.summary import load_summary
from eval.summary_text import describe
from icrl.run.checkpoints import last_checkpoint
from icrl.run.folder import run_folder
from icrl.support.errors import UserError


@pytest.fixture
def trained(tiny):
    def make(**changes):
        config = tiny(**changes)
        generate(config)
        train(config)
        return config

    return make


def read(config):
    folder = run_folder(config)
    return pd.read_parquet(folder.returns), json.loads(folder.summary.read_text())


def test_every_agent_runs_on_the_same_tasks_and_every_episode_is_a_row(trained):
    config = trained()
    assert evaluate(config)
    table, summary = read(config)
    assert list(table.columns) == [
        "agent", "split", "task", "seed", "episode", "steps", "return", "normalised_return", "success",
    ]  # fmt: skip
    names = {"transformer", "q_learning", "q_learning (over 3)", "random", "optimal"}
    assert set(table["agent"]) == names == set(summary["agents"])
    assert len(table) == 5 * 2 * 3 * 2 * 3  # agents, splits, tasks, seeds, episodes
    assert sorted(table["episode"].unique()) == [1, 2, 3]
    assert (table["steps"] == table["episode"] * 6).all()
    assert not evaluate(config)  # complete


def test_figures_of_the_summary_agree_with_the_table(trained):
    config = trained()
    evaluate(config)
    table, summary = read(config)
    rows = table[(table["agent"] == "transformer") & (table["split"] == "test")]
    found = summary["agents"]["transformer"]["test"]
    for column in ("return", "normalised_return"):
        first = rows[rows["episode"] == 1][column]
        last = rows.groupby(["task", "seed"])[column].mean()  # all 3 episodes are among the last ten
        assert found[column]["first_episode"]["iqm"] == pytest.approx(trim_mean(first, 0.25))
        assert found[column]["final_episodes"]["iqm"] == pytest.approx(trim_mean(last, 0.25))
        assert found[column]["final_episodes"]["interval"] == [None, None]  # three tasks are too few
    experiment = Experiment(config)
    distribution, test = experiment.family, experiment.test_tasks
    tasks = test.take(slice(3))
    random, best = distribution.random_return(tasks), distribution.optimal_return(tasks)
    expected = (rows["return"] - random[rows["task"]]) / (best - random)[rows["task"]]
    np.testing.assert_allclose(rows["normalised_return"], expected)
    optimal = table[table["agent"] == "optimal"]["normalised_return"]
    np.testing.assert_allclose(optimal, 1)


def test_slots_that_terminate_early_still_run_all_episodes(trained):
    config = trained(tasks={"reward": "once"}, training={"steps": 2})
    evaluate(config)
    table, _ = read(config)
    lifetimes = table.groupby(["agent", "split", "task", "seed"])
    assert lifetimes.size().min() >= 3
    assert lifetimes["steps"].max().between(2 * 6 + 1, 3 * 6).all()  # up to the end of the last episode
    assert (lifetimes["episode"].max() == lifetimes.size()).all()
    steps = scores_array(table, "optimal", "test", "steps", 3)
    assert (np.diff(steps, axis=2) > 0).all()
    assert steps.max() < 3 * 6
    assert np.isfinite(table["normalised_return"]).all()


def test_evaluation_refuses_an_unfinished_or_foreign_training(trained, tiny):
    config = tiny()
    generate(config)
    with pytest.raises(UserError, match="has no complete checkpoint; run `icrl train`"):
        evaluate(config)
    train(config)
    with pytest.raises(UserError, match="training stopped at update 6 of 9; run `icrl train` to resume"):
        evaluate(tiny(training={"steps": 9}))
    with pytest.raises(UserError, match="belongs to another config"):
        evaluate(tiny(training={"learning_rate": 0.1}))
    missing = tiny(evaluation={"checkpoint": "nowhere"})
    with pytest.raises(UserError, match=r"evaluation\.checkpoint: nowhere: this folder does not exist"):
        evaluate(missing)


def test_an_unfinished_training_is_evaluated_only_if_its_checkpoint_is_named(trained, tiny):
    config = trained()
    checkpoint = last_checkpoint(run_folder(config).checkpoints)
    shutil.rmtree(checkpoint)
    with pytest.raises(UserError, match="training stopped at update 4 of 6"):
        evaluate(config)
    earlier = last_checkpoint(run_folder(config).checkpoints)
    assert evaluate(tiny(evaluation={"checkpoint": str(earlier)}))


def test_a_checkpoint_for_other_spaces_is_refused(trained, tiny):
    small = trained(name="small")
    checkpoint = last_checkpoint(run_folder(small).checkpoints)
    large = tiny(name="large", tasks={"size": 5}, evaluation={"checkpoint": str(checkpoint)})
    with pytest.raises(UserError, match="the checkpoint's observation space is"):
        evaluate(large)
    assert not run_folder(large).eval.exists()


def test_a_damaged_model_is_named(trained):
    config = trained()
    model = last_checkpoint(run_folder(config).checkpoints) / "model" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model.safetensors: is damaged"):
        evaluate(config)


def test_a_task_without_a_known_scale_has_no_normalised_return(trained, monkeypatch):
    """No optimum is known, and on some tasks the source does not beat random: these have no normalised return."""
    from data_gen.tasks.grids.dark_room import DarkRoom

    unknown = lambda self, tasks: np.full(len(tasks), np.nan)  # noqa: E731
    monkeypatch.setattr(DarkRoom, "optimal_return", unknown)
    monkeypatch.setattr(DarkRoom, "all_tasks", lambda self: Tasks({"goal": self.cells()}))
    config = trained(evaluation={"episodes": 12})
    evaluate(config)
    table, summary = read(config)
    assert "the best source's mean return over its last 10" in summary["normalised_return"]["1"]["test"]
    rows = table[(table["agent"] == "q_learning") & (table["split"] == "test")]
    experiment = Experiment(config)
    distribution, test = experiment.family, experiment.test_tasks
    random = distribution.random_return(test.take(slice(3)))
    for task in range(3):
        mine = rows[rows["task"] == task]
        best = mine[mine["episode"] > 2]["return"].mean()
        if best > random[task]:
            expected = (mine["return"] - random[task]) / (best - random[task])
            np.testing.assert_allclose(mine["normalised_return"], expected)
        else:
            assert mine["normalised_return"].isna().all()
    write_report(config)


def test_two_baselines_of_one_name_get_different_names(trained):
    config = trained(evaluation={"baselines": [{"name": "q_learning", "step_size": 0.1}, {"name": "random"}]})
    evaluate(config)
    assert list(read(config)[1]["agents"]) == [
        "transformer", "q_learning", "q_learning (over 3)", "q_learning_2", "q_learning_2 (over 3)", "random",
    ]  # fmt: skip


def test_the_report_is_self_contained_and_opens_in_a_browser(trained, tmp_path):
    config = trained()
    evaluate(config)
    path = write_report(config)
    html = path.read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert html.count("data:image/png;base64,") == 7
    assert {picture.name for picture in run_folder(config).report_pictures.iterdir()} == {
        "curves.png", "data.png", "emergence.png", "loss.png", "paths.png", "profiles.png", "tasks.png",
        "checksums.json",
    }  # fmt: skip
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        return  # without a browser on this machine, only the checks above run
    shot = tmp_path / "shot.png"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    dumped = subprocess.run(
        [browser, *quiet, "--disable-sync", "--disable-component-update", profile, f"--screenshot={shot}",
         "--window-size=1100,2000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Learning in context" in dumped.stdout
    assert shot.stat().st_size > 20_000


SETS = {"larger": {"size": 5}, "longer": {"episode_length": 9, "num_tasks": 2}}


def test_a_task_set_is_a_further_split_with_its_own_family_lengths_and_scale(trained):
    config = trained(tasks={"space_size": 5}, evaluation={"tasks": SETS})
    evaluate(config)
    table, summary = read(config)
    assert set(table["split"]) == {"test", "train", "larger", "longer"}
    names = {"transformer", "q_learning", "q_learning (over 3)", "random", "optimal"}
    assert {name for name, splits in summary["agents"].items() if {*SETS} <= {*splits}} == names
    assert summary["task_sets"]["longer"] == {
        "changes": {"episode_length": 9}, "tasks": 2, "left_out": 13, "seen_tasks": 0
    }  # fmt: skip
    longer, larger = (table[table["split"] == name] for name in ("longer", "larger"))
    assert (longer["steps"] == longer["episode"] * 9).all() and (larger["steps"] == larger["episode"] * 6).all()
    assert sorted(longer["task"].unique()) == [0, 1]
    for each in Experiment(config).task_sets:
        rows = table[(table["split"] == each.name) & (table["agent"] == "transformer")]
        random, best = each.family.random_return(each.tasks), each.family.optimal_return(each.tasks)
        expected = (rows["return"] - random[rows["task"]]) / (best - random)[rows["task"]]
        np.testing.assert_allclose(rows["normalised_return"], expected)
    write_report(config)
    report = run_folder(config).report.read_text()
    assert "Other tasks: larger" in report and "13 of the family's tasks were left out" in report
    assert (run_folder(config).report_pictures / "curves-longer.png").exists()
    text = describe(load_summary(run_folder(config)))
    assert "longer (episode_length 9, 2 tasks)" in text and text.count("-> transformer") == 3


def test_an_ablation_is_a_further_agent_and_leaves_the_others_as_they_are(trained, tiny):
    plain = trained()
    evaluate(plain)
    before, _ = read(plain)
    names = ["rewards_hidden", "context_of_another_task"]
    config = tiny(evaluation={"ablations": names, "baselines": [{"name": "random", "label": ablation_name(names[0])}]})
    evaluate(config, overwrite=True)
    table, summary = read(config)
    rows = [f"transformer ({name})" for name in ("rewards hidden", "context of another task")]
    assert summary["ablations"] == rows
    assert [*summary["agents"]] == ["transformer", *rows, "q_learning", "q_learning (over 3)", f"{rows[0]}_2"]
    for name in ("transformer", "q_learning"):
        pd.testing.assert_frame_equal(*(each[each["agent"] == name].reset_index(drop=True) for each in (before, table)))
    write_report(config)
    assert "What the transformer uses" in run_folder(config).report.read_text()
    assert (run_folder(config).report_pictures / "ablations.png").exists()


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"ablations": ["context_of_another_task"], "train_tasks": 1}, "train has 1: raise"),
        ({"tasks": {"larger": {"size": 5}}}, r"evaluation\.tasks\.larger: its observation space is"),
        (
            {"tasks": {"short": {"episode_length": 3}}, "baselines": [{"name": "ppo", "rollout_steps": 96}]},
            r"evaluation\.tasks\.short: evaluation\.baselines\.0: ppo makes its first update after 96 steps",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_first_stage(tiny, evaluation, message):
    with pytest.raises(UserError, match=message):
        check_run(Experiment(tiny(evaluation=evaluation)))


def test_tasks_of_a_set_that_a_given_checkpoint_was_trained_on_are_refused(trained, tiny):
    model = str(last_checkpoint(run_folder(trained(name="first")).checkpoints))
    evaluation = {"checkpoint": model, "tasks": {"longer": {"episode_length": 9}}, "test_tasks": 1}
    other = tiny(seed=3, split={"train": 2, "test": 1}, evaluation=evaluation)
    allowed = tiny(seed=3, split={"train": 2, "test": 1}, evaluation={**evaluation, "allow_seen_tasks": True})
    with pytest.raises(UserError, match=r"was trained on \d of the \d (held-out|longer) tasks"):
        evaluate(other)
    evaluate(allowed)
    assert read(allowed)[1]["task_sets"]["longer"]["seen_tasks"] == 1
