"""Aggregates of the scores of many lifetimes, as Agarwal et al. 2021 define them ("Deep RL at the Edge of the
Statistical Precipice").

Each takes scores of shape (task, lifetime, ...) and reduces the first two axes. Further axes, such as the episodes of a
curve or the resamples of a bootstrap, are kept, so that one array operation serves all of them. The lifetimes on one
task are what the paper calls runs. Scores of several training seeds go through `pooled` first.
"""

from collections.abc import Callable

import numpy as np
from einops import rearrange
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, trim_mean

Array = NDArray[np.float64]

Statistic = Callable[[Array], Array]
"""An aggregate of scores: (task, lifetime, ...) -> (...). Every function below with one argument is one."""


def pooled(scores: Array) -> Array:
    """Scores of several training seeds as those of one: (training seed, task, lifetime, ...) -> (task, lifetime, ...).

    A lifetime of any training seed counts as one run of its task, as in the paper.
    """
    return rearrange(scores, "training task lifetime ... -> task (training lifetime) ...")


def iqm(scores: Array) -> Array:
    """Interquartile mean, the mean of the middle half of all lifetimes: (task, lifetime, ...) -> (...)."""
    # Twice as fast with the lifetimes in the last axis, where they lie side by side.
    return np.asarray(trim_mean(rearrange(scores, "task lifetime ... -> ... (task lifetime)"), 0.25, axis=-1))


def mean(scores: Array) -> Array:
    """Mean over tasks and lifetimes: (task, lifetime, ...) -> (...)."""
    return np.asarray(scores.mean(axis=(0, 1)))


def median(scores: Array) -> Array:
    """Median over tasks of each task's mean over lifetimes: (task, lifetime, ...) -> (...)."""
    return np.asarray(np.median(scores.mean(axis=1), axis=0))


def optimality_gap(scores: Array, gamma: float = 1.0) -> Array:
    """Mean distance by which lifetimes fall short of the score `gamma`: (task, lifetime, ...) -> (...).

    Lower is better. Scores above `gamma` count as `gamma`, so a success on one task cannot make up for another.
    """
    return np.asarray(gamma - np.minimum(scores, gamma).mean(axis=(0, 1)))


def above(scores: Array, thresholds: ArrayLike) -> Array:
    """1 where a score is above a threshold, else 0: (task, lifetime, ...) -> (task, lifetime, ..., threshold).

    The `mean` of it is the performance profile, and so the interval of its `mean` is the profile's band.
    """
    return (scores[..., None] > np.asarray(thresholds)).astype(np.float64)


def performance_profile(scores: Array, thresholds: ArrayLike) -> Array:
    """Share of the lifetimes whose score is above each threshold: (task, lifetime, ...) -> (..., threshold).

    This is the paper's run-score distribution. Between two profiles that do not cross, the higher is better throughout.
    """
    return mean(above(scores, thresholds))


def probability_of_improvement(better: Array, worse: Array) -> Array:
    """Probability that a lifetime of the first agent scores higher than one of the second on the same task: (...).

    The probability is estimated on each task by the Mann-Whitney statistic, in which a tie counts half, and then
    averaged over tasks. Shapes are (task, lifetime, ...); the numbers of lifetimes may differ.
    """
    first = better.shape[1]
    ranks = rankdata(np.concatenate([better, worse], axis=1), axis=1)
    wins = ranks[:, :first].sum(axis=1) - first * (first + 1) / 2
    return np.asarray((wins / (first * worse.shape[1])).mean(axis=0))


def first_reached(curve: Array, level: float) -> int | None:
    """The first episode, from 1, at which `curve` (episodes,) reaches `level`; None if it never does."""
    reached = np.flatnonzero(curve >= level)
    return int(reached[0]) + 1 if len(reached) else None
