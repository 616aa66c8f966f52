"""A 95% interval covers as often as it says, or there is none."""

import numpy as np
import pytest

from benchmarks.coverage import (
    CROSSED_EQUAL_VARIANCE,
    CROSSED_FOUND_OR_NOT,
    EQUAL_VARIANCE,
    FOUND_OR_NOT,
    coverage,
    crossed_coverage,
)
from eval.figures import FIGURES, Scores
from eval.statistics import LEAST_TASKS, iqm, tasks_interval
from eval.summary import Estimate, split_figures


@pytest.mark.parametrize("tasks", [5, 8, 16])
@pytest.mark.parametrize("model", [EQUAL_VARIANCE, FOUND_OR_NOT], ids=lambda model: model.name)
def test_an_interval_covers_the_true_value_in_95_of_100_samples(model, tasks):
    """400 samples: the standard error of the coverage is 1.1%."""
    assert 0.92 <= coverage(model, tasks, samples=400, resamples=300) <= 0.985


@pytest.mark.parametrize("tasks", [8, 16])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("model", [CROSSED_EQUAL_VARIANCE, CROSSED_FOUND_OR_NOT], ids=lambda model: model.name)
def test_an_interval_over_training_seeds_and_tasks_covers_the_true_value_in_95_of_100_samples(model, seeds, tasks):
    """200 samples: the standard error of the coverage is 1.5%."""
    assert 0.91 <= crossed_coverage(model, seeds, tasks, samples=200, resamples=150) <= 0.99


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_below_five_tasks_there_is_no_interval_and_a_word_why(tasks):
    episodes = np.random.default_rng(0).random((tasks, 3, 12))
    low, high = tasks_interval(episodes, resamples=100)
    assert low.shape == high.shape == (12,)
    assert np.isnan(low).all() and np.isnan(high).all()
    scores = Scores(episodes, episodes[:, :, -1])
    found = split_figures(list(FIGURES), {"return": scores, "normalised_return": scores}, 1.0, 1)
    estimate = found.returns["final_episodes"]
    assert isinstance(estimate, Estimate) and estimate.interval == (None, None)
    assert estimate.without_interval == f"no interval: {tasks} tasks, fewer than {LEAST_TASKS}"


def test_from_five_tasks_on_there_is_an_interval_around_the_estimate():
    scores = np.random.default_rng(0).random((5, 2, 3))
    low, high = tasks_interval(scores, resamples=100)
    assert (low < iqm(scores)).all() and (iqm(scores) < high).all()


def test_the_interval_of_a_curve_is_the_interval_of_each_of_its_episodes():
    scores = np.random.default_rng(0).random((6, 2, 40))
    low, high = tasks_interval(scores, resamples=500)
    alone = [tasks_interval(scores[:, :, [episode]], resamples=500) for episode in (0, 39)]
    np.testing.assert_allclose([(low[0], high[0]), (low[39], high[39])], np.squeeze(alone))
