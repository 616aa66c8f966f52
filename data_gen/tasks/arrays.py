"""Tasks as data: arrays with one row per task."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_gen.streams import hashed, make_seeds
from icrl.support.arrays import read_npz
from icrl.support.errors import UserError
from icrl.support.files import write_file

_HASHED_AT_ONCE = 2**16  # words; a block of this size stays in a processor's cache


@dataclass(frozen=True, eq=False)
class Tasks:
    """A struct of arrays with one leading task axis: `tasks["goal"]` has shape (num_tasks, ...)."""

    arrays: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array called `name`. Raises UserError if the tasks do not have it."""
        if name not in self.arrays:
            raise UserError(
                f"the tasks have no array {name!r}: they belong to another family, with arrays {[*self.arrays]}"
            )
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def take(self, rows: ArrayLike | slice) -> "Tasks":
        """The tasks at `rows`, indices or a slice, in that order; a repeated index repeats its task."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        return Tasks({name: array[index] for name, array in self.arrays.items()})

    def keys(self) -> NDArray[np.uint64]:
        """One opaque key per task, shape (num_tasks,).

        Equal tasks have equal keys; two different tasks have equal keys with probability 2^-64.
        """
        keys = np.zeros(len(self), dtype=np.uint64)
        if not len(self):
            return keys
        for index, array in enumerate(self.arrays.values()):
            rows = np.ascontiguousarray(array).reshape(len(self), -1).view(np.uint8)
            num_words = -(-rows.shape[1] // 8)
            factors = make_seeds(num_words, index)
            block = max(1, _HASHED_AT_ONCE // num_words)
            for first in range(0, len(self), block):
                part = rows[first : first + block]
                words = np.zeros((len(part), 8 * num_words), dtype=np.uint8)
                words[:, : rows.shape[1]] = part
                keys[first : first + block] += hashed(words.view(np.uint64)) @ factors
            keys = hashed(keys)
        return keys

    def save(self, path: str | Path) -> None:
        """Writes the arrays to an .npz file without pickling."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays)  # type: ignore[arg-type]
        write_file(Path(path), buffer.getvalue())

    @staticmethod
    def load(path: str | Path) -> "Tasks":
        """Reads a file that `save` has written. Raises UserError if the file is missing or damaged."""
        try:
            arrays = read_npz(path)
            if any(array.dtype.kind not in "iubf" or not array.ndim for array in arrays.values()):
                raise ValueError("an array does not hold one number or more per task")
            if len({len(array) for array in arrays.values()}) != 1:
                raise ValueError("the arrays have different numbers of tasks")
            return Tasks(arrays)
        except (OSError, ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            why = f"{path}: is not a file of tasks ({error})"
            raise UserError(f"{why}; delete the file, and `icrl generate` writes it again") from error
