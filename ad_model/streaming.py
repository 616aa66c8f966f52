"""Context windows from a data set that stays on the hub: a few shards at a time, in an order that the seed decides.

Shards come in an endless sequence: all shards in a random order, then all shards in another order, and so on. A few
consecutive shards of the sequence are in memory. After the number of updates that read one shard's worth of windows,
the oldest of them leaves, and the next one, fetched in the meantime, enters. The shards and windows of an update are a
pure function of (seed, update), as they are for data on disk. So a resumed run sees the same windows as an
uninterrupted one, and several processes see the same windows as one process.
"""

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import disable_progress_bars
from numpy.typing import NDArray

from ad_model.token_cache import TokenCache, check_wanted, strand_order, too_short
from ad_model.windows import Batch, WindowDataset
from data_gen.storage.folder import read_histories
from data_gen.storage.info import DataInfo
from icrl.config.schema import ExperimentConfig
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import sha256
from icrl.support.hub import Repository, Snapshot, fetch

ShardTokens = tuple[dict[str, NDArray[Any]], NDArray[np.int64]]
"""Token columns, and (strands, 2) first row and number of rows of the strands that hold a window."""


class StreamedWindows(WindowDataset):
    """Item `i` is this process's part of micro-batch `i`, as in `WindowDataset`; read the items in order.

    Args:
        config: the experiment's config.
        info: the record of the data, with its statistics and its repository.
        wanted: names of the columns that the objective needs.
        context_length: T.
        process, num_processes: index of this process, and number of processes.

    Raises ConfigError if the data lacks statistics or a column.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        info: DataInfo,
        wanted: tuple[str, ...],
        context_length: int,
        process: int,
        num_processes: int,
    ) -> None:
        if info.statistics is None or info.given is None or info.given.repo is None:
            raise ConfigError(
                f"data.streaming: {config.data.repo} has no statistics in its info.json: push the data with "
                "`icrl push`, or leave out data.streaming"
            )
        check_wanted(wanted, info, str(config.data.repo))
        self.info, self.subsample, self.shards = info, config.training.subsample, info.shards
        given, names = info.given, {shard.file: 0 for shard in info.shards}
        commit = str(given.commit)
        self.source = Snapshot(Repository(str(given.repo), "dataset", commit), commit, names)
        windows = info.total_steps / len(self.shards) / context_length
        self.updates_per_shard = max(1, round(windows / config.training.batch_size))
        self.num_resident = min(config.data.resident_shards, len(self.shards))
        disable_progress_bars()  # one per shard is too many
        self.resident: dict[int, ShardTokens] = {}
        self.place = -1
        self.fetcher = ThreadPoolExecutor(1, "fetch")
        self.ahead: Future[ShardTokens] | None = None
        super().__init__(
            TokenCache({}, np.empty((0, 2), np.int64), info.statistics, wanted),
            context_length,
            config.training.batch_size,
            config.seed_for("training"),
            config.training.accumulation_steps,
            process,
            num_processes,
        )

    def __getitem__(self, index: int) -> Batch:
        self._move_to(index // self.accumulation_steps // self.updates_per_shard)
        return super().__getitem__(index)

    def close(self) -> None:
        """Waits for the shard that is being fetched, and stops fetching."""
        self.fetcher.shutdown(cancel_futures=True)

    def shard_at(self, place: int) -> int:
        """The index of the shard at position `place` of the endless sequence."""
        passed, position = divmod(place, len(self.shards))
        order = np.random.default_rng((self.seed, Purpose.SHARD_ORDER, passed)).permutation(len(self.shards))
        return int(order[position])

    def _move_to(self, place: int) -> None:
        """Loads the resident shards from position `place` on, and begins to fetch the shard after them."""
        if self.num_resident == len(self.shards):
            place = 0  # all shards stay in memory
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
        # One array per column, and the strands' first rows in it.
        parts = [self.resident[at] for at in places]
        names = list(parts[0][0])
        columns = {name: np.concatenate([part[name] for part, _ in parts]) for name in names}
        first = np.cumsum([0, *(len(part["boundary"]) for part, _ in parts[:-1])])
        # Resident shards become views of these arrays, not copies beside them.
        for at, start, (part, own) in zip(places, first, parts, strict=True):
            rows = slice(start, start + len(part["boundary"]))
            self.resident[at] = {name: columns[name][rows] for name in names}, own
        strands = np.concatenate([own + np.array([at, 0]) for at, (_, own) in zip(first, parts, strict=True)])
        if not len(strands):
            raise too_short(self.context_length, self.subsample)
        self.cache = replace(self.cache, columns=columns, strands=strands)

    def _load(self, number: int) -> ShardTokens:
        """Fetches a shard, returns its tokens, and deletes the file."""
        shard = self.shards[number]
        with tempfile.TemporaryDirectory() as folder:
            path = fetch(self.source, [shard.file], Path(folder)) / shard.file
            if sha256(path) != shard.sha256:
                raise UserError(
                    f"{self.source.repository}: {shard.file} does not match its checksum in info.json: push again"
                )
            histories = read_histories(path, self.info)
        columns, lengths = strand_order(histories, self.subsample, self.info.action_space, self.cache.wanted)
        first, fits = np.cumsum(lengths) - lengths, lengths >= self.context_length
        return columns, np.stack([first, lengths], axis=1)[fits]
