"""Interquartile means and their intervals."""

import numpy as np
import pytest

from eval.statistics import first_reached, iqm, iqm_interval


def test_the_interquartile_mean_equals_one_computed_by_hand():
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 700.0]])  # the middle four of eight: 2, 3, 4, 5
    assert iqm(scores) == 3.5
    np.testing.assert_array_equal(iqm(np.stack([scores, 2 * scores], axis=2)), [3.5, 7.0])


def test_the_interval_resamples_tasks_and_not_seeds():
    """If all seeds of a task agree, more seeds add no evidence, so they must not narrow the interval."""
    tasks = np.random.default_rng(0).normal(size=(20, 1))
    few, many = (iqm_interval(np.repeat(tasks, seeds, axis=1), 1000) for seeds in (2, 50))
    np.testing.assert_allclose(few, many, atol=0.1)
    width = few[1] - few[0]
    assert 0.5 < width < 2.0


def test_the_interval_covers_the_true_mean_about_as_often_as_it_promises():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        low, high = iqm_interval(rng.normal(size=(30, 2)), 300, seed)
        hits += bool(low <= 0 <= high)
    assert hits >= 85


@pytest.mark.parametrize(("level", "expected"), [(0.5, 2), (0.8, 4), (2.0, None)])
def test_first_reached_is_the_first_episode_that_reaches_a_level(level, expected):
    assert first_reached(np.array([0.1, 0.6, 0.4, 0.9]), level) == expected
