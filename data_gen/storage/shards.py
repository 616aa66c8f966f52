"""Learning histories on disk: HDF5 shards of flat arrays with one leading axis of histories.

Each dataset has shape (histories, steps, ...), or (histories,) for values that a history has once, so that
`datasets.load_dataset` and plain h5py read the files as they are. A chunk holds at most 1,024 consecutive steps of one
history. Reading a window then decompresses one or two chunks, whereas a chunk of several histories would decompress all
of them. Measured on Dark Room, steps/s written and size relative to raw data: chunks of (1, 100) 2.5M and .29, (1, 800)
13M and .10, (32, 1600) 29M and .07 but a third of the windows/s; gzip level 1 with byte shuffling 13M and .10, level 4
10M and .09, lzf 17M and .15 but only h5py reads it. With Fletcher-32, HDF5 itself notices a flipped bit.

A shard is built in memory and then written whole, so that its bytes depend only on its content, and a full disk is an
ordinary error.
"""

import errno
import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from icrl.support.arrays import MOST_COMPRESSED, SLACK
from icrl.support.errors import ENVIRONMENT_ERRNOS, UserError
from icrl.support.files import open_file, write_file

STEP_COLUMNS = ("observation", "action", "reward", "terminated", "truncated", "optimal_action")
"""Columns of shape (histories, steps, ...). `optimal_action` exists only if the config asks for it. An observation of a
Dict or Tuple space has one column per leaf, such as `observation.image`."""

_MOST_ENCODED = 2**14
"""Most bytes per stored byte of a whole Parquet file, whose constant columns take next to nothing."""

READING_FAULTS = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
"""The errors that h5py and pyarrow raise for damaged and for strange files."""

_CHUNK_STEPS = 1024
_CHUNK_BYTES = 2**20  # limit for large steps, such as images


def shard_name(index: int, count: int) -> str:
    """File name of shard `index` of `count`, as `datasets` names the shards of a split."""
    return f"train-{index:05d}-of-{count:05d}.h5"


def checksum_file(path: Path) -> Path:
    """The file with a shard's checksum, which lies beside the shard until `info.json` has all checksums."""
    return path.with_name(f".{path.name}.sha256")


def write_shard(
    path: Path, columns: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any], beside: bool = False
) -> str:
    """Writes one shard, whole or not at all, and returns its SHA-256.

    Args:
        path: the shard's file.
        columns: arrays with equal first axes; the second axis of STEP_COLUMNS is the steps.
        attributes: plain values, stored as JSON in the file's attributes.
        beside: write the checksum to a file of its own, too.

    Raises UserError if the file cannot be written.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        for name, values in sorted(attributes.items()):
            file.attrs[name] = json.dumps(values)
        for name, array in columns.items():
            file.create_dataset(
                name,
                data=array,
                chunks=_chunks(array, name.partition(".")[0] in STEP_COLUMNS),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fletcher32=True,
            )
            # h5py closes datasets when it gets the lock, which may be later if other threads use HDF5. Flushing fixes
            # the positions of the chunks in the file now, so that the same content always gives the same bytes.
            file.flush()
    content = image.getvalue()
    checksum = hashlib.sha256(content).hexdigest()
    if beside:  # before the shard, so that a killed process leaves no shard without a checksum
        write_file(checksum_file(path), checksum)
    write_file(path, content)
    return checksum


def read_shard(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The columns `names` of an HDF5 or Parquet shard; all columns by default.

    Raises UserError if the shard is missing, truncated or damaged, or refers to other files: a shard from elsewhere
    could otherwise read any file of this machine into the data.
    """
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path, names)
        with h5py.File(regular(path), locking=False) as file:
            members = {name: own_dataset(file, name) for name in (file if names is None else names)}
            check_stored(members.values(), path)
            return {name: member[()] for name, member in members.items()}
    except READING_FAULTS as error:
        raise unreadable(path, error) from error


def declared(path: Path) -> dict[str, tuple[int, int]]:
    """(rows, values) of every column of a shard, from its header. Raises UserError if the shard is damaged."""
    try:
        if path.suffix == ".parquet":
            about, values = _parquet_values(regular(path))
            return {name: (about.num_rows, count) for name, count in values.items()}
        with h5py.File(regular(path), locking=False) as file:
            members = {name: own_dataset(file, name) for name in file}
            return {name: (member.shape[0] if member.shape else 0, member.size) for name, member in members.items()}
    except READING_FAULTS as error:
        raise unreadable(path, error) from error


