"""Interquartile means with bootstrap intervals over tasks (Agarwal et al. 2021, "Deep RL at the Edge of the
Statistical Precipice").

The paper resamples runs within tasks. Here, whole tasks are resampled: the claim is about tasks that nobody trained on,
so the tasks are the sample.

There are often few tasks, for which the plain percentile interval is too narrow: of the promised 95%, it covers about
80% at 5 tasks and 88% at 8. The interval here takes percentiles further out. `python -m benchmarks.coverage` simulates
both.
"""

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from scipy.stats import norm, t, trim_mean

Array = NDArray[np.float64]

LEAST_TASKS = 5
"""Tasks that an interval needs. Four tasks all lie on the same side of their median in one of 8 samples, so no interval
that rests on so few alone covers 95%."""

INTERVAL = f"95% bootstrap interval over tasks (none below {LEAST_TASKS} tasks)"

_MOST_VALUES = 10_000_000  # resampled values in memory at once
_DRAWS_IN_A_TAIL = 4  # resamples expected beyond each end, so that one resample alone does not decide it


def iqm(scores: Array) -> Array:
    """Interquartile mean over tasks and seeds, the mean of the middle half: (task, seed, ...) -> (...)."""
    return np.asarray(trim_mean(rearrange(scores, "task seed ... -> (task seed) ..."), 0.25, axis=0))


def iqm_interval(scores: Array, resamples: int, seed: int = 0) -> tuple[Array, Array]:
    """Ends of the 95% bootstrap interval of `iqm`, low and high: (task, seed, ...) -> (...), (...).

    The expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"): percentiles so
    far out that the interval of a mean of normal values is as wide as Student's t makes it. But no mean of resampled
    tasks leaves the range of the tasks, which shortens the interval of a handful of tasks all the same. So its ends are
    moved out by (3 / tasks)^3 of their distances from the estimate: 22% at 5 tasks, 5% at 8. This share was chosen by
    simulation. The ends are NaN for fewer than `LEAST_TASKS` tasks.

    Args:
        scores: the scores of every lifetime.
        resamples: number of bootstrap resamples. Few tasks get more where the percentiles lie far out.
        seed: of the resamples.
    """
    tasks = len(scores)
    if tasks < LEAST_TASKS:
        unknown = np.full(scores.shape[2:], np.nan)
        return unknown, unknown
    tail = float(norm.cdf(-np.sqrt(tasks / (tasks - 1)) * t.ppf(0.975, tasks - 1)))
    resamples = max(resamples, int(np.ceil(_DRAWS_IN_A_TAIL / tail)))
    draws = np.sort(np.random.default_rng(seed).integers(tasks, size=(resamples, tasks)), axis=1)
    draws, row = np.unique(draws, axis=0, return_inverse=True)  # 5 tasks have only 126 different resamples
    blocks = min(len(draws), -(-len(draws) * scores.size // _MOST_VALUES))  # bounds the memory
    parts = np.array_split(draws, blocks)
    means = [trim_mean(rearrange(scores[part], "r task seed ... -> r (task seed) ..."), 0.25, axis=1) for part in parts]
    low, high = np.quantile(np.concatenate(means)[row.ravel()], [tail, 1 - tail], axis=0)
    middle, stretch = iqm(scores), (3 / tasks) ** 3
    return low - stretch * (middle - low), high + stretch * (high - middle)


def first_reached(curve: Array, level: float) -> int | None:
    """The first episode, from 1, at which `curve` (episodes,) reaches `level`; None if it never does."""
    reached = np.flatnonzero(curve >= level)
    return int(reached[0]) + 1 if len(reached) else None
