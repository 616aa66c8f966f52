"""Context windows from learning histories: a pure function of (seed, step), gathered from memory-mapped arrays.

Sub-sampling keeps every k-th episode of a history, so that one context spans much of its learning. Episodes e, e+k,
e+2k ... of a history, for one e below k, make a *stream*. The token cache holds the streams one after another: the
steps of every history are put in the order (episode mod k, step) once, so that a window is a slice afterwards, with
no index to follow at training time. Shards are converted one at a time, and the cache is memory-mapped, so memory
does not grow with the data.

Arrays of the cache, each with one row a step in stream order:

    observation                 of step t; an array for each leaf of a Dict or Tuple observation: observation.image
    action                      what the head learns to predict there: the action taken, or `training.target`
    previous_action, previous_reward, boundary      what the step before it in the stream brought
    streams                     (streams, 2): first row and number of rows of each stream that holds a whole window
    weights                     (streams,): how likely each is, where `training.selection` makes them differ

Histories that `training.selection` leaves out are not in the cache.
`statistics.json` has what the model has to know of the data's scale.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ad_model.embeddings_ad import leaf_spaces
from ad_model.modeling_ad import EPISODE_ENDED, LIFETIME_STARTS, WITHIN_EPISODE
from ad_model.statistics import DataStatistics
from data_gen.scoring.scores import history_scores
from data_gen.scoring.selection import ALL_HISTORIES, history_weights
from data_gen.spaces import column_name, null_element
from data_gen.storage.folder import checked_shards, load_info, read_histories
from data_gen.storage.info import DataInfo
from icrl.config.loader import fingerprint
from icrl.config.schema import SelectionConfig
from icrl.run.fingerprints import data_identity
from icrl.run.folder import RunFolder
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import new_folder, write_json
from icrl.support.terminal import say

_STATISTICS = "statistics.json"


@dataclass(frozen=True)
class TokenCache:
    """The memory-mapped arrays of a token cache, and where its streams lie."""

    columns: Mapping[str, NDArray[Any]]
    streams: NDArray[np.int64]
    statistics: dict[str, Any]
    """`reward_scale` and `observation_statistics`, as `ADConfig` takes them."""
    weights: NDArray[np.float64] | None = None
    """(streams,) how likely each stream is, relative to one another; None where all are equally."""


def token_cache(
    folder: RunFolder,
    subsample: int,
    context_length: int,
    selection: SelectionConfig = ALL_HISTORIES,
    target: str = "action",
) -> TokenCache:
    """Opens the token cache of the run's data, and makes it first if there is none.

    Args:
        folder: the run's.
        subsample: k; every k-th episode is kept.
        context_length: T, in steps.
        selection: the histories that are read.
        target: the column of the data that is to be predicted, `action` or `optimal_action`.

    Raises UserError if the data is missing, incomplete or damaged, ConfigError if no history is selected, no stream is
    as long as a context, or the data has no such target.
    """
    info = load_info(folder)
    if target == "optimal_action" and not info.optimal_actions:
        raise ConfigError(
            f"training.target: {target} is not in {folder.data}; generate it with data.optimal_actions: true"
        )
    identity = fingerprint(data_identity(info), subsample, context_length, selection, target)
    path = folder.cache / f"tokens-{identity}"
    if not path.exists():
        weight_of = _weights_of_histories(folder, info, selection)
        shutil.rmtree(folder.cache, ignore_errors=True)  # of other data or settings, or half made
        with new_folder(path) as temporary:
            _build(temporary, folder, info, subsample, context_length, weight_of, target)
    try:
        statistics = json.loads((path / _STATISTICS).read_text())
        names = token_columns(info.observation_space)
        columns = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in names}
        weights = np.load(path / "weights.npy") if selection.weight != "uniform" else None
        return TokenCache(columns, np.load(path / "streams.npy"), statistics, weights)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: the token cache is damaged ({error}); delete it, it is made anew") from error


def token_columns(observation_space: dict[str, Any]) -> list[str]:
    """Names of the arrays that make up tokens and targets, for an observation space as plain values."""
    seen = [column_name("observation", leaf) for leaf in leaf_spaces(observation_space)]
    return [*seen, "previous_action", "previous_reward", "boundary", "action"]


def model_inputs(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Token columns as the model takes them: a composite observation's columns as one mapping of its leaves."""
    leaves = {name.partition(".")[2]: values for name, values in columns.items() if name.startswith("observation")}
    rest = {name: values for name, values in columns.items() if not name.startswith("observation")}
    return {"observation": leaves.get("", leaves), **rest}


