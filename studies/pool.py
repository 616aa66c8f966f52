"""Evaluations of several runs as one: figures and curves over training seeds and tasks, with intervals over both.

Runs with the same weights are evaluations of one training, with other lifetimes. Runs with different weights are
training seeds. Nothing of a run's config is read, and no code that it names is run: summaries and tables of others are
read with the checks of their checksums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from eval.figures import ScaleName
from eval.results import scores_array
from eval.statistics import LEAST_SEEDS, Statistic, iqm, mean, pooled, seeds_interval
from eval.summary import TRANSFORMER, Estimate, FigureTitle, Summary, intact_summary
from eval.values import read_values
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError

Array = NDArray[np.float64]

CURVE_RESAMPLES = 300


class Pooled(NamedTuple):
    """A figure over the training seeds of a cell."""

    value: float | None
    """The interquartile mean over seeds, tasks and lifetimes; the plain mean of a share; None if it is unknown."""
    low: float | None
    """Low end of the 95% interval; None where there is none."""
    high: float | None
    mean: float | None
    """The plain mean."""
    tasks: int | None
    """Number of tasks with a value; None for a figure that is one number per split."""
    seeds: int
    """Number of trainings that differ. An agent that is not trained has 1."""


_UNKNOWN = Pooled(None, None, None, None, None, 0)


class Evaluated:
    """The evaluation of one run, read when it is used. Raises UserError if it is missing or damaged."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @cached_property
    def summary(self) -> Summary:
        """The summary, after the evaluation's other files are verified."""
        return intact_summary(self.folder)

    @cached_property
    def values(self) -> dict[tuple[str, str, str, str], Array]:
        """By agent, split, scale and figure, the values by task and lifetime."""
        return read_values(self.folder.values)

    def curve(self, agent: str, split: str, scale: ScaleName) -> Array:
        """(task, lifetime, episode) returns."""
        try:
            table = pd.read_parquet(self.folder.returns, filters=[("agent", "==", agent), ("split", "==", split)])
            return scores_array(table, agent, split, scale, self.summary.episodes)
        except (OSError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.folder.returns}: cannot be read ({why}); run `icrl evaluate --overwrite`"
            ) from error

    def tasks(self, split: str) -> tuple[str, tuple[str, ...]] | None:
        """The family of the split's tasks and a key for each; None if the evaluation has no record of them."""
        record = self.summary.tasks.get(split)
        return None if record is None else (record.family, tuple(record.keys))


@dataclass(frozen=True)
class Pool:
    """The evaluations of the runs of one cell."""

    members: Sequence[Evaluated]

    @property
    def summary(self) -> Summary:
        """The first run's summary, for what all runs have in common."""
        return self.members[0].summary

    @cached_property
    def trainings(self) -> list[list[Evaluated]]:
        """The evaluations, by the weights that were evaluated."""
        groups: dict[str, list[Evaluated]] = {}
        for member in self.members:
            groups.setdefault(member.summary.weights, []).append(member)
        return [*groups.values()]

    @property
    def scale(self) -> ScaleName:
        """The scale to show: normalised returns if all runs have them."""
        known = all(member.summary.normalised_return.known for member in self.members)
        return "normalised_return" if known else "return"

    @property
    def split(self) -> str:
        """The split to show: the held-out tasks, or the first of the others if the evaluation has none."""
        return self.summary.main_split

    def titles(self) -> dict[str, FigureTitle]:
        """The figures of these runs, by key."""
        return {title.key: title for title in self.summary.figures}

    def scale_of(self, title: FigureTitle) -> ScaleName:
        """The scale on which a figure is shown."""
        return self.scale if self.scale in title.scales else title.scales[0]

    def same_tasks(self, split: str) -> bool:
        """True if all runs were evaluated on the same tasks of a split, in the same order."""
        tasks = {member.tasks(split) for member in self.members}
        return len(tasks) == 1 and None not in tasks

    def samples(self, agent: str, split: str, scale: ScaleName, figure: str) -> list[Array]:
        """By training, the values of a figure (task, lifetime); none if a run lacks them."""
        key = (agent, split, scale, figure)
        return _different(agent, [_side_by_side([each.values.get(key) for each in group]) for group in self.trainings])

    def figure(self, agent: str, split: str, scale: ScaleName, title: FigureTitle) -> Pooled:
        """A figure of an agent, pooled over training seeds."""
        samples = self.samples(agent, split, scale, title.key)
        if not samples:
            return self._number(agent, split, scale, title.key)
        if len(samples) == 1 and len(self.members) == len(self.trainings):  # one run says it all
            return summary_value(self.summary.agents[agent][split].on(scale)[title.key], title)
        return estimate(samples, statistic_of(title), self.same_tasks(split))

    def curve(self, agent: str, split: str, scale: ScaleName) -> tuple[Array, Array, Array]:
        """The interquartile mean by episode, and the ends of its interval: three arrays (episodes,)."""
        curves = _different(
            agent, [_side_by_side([each.curve(agent, split, scale) for each in group]) for group in self.trainings]
        )
        if self.same_tasks(split) and len({curve.shape[::2] for curve in curves}) == 1:
            stacked = stack(curves)
            return iqm(pooled(stacked)), *seeds_interval(stacked, iqm, CURVE_RESAMPLES)
        return _nested(curves, iqm)

    def curves(self, agent: str, split: str, scale: ScaleName) -> list[Array]:
        """The interquartile mean by episode, (episodes,), of every training."""
        groups = [_side_by_side([each.curve(agent, split, scale) for each in group]) for group in self.trainings]
        return [iqm(scores) for scores in groups if scores is not None]

    def _number(self, agent: str, split: str, scale: ScaleName, key: str) -> Pooled:
        """A figure that is one number per run: its mean over the trainings; unknown if one of them has none."""
        numbers = []
        for group in self.trainings:
            found = [member.summary.agents[agent][split].on(scale).get(key) for member in group]
            values = [value for value in found if isinstance(value, float | int)]
            if len(values) < len(found):
                return _UNKNOWN._replace(seeds=len(self.trainings))
            numbers.append(float(np.mean(values)))
        middle, half = float(np.mean(numbers)), _half(np.array(numbers))
        untrained = not agent.startswith(TRANSFORMER) and len(set(numbers)) == 1
        low, high = (None, None) if half is None or untrained else (float(middle - half), float(middle + half))
        return Pooled(middle, low, high, middle, None, 1 if untrained else len(numbers))


