"""Aggregates against the definitions of rliable 1.2, the library of Agarwal et al. 2021, written out as plain loops."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from eval.statistics import (
    above,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    pooled,
    probability_of_improvement,
)

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(params=range(5))
def rng(request):
    return np.random.default_rng(request.param)


def scores_of(rng):
    """(task, lifetime) scores of random sizes, some of them equal."""
    return np.round(rng.normal(0.6, 0.5, size=rng.integers(2, 12, size=2)), rng.integers(1, 6))


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end(rng):
    scores = scores_of(rng)
    values = sorted(scores.ravel())
    cut = len(values) // 4
    kept = values[cut : len(values) - cut]
    np.testing.assert_allclose(iqm(scores), sum(kept) / len(kept), **EXACT)


def test_mean_and_median_are_over_tasks_of_means_over_lifetimes(rng):
    scores = scores_of(rng)
    of_tasks = sorted(sum(row) / len(row) for row in scores.tolist())
    half = len(of_tasks) // 2
    middle = of_tasks[half] if len(of_tasks) % 2 else (of_tasks[half - 1] + of_tasks[half]) / 2
    np.testing.assert_allclose(mean(scores), sum(of_tasks) / len(of_tasks), **EXACT)
    np.testing.assert_allclose(median(scores), middle, **EXACT)


@pytest.mark.parametrize("gamma", [1.0, 0.4])
def test_the_optimality_gap_is_the_mean_of_what_is_missing(rng, gamma):
    scores = scores_of(rng)
    missing = [gamma - min(score, gamma) for score in scores.ravel()]
    np.testing.assert_allclose(optimality_gap(scores, gamma), sum(missing) / len(missing), **EXACT)


def test_a_performance_profile_counts_the_lifetimes_above_each_threshold(rng):
    scores = scores_of(rng)
    thresholds = [-0.5, float(scores[0, 0]), 0.9]  # a score equal to the threshold is not above it
    expected = [sum(score > each for score in scores.ravel()) / scores.size for each in thresholds]
    np.testing.assert_allclose(performance_profile(scores, thresholds), expected, **EXACT)


def test_the_probability_of_improvement_is_that_of_mann_and_whitney_by_task(rng):
    a, b = scores_of(rng), scores_of(rng)
    tasks = min(len(a), len(b))
    a, b = a[:tasks], b[:tasks]
    by_loops, by_scipy = [], []
    for x, y in zip(a, b, strict=True):
        wins = sum((p > q) + 0.5 * (p == q) for p in x for q in y)
        by_loops.append(wins / (len(x) * len(y)))
        same = np.array_equal(x, y)
        by_scipy.append(0.5 if same else mannwhitneyu(x, y, alternative="greater")[0] / (len(x) * len(y)))
    np.testing.assert_allclose(probability_of_improvement(a, b), sum(by_loops) / tasks, **EXACT)
    np.testing.assert_allclose(probability_of_improvement(a, b), np.mean(by_scipy), **EXACT)
    np.testing.assert_allclose(probability_of_improvement(a, a), 0.5, **EXACT)


@pytest.mark.parametrize("statistic", [iqm, mean, median, optimality_gap])
def test_further_axes_are_kept(rng, statistic):
    scores = rng.normal(size=(5, 3, 2, 4))
    expected = [[statistic(scores[:, :, i, j]) for j in range(4)] for i in range(2)]
    np.testing.assert_allclose(statistic(scores), expected, **EXACT)


def test_further_axes_of_two_agents_are_kept(rng):
    a, b = rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 6, 4))
    expected = [probability_of_improvement(a[:, :, i], b[:, :, i]) for i in range(4)]
    np.testing.assert_allclose(probability_of_improvement(a, b), expected, **EXACT)
    profile = performance_profile(a, [0, 1])
    np.testing.assert_allclose(profile[2], performance_profile(a[:, :, 2], [0, 1]), **EXACT)
    assert above(a, [0, 1]).shape == (5, 3, 4, 2)


def test_lifetimes_of_all_training_seeds_are_runs_of_their_task(rng):
    scores = rng.normal(size=(3, 5, 2))
    together = pooled(scores)
    assert together.shape == (5, 6)
    for task in range(5):
        assert sorted(together[task]) == sorted(scores[:, task].ravel())
