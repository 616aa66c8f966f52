"""Comparison of runs and studies: figures side by side, and differences from the first one.

A difference is paired by task where both were evaluated on the same held-out tasks of the same family: what makes a
task hard for both then does not widen its interval. Elsewhere it is unpaired, and the comparison says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray

from eval.figures import ScaleName
from eval.statistics import (
    LEAST_SEEDS,
    LEAST_TASKS,
    improvement_interval,
    paired_interval,
    pooled,
    probability_of_improvement,
    too_few,
)
from eval.summary import TRANSFORMER, FigureTitle
from icrl.config.describe import aligned
from icrl.support.errors import UserError, did_you_mean
from icrl.support.files import write_file
from icrl.support.pictures import STYLE
from studies.entries import Entry
from studies.pictures import draw_curves
from studies.pool import Pooled, stack, statistic_of
from studies.report import encoded, page, split_title, value_text

Array = NDArray[np.float64]

DEFAULT_FIGURES = ("first_episode", "final_episodes", "area_under_curve")

INTERVAL = (
    f"95% interval over tasks, and over training seeds if there are several (none below {LEAST_TASKS} tasks, nor for "
    f"several seeds below {LEAST_SEEDS})"
)


class Difference(NamedTuple):
    """The difference between an entry and the first one in one figure."""

    value: float | None
    low: float | None
    high: float | None
    paired: str
    """`paired`, or why it is not."""
    improvement: Pooled | None
    """Probability that a lifetime scores higher than one of the first entry on the same task; None if unpaired."""


@dataclass(frozen=True)
class Comparison:
    """Entries side by side."""

    entries: Sequence[Entry]
    agent: str
    split: str
    titles: Sequence[FigureTitle]
    scale: ScaleName
    """The scale of returns: normalised only if all entries have it."""
    figures: Sequence[Sequence[Pooled]]
    """By entry and figure."""
    differences: Sequence[Sequence[Difference]]
    """By entry after the first, and figure."""

    def text(self) -> str:
        """The table for the terminal."""
        heads = [title.title for title in self.titles]
        rows = [("  ", *heads, "seeds")]
        for entry, values in zip(self.entries, self.figures, strict=True):
            rows.append((f"  {entry.label}", *map(value_text, values), str(max(each.seeds for each in values))))
        lines = [
            aligned(rows),
            f"  {self.agent} on {split_title(self.split)} tasks, {self.scale.replace('_', ' ')}; {INTERVAL}",
        ]
        rows = [(f"  minus {self.entries[0].label}", *heads, "")]
        for entry, row in zip(self.entries[1:], self.differences, strict=True):
            rows.append((f"  {entry.label}", *map(_text, row), row[0].paired))
        return "\n".join([*lines, aligned(rows)])


def compare_all(
    entries: Sequence[Entry], agent: str = TRANSFORMER, split: str | None = None, keys: Sequence[str] = ()
) -> Comparison:
    """Compares all entries with the first one, by default on the held-out tasks.

    Raises UserError if one lacks the agent, the split or a figure.
    """
    split = split or entries[0].pool.split
    for entry in entries:
        agents = entry.pool.summary.agents
        if agent not in agents:
            raise UserError(f"{entry.path}: has no agent {agent!r}{did_you_mean(agent, agents)}")
        if split not in agents[agent]:
            raise UserError(f"{entry.path}: has no figures on {split!r} tasks{did_you_mean(split, agents[agent])}")
    shared = set.intersection(*(set(entry.pool.titles()) for entry in entries))
    known = {key: title for key, title in entries[0].pool.titles().items() if key in shared}
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise UserError(f"--show: {unknown[0]!r} is not a figure that all have{did_you_mean(unknown[0], known)}")
    titles = [known[key] for key in keys or DEFAULT_FIGURES if key in known]
    normalised = all(entry.pool.scale == "normalised_return" for entry in entries)
    scale: ScaleName = "normalised_return" if normalised else "return"
    titles = [title for title in titles if scale in title.scales or "return" in title.scales]
    figures = [[entry.pool.figure(agent, split, _scale(title, scale), title) for title in titles] for entry in entries]
    differences = [
        [
            _difference(entry, entries[0], agent, split, _scale(title, scale), title, own[number], figures[0][number])
            for number, title in enumerate(titles)
        ]
        for entry, own in zip(entries[1:], figures[1:], strict=True)
    ]
    return Comparison(entries, agent, split, titles, scale, figures, differences)


def write_page(comparison: Comparison, path: Path) -> Path:
    """Writes the comparison as one self-contained page. Raises UserError if it cannot be written."""
    curves = {
        entry.label: entry.pool.curve(comparison.agent, comparison.split, comparison.scale)
        for entry in comparison.entries
    }
    with matplotlib.rc_context(STYLE):
        picture = encoded(draw_curves(curves, {}, comparison.scale))
    rows: list[dict[str, Any]] = [
        {"label": entry.label, "path": entry.path, "figures": figures, "seeds": max(each.seeds for each in figures)}
        for entry, figures in zip(comparison.entries, comparison.figures, strict=True)
    ]
    differences = [
        {"label": entry.label, "differences": row, "paired": row[0].paired}
        for entry, row in zip(comparison.entries[1:], comparison.differences, strict=True)
    ]
    html = page(
        "compare.html.j2",
        title=" / ".join(entry.label for entry in comparison.entries)[:120],
        heads=[title.title for title in comparison.titles],
        rows=rows,
        differences=differences,
        first=comparison.entries[0].label,
        agent=comparison.agent,
        split=split_title(comparison.split),
        scale=comparison.scale.replace("_", " "),
        interval=INTERVAL,
        picture=picture,
    )
    write_file(path, html)
    return path


def _difference(
    entry: Entry,
    first: Entry,
    agent: str,
    split: str,
    scale: ScaleName,
    title: FigureTitle,
    own: Pooled,
    others: Pooled,
) -> Difference:
    """The difference between `entry` and `first` in one figure, whose values are `own` and `others`."""
    reason = unpaired(entry, first, split)
    mine, theirs = (each.pool.samples(agent, split, scale, title.key) for each in (entry, first))
    if reason or not mine or not theirs:
        if own.value is None or others.value is None:
            return Difference(None, None, None, reason or "paired", None)
        ends = _unpaired_ends(own, others)
        return Difference(own.value - others.value, *ends, reason or "one number per run", None)
    a, b = stack(mine), stack(theirs)
    order = _order(entry, first, split)
    a = a[:, order]
    known = ~(np.isnan(a).any(axis=(0, 2)) | np.isnan(b).any(axis=(0, 2)))
    a, b = a[:, known], b[:, known]
    if not a.shape[1]:
        return Difference(None, None, None, "no task has a value in both", None)
    statistic = statistic_of(title)
    value = float(statistic(pooled(a)) - statistic(pooled(b)))
    better = float(probability_of_improvement(pooled(a), pooled(b)))
    low, high = map(_end, paired_interval(a, b, statistic))
    least, most = map(_end, improvement_interval(a, b))
    seeds = min(len(a), len(b))
    improvement = Pooled(better, least, most, better, a.shape[1], seeds)
    why = too_few(a.shape[1], len(a)) or too_few(a.shape[1], len(b))
    return Difference(value, low, high, f"paired; {why}" if why else "paired", improvement)


def unpaired(entry: Entry, first: Entry, split: str) -> str:
    """Why two entries cannot be paired by task; empty if they can."""
    if not entry.pool.same_tasks(split) or not first.pool.same_tasks(split):
        known = all(member.tasks(split) for each in (entry, first) for member in each.pool.members)
        return (
            "unpaired: the seeds of one have different tasks"
            if known
            else "unpaired: one has no record of its tasks (an evaluation of an earlier version)"
        )
    own, others = entry.pool.members[0].tasks(split), first.pool.members[0].tasks(split)
    assert own is not None and others is not None
    if own[0] != others[0]:
        return "unpaired: other parameters of the task family"
    if sorted(own[1]) != sorted(others[1]):
        both = len(set(own[1]) & set(others[1]))
        return f"unpaired: other tasks ({both} of {len(own[1])} and {len(others[1])} are the same)"
    if len(set(own[1])) < len(own[1]):
        return "unpaired: a task is there twice"
    return ""


def _order(entry: Entry, first: Entry, split: str) -> list[int]:
    """The places of the first entry's tasks among those of `entry`."""
    own, others = entry.pool.members[0].tasks(split), first.pool.members[0].tasks(split)
    assert own is not None and others is not None
    place = {key: number for number, key in enumerate(own[1])}
    return [place[key] for key in others[1]]


def _unpaired_ends(own: Pooled, others: Pooled) -> tuple[float | None, float | None]:
    """Ends of the difference of two independent figures, from the widths of their intervals; None if one has none."""
    if None in (own.low, own.high, others.low, others.high) or own.value is None or others.value is None:
        return None, None
    low = np.hypot(own.value - own.low, others.high - others.value)  # type: ignore[operator]
    high = np.hypot(own.high - own.value, others.value - others.low)  # type: ignore[operator]
    middle = own.value - others.value
    return float(middle - low), float(middle + high)


def _scale(title: FigureTitle, scale: ScaleName) -> ScaleName:
    return scale if scale in title.scales else title.scales[0]


def _text(difference: Difference) -> str:
    """A difference in a few characters, with its interval and the probability of improvement."""
    text = value_text(Pooled(*difference[:3], None, None, 0))
    if difference.improvement is not None:
        text += f" P {difference.improvement.value:.2f}"
    return text


def _end(value: Array) -> float | None:
    return None if np.isnan(value) else float(value)
