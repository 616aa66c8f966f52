"""How often a 95% interval holds the true value, in simulation.

    python -m benchmarks.coverage tasks    # over tasks, of one trained model
    python -m benchmarks.coverage seeds    # over training seeds and tasks

Each sample is an evaluation whose scores follow a model with a known true value, and one line per model and size says
how often the interval contains it. Over tasks, 8 lifetimes per task: the project's interval of the interquartile mean,
and for comparison the percentile interval and Student's t on the means of the tasks; and the project's intervals of
other aggregates. Over training seeds and tasks, 4 lifetimes per task and seed; for the first two models, also the
intervals of other aggregates.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t, trim_mean

from benchmarks.common import report
from eval.statistics import Statistic, iqm, mean, median, optimality_gap, pooled, seeds_interval, tasks_interval

Array = NDArray[np.float64]

TASKS = (5, 8, 16, 64)
TRAINING_SEEDS = (3, 5, 10)
STATISTICS: dict[str, Statistic] = {"iqm": iqm, "mean": mean, "median": median, "optimality_gap": optimality_gap}
SEEDS = 8
_SAMPLES = 1500
_RESAMPLES = 500  # few tasks get more
_PERCENTILE_RESAMPLES = 500
_TRUTH_TASKS = 400_000
_CROSSED_LIFETIMES = 4
_CROSSED_SAMPLES = {8: 2000, 16: 1000, 64: 500}  # by number of tasks
_CROSSED_RESAMPLES = 400  # all samples share their draws, so few would move the coverage by a percent
_CROSSED_TRUTH = (25, 40_000)  # training seeds and tasks


@dataclass(frozen=True)
class Model:
    """A model of scores: `draw(rng, tasks)` gives (tasks, seeds) scores of lifetimes."""

    name: str
    draw: Callable[[np.random.Generator, int], Array]

    def truth(self, statistic: Statistic = iqm) -> float:
        """The statistic of all lifetimes on all tasks."""
        return float(statistic(self.draw(np.random.default_rng(1), _TRUTH_TASKS)))


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


@dataclass(frozen=True)
class CrossedModel:
    """A model of scores of several training seeds on the same tasks: sums of normal effects, by their deviations.

    With `found`, the sum is the logit of the chance that a lifetime finds the goal. It then scores about 1, else about
    0.
    """

    name: str
    seeds: float
    tasks: float
    both: float
    """Effect of a training seed on one task, beyond the two."""
    lifetimes: float = 1.0
    found: bool = False

    def draw(self, rng: np.random.Generator, seeds: int, tasks: int, lifetimes: int = _CROSSED_LIFETIMES) -> Array:
        """(training seeds, tasks, lifetimes) scores."""
        effects = self.seeds * rng.normal(size=(seeds, 1, 1)) + self.tasks * rng.normal(size=(1, tasks, 1))
        effects = effects + self.both * rng.normal(size=(seeds, tasks, 1))
        noise = rng.normal(size=(seeds, tasks, lifetimes))
        if not self.found:
            return effects + self.lifetimes * noise
        return (rng.random(noise.shape) < 1 / (1 + np.exp(-0.4 - effects))) + 0.05 * noise

    @functools.cache  # noqa: B019 - the models are constants
    def truth(self, statistic: Statistic) -> float:
        """The statistic of all lifetimes of all training seeds on all tasks."""
        # Every score with a seed of its own, whose effects are then those of `both`: no few seeds decide the value.
        apart = replace(self, seeds=0, both=float(np.hypot(self.seeds, self.both)))
        return float(statistic(pooled(apart.draw(np.random.default_rng(1), *_CROSSED_TRUTH, lifetimes=1))))


CROSSED_EQUAL_VARIANCE = CrossedModel("equal variance of seeds, tasks, both and lifetimes", 1, 1, 1)
CROSSED_FOUND_OR_NOT = CrossedModel("found or not", 0.5, 1, 0.5, found=True)
CROSSED_MODELS = (
    CROSSED_EQUAL_VARIANCE,
    CROSSED_FOUND_OR_NOT,
    CrossedModel("tasks vary more than seeds", 0.3, 1, 0.5),
    CrossedModel("seeds agree", 0, 1, 0),
    CrossedModel("only lifetimes vary", 0, 0, 0),
    CrossedModel("found or not, seeds vary more than tasks", 1, 0.5, 0.5, found=True),
    CrossedModel("found or not, every lifetime with the same chance", 0, 0, 0, found=True),
)


def crossed_coverage(
    model: CrossedModel, seeds: int, tasks: int, samples: int, statistic: Statistic = iqm, resamples: int = 200
) -> float:
    """The share of samples whose interval over training seeds and tasks contains the true value."""
    rng = np.random.default_rng((seeds, tasks))
    scores = np.stack([model.draw(rng, seeds, tasks) for _ in range(samples)], axis=3)
    low, high = seeds_interval(scores, statistic, resamples)
    return _covered(low, high, model.truth(statistic))


def coverage(model: Model, tasks: int, samples: int, resamples: int = _RESAMPLES) -> float:
    """The share of samples whose interval contains the true value."""
    low, high = tasks_interval(_samples(model, tasks, samples), resamples=resamples)
    return _covered(low, high, model.truth())


def over_seeds_and_tasks() -> None:
    """Prints one line per model, number of training seeds and number of tasks."""
    for model in CROSSED_MODELS:
        statistics = STATISTICS if model in CROSSED_MODELS[:2] else {"iqm": iqm}
        for seeds in TRAINING_SEEDS:
            for tasks in _CROSSED_SAMPLES:
                found = {
                    name: crossed_coverage(model, seeds, tasks, _CROSSED_SAMPLES[tasks], statistic, _CROSSED_RESAMPLES)
                    for name, statistic in statistics.items()
                }
                report("coverage_seeds", model=model.name, seeds=seeds, tasks=tasks, **found)


def over_tasks() -> None:
    """Prints one line per model and number of tasks."""
    for model in MODELS:
        truth = model.truth()
        others = {name: (each, model.truth(each)) for name, each in STATISTICS.items() if each is not iqm}
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
                **{
                    f"interval_of_{name}": round(_covered(*tasks_interval(scores, statistic, _RESAMPLES), true), 3)
                    for name, (statistic, true) in others.items()
                },
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
    {"tasks": over_tasks, "seeds": over_seeds_and_tasks}[sys.argv[1]]()
