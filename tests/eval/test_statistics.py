"""Intervals over tasks, over training seeds and tasks, and of differences."""

import numpy as np
import pytest

from eval import statistics
from eval.statistics import (
    first_reached,
    improvement_interval,
    iqm,
    mean,
    median,
    paired_interval,
    seeds_interval,
    tasks_interval,
    too_few,
)


def test_the_interquartile_mean_equals_one_computed_by_hand():
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 700.0]])  # the middle four of eight: 2, 3, 4, 5
    assert iqm(scores) == 3.5
    np.testing.assert_array_equal(iqm(np.stack([scores, 2 * scores], axis=2)), [3.5, 7.0])


def test_the_interval_resamples_tasks_and_not_seeds():
    """If all seeds of a task agree, more seeds add no evidence, so they must not narrow the interval."""
    tasks = np.random.default_rng(0).normal(size=(20, 1))
    few, many = (tasks_interval(np.repeat(tasks, seeds, axis=1), resamples=1000) for seeds in (2, 50))
    np.testing.assert_allclose(few, many, atol=0.1)
    width = few[1] - few[0]
    assert 0.5 < width < 2.0


def test_the_interval_covers_the_true_mean_about_as_often_as_it_promises():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        low, high = tasks_interval(rng.normal(size=(30, 2)), iqm, 300, seed)
        hits += bool(low <= 0 <= high)
    assert hits >= 85


@pytest.mark.parametrize(("level", "expected"), [(0.5, 2), (0.8, 4), (2.0, None)])
def test_first_reached_is_the_first_episode_that_reaches_a_level(level, expected):
    assert first_reached(np.array([0.1, 0.6, 0.4, 0.9]), level) == expected


def test_with_one_training_seed_the_interval_is_that_over_tasks():
    scores = np.random.default_rng(0).normal(size=(1, 8, 2, 3))
    for statistic in (iqm, median):
        np.testing.assert_array_equal(seeds_interval(scores, statistic), tasks_interval(scores[0], statistic))


@pytest.mark.parametrize(("seeds", "tasks", "why"), [(2, 9, "2 training seeds, fewer than 3"), (5, 4, "4 tasks")])
def test_too_few_seeds_or_tasks_have_no_interval_and_a_word_why(seeds, tasks, why):
    scores = np.random.default_rng(0).normal(size=(seeds, tasks, 2, 3))
    for low, high in (seeds_interval(scores), paired_interval(scores, scores[:1])):
        assert low.shape == high.shape == (3,)
        assert np.isnan(low).all() and np.isnan(high).all()
    assert why in too_few(tasks, seeds)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 30, 2))
    (low, high), (low_apart, high_apart) = (
        seeds_interval(each) for each in (scores, scores + 2 * rng.normal(size=(4, 1, 1)))
    )
    assert high_apart - low_apart > 3 * (high - low)


def test_the_interval_of_a_mean_is_that_of_two_crossed_random_effects():
    """Variance components by the textbook: mean squares of seeds, of tasks, and of what is left."""
    rng = np.random.default_rng(0)
    seeds, tasks = 6, 12
    cells = rng.normal(size=(seeds, 1)) + rng.normal(size=(1, tasks)) + 0.5 * rng.normal(size=(seeds, tasks))
    centred = cells - cells.mean()
    of_seeds, of_tasks = centred.mean(axis=1, keepdims=True), centred.mean(axis=0, keepdims=True)
    rest = np.square(centred - of_seeds - of_tasks).sum() / ((seeds - 1) * (tasks - 1))
    variance = of_seeds.var(ddof=1) / seeds + of_tasks.var(ddof=1) / tasks - rest / (seeds * tasks)
    low, high = seeds_interval(cells[:, :, None], mean, resamples=20_000)
    found = (high - low) / 2 / np.sqrt(variance)
    assert 2.0 < found < 2.8  # Student's t for 5 to 11 degrees of freedom


def test_what_makes_a_task_hard_for_both_does_not_widen_the_interval_of_a_difference():
    rng = np.random.default_rng(0)
    hard = 10 * rng.normal(size=(1, 20, 1))
    a, b = (hard + rng.normal(size=(seeds, 20, 3)) for seeds in (1, 1))
    low, high = paired_interval(a + 1, b, mean)
    assert 0 < low < 1 < high < 2
    np.testing.assert_allclose(paired_interval(b, a + 1, mean), (-high, -low))
    np.testing.assert_allclose(paired_interval(a, a, mean), (0, 0), atol=1e-12)


@pytest.mark.parametrize("seeds", [(5, 5), (5, 1), (5, 3)])
def test_a_difference_of_runs_with_several_seeds(seeds):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(each, 20, 3)) for each in seeds)
    low, high = paired_interval(a + 1, b, mean)
    assert 0.5 < low < 1 < high < 1.5


def test_the_interval_of_the_probability_of_improvement_lies_around_it():
    rng = np.random.default_rng(0)
    low, high = improvement_interval(rng.normal(size=(3, 20, 3)) + 1, rng.normal(size=(3, 20, 3)))
    assert 0.6 < low < 0.76 < high < 0.9  # two normal values, one of them 1 higher: .76


def test_agents_on_different_tasks_are_not_compared():
    with pytest.raises(ValueError, match=r"\[6, 7\] tasks, which must be the same"):
        paired_interval(np.zeros((1, 6, 2)), np.zeros((1, 7, 2)))


def test_the_memory_is_bounded_and_blocks_change_nothing(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(3, 8, 2, 5))
    whole = seeds_interval(scores, resamples=200)
    monkeypatch.setattr(statistics, "_MOST_VALUES", scores.size)  # one resample at a time
    np.testing.assert_allclose(seeds_interval(scores, resamples=200), whole)
