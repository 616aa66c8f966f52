"""Figures over training seeds, and comparisons of runs and studies, on evaluations of known values."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from eval.figures import FIGURES, Scores
from eval.results import SplitScale, returns_table
from eval.statistics import iqm, paired_interval, pooled, probability_of_improvement, seeds_interval, tasks_interval
from eval.summary import Summary, TasksRecord, figure_titles, split_figures
from eval.values import read_values, values_table
from icrl.cli import main
from icrl.run.folder import RunFolder
from icrl.run.records import write_record
from icrl.support.errors import UserError
from icrl.support.files import checksums
from studies.compare import compare_all, unpaired
from studies.entries import load_entries
from studies.folder import RunRecord, StudyFolder, write_run_record
from studies.pool import Evaluated, Pool

EPISODES = 12
TITLES = {title.key: title for title in figure_titles(list(FIGURES), num_final_episodes=10)}
FINAL, REACHED = TITLES["final_episodes"], TITLES["reached_0.8"]


class Life:
    """Lifetimes with these returns, for the functions that write an evaluation."""

    def __init__(self, returns):
        self.returns, self.compared, self.steps = returns, returns, np.cumsum(np.ones(returns.shape, np.int64), axis=2)
        self.success = np.full(returns.shape, np.nan)


def write_run(path, agents, weights="w", keys=None, family="f"):
    """A run folder whose evaluation has these normalised returns (task, lifetime, episode) by agent."""
    folder = RunFolder(path)
    folder.eval.mkdir(parents=True)
    scores = {}
    for agent, returns in agents.items():
        own = Scores(returns, returns[:, :, -1])
        scores[agent, "test"] = {"return": own, "normalised_return": own}
    tasks = len(next(iter(agents.values())))
    zero, one = np.zeros(tasks), np.ones(tasks)
    lifetimes = {(agent, "test"): Life(returns) for agent, returns in agents.items()}
    returns_table({"test": SplitScale(zero, one, one)}, lifetimes).to_parquet(folder.returns, index=False)
    values_table(list(FIGURES), scores).to_parquet(folder.values, index=False)
    summary = Summary.model_validate(
        {
            "fingerprint": "e",
            "checkpoint": "c",
            "weights": weights,
            "made_with": {},
            "parameters": 1,
            "device": "cpu",
            "episodes": EPISODES,
            "num_final_episodes": 10,
            "interval": "i",
            "normalised_return": {"0": {"test": "random"}, "1": {"test": "best"}, "known": True},
            "training_steps": {},
            "tasks": {"test": TasksRecord(family=family, keys=keys or [f"{number:016x}" for number in range(tasks)])},
            "figures": [*TITLES.values()],
            "agents": {
                agent: {"test": split_figures(list(FIGURES), scores[agent, "test"], 1.0, 1)} for agent in agents
            },
            "files": checksums(folder.eval),
        }
    )
    write_record(folder.summary, summary)
    return folder


def returns(seed, tasks=8, lifetimes=4, shift=0.0):
    return np.random.default_rng(seed).normal(0.7 + shift, 0.3, (tasks, lifetimes, EPISODES))


def last(values):
    return values[:, :, -10:].mean(axis=2)


def test_the_values_of_an_evaluation_are_read_back_by_task_and_lifetime(tmp_path):
    mine = returns(0)
    mine[3, 1] = np.nan  # a task whose scale is unknown
    folder = write_run(tmp_path / "a", {"transformer": mine})
    values = read_values(folder.values)[("transformer", "test", "normalised_return", "final_episodes")]
    known = np.arange(len(mine)) != 3
    np.testing.assert_array_equal(values[known], last(mine)[known])
    assert np.isnan(values[3]).all()
    assert not [key for key in read_values(folder.values) if key[3] == "episodes_to_0.8"]  # one number per split
    folder.values.write_bytes(b"x")
    with pytest.raises(UserError, match=r"values.parquet: cannot be read"):
        read_values(folder.values)


def test_training_seeds_are_crossed_with_tasks_and_lifetimes_of_the_same_weights_are_joined(tmp_path):
    parts = [returns(seed) for seed in range(4)]
    weights = ["a", "b", "b", "c"]  # two evaluations of b
    runs = [write_run(tmp_path / str(n), {"transformer": part}, weights[n]) for n, part in enumerate(parts)]
    pool = Pool([Evaluated(run) for run in runs])
    assert [len(group) for group in pool.trainings] == [1, 2, 1]
    uneven = pool.figure("transformer", "test", "normalised_return", FINAL)  # b has 8 lifetimes, of which 4 are used
    assert (uneven.seeds, uneven.value) == (3, iqm(pooled(np.stack([last(parts[n]) for n in (0, 1, 3)]))))
    pool = Pool([Evaluated(runs[n]) for n in (0, 1, 3)])
    stacked = np.stack([last(parts[n]) for n in (0, 1, 3)])
    figure = pool.figure("transformer", "test", "normalised_return", FINAL)
    assert figure.value == iqm(pooled(stacked)) and figure.mean == pytest.approx(stacked.mean())
    assert (figure.low, figure.high) == tuple(map(float, seeds_interval(stacked, iqm)))
    assert (figure.tasks, figure.seeds) == (8, 3)
    middle, low, high = pool.curve("transformer", "test", "normalised_return")
    np.testing.assert_array_equal(middle, iqm(pooled(np.stack([parts[n] for n in (0, 1, 3)]))))
    assert (low < middle).all() and (middle < high).all()
    rate = pool.figure("transformer", "test", "normalised_return", REACHED)
    assert rate.value == pytest.approx((stacked >= 0.8).mean())


def test_an_agent_that_is_not_trained_counts_once_and_has_the_interval_of_one_run(tmp_path):
    baseline = returns(9)
    runs = [write_run(tmp_path / str(n), {"transformer": returns(n), "random": baseline}, f"w{n}") for n in range(3)]
    pool = Pool([Evaluated(run) for run in runs])
    figure = pool.figure("random", "test", "normalised_return", FINAL)
    assert figure.seeds == 1 and (figure.low, figure.high) == tuple(map(float, tasks_interval(last(baseline))))
    equal = Pool([Evaluated(write_run(tmp_path / f"e{n}", {"transformer": baseline}, f"w{n}")) for n in range(3)])
    assert equal.figure("transformer", "test", "normalised_return", FINAL).seeds == 3


def test_seeds_with_tasks_of_their_own_are_a_sample_of_both(tmp_path):
    parts = [returns(seed) for seed in range(4)]
    keys = [[f"{8 * n + task:016x}" for task in range(8)] for n in range(4)]
    runs = [write_run(tmp_path / str(n), {"transformer": part}, f"w{n}", keys[n]) for n, part in enumerate(parts)]
    figure = Pool([Evaluated(run) for run in runs]).figure("transformer", "test", "normalised_return", FINAL)
    each = np.array([iqm(last(part)) for part in parts])
    assert figure.value == iqm(np.concatenate([last(part) for part in parts]))
    assert figure.high - figure.value == pytest.approx(3.182446 * each.std(ddof=1) / 2)  # t with 3 degrees of freedom
    assert (figure.tasks, figure.seeds) == (32, 4)


def test_differences_are_paired_by_task_whatever_the_order_of_the_tasks(tmp_path):
    mine, theirs = returns(0, shift=0.2), returns(1)
    order = np.random.default_rng(0).permutation(8)
    write_run(tmp_path / "b", {"transformer": theirs})
    write_run(tmp_path / "a", {"transformer": mine[order]}, keys=[f"{task:016x}" for task in order])
    comparison = compare_all(load_entries([tmp_path / "b", tmp_path / "a"]))
    number = [title.key for title in comparison.titles].index("final_episodes")
    difference = comparison.differences[0][number]
    a, b = last(mine)[None], last(theirs)[None]
    assert difference.paired == "paired" and difference.value == float(iqm(a[0]) - iqm(b[0]))
    assert (difference.low, difference.high) == tuple(map(float, paired_interval(a, b)))
    assert difference.improvement.value == float(probability_of_improvement(a[0], b[0])) > 0.5
    assert "paired" in comparison.text() and "P 0." in comparison.text()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"keys": [f"{task + 4:016x}" for task in range(8)]}, r"other tasks \(4 of 8 and 8 are the same\)"),
        ({"family": "g"}, "other parameters of the task family"),
        ({"keys": ["0"] * 8}, "other tasks"),
    ],
)
def test_other_tasks_are_not_paired_and_the_comparison_says_why(tmp_path, other, expected):
    write_run(tmp_path / "a", {"transformer": returns(0)})
    write_run(tmp_path / "b", {"transformer": returns(1)}, **other)
    first, second = load_entries([tmp_path / "a", tmp_path / "b"])
    assert re.search(f"unpaired: {expected}", unpaired(second, first, "test"))
    difference = compare_all([first, second]).differences[0][1]
    assert difference.paired.startswith("unpaired") and difference.improvement is None
    assert difference.low < difference.value < difference.high


def test_a_page_and_a_table_of_runs_and_studies_with_names_that_repeat(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("x", "y"):
        write_run(tmp_path / place / "demo", {"transformer": returns(0)})
    study = StudyFolder(tmp_path / "lr")
    for n in range(6):
        folder = write_run(study.runs / str(n), {"transformer": returns(n)}, f"w{n}")
        settings = {"training.learning_rate": 0.001 * (1 + n // 3)}
        write_run_record(
            folder,
            RunRecord(study="lr", cell=f"c{n // 3}", settings=settings, seeds={}, state="complete", fingerprint="e"),
        )
    study.study.write_text("base: demo\n")
    assert main(["compare", "x/demo", "y/demo", "lr", "--to", "page.html"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    for label in ("x/demo", "y/demo", "lr: learning_rate 0.001", "lr: learning_rate 0.002"):
        assert label in told
    page = (tmp_path / "page.html").read_text()
    assert "lr: learning_rate 0.002" in page and page.count("data:image/png;base64,") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a"], "is a single run"),
        (["a", "a"], "a: is named twice"),
        (["a", "none"], "none: is neither a run folder nor the folder of a study"),
        (["a", "b", "--agent", "transformr"], "has no agent 'transformr'; did you mean 'transformer'"),
        (["a", "b", "--split", "train"], "has no figures on 'train' tasks"),
        (["a", "b", "--show", "final"], "--show: 'final' is not a figure that all have"),
        (["a", "damaged"], "summary.json: is damaged"),
        (["a", "spoiled"], "values.parquet: is damaged"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path, capsys, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "damaged", "spoiled"):
        write_run(tmp_path / name, {"transformer": returns(0)})
    path = tmp_path / "damaged/eval/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "other"}))
    pd.DataFrame({"value": [1.0]}).to_parquet(tmp_path / "spoiled/eval/values.parquet")
    assert main(["compare", *words]) == 1
    error = capsys.readouterr().err
    assert expected in error and len(error.splitlines()) == 1
