"""What an evaluation came to: one row an episode, and the figures of the summary."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_gen.tasks.base import TaskDistribution, Tasks
from eval.statistics import first_reached, iqm, iqm_interval
from icrl.run.folder import SCHEMA_VERSION, RunFolder
from icrl.support.files import read_record

TRANSFORMER = "transformer"
FINAL_EPISODES = 10
"""Episodes at the end of a lifetime over which the final return is averaged."""

FINAL_SHARE = 0.1
"""Share of a lifetime's steps at its end, over whose episodes the final return is averaged where episodes end early; at
least one full-length episode's, so that an episode ends in it."""

_LEVEL = 0.8  # of normalised return, for "how soon"
_RESAMPLES = 2000


@dataclass(frozen=True)
class Lifetimes:
    """One agent on one split. Arrays are (task, seed, episode), as long as the lifetime with the most episodes.

    Where episodes end early, lifetimes differ in their number: what is not there is NaN, and the first `episodes`,
    which every lifetime has, are those that agents are compared by.
    """

    episodes: int

    returns: NDArray[np.float64]
    steps: NDArray[np.int64]
    """Environment steps made when the episode ended."""
    final: NDArray[np.float64]
    """(task, seed): mean return of the episodes that ended in the last tenth of the steps; NaN where none did."""
    seconds: float
    environment_steps: int
    paths: dict[str, NDArray[Any]]
    """First and last episode of a few tasks, for pictures."""

    @property
    def compared(self) -> NDArray[np.float64]:
        """Returns of the first `episodes` episodes, (task, seed, episode)."""
        return self.returns[:, :, : self.episodes]


Scale = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By split, (task,) the return that is 0, and how much more is 1; NaN where that is not known."""


def returns_scale(
    distribution: TaskDistribution,
    splits: dict[str, Tasks],
    sources: list[str],
    lived: dict[tuple[str, str], Lifetimes],
) -> tuple[Scale, str]:
    """The scale of normalised returns, and what 1 stands for.

    Where an optimum is not known, 1 is the best source's final return (the best baseline's, where the data is given
    and has no sources here); where that is no better than random, or there is none, NaN.
    """
    scale, one = {}, "the optimal policy's expected return on that task"
    for split, tasks in splits.items():
        if not len(tasks):
            continue
        random, best = distribution.random_return(tasks), distribution.optimal_return(tasks)
        if np.isnan(best).any():
            one = f"the best source's mean return over its last {FINAL_EPISODES} episodes on that task"
            finals = [lived[source, split].compared[:, :, -FINAL_EPISODES:].mean(axis=(1, 2)) for source in sources]
            best = np.max([random, *finals], axis=0)
        scale[split] = random, np.where(best > random, best - random, np.nan)
    return scale, one


def returns_table(scale: Scale, lived: dict[tuple[str, str], Lifetimes]) -> pd.DataFrame:
    """One row an episode, all of every lifetime."""
    parts = []
    for (name, split), life in lived.items():
        random, span = (values[:, None, None] for values in scale[split])
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
        parts[-1] = parts[-1][~np.isnan(life.returns.ravel())]
    return pd.concat(parts, ignore_index=True)


def load_summary(folder: RunFolder) -> dict[str, Any]:
    """What `summary.json` says. Raises UserError if it is missing or is not such a record."""
    keys = (
        "fingerprint",
        "weights",
        "parameters",
        "episodes",
        "num_final_episodes",
        "normalised_return",
        "agents",
    )
    return read_record(folder.summary, SCHEMA_VERSION, keys)


def describe(summary: dict[str, Any]) -> str:
    """The summary's held-out figures as a few lines of text; raw returns where no scale is known."""
    known = summary["normalised_return"]["known"]
    column, title = ("normalised_return", "normalised return") if known else ("return", "return")
    last = f"last {summary['num_final_episodes']}"
    head = (
        f"  {title + ' on held-out tasks (IQM):':48} {'episode 1':>9} {last:>9} {'last tenth':>11} {'trained with':>13}"
    )
    lines = [head]
    for agent, splits in summary["agents"].items():
        figures = [splits["test"][column][key]["iqm"] for key in ("first_episode", "final_episodes", "final_steps")]
        shown = [_number(figure) for figure in figures]
        mark = "->" if agent == TRANSFORMER else "  "
        lines.append(
            f"  {mark} {agent:45} {shown[0]:>9} {shown[1]:>9} {shown[2]:>11} {trained_with(summary, agent):>13}"
        )
    lines.append("  last tenth: of the steps; where episodes end early, those are later ones")
    lines.append("  trained with: environment steps before these lifetimes began")
    return "\n".join(lines)


def trained_with(summary: dict[str, Any], agent: str) -> str:
    """How many environment steps an agent was trained with, in a few characters; of the transformer, those of data."""
    steps = summary.get("training_steps", {}).get(agent)
    if steps is None:
        return "unknown"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if steps >= 0.9995 * size:
            return f"{steps / size:.3g}{unit}"
    return str(steps)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def scores_array(table: pd.DataFrame, agent: str, split: str, column: str, episodes: int) -> NDArray[np.float64]:
    """A column of returns.parquet for one agent and split, (task, seed, episode), without tasks where it is NaN.

    The first `episodes` episodes, as many as every lifetime has.
    """
    rows = table[(table["agent"] == agent) & (table["split"] == split) & (table["episode"] <= episodes)]
    rows = rows.sort_values(["task", "seed", "episode"])
    shape = [rows[axis].nunique() for axis in ("task", "seed", "episode")]
    scores = rows[column].to_numpy(dtype=np.float64).reshape(shape)
    return scores[~np.isnan(scores).any(axis=(1, 2))]


def summary_figures(
    table: pd.DataFrame, scale: Scale, lived: dict[tuple[str, str], Lifetimes]
) -> dict[str, dict[str, Any]]:
    """The `agents` part of summary.json: by agent and split, IQM, 95% interval and mean of every figure, and cost."""
    agents: dict[str, dict[str, Any]] = {}
    for (name, split), life in lived.items():
        figures: dict[str, Any] = {}
        random, span = (values[:, None] for values in scale[split])
        finals = {"return": life.final, "normalised_return": (life.final - random) / span}
        for label, final in finals.items():
            scores = scores_array(table, name, split, label, life.episodes)
            figures[label] = {
                "first_episode": _figure(scores[:, :, 0]),
                "final_episodes": _figure(scores[:, :, -FINAL_EPISODES:].mean(axis=2)),
                "final_steps": _figure(final[~np.isnan(final).any(axis=1)]),
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
