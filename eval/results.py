"""What an evaluation came to: one row an episode, and the figures of the summary."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.files import read_record
from configs.run_folder import SCHEMA_VERSION, RunFolder
from data_gen.tasks.base import TaskDistribution, Tasks
from eval.statistics import first_reached, iqm, iqm_interval

TRANSFORMER = "transformer"
LAST_EPISODES = 10
"""Episodes at the end of a lifetime over which the final return is averaged."""

_LEVEL = 0.8  # of normalised return, for "how soon"
_RESAMPLES = 2000


@dataclass(frozen=True)
class Lifetimes:
    """One agent on one split. Arrays are (task, seed, episode)."""

    returns: NDArray[np.float64]
    steps: NDArray[np.int64]
    """Environment steps made when the episode ended."""
    seconds: float
    environment_steps: int
    paths: dict[str, NDArray[Any]]
    """First and last episode of a few tasks, for pictures."""


def returns_table(
    distribution: TaskDistribution,
    splits: dict[str, Tasks],
    sources: list[str],
    lived: dict[tuple[str, str], Lifetimes],
) -> tuple[pd.DataFrame, str]:
    """One row an episode, and what a normalised return of 1 stands for.

    Normalised returns are NaN on a task where the best source is no better than random and the optimum is not known.
    """
    parts, one = [], "the optimal policy's expected return on that task"
    scale = {}
    for split, tasks in splits.items():
        random, best = distribution.random_return(tasks), distribution.optimal_return(tasks)
        if np.isnan(best).any():
            one = f"the best source's mean return over its last {LAST_EPISODES} episodes on that task"
            finals = [lived[source, split].returns[:, :, -LAST_EPISODES:].mean(axis=(1, 2)) for source in sources]
            best = np.max(finals, axis=0)
        scale[split] = random[:, None, None], np.where(best > random, best - random, np.nan)[:, None, None]
    for (name, split), life in lived.items():
        random, span = scale[split]
        normalised = (life.returns - random) / span
        task, seed, episode = np.indices(life.returns.shape)
        parts.append(
            pd.DataFrame(
                {
                    "agent": name,
                    "split": split,
                    "task": task.ravel(),
                    "seed": seed.ravel(),
                    "episode": episode.ravel() + 1,
                    "steps": life.steps.ravel(),
                    "return": life.returns.ravel(),
                    "normalised_return": normalised.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True), one


def load_summary(folder: RunFolder) -> dict[str, Any]:
    """What `summary.json` says. Raises UserError if it is missing or is not such a record."""
    keys = ("fingerprint", "weights", "parameters", "episodes", "last_episodes", "normalised_return", "agents")
    return read_record(folder.summary, SCHEMA_VERSION, keys)


def describe(summary: dict[str, Any]) -> str:
    """The summary's held-out figures as a few lines of text."""
    lines = [
        f"  normalised return on held-out tasks (IQM): {'episode 1':>12} {'last ' + str(summary['last_episodes']):>9}"
    ]
    for agent, splits in summary["agents"].items():
        figures = splits["test"]["normalised_return"]
        first, last = figures["first_episode"]["iqm"], figures["last_ten"]["iqm"]
        mark = "->" if agent == TRANSFORMER else "  "
        lines.append(f"  {mark} {agent:40} {_number(first):>11} {_number(last):>9}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def scores_array(table: pd.DataFrame, agent: str, split: str, column: str) -> NDArray[np.float64]:
    """A column of returns.parquet for one agent and split, (task, seed, episode), without tasks where it is NaN."""
    rows = table[(table["agent"] == agent) & (table["split"] == split)].sort_values(["task", "seed", "episode"])
    shape = [rows[axis].nunique() for axis in ("task", "seed", "episode")]
    scores = rows[column].to_numpy(dtype=np.float64).reshape(shape)
    return scores[~np.isnan(scores).any(axis=(1, 2))]


def summary_figures(table: pd.DataFrame, lived: dict[tuple[str, str], Lifetimes]) -> dict[str, dict[str, Any]]:
    """The `agents` part of summary.json: by agent and split, IQM, 95% interval and mean of every figure, and cost."""
    agents: dict[str, dict[str, Any]] = {}
    for (name, split), life in lived.items():
        figures: dict[str, Any] = {}
        for label, column in (("return", "return"), ("normalised_return", "normalised_return")):
            scores = scores_array(table, name, split, column)
            figures[label] = {
                "first_episode": _figure(scores[:, :, 0]),
                "last_ten": _figure(scores[:, :, -LAST_EPISODES:].mean(axis=2)),
                "area_under_curve": _figure(scores.mean(axis=2)),
            }
            if label == "normalised_return":
                figures[f"episodes_to_{_LEVEL}"] = first_reached(iqm(scores), _LEVEL) if len(scores) else None
        figures["seconds"] = life.seconds
        figures["environment_steps"] = life.environment_steps
        agents.setdefault(name, {})[split] = figures
    return agents


def _figure(scores: NDArray[np.float64]) -> dict[str, Any]:
    if not len(scores):
        return {"iqm": None, "interval": [None, None], "mean": None}
    low, high = iqm_interval(scores, _RESAMPLES)
    return {"iqm": float(iqm(scores)), "interval": [float(low), float(high)], "mean": float(scores.mean())}
