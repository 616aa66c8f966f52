"""How often the 95% interval of an interquartile mean holds the true value, in simulation.

    python -m benchmarks.coverage

Each sample is an evaluation with a few tasks and 8 seeds per task. Its scores follow a model whose true interquartile
mean is known, and one line per model and number of tasks says how often the interval contains it: the project's, and
for comparison the percentile interval and Student's t on the means of the tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t, trim_mean

from benchmarks.common import report
from eval.statistics import tasks_interval

Array = NDArray[np.float64]

TASKS = (5, 8, 16, 64)
SEEDS = 8
_SAMPLES = 1500
_RESAMPLES = 500  # few tasks get more
_PERCENTILE_RESAMPLES = 500
_TRUTH_TASKS = 400_000


@dataclass(frozen=True)
class Model:
    """A model of scores: `draw(rng, tasks)` gives (tasks, seeds) scores of lifetimes."""

    name: str
    draw: Callable[[np.random.Generator, int], Array]

    def truth(self) -> float:
        """The interquartile mean of all lifetimes on all tasks."""
        return float(trim_mean(self.draw(np.random.default_rng(1), _TRUTH_TASKS).ravel(), 0.25))


def _noisy_tasks(noise: float, seeds: int = SEEDS) -> Callable[[np.random.Generator, int], Array]:
    """Normal scores: tasks differ with variance 1, lifetimes on one task with variance noise^2."""
    return lambda rng, tasks: rng.normal(size=(tasks, 1)) + noise * rng.normal(size=(tasks, seeds))


def _found(chance: Callable[[np.random.Generator, int], Array]) -> Callable[[np.random.Generator, int], Array]:
    """A lifetime finds the goal with its task's chance, and then scores about 1, else about 0."""
    return lambda rng, tasks: (
        (rng.random((tasks, SEEDS)) < chance(rng, tasks)[:, None]) + 0.05 * rng.normal(size=(tasks, SEEDS))
    )


EQUAL_VARIANCE = Model("equal variance of tasks and lifetimes", _noisy_tasks(1.0))
FOUND_OR_NOT = Model("found or not, one task as hard as another", _found(lambda rng, n: np.full(n, 0.6)))
MODELS = (
    EQUAL_VARIANCE,
    FOUND_OR_NOT,
    Model("lifetimes vary three times as much as tasks", _noisy_tasks(3.0)),
    Model("lifetimes on one task agree", _noisy_tasks(0.0)),
    Model("one lifetime per task", _noisy_tasks(1.0, seeds=1)),
    Model("found or not, chances from Beta(2, 2)", _found(lambda rng, n: rng.beta(2, 2, n))),
    Model("found or not, any chance as likely", _found(lambda rng, n: rng.random(n))),
    Model("found or not by task, half of them", _found(lambda rng, n: (rng.random(n) < 0.5).astype(float))),
)


def coverage(model: Model, tasks: int, samples: int, resamples: int = _RESAMPLES) -> float:
    """The share of samples whose interval contains the true value."""
    low, high = tasks_interval(_samples(model, tasks, samples), resamples=resamples)
    return _covered(low, high, model.truth())


def main() -> None:
    """Prints one line per model and number of tasks."""
    for model in MODELS:
        truth = model.truth()
        for tasks in TASKS:
            scores = _samples(model, tasks, _SAMPLES)  # samples lie on the axis of a curve's episodes
            low, high = tasks_interval(scores, resamples=_RESAMPLES)
            report(
                "coverage",
                model=model.name,
                tasks=tasks,
                interval=round(_covered(low, high, truth), 3),
                percentile=round(_covered(*_percentile(scores), truth), 3),
                t_of_task_means=round(_covered(*_t_of_task_means(scores), truth), 3),
                median_width=round(float(np.median(high - low)), 3),
            )


def _samples(model: Model, tasks: int, samples: int) -> Array:
    """(tasks, seeds, samples) scores."""
    rng = np.random.default_rng(tasks)
    return np.stack([model.draw(rng, tasks) for _ in range(samples)], axis=2)


def _covered(low: Array, high: Array, truth: float) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


def _percentile(scores: Array) -> tuple[Array, Array]:
    """The plain percentile interval, a sample at a time."""
    ends = []
    rng = np.random.default_rng(0)
    for sample in np.moveaxis(scores, 2, 0):
        draws = rng.integers(len(sample), size=(_PERCENTILE_RESAMPLES, len(sample)))
        ends.append(np.percentile(trim_mean(sample[draws].reshape(len(draws), -1), 0.25, axis=1), [2.5, 97.5]))
    low, high = np.transpose(ends)
    return low, high


def _t_of_task_means(scores: Array) -> tuple[Array, Array]:
    """Student's t interval of the mean of the tasks' means."""
    means, tasks = scores.mean(axis=1), len(scores)
    half = t.ppf(0.975, tasks - 1) * means.std(axis=0, ddof=1) / np.sqrt(tasks)
    return means.mean(axis=0) - half, means.mean(axis=0) + half


if __name__ == "__main__":
    main()
