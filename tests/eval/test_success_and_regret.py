"""Success rate, regret and steps to a level: each computed by hand from `returns.parquet`."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, merged
from scipy.stats import trim_mean

from ad_model.train import train
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from eval.evaluate import evaluate
from eval.report import write_report
from eval.results import scores_array
from eval.summary import load_summary
from eval.summary_text import describe
from icrl.config.loader import validate
from icrl.run.folder import run_folder


@pytest.fixture
def evaluated(tmp_path):
    """A function that evaluates the tiny experiment with changes, on other `tasks` if given."""

    def make(tasks=None, **changes):
        values = merged(merged(TINY, {"output": str(tmp_path / "runs")}), changes)
        config = validate({**values, "tasks": {**(TINY["tasks"] if tasks is None else tasks)}})
        generate(config)
        train(config)
        evaluate(config)
        folder = run_folder(config)
        agents = json.loads(folder.summary.read_text())["agents"]
        return config, pd.read_parquet(folder.returns), agents

    return make


def test_success_rate_and_regret_are_those_of_the_table(evaluated):
    config, table, agents = evaluated(evaluation={"episodes": 12})
    optimal = Experiment(config).family.optimal_return(Experiment(config).test_tasks)
    np.testing.assert_array_equal(table["success"], table["return"] > 0)  # Dark Room: the goal was reached
    for agent, splits in agents.items():
        rows = table[(table["agent"] == agent) & (table["split"] == "test") & (table["episode"] <= 12)]
        lifetimes = ["task", "seed"]
        last = rows[rows["episode"] > 2].assign(success=lambda rows: rows["success"].astype(float))
        rates = last.groupby(lifetimes)["success"].mean()
        missed = rows.assign(regret=optimal[rows["task"]] - rows["return"]).groupby(lifetimes)["regret"].sum()
        figures = splits["test"]["return"]
        assert figures["success_rate"]["mean"] == pytest.approx(rates.mean()), agent
        assert figures["regret"]["iqm"] == pytest.approx(trim_mean(missed, 0.25), abs=1e-9), agent
        assert figures["regret"]["mean"] == pytest.approx(missed.mean(), abs=1e-9), agent
        assert "success_rate" not in splits["test"]["normalised_return"]
    assert agents["optimal"]["test"]["return"]["success_rate"]["mean"] == 1
    assert agents["optimal"]["test"]["return"]["regret"]["mean"] == 0
    assert 0 < agents["random"]["test"]["return"]["success_rate"]["mean"] < 1


def test_steps_to_a_level_are_those_by_the_end_of_the_episode_that_reaches_it(evaluated):
    _, table, agents = evaluated(
        tasks={**TINY["tasks"], "reward": "once"}, evaluation={"episodes": 12}, training={"steps": 2}
    )
    for agent, splits in agents.items():
        figures = splits["test"]["normalised_return"]
        returns, steps = (scores_array(table, agent, "test", column, 12) for column in ("normalised_return", "steps"))
        curve = [trim_mean(returns[:, :, episode].ravel(), 0.25) for episode in range(12)]
        reached = next((episode for episode, value in enumerate(curve) if value >= 0.8), None)
        assert figures["episodes_to_0.8"] == (None if reached is None else reached + 1), agent
        expected = None if reached is None else pytest.approx(steps[:, :, reached].mean())
        assert figures["steps_to_0.8"] == expected, agent
        area = trim_mean(returns.mean(axis=2).ravel(), 0.25)
        assert figures["area_under_curve"]["iqm"] == pytest.approx(area), agent
    optimal = agents["optimal"]["test"]["normalised_return"]
    assert optimal["episodes_to_0.8"] == 1 and 1 <= optimal["steps_to_0.8"] < 6  # its episodes end early


def test_regret_of_a_bandit_is_counted_in_expected_rewards(evaluated):
    """The best arm's pulls cost nothing, whatever they happened to pay."""
    config, table, agents = evaluated(
        tasks={"name": "bandit", "arms": 4},
        split={"train": 6, "test": 5},
        data={"sources": [{"name": "ucb1"}]},
        evaluation={"episodes": 30, "test_tasks": 5},
    )
    figures = {agent: splits["test"]["return"] for agent, splits in agents.items()}
    assert figures["optimal"]["regret"]["mean"] == pytest.approx(0, abs=1e-9)
    realised = table[(table["agent"] == "optimal") & (table["split"] == "test")]["return"]
    assert 0 < realised.mean() < 1
    family, tasks = Experiment(config).family, Experiment(config).test_tasks
    gap = (family.optimal_return(tasks) - family.random_return(tasks)).mean()
    assert figures["random"]["regret"]["mean"] == pytest.approx(30 * gap, rel=0.3)
    assert table["success"].isna().all()


def test_a_family_without_success_has_no_such_figure(evaluated):
    config, table, agents = evaluated(
        tasks={"name": "pendulum", "episode_length": 8},
        split={"train": 6, "test": 3},
        data={"sources": [{"name": "random"}]},
        evaluation={"baselines": [{"name": "random"}]},
    )
    assert table["success"].isna().all()
    for splits in agents.values():
        for figures in splits.values():
            for scale in ("return", "normalised_return"):
                assert not {"success_rate", "regret"} & set(figures[scale])
    folder = run_folder(config)
    write_report(config)
    assert "success" not in describe(load_summary(folder))
    assert "<th>success</th>" not in folder.report.read_text()
