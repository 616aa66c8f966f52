"""Interquartile means with bootstrap intervals over tasks (Agarwal et al. 2021, "Deep RL at the Edge of the
Statistical Precipice").

The paper resamples runs within tasks. Here, whole tasks are resampled: the claim is about tasks that nobody trained on,
so the tasks are the sample.
"""

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from scipy.stats import trim_mean

Array = NDArray[np.float64]

_MOST_VALUES = 10_000_000  # resampled values in memory at once


def iqm(scores: Array) -> Array:
    """Interquartile mean over tasks and seeds, the mean of the middle half: (task, seed, ...) -> (...)."""
    return np.asarray(trim_mean(rearrange(scores, "task seed ... -> (task seed) ..."), 0.25, axis=0))


def iqm_interval(scores: Array, resamples: int, seed: int = 0) -> tuple[Array, Array]:
    """Ends of the 95% bootstrap interval of `iqm`, low and high: (task, seed, ...) -> (...), (...)."""
    draws = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    parts = np.array_split(draws, -(-resamples * scores.size // _MOST_VALUES))  # bounds the memory
    means = [trim_mean(rearrange(scores[part], "r task seed ... -> r (task seed) ..."), 0.25, axis=1) for part in parts]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return low, high


def first_reached(curve: Array, level: float) -> int | None:
    """The first episode, from 1, at which `curve` (episodes,) reaches `level`; None if it never does."""
    reached = np.flatnonzero(curve >= level)
    return int(reached[0]) + 1 if len(reached) else None
