"""Intervals of aggregates: over held-out tasks, over training seeds and tasks, and of differences between agents.

Agarwal et al. 2021 ("Deep RL at the Edge of the Statistical Precipice") resample runs within tasks. Here, whole tasks
are resampled: the claim is about tasks that nobody trained on, so the tasks are the sample. Where a model was trained
several times, the training seeds are a second sample, crossed with the first: every seed meets the same tasks.

There are often few of either, for which the plain percentile interval is too narrow: of the promised 95%, it covers
about 80% at 5 tasks and 88% at 8. The intervals here are wider. `python -m benchmarks.coverage` simulates them.
"""

from collections.abc import Callable, Sequence

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from scipy.stats import norm, t

from eval.aggregates import (
    Array,
    Statistic,
    above,
    first_reached,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    pooled,
    probability_of_improvement,
)

__all__ = [
    "INTERVAL",
    "LEAST_SEEDS",
    "LEAST_TASKS",
    "SEEDS_INTERVAL",
    "Array",
    "Statistic",
    "above",
    "first_reached",
    "improvement_interval",
    "iqm",
    "mean",
    "median",
    "optimality_gap",
    "paired_interval",
    "performance_profile",
    "pooled",
    "probability_of_improvement",
    "seeds_interval",
    "tasks_interval",
    "too_few",
]

LEAST_TASKS = 5
"""Tasks that an interval needs. Four tasks all lie on the same side of their median in one of 8 samples, so no interval
that rests on so few alone covers 95%."""

LEAST_SEEDS = 3
"""Training seeds that an interval over seeds needs. Two seeds have one difference, and Student's t then takes 12.7
standard errors: such an interval says nothing."""

INTERVAL = f"95% bootstrap interval over tasks (none below {LEAST_TASKS} tasks)"
SEEDS_INTERVAL = f"95% bootstrap interval over training seeds and tasks (none below {LEAST_SEEDS} seeds)"

RESAMPLES = 2000
"""Bootstrap resamples of an interval, by default."""

_MOST_VALUES = 10_000_000  # resampled values in memory at once
_DRAWS_IN_A_TAIL = 4  # resamples expected beyond each end, so that one resample alone does not decide it
_LEVEL = 0.975  # each end leaves out 2.5%

Ends = tuple[Array, Array]
"""Low and high end of an interval; NaN where there is none."""


_Estimator = Callable[..., Array]
"""An aggregate of the scores of one or more agents, each (task, lifetime, ...), as (...)."""


def tasks_interval(scores: Array, statistic: Statistic = iqm, resamples: int = RESAMPLES, seed: int = 0) -> Ends:
    """95% bootstrap interval of a statistic over tasks, for one trained model: (task, lifetime, ...) -> (...), (...).

    The expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"): percentiles so
    far out that the interval of a mean of normal values is as wide as Student's t makes it. But no mean of resampled
    tasks leaves the range of the tasks, which shortens the interval of a handful of tasks all the same. So its ends are
    moved out by (3 / tasks)^3 of their distances from the estimate: 22% at 5 tasks, 5% at 8. This share was chosen by
    simulation. The ends are NaN for fewer than `LEAST_TASKS` tasks.

    Args:
        scores: the scores of every lifetime.
        statistic: the aggregate that the interval is for.
        resamples: number of bootstrap resamples. Few tasks get more where the percentiles lie far out.
        seed: of the resamples.
    """
    return _interval(statistic, [scores[None]], resamples, seed)


def seeds_interval(scores: Array, statistic: Statistic = iqm, resamples: int = RESAMPLES, seed: int = 0) -> Ends:
    """95% interval of a statistic over training seeds and tasks: (training seed, task, lifetime, ...) -> (...), (...).

    Seeds alone, tasks alone, and both at once are resampled (Owen 2007, "The Pigeonhole Bootstrap"). As in an analysis
    of variance with two crossed random effects, this gives the variances that seeds, tasks, and their interaction
    contribute. Each is multiplied by the square of Student's t for its own degrees of freedom, 2 for 3 seeds, and the
    root of the sum is half of a symmetric interval (as Zou and Donner 2008 combine intervals, "Construction of
    Confidence Limits about Effect Measures"). Satterthwaite's degrees of freedom would promise too much at 3 seeds, and
    too little where seeds agree. A statistic near its limit has a skewed distribution. So each end is the farther one
    of the symmetric interval and of the percentile interval of resampling both, stretched to the same width. With
    few tasks, both are widened as in `tasks_interval`.

    In simulation (`python -m benchmarks.coverage seeds`), the interval of the interquartile mean covers 93.3 to 97.2%
    at 3, 5 and 10 seeds and 8, 16 and 64 tasks, both where seeds, tasks and lifetimes vary equally and where lifetimes
    find their goal or not. It covers 90% with 3 seeds where that depends more on seeds than on tasks, and up to 98.6%
    where it depends on neither.

    With one training seed, the interval is that of `tasks_interval`, and says nothing about other seeds. The ends are
    NaN for two seeds, and for fewer than `LEAST_TASKS` tasks.

    Args:
        scores: the scores of every lifetime of every training seed, all on the same tasks.
        statistic: the aggregate that the interval is for, computed on the `pooled` scores.
        resamples: number of bootstrap resamples.
        seed: of the resamples.
    """
    return _interval(statistic, [scores], resamples, seed)


