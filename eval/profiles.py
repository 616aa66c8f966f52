"""Aggregates and performance profiles of the returns at the end of lifetimes (Agarwal et al. 2021), for the report.

One number hides how returns are spread over tasks and lifetimes; a performance profile shows all of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.figures import FINAL_EPISODES
from eval.results import scores_array
from eval.statistics import (
    Array,
    above,
    improvement_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    tasks_interval,
)
from eval.summary import TRANSFORMER, Summary

_BAND_RESAMPLES = 300
_THRESHOLDS = 101
_AGGREGATES = {"IQM": iqm, "mean": mean, "median": median, "optimality gap": optimality_gap}


class Aggregate(NamedTuple):
    """An aggregate and the ends of its 95% interval, which are NaN where there is none."""

    value: float
    low: float
    high: float


def final_returns_by_agent(table: pd.DataFrame, summary: Summary, agents: Sequence[str]) -> dict[str, Array]:
    """Mean return of every lifetime over its last episodes, (task, seed), on the main split and the shown scale."""
    split, scale, episodes = summary.main_split, summary.scale, summary.episodes
    scores = {agent: scores_array(table, agent, split, scale, episodes) for agent in agents}
    return {agent: each[:, :, -FINAL_EPISODES:].mean(axis=2) for agent, each in scores.items()}


def aggregates(finals: dict[str, Array], known: bool) -> dict[str, dict[str, Aggregate]]:
    """Aggregates of the final returns by agent and name.

    Besides those of one agent, the probability that the transformer is better than the agent. The optimality gap is
    left out if the scale of the returns is not `known`, because then there is no return to fall short of.
    """
    rows = {}
    for agent, scores in finals.items():
        rows[agent] = {
            name: Aggregate(*_numbers(statistic(scores), *tasks_interval(scores, statistic)))
            for name, statistic in _AGGREGATES.items()
            if known or name != "optimality gap"
        }
        if agent != TRANSFORMER:
            ours = finals[TRANSFORMER]
            ends = improvement_interval(ours[None], scores[None])
            rows[agent]["transformer is better"] = Aggregate(*_numbers(probability_of_improvement(ours, scores), *ends))
    return rows


def draw_profiles(finals: dict[str, Array], scale: str, color: Callable[[str], str]) -> Figure:
    """Share of the lifetimes whose final return is above each threshold, for every agent, with bands over tasks."""
    lowest, highest = (
        float(end) for end in np.quantile(np.concatenate([*map(np.ravel, finals.values())]), [0.01, 0.99])
    )
    margin = 0.05 * max(highest - lowest, 0.1)
    thresholds = np.linspace(lowest - margin, highest + margin, _THRESHOLDS)
    figure = Figure(figsize=(8.2, 3.4))
    axes: Axes = figure.subplots()
    for agent, scores in finals.items():
        ours = agent == TRANSFORMER
        low, high = tasks_interval(above(scores, thresholds), mean, _BAND_RESAMPLES)
        label = f" {agent}" if agent.startswith("_") else agent  # matplotlib leaves labels that begin with _ out
        axes.plot(
            thresholds,
            performance_profile(scores, thresholds),
            color=color(agent),
            label=label,
            linewidth=2.4 if ours else 1.6,
            zorder=3 if ours else 2,
        )
        axes.fill_between(
            thresholds, np.clip(low, 0, 1), np.clip(high, 0, 1), color=color(agent), alpha=0.15, linewidth=0
        )
    axes.set(
        xlabel=f"{scale.replace('_', ' ')} over the last episodes, τ",
        ylabel="share of lifetimes above τ",
        xlim=(thresholds[0], thresholds[-1]),
        ylim=(-0.02, 1.02),
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _numbers(*values: Array) -> list[float]:
    return [float(value) for value in values]
