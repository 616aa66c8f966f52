"""How good a learning history is, in three numbers: its improvement, its final return, and how steady it was.

Of a history's n complete episodes, a *part* is w = max(1, round(n / 10)) of them, and its smoothed curve s is the
moving average over w episodes, n - w + 1 values. Then

    final return    the last value of s: the mean return of the last part
    improvement     the last value of s less the first
    drop            the largest fall of s below its running maximum, max over i <= j of s[i] - s[j]; 0 never falls

A single bad episode therefore counts by a w-th. All three are on the normalised scale (0 random, 1 optimal) where the
task distribution knows its optimum on every task of the data, and raw returns where it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from data_gen.returns import episode_returns
from data_gen.storage.folder import checked_shards, read_histories
from data_gen.storage.info import DataInfo
from data_gen.tasks.base import TaskDistribution, Tasks
from icrl.config.components import TASKS, find_component
from icrl.run.folder import TASK_FILES, RunFolder

SCORED_COLUMNS = ("reward", "terminated", "truncated", "task", "source")
"""What scores follow from; observations, which may be images, stay on the disk."""

_PART = 0.1  # "first" and "final" are the first and the last tenth of a history's episodes


@dataclass(frozen=True)
class HistoryScores:
    """The scores of all histories of a run, in the order of its shards; each array (histories,).

    A history without a complete episode has NaN for scores.
    """

    task: NDArray[np.int64]
    source: NDArray[np.int64]
    improvement: NDArray[np.float64]
    final_return: NDArray[np.float64]
    drop: NDArray[np.float64]
    normalised: bool
    """Whether the scores are on the normalised scale."""

    def __len__(self) -> int:
        return len(self.task)

    @property
    def scale(self) -> str:
        """The scale's name."""
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
    # Once for all of them, since the random policy may have to be simulated. The scale of a task is linear, so that a
    # difference of returns is the difference of the normalised ones.
    points = np.concatenate(raw)
    scaled = normaliser(folder, info)(points, tasks)
    normalised = bool((np.isfinite(scaled) | np.isnan(points)).all())
    first, final, fallen = (scaled if normalised else points).T
    return HistoryScores(tasks, np.concatenate(source), final - first, final, final - fallen, normalised)


def normaliser(
    folder: RunFolder, info: DataInfo
) -> Callable[[NDArray[np.floating], NDArray[np.int64]], NDArray[np.float64]]:
    """Of complete data: (returns, the tasks' numbers) -> normalised returns; NaN where the scale is not known."""
    path = folder.data / TASK_FILES[0]
    if info.tasks is None or not path.exists() or not _may_be_built(folder, info.tasks):
        return lambda returns, numbers: np.full(np.shape(returns), np.nan)
    parameters = {key: value for key, value in info.tasks.items() if key != "name"}
    distribution: TaskDistribution = find_component(info.tasks["name"], TASKS)(**parameters)
    train = Tasks.load(path)
    return lambda returns, numbers: distribution.normalise(returns, train.take(numbers))


def _may_be_built(folder: RunFolder, tasks: dict[str, Any]) -> bool:
    """Whether these tasks are the run's own config's, or such that building them imports nothing but this project.

    A data folder may be from anywhere, and a name such as `module:Class` makes that module be imported.
    """
    if folder.own_data is None and folder.config.exists():
        own = yaml.safe_load(folder.config.read_text())
        return isinstance(own, dict) and own.get("tasks", {}).get("name") == tasks["name"]
    return tasks["name"] in TASKS and not any(":" in value for value in tasks.values() if isinstance(value, str))


def part_of(episodes: NDArray[Any] | int) -> NDArray[np.int64]:
    """Episodes in a tenth of `episodes`, at least one."""
    return np.maximum(1, np.rint(_PART * np.asarray(episodes))).astype(np.int64)


def score_returns(
    returns: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """First part, final part and drop of histories, each (histories,); NaN for one of no episodes.

    Args:
        returns: (histories, episodes); what stands behind a history's own episodes does not matter.
        counts: (histories,) how many episodes each has.
    """
    own = np.arange(returns.shape[1]) < counts[:, None]
    total = np.cumsum(np.where(own, returns, 0.0), axis=1)
    total = np.concatenate([np.zeros((len(returns), 1)), total], axis=1)  # (histories, episodes + 1)
    part = np.minimum(part_of(counts), np.maximum(counts, 1))[:, None]
    end = np.minimum(np.arange(returns.shape[1]) + part, counts[:, None])  # of the part that begins at each episode
    smooth = (np.take_along_axis(total, end, axis=1) - total[:, :-1]) / part
    last = np.maximum(counts[:, None] - part, 0)
    smooth = np.where(np.arange(returns.shape[1]) <= last, smooth, -np.inf)  # there is no whole part further on
    best = np.maximum.accumulate(smooth, axis=1)
    drop = np.where(np.isfinite(smooth), best - smooth, 0.0).max(axis=1)
    final = np.take_along_axis(smooth, last, axis=1)[:, 0]
    lived = counts > 0
    return tuple(np.where(lived, score, np.nan) for score in (smooth[:, 0], final, drop))  # type: ignore[return-value]