def reward_shape(path: Path) -> tuple[int, int]:
    """(histories, steps) of a shard, from its header. Raises UserError if the shard is damaged or missing.

    The steps of a Parquet shard are those of its rows on average, since its header has the total only.
    """
    try:
        if path.suffix == ".parquet":
            about, values = _parquet_values(regular(path))
            return about.num_rows, values["reward"] // max(1, about.num_rows)
        with h5py.File(regular(path), locking=False) as file:
            rows, steps = own_dataset(file, "reward").shape
            return rows, steps
    except READING_FAULTS as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a shard that could not be read: it is missing, or in use, or refused by the system, or damaged."""
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY, errno.ETXTBSY):
        return UserError(f"{path}: is in use by another process: wait until it has ended")
    if number == errno.ENOENT or number in ENVIRONMENT_ERRNOS:
        return UserError(f"{path}: cannot be read: {os.strerror(number or 0)}")
    return damaged(path, " ".join(str(error).split()))


def regular(path: Path) -> Path:
    """The path. Raises OSError unless it is a regular file: libraries would wait for a pipe for ever."""
    open_file(path).close()
    return path


def _parquet_values(path: Path) -> tuple[Any, Counter[str]]:
    """The metadata of a Parquet file, and the number of values of every column."""
    import pyarrow.parquet

    about = pyarrow.parquet.read_metadata(path)
    values: Counter[str] = Counter()
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            name, _, rest = column.path_in_schema.partition(".list.")
            values[name if rest else column.path_in_schema] += column.num_values
    return about, values


def own_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """The array `name`, stored in this very file. Raises ValueError for a link, and for storage in other files."""
    member = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(member, h5py.Dataset) or member.external or member.is_virtual:
        raise ValueError(f"{name} is not an array stored in this file")
    return member


def check_stored(members: Iterable[h5py.Dataset], path: Path) -> None:
    """Raises ValueError if the arrays are not numbers, or declare more than the file's bytes can hold.

    Sizes are only declared: unwritten chunks, or many chunks in one place, make a small file claim any amount.
    """
    declared = 0
    for member in members:
        if member.dtype.kind not in "iubfS":
            raise ValueError(f"{member.name} does not hold numbers")
        size = whole = member.size * member.dtype.itemsize
        if member.chunks is not None:  # reading decompresses whole chunks
            chunk = math.prod(member.chunks) * member.dtype.itemsize
            number = math.prod(-(-size // part) for size, part in zip(member.shape, member.chunks, strict=True))
            whole = max(whole, chunk * number)
        if whole > SLACK + MOST_COMPRESSED * member.id.get_storage_size():
            raise ValueError(f"{member.name} declares {member.shape}, which is more than its bytes can hold")
        if whole > SLACK + 4 * size:
            raise ValueError(f"{member.name} is stored in chunks {member.chunks}, far larger than the array")
        declared += whole
    if declared > SLACK + MOST_COMPRESSED * path.stat().st_size:
        raise ValueError("it declares more than its bytes can hold")


def _read_parquet(path: Path, names: Sequence[str] | None) -> dict[str, NDArray[Any]]:
    import pyarrow.parquet  # takes as long to import as everything else here

    with pyarrow.parquet.ParquetFile(regular(path)) as file:
        about = file.metadata
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
        stored = sum(
            group.column(index).total_uncompressed_size for group in groups for index in range(group.num_columns)
        )
        if max(8 * values, stored) > SLACK + _MOST_ENCODED * path.stat().st_size:
            raise ValueError("it declares more than its bytes can hold")
        table = file.read(None if names is None else list(names))
    absent = set(names or ()) - set(table.column_names)
    if absent:
        raise KeyError(f"column {min(absent)} is missing")
    return {name: _dense(table[name].combine_chunks()) for name in table.column_names}


def _dense(array: Any) -> NDArray[Any]:
    """An Arrow array of nested lists as a NumPy array. Raises ValueError unless lists of one level have one length."""
    from pyarrow import types

    shape = [len(array)]
    while True:
        array = getattr(array, "storage", array)  # of an extension type, such as those of `datasets`
        if array.null_count:
            raise ValueError("a column has empty cells")
        kind = array.type
        if not any(test(kind) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
            break
        lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise ValueError("the rows of a column differ in length")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ValueError(f"a column holds {kind}, not numbers")
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


def shard_fingerprint(path: Path) -> str:
    """The config fingerprint that a shard was made with, after reading all of it. Raises UserError if it is damaged."""
    read_shard(path)
    try:
        with h5py.File(regular(path), locking=False) as file:
            return str(json.loads(file.attrs.get("fingerprint", '"none"')))
    except READING_FAULTS as error:
        raise unreadable(path, error) from error


def damaged(path: Path, why: str) -> UserError:
    """The error for a shard that cannot be used."""
    return UserError(f"{path}: the shard is damaged ({why}); delete it and run `icrl generate` to make it again")


def _chunks(array: NDArray[Any], has_steps: bool) -> tuple[int, ...]:
    if not has_steps:
        return array.shape
    steps = min(_CHUNK_STEPS, max(1, _CHUNK_BYTES // max(1, array[0, 0].nbytes)))
    pieces = -(-array.shape[1] // steps)
    return (1, -(-array.shape[1] // pieces), *array.shape[2:])