def _build(
    path: Path,
    folder: RunFolder,
    info: DataInfo,
    subsample: int,
    context_length: int,
    weight_of: NDArray[np.float64],
    target: str,
) -> None:
    rows_total = int((weight_of > 0).sum()) * info.history_steps
    arrays: dict[str, Any] = {}
    streams, weights, row, done = [], [], 0, 0
    statistics = DataStatistics(info.observation_space)
    with tqdm(total=rows_total, unit=" steps", unit_scale=True, desc="tokens", dynamic_ncols=True) as bar:
        for shard in checked_shards(folder, info):
            histories = read_histories(shard, info)
            weight = weight_of[done : done + len(histories["reward"])]
            done += len(weight)
            if not weight.any():
                continue
            if not weight.all():
                histories = {name: values[weight > 0] for name, values in histories.items()}
            statistics.add(histories)
            columns, lengths = stream_order(histories, subsample, info.action_space, target)
            for name, values in columns.items():
                if name not in arrays:
                    arrays[name] = _new_array(path / f"{name}.npy", values.dtype, (rows_total, *values.shape[1:]))
                arrays[name][row : row + len(values)] = values
            first, fits = row + np.cumsum(lengths) - lengths, lengths >= context_length
            streams.append(np.stack([first, lengths], axis=1)[fits])
            weights.append(np.repeat(weight[weight > 0], subsample)[fits])
            row += int(lengths.sum())
            bar.update(int(lengths.sum()))
    found = np.concatenate(streams)
    if not len(found):
        raise ConfigError(
            f"model.context_episodes: a context of {context_length} steps is longer than every history that "
            f"training.subsample {subsample} leaves; lower one of them"
        )
    for array in arrays.values():
        array.flush()
    np.save(path / "streams.npy", found)
    np.save(path / "weights.npy", np.concatenate(weights))
    write_json(path / _STATISTICS, statistics.plain())


def _weights_of_histories(folder: RunFolder, info: DataInfo, selection: SelectionConfig) -> NDArray[np.float64]:
    """How likely each history is, (histories,) in the order of the shards; 0 of those that are left out."""
    if selection == ALL_HISTORIES:
        return np.ones(info.num_histories)  # no need to read the data for it
    scores = history_scores(folder, info)
    weights = history_weights(scores, selection)
    say(f"training.selection: {(weights > 0).sum():,} of {len(weights):,} histories, by their {scores.scale}")
    return weights


