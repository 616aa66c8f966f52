"""The token cache: the data's tokens in the order in which windows are cut, as memory-mapped arrays.

Sub-sampling keeps every k-th episode of a history, so that one context spans much of its learning. Episodes e, e+k,
e+2k ... of a history, for one e below k, make a *strand*. The cache holds the strands one after another: the steps of
every history are sorted by (episode mod k, step) once, so that a window is a plain slice at training time. Shards are
converted one at a time, and the arrays are memory-mapped, so that memory does not grow with the data.

Files of the cache:

    <token column>.npy    one row per step, in the order of strands (`ad_model.tokens`)
    <column>.npy          the columns that the objective asks for, in the same order
    strands.npy           (strands, 2): first row and number of rows of each strand that holds a whole window
    likelihoods.npy       (strands,): likelihood of each strand; read if `training.selection.likelihood` is not uniform
    statistics.json       the scale of the data, which becomes a part of the model's config
    checksums.json        a checksum per block of every file (`ad_model.checked_arrays`)

Histories that `training.selection` leaves out are not in the cache.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ad_model.checked_arrays import CheckedArray, CheckedFolder, write_block_checksums
from ad_model.statistics import ActionRange, DataStatistics
from ad_model.tokens import token_columns, tokens_in_order
from data_gen.scoring.scores import history_scores
from data_gen.scoring.selection import ALL_HISTORIES, history_likelihoods
from data_gen.storage.folder import check_sizes, checked_shards, load_info, read_histories
from data_gen.storage.info import DataInfo, Statistics
from icrl.config.loader import fingerprint
from icrl.config.schema import SelectionConfig
from icrl.run.folder import CHECKSUMS, RunFolder
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import new_folder, remove, write_json
from icrl.support.terminal import say

_STATISTICS, _STRANDS, _LIKELIHOODS = "statistics.json", "strands.npy", "likelihoods.npy"


@dataclass(frozen=True)
class TokenCache:
    """The arrays of a token cache, and the positions of its strands."""

    columns: Mapping[str, NDArray[Any]]
    """Token columns and the objective's columns, one row per step."""
    strands: NDArray[np.int64]
    """(strands, 2) first row and number of rows of each strand."""
    statistics: Statistics
    wanted: tuple[str, ...] = ("action",)
    """The objective's columns among `columns`; all others are token columns."""
    likelihoods: NDArray[np.float64] | None = None
    """(strands,) likelihood of each strand, relative to the others; None if all are equally likely."""
    checked: Sequence[CheckedArray] = ()
    """The arrays of the columns that are on disk."""

    def verify(self, first: NDArray[np.int64], length: int) -> None:
        """Verifies the rows from each of `first` on, `length` of them, in every column. Raises UserError."""
        for array in self.checked:
            array.verify(first, length)


def token_cache(
    folder: RunFolder,
    subsample: int,
    context_length: int,
    selection: SelectionConfig = ALL_HISTORIES,
    wanted: Sequence[str] = ("action",),
) -> TokenCache:
    """Opens the token cache of a run's data, and builds it first if it does not exist.

    Args:
        folder: the run folder.
        subsample: k; every k-th episode is kept.
        context_length: T, in steps.
        selection: the histories to read, and their likelihoods.
        wanted: columns of the histories that the objective needs beside the tokens.

    Raises UserError if the data is missing, incomplete or damaged, ConfigError if no history is selected, no strand is
    as long as a context, or the data lacks a wanted column.
    """
    info = load_info(folder)
    check_wanted(wanted, info, str(folder.data))
    path = folder.cache / cache_name(info, subsample, context_length, selection, wanted)
    columns = dict.fromkeys([*token_columns(info.observation_space), *wanted])
    files = (*(f"{name}.npy" for name in columns), _STRANDS, _LIKELIHOODS, _STATISTICS, CHECKSUMS)
    if not all((path / name).exists() for name in files):
        check_sizes(folder, info)
        likelihoods = _likelihoods_of_histories(folder, info, selection)
        remove(folder.cache)  # caches of other data or settings, or incomplete ones
        with new_folder(path) as temporary:
            _build(temporary, folder, info, subsample, context_length, likelihoods, wanted)
            write_block_checksums(temporary)
    try:
        on_disk = CheckedFolder(path)
        statistics = Statistics.model_validate_json(bytes(on_disk.file(_STATISTICS).verify_all().content))
        arrays = {name: on_disk.array(f"{name}.npy") for name in columns}
        drawn = on_disk.whole(_LIKELIHOODS) if selection.likelihood != "uniform" else None
        values = {name: array.values for name, array in arrays.items()}
        strands = on_disk.whole(_STRANDS)
        return TokenCache(values, strands, statistics, tuple(wanted), drawn, tuple(arrays.values()))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"{path}: the token cache is damaged ({error}); delete this folder, and training builds it again"
        ) from error


def cache_name(
    info: DataInfo, subsample: int, context_length: int, selection: SelectionConfig, wanted: Sequence[str]
) -> str:
    """The name of the folder of a token cache, which follows from everything that determines its content."""
    return f"tokens-{fingerprint(info.identity, subsample, context_length, selection, list(wanted), 'strands')}"


