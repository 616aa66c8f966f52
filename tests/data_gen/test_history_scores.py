"""Scores of histories against scores computed by hand, and selection by scores."""

import numpy as np
import pytest

from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.scoring.report import describe_scores
from data_gen.scoring.scores import HistoryScores, history_scores, score_returns
from data_gen.scoring.selection import history_likelihoods, quartiles
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard
from icrl.config.schema import SelectionConfig
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError


def test_scores_of_a_few_episodes_equal_scores_computed_by_hand():
    """With fewer than 15 episodes, a part is one episode, so nothing is smoothed."""
    returns = np.array([[1.0, 3, 2, 5, 4], [4, 1, 2, 0, 99], [2, 2, 2, 2, 2], [7, 99, 99, 99, 99], [99.0] * 5])
    first, final, drop = score_returns(returns, np.array([5, 4, 5, 1, 0]))
    np.testing.assert_array_equal(first, [1, 4, 2, 7, np.nan])
    np.testing.assert_array_equal(final, [4, 0, 2, 7, np.nan])
    np.testing.assert_array_equal(drop, [1, 4, 0, 0, np.nan])  # 3 to 2 and 5 to 4; 4 to 0; none; none


def test_the_curve_is_smoothed_over_a_tenth_of_the_episodes():
    """A part of 20 episodes is two episodes, so one bad episode counts half."""
    returns = np.array([[0.0] * 10 + [4.0] * 5 + [0.0] + [4.0] * 4])
    first, final, drop = score_returns(returns, np.array([20]))
    assert (first, final, drop) == (0, 4, 2)


@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_scores_of_ragged_histories_equal_scores_of_each_history_alone(scale):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 60, size=40)
    returns = scale * rng.random((40, 60))
    returns[np.arange(60) >= counts[:, None]] = np.nan
    found = np.stack(score_returns(returns, counts))
    for history, count in enumerate(counts):
        part = max(1, round(count / 10))
        smooth = [returns[history, start : start + part].mean() for start in range(count - part + 1)]
        drop = max(smooth[i] - smooth[j] for j in range(len(smooth)) for i in range(j + 1))
        np.testing.assert_allclose(found[:, history], [smooth[0], smooth[-1], drop], atol=1e-12)


def test_scores_of_a_run_are_normalised_if_the_optimum_is_known(tiny):
    config = tiny()
    generate(config)
    scores = history_scores(run_folder(config), load_info(run_folder(config)))
    assert scores.normalised and len(scores) == 24
    shards = [read_shard(path) for path in sorted(run_folder(config).data.glob("*.h5"))]
    returns = np.concatenate([shard["reward"] for shard in shards]).reshape(24, 24, 6).sum(axis=2)
    tasks = Experiment(config).train_tasks
    task = np.concatenate([shard["task"] for shard in shards])
    np.testing.assert_array_equal(scores.task, task)
    curves = config.tasks.build().normalise(returns, tasks.take(task))
    np.testing.assert_allclose(scores.final_return, curves[:, -2:].mean(axis=1))
    np.testing.assert_allclose(scores.improvement, curves[:, -2:].mean(axis=1) - curves[:, :2].mean(axis=1))
    smooth = (curves[:, :-1] + curves[:, 1:]) / 2
    np.testing.assert_allclose(scores.drop, (np.maximum.accumulate(smooth, axis=1) - smooth).max(axis=1), atol=1e-12)


def test_scores_are_raw_returns_if_no_optimum_is_known(tiny, monkeypatch):
    config = tiny()
    generate(config)
    folder, info = run_folder(config), load_info(run_folder(config))
    monkeypatch.setattr(
        "data_gen.tasks.grids.dark_room.DarkRoom.optimal_return", lambda self, tasks: np.full(len(tasks), np.nan)
    )
    scores = history_scores(folder, info)
    shards = [read_shard(path) for path in sorted(folder.data.glob("*.h5"))]
    returns = np.concatenate([shard["reward"] for shard in shards]).reshape(24, 24, 6).sum(axis=2)
    assert not scores.normalised
    np.testing.assert_allclose(scores.final_return, returns[:, -2:].mean(axis=1))


