"""Context windows from a data set that stays on the hub: a few shards at a time, in an order that the seed decides.

The shards come in an endless sequence, all of them once in an order of its own, then again. A fixed number of
neighbours in it is in memory; after as many updates as a shard holds windows for, the first of them goes and the next
one, fetched meanwhile, comes in. Which shards an update sees, and which windows, is a function of (seed, update), as it
is of data on disk, so that a resumed run sees what an uninterrupted one does, and several processes what one does.
"""

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import disable_progress_bars
from numpy.typing import NDArray

from ad_model.windows import TokenCache, WindowDataset, stream_order, token_columns
from data_gen.storage.folder import read_histories
from data_gen.storage.info import DataInfo
from icrl.config.schema import ExperimentConfig
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import sha256
from icrl.support.hub import Repository, Snapshot, fetch

Shard = tuple[dict[str, NDArray[Any]], NDArray[np.int64]]
"""Token columns, and (streams, 2) first row and number of rows of those that hold a window."""


class StreamedWindows(WindowDataset):
    """Item `i` is this process's share of micro-batch `i`, as of `WindowDataset`; items have to be taken in order.

    Args:
        config: the experiment's.
        info: the data's info.json, with its statistics and where it is given.
        context_length: T.
        process, num_processes: which share is this process's.

    Raises ConfigError if the data has not what is needed.
    """

    def __init__(
        self, config: ExperimentConfig, info: DataInfo, context_length: int, process: int, num_processes: int
    ) -> None:
        if not info.statistics:
            raise ConfigError(
                f"data.streaming: {config.data.repo} does not say its statistics: push it with `icrl push`, or read "
                "all of it, without data.streaming"
            )
        self.info, self.subsample, self.target = info, config.training.subsample, config.training.target
        if self.target == "optimal_action" and not info.optimal_actions:
            raise ConfigError(f"training.target: {self.target} is not in {config.data.repo}")
        given, self.shards = info["given"], info.shards
        names = {shard.file: 0 for shard in self.shards}
        self.source = Snapshot(Repository(given["repo"], "dataset", given["commit"]), given["commit"], names)
        windows = info.num_histories * info.history_steps / len(self.shards) / context_length
        self.updates_per_shard = max(1, round(windows / config.training.batch_size))
        self.num_resident = min(config.data.resident_shards, len(self.shards))
        disable_progress_bars()  # of every shard
        self.resident: dict[int, Shard] = {}
        self.place = -1
        self.fetcher = ThreadPoolExecutor(1, "fetch")
        self.ahead: Future[Shard] | None = None
        super().__init__(
            TokenCache({}, np.empty((0, 2), np.int64), info.statistics),
            context_length,
            config.training.batch_size,
            config.seed,
            config.training.accumulation_steps,
            process,
            num_processes,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._move_to(index // self.accumulation_steps // self.updates_per_shard)
        return super().__getitem__(index)

    def close(self) -> None:
        """Waits for what is being fetched, and fetches no more."""
        self.fetcher.shutdown(cancel_futures=True)

    def shard_at(self, place: int) -> int:
        """The number of the shard at a place of the endless sequence."""
        passed, position = divmod(place, len(self.shards))
        order = np.random.default_rng((self.seed, Purpose.SHARD_ORDER, passed)).permutation(len(self.shards))
        return int(order[position])

    def _move_to(self, place: int) -> None:
        """Has the shards at `place` and the next places in memory, and the one after them on its way."""
        if self.num_resident == len(self.shards):
            place = 0  # all of them stay
        if place == self.place:
            return
        places = range(place, place + self.num_resident)
        self.resident = {at: self.resident[at] for at in places if at in self.resident}
        for at in places:
            if at not in self.resident:
                expected = self.ahead is not None and at == self.place + self.num_resident
                self.resident[at] = self.ahead.result() if expected and self.ahead else self._load(self.shard_at(at))
        self.place = place
        if self.num_resident < len(self.shards):
            self.ahead = self.fetcher.submit(self._load, self.shard_at(place + self.num_resident))
        parts = [self.resident[at] for at in places]
        names = token_columns(self.info.observation_space)
        columns = {name: np.concatenate([part[name] for part, _ in parts]) for name in names}
        first = np.cumsum([0, *(len(part["boundary"]) for part, _ in parts[:-1])])
        # What stays is part of these arrays, not a copy beside them.
        for at, start, (part, found) in zip(places, first, parts, strict=True):
            rows = slice(start, start + len(part["boundary"]))
            self.resident[at] = {name: columns[name][rows] for name in names}, found
        streams = np.concatenate([found + np.array([at, 0]) for at, (_, found) in zip(first, parts, strict=True)])
        if not len(streams):
            raise ConfigError(
                f"model.context_episodes: a context of {self.context_length} steps is longer than every history that "
                f"training.subsample {self.subsample} leaves; lower one of them"
            )
        self.cache = TokenCache(columns, streams, self.cache.statistics)

    def _load(self, number: int) -> Shard:
        """The tokens of a shard, whose file is gone again afterwards."""
        shard = self.shards[number]
        with tempfile.TemporaryDirectory() as folder:
            path = fetch(self.source, [shard.file], Path(folder)) / shard.file
            if sha256(path) != shard.sha256:
                raise UserError(f"{self.source.repository}: {shard.file} is not what info.json says: push it again")
            histories = read_histories(path, self.info)
        columns, lengths = stream_order(histories, self.subsample, self.info.action_space, self.target)
        first, fits = np.cumsum(lengths) - lengths, lengths >= self.context_length
        return columns, np.stack([first, lengths], axis=1)[fits]
