"""The results of an evaluation as a table of returns, one row per episode, and the scale of normalised returns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_gen.tasks.base import return_span
from data_gen.tasks.sets import TaskSet
from eval.figures import FINAL_EPISODES, ScaleName, Scores
from eval.lifetimes import Lifetimes
from eval.summary import ReturnScale


class SplitScale(NamedTuple):
    """The scale of normalised returns on one split or task set, and the optimum: arrays (task,)."""

    zero: NDArray[np.float64]
    """The return that becomes 0."""
    span: NDArray[np.float64]
    """The distance from there to the return that becomes 1; NaN where it is unknown."""
    optimal: NDArray[np.float64]
    """The optimal policy's expected return; NaN where the family does not know it."""


Scale = dict[str, SplitScale]

_ZERO = "the random policy's expected return on that task"
_OPTIMUM = "the optimal policy's expected return on that task"
_BEST_SOURCE = f"the best source's mean return over its last {FINAL_EPISODES} episodes on that task"

ByAgent = dict[tuple[str, str], Lifetimes]
"""Lifetimes by agent and by split or task set."""


def returns_scale(sets: Sequence[TaskSet], sources: list[str], lifetimes: ByAgent) -> tuple[Scale, ReturnScale]:
    """The scale of normalised returns, from each set's own family, and the meaning of 0 and 1 on each set.

    On a task whose optimum is unknown, 1 is the final return of the best source (of the best baseline, if the data is
    given and the config has no sources); other tasks keep their optimum. If that return is unknown too, or not above
    random, the task's scale is NaN.
    """
    scale: Scale = {}
    zero, one, errors, unknown = {}, {}, {}, {}
    for task_set in sets:
        split, tasks = task_set.name, task_set.tasks
        random, error = task_set.family.random_estimate(tasks)
        optimal = best = task_set.family.optimal_return(tasks)
        guessed = np.isnan(best)
        if guessed.any():
            finals = [lifetimes[name, split].compared[:, :, -FINAL_EPISODES:].mean(axis=(1, 2)) for name in sources]
            best = np.where(guessed, np.max([random, *finals], axis=0), best)
        span = return_span(random, best)
        relative = (error / span)[~np.isnan(span)]
        scale[split], unknown[split] = SplitScale(random, span, optimal), int(np.isnan(span).sum())
        errors[split] = float(np.sqrt(np.square(relative).mean())) if len(relative) else None
        zero[split] = _ZERO + (", estimated from simulated episodes" if error.any() else "")
        one[split] = _BEST_SOURCE if guessed.all() else _OPTIMUM
        if guessed.any() and not guessed.all():
            one[split] += f"; where that is unknown, on {guessed.sum()} of {len(tasks)} tasks, {_BEST_SOURCE}"
    known = not any(unknown[each.name] for each in sets if each.changes is None)
    return scale, ReturnScale(zero=zero, one=one, zero_error=errors, known=known, unknown_tasks=unknown)


def returns_table(scale: Scale, lifetimes: ByAgent) -> pd.DataFrame:
    """`returns.parquet`: one row per episode, with all episodes of every lifetime."""
    parts = []
    for (name, split), life in lifetimes.items():
        zero, span, _ = (values[:, None, None] for values in scale[split])
        normalised = (life.returns - zero) / span
        task, seed, episode = np.indices(life.returns.shape)
        part = pd.DataFrame(
            {
                "agent": name,
                "split": split,
                "task": task.ravel(),
                "seed": seed.ravel(),
                "episode": episode.ravel() + 1,
                "steps": life.steps.ravel(),
                "return": life.returns.ravel(),
                "normalised_return": normalised.ravel(),
                "success": pd.arrays.BooleanArray(life.success.ravel() > 0, np.isnan(life.success.ravel())),
            }
        )
        parts.append(part[~np.isnan(life.returns.ravel())])  # NaN: this lifetime has fewer episodes than others
    return pd.concat(parts, ignore_index=True)


def scores_of(life: Lifetimes, scale: SplitScale) -> dict[ScaleName, Scores]:
    """The scores of an agent's lifetimes on one split, on both scales."""
    zero, span, optimal = (values[:, None, None] for values in scale)
    success, regret = life.first(life.success), optimal - life.first(life.earned)
    raw = Scores(
        life.compared,
        life.final_steps,
        life.first(life.steps),
        None if np.isnan(success).all() else success,
        None if np.isnan(regret).all() else regret,
    )
    normalised = replace(
        raw, episodes=(raw.episodes - zero) / span, final_steps=(raw.final_steps - zero[:, 0]) / span[:, 0]
    )
    return {"return": raw, "normalised_return": normalised}


def scores_array(table: pd.DataFrame, agent: str, split: str, column: str, episodes: int) -> NDArray[np.float64]:
    """A column of `returns.parquet` for one agent and split, (task, seed, episode), without tasks that have NaN.

    Only the first `episodes` episodes are taken, which every lifetime has.
    """
    rows = table[(table["agent"] == agent) & (table["split"] == split) & (table["episode"] <= episodes)]
    rows = rows.sort_values(["task", "seed", "episode"])
    shape = [rows[axis].nunique() for axis in ("task", "seed", "episode")]
    scores = rows[column].to_numpy(dtype=np.float64, na_value=np.nan).reshape(shape)
    return scores[~np.isnan(scores).any(axis=(1, 2))]