def paired_interval(a: Array, b: Array, statistic: Statistic = iqm, resamples: int = RESAMPLES, seed: int = 0) -> Ends:
    """95% interval of `statistic(a) - statistic(b)` for two agents on the same tasks.

    Tasks are resampled for both at once, so what makes a task hard for both does not widen the interval. So are
    training seeds if both have as many. Otherwise, each agent's seeds are resampled alone. An agent with one seed (such
    as a baseline, which is not trained) keeps it, so the interval says nothing about other seeds of that agent.

    Args:
        a, b: (training seed, task, lifetime, ...) scores; a single run has one training seed.
        statistic, resamples, seed: as for `seeds_interval`.
    """
    return _interval(lambda a, b: statistic(a) - statistic(b), [a, b], resamples, seed)


def improvement_interval(better: Array, worse: Array, resamples: int = RESAMPLES, seed: int = 0) -> Ends:
    """95% interval of `probability_of_improvement`, with tasks and training seeds resampled as in `paired_interval`.

    Args:
        better, worse: (training seed, task, lifetime, ...) scores; a single run has one training seed.
        resamples, seed: as for `seeds_interval`.
    """
    return _interval(probability_of_improvement, [better, worse], resamples, seed)


def too_few(tasks: int, seeds: int = 1) -> str:
    """Why there is no interval over so many tasks and training seeds, in a few words; empty if there is one."""
    if tasks < LEAST_TASKS:
        return f"no interval: {tasks} tasks, fewer than {LEAST_TASKS}"
    if 1 < seeds < LEAST_SEEDS:
        return f"no interval: {seeds} training seeds, fewer than {LEAST_SEEDS}"
    return ""


def _interval(estimator: _Estimator, samples: Sequence[Array], resamples: int, seed: int) -> Ends:
    """The interval of an estimate from one or more agents' scores, each (training seed, task, lifetime, ...)."""
    tasks, seeds = samples[0].shape[1], [len(sample) for sample in samples]
    if any(sample.shape[1] != tasks for sample in samples):
        raise ValueError(f"the agents have {[sample.shape[1] for sample in samples]} tasks, which must be the same")
    if any(too_few(tasks, each) for each in seeds):
        unknown = np.full(samples[0].shape[3:], np.nan)
        return unknown, unknown
    if max(seeds) == 1:
        return _over_tasks(estimator, samples, resamples, seed)
    return _over_seeds_and_tasks(estimator, samples, resamples, seed)


def _over_tasks(estimator: _Estimator, samples: Sequence[Array], resamples: int, seed: int) -> Ends:
    """The expanded percentile interval, as `tasks_interval` describes it."""
    tasks = samples[0].shape[1]
    tail = float(norm.cdf(-np.sqrt(tasks / (tasks - 1)) * t.ppf(_LEVEL, tasks - 1)))
    resamples = max(resamples, int(np.ceil(_DRAWS_IN_A_TAIL / tail)))
    draws = np.random.default_rng(seed).integers(tasks, size=(resamples, tasks))
    estimates = _estimates(estimator, samples, [np.zeros((resamples, 1), dtype=np.int64)] * len(samples), draws)
    low, high = np.quantile(estimates, [tail, 1 - tail], axis=0)
    middle = estimator(*map(pooled, samples))
    return middle + _stretch(tasks) * (low - middle), middle + _stretch(tasks) * (high - middle)