def statistic_of(title: FigureTitle) -> Statistic:
    """The aggregate that a figure is shown by: a rate is a mean, anything else an interquartile mean."""
    return mean if title.unit == "share" else iqm


def estimate(samples: Sequence[Array], statistic: Statistic, same_tasks: bool) -> Pooled:
    """A statistic of values (task, lifetime) of each training, with its interval over trainings and tasks.

    Where every training has tasks of its own (as with several seeds of the split), the trainings are a sample of both,
    and the interval is Student's t over them.
    """
    if same_tasks and len({len(sample) for sample in samples}) == 1:
        stacked = stack(samples)
        stacked = stacked[:, ~np.isnan(stacked).any(axis=(0, 2))]
        if not stacked.shape[1]:
            return _UNKNOWN
        low, high = seeds_interval(stacked, statistic)
        value, average, tasks = statistic(pooled(stacked)), stacked.mean(), stacked.shape[1]
    else:
        own = [sample[~np.isnan(sample).any(axis=1)] for sample in samples]
        own = [sample for sample in own if len(sample)]
        if not own:
            return _UNKNOWN
        value, low, high = _nested(own, statistic)
        average, tasks = np.concatenate([sample.ravel() for sample in own]).mean(), sum(map(len, own))
    return Pooled(float(value), _end(low), _end(high), float(average), int(tasks), len(samples))


def stack(samples: Sequence[Array]) -> Array:
    """(training seed, task, lifetime, ...) values of all trainings: of as many lifetimes as each of them has."""
    fewest = min(sample.shape[1] for sample in samples)
    return np.stack([sample[:, :fewest] for sample in samples])


def summary_value(value: Estimate | float | None, title: FigureTitle) -> Pooled:
    """A figure of a single run, as its summary has it."""
    if value is None:
        return _UNKNOWN._replace(seeds=1)
    if not isinstance(value, Estimate):
        return Pooled(float(value), None, None, float(value), None, 1)
    rate = title.unit == "share"
    low, high = value.mean_interval if rate else value.interval
    return Pooled(value.mean if rate else value.iqm, low, high, value.mean, value.tasks, 1)


def _nested(samples: Sequence[Array], statistic: Statistic) -> tuple[Array, Array, Array]:
    """The statistic of all samples (task, lifetime, ...), each with tasks of its own, and its t interval over them."""
    shortest = min(sample.shape[1] for sample in samples)
    middle = statistic(np.concatenate([sample[:, :shortest] for sample in samples]))
    half = _half(np.stack([statistic(sample) for sample in samples]))
    unknown = np.full(np.shape(middle), np.nan)
    return (middle, unknown, unknown) if half is None else (middle, middle - half, middle + half)


def _half(numbers: Array) -> Array | None:
    """Half of Student's t interval of the mean of (seeds, ...); None for too few seeds."""
    count = len(numbers)
    if count < LEAST_SEEDS:
        return None
    return np.asarray(t.ppf(0.975, count - 1) * numbers.std(axis=0, ddof=1) / np.sqrt(count))


def _side_by_side(parts: Sequence[Array | None]) -> Array | None:
    """Values of the same tasks, (task, lifetime, ...), as those of more lifetimes; None if one is missing."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({len(part) for part in known}) != 1:
        return known[0] if len(known) == len(parts) and known else None
    return np.concatenate(known, axis=1)


def _different(agent: str, samples: Sequence[Array | None]) -> list[Array]:
    """The samples of all trainings, or a single one of an agent that no training changes; none if one is missing."""
    known = [sample for sample in samples if sample is not None]
    if len(known) < len(samples):
        return []
    if not agent.startswith(TRANSFORMER) and all(np.array_equal(known[0], each, equal_nan=True) for each in known):
        return known[:1]
    return known


def _end(value: Array) -> float | None:
    return None if np.isnan(value) else float(value)
