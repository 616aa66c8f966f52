"""Reading the episodes of Minari data sets as histories, one at a time, and stacking histories into shards."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.exchange.minari_store import brief
from data_gen.spaces import Space, column_name, leaves, storage_type
from data_gen.storage.columns import spaces_of_columns
from data_gen.storage.writing import Recorded
from icrl.support.errors import UserError

_PART_BYTES = 2**27  # size of a shard's arrays; a larger history gets its own shard


@dataclass(frozen=True)
class Lifetime:
    """The episodes of one learner in a data set, in order."""

    dataset: int
    episodes: NDArray[np.int64]
    """Episode numbers in the data set."""
    lengths: NDArray[np.int64]
    """Number of steps per episode."""
    task: int
    """Number of the task in the data set."""
    source: int
    """Number of the source in the data set."""
    seed: int
    actor: int
    cut_off: bool
    """True if the last episode had not ended when the recording stopped."""


@dataclass(frozen=True)
class Reader:
    """Reads one history at a time."""

    datasets: Sequence[Any]
    about: Recorded
    labelled: bool
    history_steps: int
    truncated: dict[str, int]
    """Number of episodes per data set that `read` marked as truncated; updated by `read`."""

    @functools.cached_property
    def spaces(self) -> dict[str, Space]:
        """The space of the values in each column that has one."""
        return spaces_of_columns(self.about.observation_space, self.about.action_space)

    def read(self, life: Lifetime, piece: slice) -> dict[str, NDArray[Any]]:
        """The step columns of one history, each (steps, ...). Raises UserError if an episode cannot be read."""
        dataset, left = self.datasets[life.dataset], self.history_steps
        numbers, parts = life.episodes[piece], []
        ends_open = [life.cut_off and number == life.episodes[-1] for number in numbers]
        episodes = iter(dataset.iterate_episodes(numbers))
        for number, length, is_open in zip(numbers, life.lengths[piece], ends_open, strict=True):
            taken = min(int(length), left)
            where = f"data set {dataset.id}: episode {number}"
            try:
                part = self._episode(next(episodes), int(length), where)
            except UserError:
                raise
            except Exception as error:  # Minari may raise anything for a damaged file
                raise UserError(f"{where}: cannot be read ({brief(error)}); the data set is damaged") from error
            if taken == length and taken:
                if is_open:  # the export set this flag: the history ended here, not the episode
                    part["truncated"][-1] = False
                elif not part["terminated"][-1] and not part["truncated"][-1]:
                    part["truncated"][-1] = True
                    self.truncated[dataset.id] += 1
            parts.append({name: values[:taken] for name, values in part.items()})
            left -= taken
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _episode(self, episode: Any, length: int, where: str) -> dict[str, NDArray[Any]]:
        """The columns of one episode, each (steps, ...)."""
        seen = leaves(episode.observations)
        columns = {column_name("observation", path): seen[path] for path in leaves(self.about.observation_space)}
        columns |= {"action": episode.actions, "reward": episode.rewards}
        columns |= {"terminated": episode.terminations, "truncated": episode.truncations}
        if self.labelled:
            columns["optimal_action"] = episode.infos["optimal_action"]
        for name, values in columns.items():
            columns[name] = np.array(values[:length])
            if len(columns[name]) != length:
                raise UserError(f"{where}: {name} has {len(columns[name])} values, expected {length}")
            element = storage_type(self.spaces[name])[0] if name in self.spaces else ()
            if columns[name].shape == (length, 1) and element == ():  # as recorders of vector environments write it
                columns[name] = columns[name][:, 0]
            if columns[name].shape[1:] != element:
                raise UserError(f"{where}: {name} has values of shape {columns[name].shape[1:]}, expected {element}")
        return columns


def shard_parts(histories: Iterable[dict[str, Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Histories, stacked into parts that each fill a shard."""
    waiting: list[dict[str, Any]] = []
    for history in histories:
        waiting.append(history)
        if (len(waiting) + 1) * sum(values.nbytes for values in history.values()) > _PART_BYTES:
            yield _stacked(waiting)
            waiting = []
    if waiting:
        yield _stacked(waiting)


def _stacked(histories: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([history[name] for history in histories]) for name in histories[0]}