def _over_seeds_and_tasks(estimator: _Estimator, samples: Sequence[Array], resamples: int, seed: int) -> Ends:
    """The interval that `seeds_interval` describes."""
    tasks, sizes = samples[0].shape[1], [len(sample) for sample in samples]
    rng = np.random.default_rng(seed)
    task_draws = rng.integers(tasks, size=(resamples, tasks))
    seed_draws = _seed_draws(rng, sizes, resamples)
    all_tasks = np.broadcast_to(np.arange(tasks), task_draws.shape)
    all_seeds = [np.broadcast_to(np.arange(size), draws.shape) for size, draws in zip(sizes, seed_draws, strict=True)]
    middle = estimator(*map(pooled, samples))
    by_seeds = _estimates(estimator, samples, seed_draws, all_tasks) - middle
    by_tasks = _estimates(estimator, samples, all_seeds, task_draws) - middle
    by_both = _estimates(estimator, samples, seed_draws, task_draws) - middle
    half = _half_width(by_seeds, by_tasks, by_both, min(size for size in sizes if size > 1), tasks) * _stretch(tasks)
    spread = norm.ppf(_LEVEL) * by_both.std(axis=0)
    wider = np.divide(half, spread, out=np.ones_like(half), where=spread > 0)
    low, high = np.quantile(by_both, [1 - _LEVEL, _LEVEL], axis=0)
    return middle + np.minimum(-half, wider * low), middle + np.maximum(half, wider * high)


def _stretch(tasks: int) -> float:
    """The factor by which an interval over so many tasks is widened, as `tasks_interval` describes it."""
    return float(1 + (3 / tasks) ** 3)


def _half_width(by_seeds: Array, by_tasks: Array, by_both: Array, seeds: int, tasks: int) -> Array:
    """Half of the symmetric interval, from estimates with seeds, tasks and both resampled, each (resamples, ...)."""
    freedom = (seeds - 1) * (tasks - 1)
    of_seeds = by_seeds.var(axis=0) * seeds / (seeds - 1)  # resamples of n vary less, by (n - 1) / n
    of_tasks = by_tasks.var(axis=0) * tasks / (tasks - 1)
    of_both = (by_both - by_seeds - by_tasks).var(axis=0) * seeds * tasks / freedom
    t_seeds, t_tasks, t_both = t.ppf(_LEVEL, [seeds - 1, tasks - 1, freedom]) ** 2
    # The interaction is also in the other two. By chance, it may come out larger than one of them.
    squared = t_seeds * (of_seeds - of_both) + t_tasks * (of_tasks - of_both) + t_both * of_both
    return np.asarray(np.sqrt(np.maximum(squared, t_both * np.maximum(of_seeds, of_tasks))))


def _seed_draws(rng: np.random.Generator, sizes: Sequence[int], resamples: int) -> list[NDArray[np.int64]]:
    """The training seeds of every resample, (resamples, seeds), for each sample: shared by samples of one size.

    If sizes differ, every sample has draws of its own; those of a single seed are always that seed.
    """
    if len({size for size in sizes if size > 1}) > 1:
        return [rng.integers(size, size=(resamples, size)) for size in sizes]
    drawn = {size: rng.integers(size, size=(resamples, size)) for size in sorted(set(sizes))}
    return [drawn[size] for size in sizes]


def _estimates(
    estimator: _Estimator,
    samples: Sequence[Array],
    seed_draws: Sequence[NDArray[np.int64]],
    task_draws: NDArray[np.int64],
) -> Array:
    """The estimate of every resample: (resamples, ...).

    Args:
        estimator, samples: as in `_interval`.
        seed_draws: by sample, (resamples, training seeds) the seeds of each resample.
        task_draws: (resamples, tasks) the tasks of each resample.
    """
    # The order within a resample does not matter, so few seeds and tasks have few resamples that differ: 5 have 126.
    draws = [np.sort(draw, axis=1) for draw in (*seed_draws, task_draws)]
    rows, inverse = np.unique(np.concatenate(draws, axis=1), axis=0, return_inverse=True)
    widths = np.cumsum([draw.shape[1] for draw in draws])[:-1]
    size = sum(sample.size for sample in samples)
    blocks = min(len(rows), -(-len(rows) * size // _MOST_VALUES))  # bounds the memory
    estimates = []
    for part in np.array_split(rows, blocks):
        *seeds, tasks = np.split(part, widths, axis=1)
        resampled = [
            rearrange(
                sample[own[:, :, None], tasks[:, None, :]],
                "resample training task lifetime ... -> task (training lifetime) resample ...",
            )
            for sample, own in zip(samples, seeds, strict=True)
        ]
        estimates.append(estimator(*resampled))
    return np.concatenate(estimates)[inverse.ravel()]
