"""Lifetimes that fail are seen wherever an interquartile mean is shown, which leaves out the worst quarter."""

import numpy as np
import pytest

from ad_model.train import train
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from eval.evaluate import evaluate
from eval.figures import FIGURES, Scores
from eval.report import write_report
from eval.summary import load_summary, split_figures
from eval.summary_text import describe
from eval.tracking import scalars
from icrl.run.folder import run_folder
from icrl.support.hub import Repository
from publish.model import model_parcel


def test_an_interquartile_mean_of_one_does_not_hide_two_goals_that_are_never_found():
    finals = np.array([1.0] * 9 + [0.1, 0.2])  # the smallest input of the entry: 2 of 11 held-out goals
    episodes = np.tile(finals[:, None, None], (1, 4, 20))
    scores = Scores(episodes, episodes[:, :, -1])
    values = split_figures(list(FIGURES), {"return": scores, "normalised_return": scores}, 1.0, 1).normalised_return
    assert values["final_episodes"].iqm == 1
    assert values["final_episodes"].mean == pytest.approx((9 + 0.3) / 11)
    assert values["reached_0.8"].mean == pytest.approx(9 / 11)


def test_the_share_counts_lifetimes_at_their_end_and_not_lucky_episodes():
    episodes = np.zeros((6, 1, 30))
    episodes[0, :, 3] = 1.0  # one lucky episode
    episodes[1:3, :, 20:] = 0.8
    scores = Scores(episodes, episodes[:, :, -1])
    found = split_figures(list(FIGURES), {"return": scores, "normalised_return": scores}, 1.0, 1)
    assert found.normalised_return["reached_0.8"].mean == pytest.approx(2 / 6)
    assert "reached_0.8" not in found.returns  # 0.8 means nothing on the scale of raw returns


def test_mean_and_share_stand_in_terminal_report_model_card_and_trackers(tiny):
    config = tiny(split={"train": 11, "test": 5}, evaluation={"test_tasks": 5})
    generate(config)
    train(config)
    evaluate(config)
    write_report(config)
    folder = run_folder(config)
    summary = load_summary(folder)
    optimal = summary.agents["transformer"]["test"].normalised_return
    mean, share = optimal["final_episodes"].mean, optimal["reached_0.8"].mean
    text = describe(summary)
    head, row = text.splitlines()[0], next(line for line in text.splitlines() if "-> transformer" in line)
    assert "reach 0.8" in head and f"({mean:.2f})" in row and f"{share:.2f}" in row
    assert max(map(len, text.splitlines())) <= 130
    html = folder.report.read_text()
    assert "<th>reach 0.8</th>" in html and "<br>mean " in html
    card = model_parcel(Experiment(config), Repository("me/model", "model")).files["README.md"].decode()
    assert "| reach 0.8 |" in card and f", mean {mean:.2f} |" in card
    assert "normalised_return_final_episodes_mean" in card
    sent = scalars(summary)
    assert sent["evaluation/test/transformer/normalised_return/final_episodes_mean"] == mean
    assert sent["evaluation/test/transformer/normalised_return/reached_0.8"] == share
