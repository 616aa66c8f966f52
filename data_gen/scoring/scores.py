"""Three scores of a learning history: its improvement, its final return, and its largest drop.

Of a history's n complete episodes, a *part* is w = max(1, round(n / 10)) of them, and its smoothed curve s is the
moving average over w episodes, n - w + 1 values. Then

    final return    the last value of s: the mean return of the last part
    improvement     the last value of s minus the first
    drop            the largest fall of s below its running maximum, max over i <= j of s[i] - s[j]; 0 if s never falls

A single bad episode therefore counts only 1 / w. All three scores are on the normalised scale (0 random, 1 optimal) if
the task distribution knows its optimum on every task of the data, and are raw returns otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.returns import episode_returns
from data_gen.storage.folder import checked_shards, read_histories
from data_gen.storage.info import DataInfo
from data_gen.storage.named_family import named_family
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError

SCORED_COLUMNS = ("reward", "terminated", "truncated", "task", "source")
"""Columns that scores are computed from. Observations, which may be images, stay on disk."""

_PART = 0.1  # "first" and "final" are the first and the last tenth of a history's episodes


@dataclass(frozen=True)
class HistoryScores:
    """The scores of all histories of a run, in the order of its shards. Each array has shape (histories,).

    The scores of a history without a complete episode are NaN.
    """

    task: NDArray[np.int64]
    source: NDArray[np.int64]
    improvement: NDArray[np.float64]
    final_return: NDArray[np.float64]
    drop: NDArray[np.float64]
    normalised: bool
    """True if the scores are on the normalised scale."""

    def __len__(self) -> int:
        return len(self.task)

    @property
    def scale(self) -> str:
        """Name of the scale of the scores."""
        return "normalised return (0 random, 1 optimal)" if self.normalised else "return"


def history_scores(folder: RunFolder, info: DataInfo) -> HistoryScores:
    """Scores of every history of complete data; one shard in memory at a time.

    Raises UserError for a missing or damaged shard.
    """
    task, source, raw = [], [], []
    for path in checked_shards(folder, info):
        shard = read_histories(path, info, SCORED_COLUMNS)
        ended = shard["terminated"] | shard["truncated"]
        counts = ended.sum(axis=1)
        returns = episode_returns(shard["reward"], ended, max(1, int(counts.max())))
        first, final, drop = score_returns(returns, counts)
        raw.append(np.stack([first, final, final - drop], axis=1))
        task.append(shard["task"])
        source.append(shard["source"])
    tasks = np.concatenate(task)
    # Normalise all returns at once, since the random policy may have to be simulated. A task's scale is linear, so the
    # drop is the difference of two normalised returns.
    points = np.concatenate(raw)
    scaled = normaliser(folder, info)(points, tasks)
    normalised = bool((np.isfinite(scaled) | np.isnan(points)).all())
    first, final, fallen = (scaled if normalised else points).T
    return HistoryScores(tasks, np.concatenate(source), final - first, final, final - fallen, normalised)


def normaliser(
    folder: RunFolder, info: DataInfo
) -> Callable[[NDArray[np.floating], NDArray[np.int64]], NDArray[np.float64]]:
    """The function (returns, numbers of their tasks) -> normalised returns of complete data; NaN for unknown scales."""
    named = named_family(folder, info)

    def normalise(returns: NDArray[np.floating], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        if named is None:
            return np.full(np.shape(returns), np.nan)
        family, train, own = named
        try:
            return family.normalise(returns, train.take(numbers))
        except (UserError, ValueError, LookupError, ArithmeticError):
            if own:
                raise
            return np.full(np.shape(returns), np.nan)  # the file's tasks are not in the family, say beyond a wall

    return normalise


def part_of(episodes: NDArray[Any] | int) -> NDArray[np.int64]:
    """Episodes in a tenth of `episodes`, at least one."""
    return np.maximum(1, np.rint(_PART * np.asarray(episodes))).astype(np.int64)


def score_returns(
    returns: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean return of the first part, mean return of the last part, and drop of each history, (histories,) each.

    A history without episodes has NaN.

    Args:
        returns: (histories, episodes); values after a history's own episodes are ignored.
        counts: (histories,) number of episodes of each history.
    """
    own = np.arange(returns.shape[1]) < counts[:, None]
    total = np.cumsum(np.where(own, returns, 0.0), axis=1)
    total = np.concatenate([np.zeros((len(returns), 1)), total], axis=1)  # (histories, episodes + 1)
    part = np.minimum(part_of(counts), np.maximum(counts, 1))[:, None]
    end = np.minimum(np.arange(returns.shape[1]) + part, counts[:, None])  # end of the part that begins there
    smooth = (np.take_along_axis(total, end, axis=1) - total[:, :-1]) / part
    last = np.maximum(counts[:, None] - part, 0)
    smooth = np.where(np.arange(returns.shape[1]) <= last, smooth, -np.inf)  # later parts are not whole
    best = np.maximum.accumulate(smooth, axis=1)
    drop = np.where(np.isfinite(smooth), best - smooth, 0.0).max(axis=1)
    final = np.take_along_axis(smooth, last, axis=1)[:, 0]
    known = counts > 0
    return tuple(np.where(known, score, np.nan) for score in (smooth[:, 0], final, drop))  # type: ignore[return-value]
