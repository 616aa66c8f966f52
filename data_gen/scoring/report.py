"""The report on a run's learning histories: do they improve, how far, and over how many episodes?

Algorithm Distillation copies the learning that its histories show. If the source does not improve within one
(sub-sampled) context, there is nothing to copy, however long the training.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.returns import episode_returns
from data_gen.scoring.scores import SCORED_COLUMNS, HistoryScores, normaliser, part_of, score_returns
from data_gen.scoring.selection import history_likelihoods, quartiles
from data_gen.storage.folder import checked_shards, read_histories
from data_gen.storage.info import DataInfo
from icrl.config.schema import SelectionConfig
from icrl.run.folder import RunFolder
from icrl.support.errors import ConfigError

_MOST_HISTORIES = 4096  # enough for stable figures in `data_report`; keeps it fast on large data
_IMPROVES_BY = 0.1  # least gain in normalised return that counts as improvement
_SUGGESTED_CONTEXT = 5  # episodes in a context; at least 2-4 are needed (Laskin et al. 2022, section 5)


@dataclass(frozen=True)
class DataReport:
    """Figures of the sources' learning. Returns are normalised: 0 random, 1 optimal (raw if no optimum is known)."""

    histories: int
    normalised: bool
    curve: NDArray[np.float64]
    """(episodes,) mean return over histories. A history with more or fewer episodes than typical is resampled."""
    first: float
    final: float
    share_improving: float
    learning_episodes: int
    """Episodes until the mean curve has reached 95% of its gain."""

    @property
    def suggested_subsample(self) -> int:
        """Suggested `training.subsample`, with which a context of `suggested_context` episodes spans the learning."""
        return max(1, round(self.learning_episodes / self.suggested_context))

    @property
    def suggested_context(self) -> int:
        """Suggested `model.context_episodes`."""
        return min(_SUGGESTED_CONTEXT, max(2, self.learning_episodes))

    def warnings(self) -> list[str]:
        """Reasons against training on this data, one sentence each."""
        reasons = []
        if not self.histories:
            reasons.append("no history has a complete episode, so nothing is known about their learning")
        if self.share_improving < 0.5:
            reasons.append(
                f"only {self.share_improving:.0%} of the histories improve: there is little learning to distil. Give "
                "the source more episodes (data.episodes) or other hyper-parameters"
            )
        if self.normalised and self.final < 0.8:
            reasons.append(
                f"the histories end at {self.final:.2f} of the optimum, and the transformer will hardly end above "
                "that: give the source more episodes (data.episodes)"
            )
        return reasons


def data_report(folder: RunFolder, info: DataInfo) -> DataReport:
    """The report on up to 4,096 histories of complete data. Raises UserError for a missing or damaged shard."""
    normalise = normaliser(folder, info)
    returns: list[NDArray[np.float64]] = []
    normalised, episodes = [], 0
    for path in checked_shards(folder, info):
        shard = read_histories(path, info, SCORED_COLUMNS)
        ended = shard["terminated"] | shard["truncated"]
        counts = ended.sum(axis=1)
        # If episodes end early, histories differ in their number of episodes; `episodes` is the typical number.
        if not counts.any():
            continue
        episodes = episodes or max(1, int(np.median(counts)))
        own = episode_returns(shard["reward"], ended, int(counts.max()))
        # Resample each history to that number, so that the last column is the last episode of all histories.
        chosen = np.rint(np.linspace(0, 1, episodes) * (np.maximum(counts, 1)[:, None] - 1)).astype(np.intp)
        returns.append(np.take_along_axis(own, chosen, axis=1)[counts > 0])
        normalised.append(normalise(returns[-1], shard["task"][counts > 0]))
        if sum(map(len, returns)) >= _MOST_HISTORIES:
            break
    if not returns:
        unknown = np.full(1, np.nan)
        return DataReport(0, False, unknown, np.nan, np.nan, np.nan, 1)
    scores = np.concatenate(normalised)
    known = not np.isnan(scores[:, 0]).any()
    if not known:
        scores = np.concatenate(returns)
    curve = scores.mean(axis=0)
    part = int(part_of(episodes))
    first, final, _ = score_returns(scores, np.full(len(scores), episodes))
    least = _IMPROVES_BY if known else _IMPROVES_BY * max(abs(curve).max(), 1e-9)
    start, end = curve[:part].mean(), curve[-part:].mean()
    smooth = np.convolve(curve, np.ones(part) / part, mode="valid")
    return DataReport(
        histories=len(scores),
        normalised=known,
        curve=curve,
        first=float(start),
        final=float(end),
        share_improving=float((final - first > least).mean()),
        learning_episodes=int(np.argmax(smooth >= start + 0.95 * (end - start))) + part // 2 + 1,
    )


def describe(report: DataReport, imitated: bool = True) -> str:
    """The report as a few lines of text, with warnings where training imitates the sources."""
    scale = "normalised return (0 random, 1 optimal)" if report.normalised else "return"
    if not report.histories:
        return "\n".join(f"  warning: {warning}" for warning in report.warnings())
    lines = [
        f"  source, {scale}: {report.first:.2f} in the first tenth, {report.final:.2f} in the last tenth of a history",
        f"  learning curve: {sparkline(report.curve)} over {len(report.curve)} episodes",
        f"  {report.share_improving:.0%} of {report.histories:,} histories improve; 95% of the gain is made by episode "
        f"{report.learning_episodes}",
        f"  suggested: training.subsample {report.suggested_subsample}, model.context_episodes "
        f"{report.suggested_context}, so that a context spans the learning",
        *(f"  warning: {warning}" for warning in report.warnings() if imitated),
    ]
    return "\n".join(lines)


def describe_scores(scores: HistoryScores, sources: list[dict[str, Any]], selection: SelectionConfig) -> str:
    """Quartiles of the scores of every source, and the number of histories that the selection leaves, as text.

    Args:
        scores: scores of all histories.
        sources: the sources as in the data's info.json.
        selection: `training.selection`.
    """
    lines = [f"  histories by source, {scores.scale}: quartiles of improvement | final return | largest drop"]
    try:
        likelihoods, trouble = history_likelihoods(scores, selection), ""
    except ConfigError as error:
        likelihoods, trouble = np.zeros(len(scores)), str(error)
    for number, source in enumerate(sources):
        own = scores.source == number
        parts = []
        for values in (scores.improvement, scores.final_return, scores.drop):
            parts.append(" ".join(f"{value:.2f}" for value in quartiles(values[own])[1:4]))
        read = (likelihoods[own] > 0).sum()
        lines.append(f"    {number} {source['name']}: {' | '.join(parts)}; training reads {read:,} of {own.sum():,}")
    drawn = "" if selection.likelihood == "uniform" else f", drawn by {selection.likelihood.replace('_', ' ')}"
    lines.append(f"  training.selection leaves {(likelihoods > 0).sum():,} of {len(scores):,} histories{drawn}")
    return "\n".join([*lines, *([f"  warning: {trouble}"] if trouble else [])])


def sparkline(values: NDArray[np.floating[Any]], width: int = 40) -> str:
    """A curve as one line of block characters."""
    parts = [part.mean() for part in np.array_split(values, min(width, len(values)))]
    low, high = min(parts), max(parts)
    return "".join("▁▂▃▄▅▆▇█"[int(7.999 * (part - low) / max(high - low, 1e-12))] for part in parts)
