"""Context windows of an update: a pure function of (seed, update), gathered from the arrays of a token cache."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ad_model.token_cache import TokenCache
from ad_model.tokens import model_inputs
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError

Batch = dict[str, dict[str, Any]]
"""`tokens`, the keyword arguments of the model, and `columns`, which the objective needs; tensors (windows, T, ...)."""


class WindowDataset(Dataset[Batch]):
    """Item `i` is this process's part of micro-batch `i`: windows of `context_length` steps at random offsets.

    Micro-batch i is part i % accumulation_steps of update i // accumulation_steps. The windows of an update depend on
    (seed, update) alone, not on the number of processes or parts. Strands are drawn by the cache's likelihoods, or
    uniformly where it has none; every offset in a strand is equally likely.

    Args:
        cache: the token cache.
        context_length: T.
        batch_size: windows per update, over all processes and parts.
        seed: the experiment's seed.
        accumulation_steps: parts that each process cuts its windows into.
        process, num_processes: index of this process, and number of processes.

    Raises ConfigError if `batch_size` cannot be divided by parts times processes.
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
        self.cumulative = None if cache.likelihoods is None else np.cumsum(cache.likelihoods)
        if batch_size % (accumulation_steps * num_processes):
            raise ConfigError(
                f"training.batch_size {batch_size} must be divisible by training.accumulation_steps "
                f"{accumulation_steps} times {num_processes} processes"
            )

    def close(self) -> None:
        """Stops work in the background; does nothing here, where the data is on disk."""

    def first_rows(self, update: int) -> NDArray[np.int64]:
        """(batch_size,) the cache rows at which the windows of `update` start."""
        rng = np.random.default_rng((self.seed, Purpose.WINDOWS, update))
        first, length = self.cache.strands[self._draw_strands(rng)].T
        return first + rng.integers(length - self.context_length + 1)

    def _draw_strands(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(batch_size,) the strand of each window of an update."""
        if self.cumulative is None:
            return rng.integers(len(self.cache.strands), size=self.batch_size)
        drawn = rng.random(self.batch_size) * self.cumulative[-1]  # may round up to the total
        return np.minimum(np.searchsorted(self.cumulative, drawn, side="right"), len(self.cumulative) - 1)

    def __getitem__(self, index: int) -> Batch:
        update, part = divmod(index, self.accumulation_steps)
        rows = self.first_rows(update).reshape(self.accumulation_steps, self.num_processes, -1)[part, self.process]
        self.cache.verify(rows, self.context_length)
        steps = rows[:, None] + np.arange(self.context_length)  # (windows, T)
        tensors = {name: torch.from_numpy(values[steps]) for name, values in self.cache.columns.items()}
        tokens = {name: tensor for name, tensor in tensors.items() if name not in self.cache.wanted}
        return {"tokens": model_inputs(tokens), "columns": {name: tensors[name] for name in self.cache.wanted}}