def six_scores(**changes):
    """Scores of six histories, three per task. One history has no episode."""
    scores = {
        "task": np.array([0, 1, 0, 1, 0, 1]),
        "source": np.array([0, 0, 1, 1, 1, 1]),
        "improvement": np.array([0.5, 0.1, 0.9, 0.0, np.nan, 0.2]),
        "final_return": np.array([0.6, 0.3, 0.9, 0.1, np.nan, 0.3]),
        "drop": np.array([0.3, 0.0, 0.5, 0.1, np.nan, 0.2]),
    }
    return HistoryScores(**scores | changes, normalised=True)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"min_improvement": 0.2}, [1, 0, 1, 0, 0, 1]),
        ({"min_improvement": -9}, [1, 1, 1, 1, 0, 1]),
        ({"min_final_return": 0.3, "max_drop": 0.3}, [1, 1, 0, 0, 0, 1]),
        ({"best_share": 0.34}, [1, 1, 1, 0, 0, 1]),  # two of three
        ({"best_share": 0.33}, [0, 1, 1, 0, 0, 0]),  # one of three, and the first of equal ones
        ({"likelihood": "improvement"}, [0.5, 0.1, 0.9, 0, 0, 0.2]),
        ({"likelihood": "final_return"}, [0.5, 0.2, 0.8, 0, 0, 0.2]),
        ({"likelihood": "stability"}, [0.2, 0.5, 0, 0.4, 0, 0.3]),
        ({"likelihood": "improvement", "min_improvement": 0.2}, [0.3, 0, 0.7, 0, 0, 0]),
        ({"likelihood": "final_return", "best_share": 0.33, "max_drop": 0.4}, [0, 1, 0, 0, 0, 0]),  # one left
    ],
)
def test_limits_and_likelihoods_equal_values_computed_by_hand(selection, expected):
    np.testing.assert_allclose(history_likelihoods(six_scores(), SelectionConfig(**selection)), expected, atol=1e-12)


def test_limits_that_no_history_meets_together_are_all_named():
    with pytest.raises(ConfigError) as raised:
        history_likelihoods(six_scores(), SelectionConfig(min_improvement=0.9, max_drop=0.3, best_share=0.5))
    message = str(raised.value)
    assert "training.selection.min_improvement: 0.9 is met by 1 of 6 histories, whose improvement is 0 0.1 " in message
    assert "training.selection.max_drop: 0.3 is met by 4 of 6 histories, whose drop is 0 0.1 0.2 0.3 0.5 (" in message
    assert "training.selection.best_share: 0.5 is met by 4 of 6" in message


def test_quartiles_ignore_unknown_values():
    np.testing.assert_allclose(quartiles(np.array([4, np.nan, 0, 1, 2, 3])), [0, 1, 2, 3, 4])
    assert np.isnan(quartiles(np.array([np.nan]))).all()


def test_scores_and_selected_histories_are_described_per_source():
    sources = [{"name": "q_learning"}, {"name": "random"}]
    text = describe_scores(
        six_scores(), sources, SelectionConfig(min_improvement=0.2, likelihood="stability")
    ).splitlines()
    assert text[1] == "    0 q_learning: 0.20 0.30 0.40 | 0.38 0.45 0.53 | 0.07 0.15 0.22; training reads 1 of 2"
    assert text[2].endswith("training reads 1 of 4")
    assert text[3] == "  training.selection leaves 2 of 6 histories, drawn by stability"
    nothing = describe_scores(six_scores(), sources, SelectionConfig(min_improvement=5)).splitlines()
    assert nothing[3] == "  training.selection leaves 0 of 6 histories"
    assert nothing[4].startswith("  warning: training.selection.min_improvement: 5.0 is met by 0 of 6")