def check_wanted(wanted: Sequence[str], info: DataInfo, where: str) -> None:
    """Raises ConfigError if the data lacks one of the columns that the objective needs."""
    known = {"action", "reward", "terminated", "truncated"} | ({"optimal_action"} if info.optimal_actions else set())
    for name in wanted:
        if name == "optimal_action" and name not in known:
            raise ConfigError(
                f"training.objective: {name} is not in {where}; generate the data with data.optimal_actions: true"
            )
        if name not in known:
            raise ConfigError(f"training.objective: the column {name!r} is not in {where}")


def strand_order(
    histories: Mapping[str, NDArray[Any]],
    subsample: int,
    action_space: dict[str, Any],
    wanted: Sequence[str] = ("action",),
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """The tokens of all strands of a batch of histories, with the objective's columns.

    Args:
        histories: the columns of a shard, (histories, steps, ...).
        subsample: k; strand p of a history has its episodes p, p+k, p+2k ...
        action_space: the action space as plain values.
        wanted: columns that the objective needs.

    Returns:
        The columns, one row per step, strand after strand; and the lengths of the strands, (histories * k,).
    """
    ended = histories["terminated"] | histories["truncated"]
    num_histories, steps = ended.shape
    # The order: by history, then by the episode's number modulo k, then by step. A stable sort keeps the steps' order.
    episode = np.cumsum(ended, axis=1, dtype=np.int32) - ended
    phase = episode % subsample
    order = np.argsort(phase, axis=1, kind="stable")
    flat = (order + np.arange(num_histories)[:, None] * steps).ravel()

    def ordered(values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(-1, *values.shape[2:])[flat]

    strand = phase + np.arange(num_histories)[:, None] * subsample
    lengths = np.bincount(strand.ravel(), minlength=num_histories * subsample)
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    seen = {name: ordered(values) for name, values in histories.items() if name.partition(".")[0] == "observation"}
    action, reward = ordered(histories["action"]), ordered(histories["reward"])
    tokens = tokens_in_order(seen, action, reward, ordered(ended), starts, action_space)
    return {**tokens, **{name: ordered(histories[name]) for name in wanted}}, lengths


def _build(
    path: Path,
    folder: RunFolder,
    info: DataInfo,
    subsample: int,
    context_length: int,
    history_likelihood: NDArray[np.float64],
    wanted: Sequence[str],
) -> None:
    """Writes the cache's files, one shard in memory at a time."""
    total = int((history_likelihood > 0).sum()) * info.history_steps
    arrays: dict[str, Any] = {}
    strands, likelihoods, row, done = [], [], 0, 0
    statistics, used = DataStatistics(info.observation_space), ActionRange(info.action_space)
    with tqdm(total=total, unit=" steps", unit_scale=True, desc="tokens", dynamic_ncols=True) as bar:
        for shard in checked_shards(folder, info):
            # The selected histories of this shard.
            histories = read_histories(shard, info)
            likelihood = history_likelihood[done : done + len(histories["reward"])]
            done += len(likelihood)
            if not likelihood.any():
                continue
            if not likelihood.all():
                histories = {name: values[likelihood > 0] for name, values in histories.items()}
            statistics.add(histories)
            used.add(histories["action"])
            # Their steps in the order of strands, after the rows of earlier shards.
            columns, lengths = strand_order(histories, subsample, info.action_space, wanted)
            for name, values in columns.items():
                if name not in arrays:
                    arrays[name] = _new_array(path / f"{name}.npy", values.dtype, (total, *values.shape[1:]))
                arrays[name][row : row + len(values)] = values
            first, fits = row + np.cumsum(lengths) - lengths, lengths >= context_length
            strands.append(np.stack([first, lengths], axis=1)[fits])
            likelihoods.append(np.repeat(likelihood[likelihood > 0], subsample)[fits])
            row += int(lengths.sum())
            bar.update(int(lengths.sum()))
    if warning := used.warning():
        say(warning)
    all_strands = np.concatenate(strands)
    if not len(all_strands):
        raise too_short(context_length, subsample)
    for array in arrays.values():
        array.flush()
    np.save(path / _STRANDS, all_strands)
    np.save(path / _LIKELIHOODS, np.concatenate(likelihoods))
    write_json(path / _STATISTICS, statistics.record().model_dump())


def too_short(context_length: int, subsample: int) -> ConfigError:
    """The error for data without a strand as long as a context."""
    return ConfigError(
        f"model.context_episodes: a context of {context_length} steps does not fit: training.subsample {subsample} "
        "leaves fewer steps of every history; lower one of the two"
    )


def _likelihoods_of_histories(folder: RunFolder, info: DataInfo, selection: SelectionConfig) -> NDArray[np.float64]:
    """(histories,) likelihood of each history, in the order of the shards; 0 for those that are left out."""
    if selection == ALL_HISTORIES:
        return np.ones(info.num_histories)  # without reading the data
    scores = history_scores(folder, info)
    likelihoods = history_likelihoods(scores, selection)
    say(f"training.selection: {(likelihoods > 0).sum():,} of {len(likelihoods):,} histories, by their {scores.scale}")
    return likelihoods


def _new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A new memory-mapped .npy file. Its disk space is reserved now: writing to a full disk would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