def _new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A memory-mapped .npy file with its disk space taken, since a full disk met later would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def stream_order(
    histories: Mapping[str, NDArray[Any]], subsample: int, action_space: dict[str, Any], target: str = "action"
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Tokens of all streams of a batch of histories, and how many each stream has.

    Args:
        histories: the columns of a shard, (histories, steps, ...).
        subsample: k; stream p of a history has its episodes p, p+k, p+2k ...
        action_space: as plain values, for the action that stands before the first.
        target: the column that becomes `action`, which is to be predicted; `previous_action` is always the one taken.

    Returns:
        columns with one row a step, stream after stream, and (histories * k,) lengths.
    """
    ended = histories["terminated"] | histories["truncated"]
    num_histories, num_steps = ended.shape
    episode = np.cumsum(ended, axis=1, dtype=np.int32) - ended
    phase = episode % subsample
    order = np.argsort(phase, axis=1, kind="stable")
    flat = (order + np.arange(num_histories)[:, None] * num_steps).ravel()

    def ordered(name: str) -> NDArray[Any]:
        values = histories[name]
        return values.reshape(-1, *values.shape[2:])[flat]

    stream = phase + np.arange(num_histories)[:, None] * subsample
    lengths = np.bincount(stream.ravel(), minlength=num_histories * subsample)
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    action = ordered("action")
    previous_action = _after(action, starts)
    previous_action[starts] = null_element(action_space, action.shape[1:], action.dtype)
    boundary = np.where(_after(ended.ravel()[flat], starts), EPISODE_ENDED, WITHIN_EPISODE).astype(np.uint8)
    boundary[starts] = LIFETIME_STARTS
    seen = [name for name in histories if name.partition(".")[0] == "observation"]
    columns = {
        **{name: ordered(name) for name in seen},
        "previous_action": previous_action,
        "previous_reward": _after(ordered("reward"), starts),
        "boundary": boundary,
        "action": action if target == "action" else ordered(target),
    }
    return columns, lengths


def _after(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[Any]:
    """Each row's predecessor; zero at the streams' starts, which have none."""
    shifted = np.roll(values, 1, axis=0)
    shifted[starts] = 0
    return shifted


class WindowDataset(Dataset[dict[str, Any]]):
    """Item `i` is this process's share of micro-batch `i`: windows of `context_length` steps at random offsets.

    Micro-batch i is part i % accumulation_steps of update i // accumulation_steps. What an update sees depends on
    (seed, update) alone, not on how many processes or parts share it. Streams are as likely as the cache's weights
    say, equally where it has none, and every offset in a stream is equally likely.

    Args:
        cache: the token cache.
        context_length: T.
        batch_size: windows an update, over all processes and parts.
        seed: the experiment's seed.
        accumulation_steps: parts of each process's share.
        process, num_processes: which share is this process's.
    """

    def __init__(
        self,
        cache: TokenCache,
        context_length: int,
        batch_size: int,
        seed: int,
        accumulation_steps: int = 1,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.cache, self.context_length, self.batch_size, self.seed = cache, context_length, batch_size, seed
        self.accumulation_steps, self.process, self.num_processes = accumulation_steps, process, num_processes
        self.cumulative = None if cache.weights is None else np.cumsum(cache.weights)
        if batch_size % (accumulation_steps * num_processes):
            raise ConfigError(
                f"training.batch_size {batch_size} must be divisible by training.accumulation_steps "
                f"{accumulation_steps} times {num_processes} processes"
            )

    def close(self) -> None:
        """Ends what goes on beside training; there is nothing where data is on disk."""

    def first_rows(self, update: int) -> NDArray[np.int64]:
        """The cache rows that the windows of `update` start at, (batch_size,)."""
        rng = np.random.default_rng((self.seed, Purpose.WINDOWS, update))
        first, length = self.cache.streams[self._draw_streams(rng)].T
        return first + rng.integers(length - self.context_length + 1)

    def _draw_streams(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The numbers of the streams that an update's windows are from, (batch_size,)."""
        if self.cumulative is None:
            return rng.integers(len(self.cache.streams), size=self.batch_size)
        drawn = rng.random(self.batch_size) * self.cumulative[-1]  # may round up to the last one itself
        return np.minimum(np.searchsorted(self.cumulative, drawn, side="right"), len(self.cumulative) - 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        update, part = divmod(index, self.accumulation_steps)
        rows = self.first_rows(update).reshape(self.accumulation_steps, self.num_processes, -1)[part, self.process]
        steps = rows[:, None] + np.arange(self.context_length)
        return model_inputs({name: torch.from_numpy(values[steps]) for name, values in self.cache.columns.items()})
