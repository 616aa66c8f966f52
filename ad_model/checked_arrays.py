"""Arrays on disk that are verified block by block, each block when it is first read.

A token cache may have tens of gigabytes, and a resumed training should not read all of them before its first update. So
`checksums.json` holds a CRC-32 per block of 256 KiB, and the blocks that an update's windows lie in are verified just
before the windows are gathered. CRC-32 notices every flipped byte and every burst of up to 32 bits. It runs at 2 GB/s
here, so in the whole of a training a 10 GB cache costs 5 s, spread over the updates; large blocks would make the first
updates slow, since each window lies in another block.
"""

import mmap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from icrl.run.folder import CHECKSUMS
from icrl.run.records import Record, read_record, write_record
from icrl.support.errors import UserError

_BLOCK_BYTES = 2**18
_AGAIN = "delete this folder, and training builds it again"


class FileBlocks(pydantic.BaseModel):
    """The size of a file, and the CRC-32 of each of its blocks."""

    model_config = pydantic.ConfigDict(frozen=True)

    num_bytes: int
    crc32: list[int]


class BlockChecksums(Record):
    """`checksums.json` of a folder of arrays."""

    block_bytes: int = pydantic.Field(gt=0)
    files: dict[str, FileBlocks]


class CheckedFile:
    """A file whose blocks are verified when they are first read. Raises UserError if its size is not the recorded one.

    Args:
        path: the file, which is not empty.
        blocks: its recorded size and checksums.
        block_bytes: size of a block.
    """

    def __init__(self, path: Path, blocks: FileBlocks, block_bytes: int) -> None:
        self.path, self.blocks, self.block_bytes = path, blocks, block_bytes
        if path.stat().st_size != blocks.num_bytes or len(blocks.crc32) != -(-blocks.num_bytes // block_bytes):
            raise damaged_array(path, "its size differs")
        with open(path, "rb") as file:
            self.content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self.pending = np.ones(len(blocks.crc32), dtype=np.bool_)
        self._count()

    def verify(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        """Verifies the blocks with the bytes `first` to `last`, one pair per range, that have not been verified yet."""
        if not self.before[-1]:
            return
        begin, end = first // self.block_bytes, last // self.block_bytes
        if not (self.before[end + 1] > self.before[begin]).any():
            return
        edges = np.zeros(len(self.pending) + 1, dtype=np.int64)
        np.add.at(edges, begin, 1)
        np.add.at(edges, end + 1, -1)
        for block in np.flatnonzero(self.pending & (np.cumsum(edges)[:-1] > 0)).tolist():
            part = self.content[block * self.block_bytes : (block + 1) * self.block_bytes]
            if zlib.crc32(part) != self.blocks.crc32[block]:
                raise damaged_array(self.path, f"the checksum of block {block} differs")
            self.pending[block] = False
        self._count()

    def verify_all(self) -> "CheckedFile":
        """Verifies the whole file."""
        self.verify(np.zeros(1, np.int64), np.array([self.blocks.num_bytes - 1]))
        return self

    def _count(self) -> None:
        self.before = np.concatenate([[0], np.cumsum(self.pending)])  # blocks before each that are not verified


class CheckedArray:
    """A memory-mapped .npy file; call `verify` for rows of `values` before you read them."""

    def __init__(self, file: CheckedFile) -> None:
        self.file = file
        file.verify(np.zeros(1, np.int64), np.zeros(1, np.int64))  # the header, which is shorter than a block
        self.values: NDArray[Any] = np.load(file.path, mmap_mode="r")
        self.offset, self.row_bytes = file.blocks.num_bytes - self.values.nbytes, self.values.strides[0]

    def verify(self, first: NDArray[np.int64], length: int) -> None:
        """Verifies the rows from each of `first` on, `length` of them."""
        start = self.offset + first * self.row_bytes
        self.file.verify(start, start + length * self.row_bytes - 1)


class CheckedFolder:
    """The files of a folder with block checksums. Raises UserError if the record of the checksums is damaged."""

    def __init__(self, path: Path) -> None:
        self.path, self.record = path, read_record(path / CHECKSUMS, BlockChecksums, _AGAIN)

    def file(self, name: str) -> CheckedFile:
        """The file `name`. Raises UserError if it is not recorded."""
        if name not in self.record.files:
            raise damaged_array(self.path / name, f"it is not in {CHECKSUMS}")
        return CheckedFile(self.path / name, self.record.files[name], self.record.block_bytes)

    def array(self, name: str) -> CheckedArray:
        """The array in the file `name`, to be verified as it is read."""
        return CheckedArray(self.file(name))

    def whole(self, name: str) -> NDArray[Any]:
        """The array in the file `name`, in memory, verified."""
        return np.array(CheckedArray(self.file(name).verify_all()).values)


def write_block_checksums(folder: Path) -> None:
    """Writes the checksums of all files in `folder` beside them."""
    files = {}
    for path in sorted(folder.iterdir()):
        crc32 = []
        with open(path, "rb") as file:
            while part := file.read(_BLOCK_BYTES):
                crc32.append(zlib.crc32(part))
        files[path.name] = FileBlocks(num_bytes=path.stat().st_size, crc32=crc32)
    write_record(folder / CHECKSUMS, BlockChecksums(block_bytes=_BLOCK_BYTES, files=files))


def damaged_array(path: Path, why: str) -> UserError:
    """The error for a file of a token cache that cannot be used."""
    return UserError(f"{path.parent}: the token cache is damaged ({path.name}: {why}); {_AGAIN}")
