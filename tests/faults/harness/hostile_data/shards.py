"""Forged shards as files: a pickle, damaged headers, and Parquet in the place of HDF5."""

import pickle
import random
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet

from tests.faults.harness.hostile_data.folder import Mutation, random_shard, read_record, seal, write_record
from tests.faults.harness.payloads import ANSI, MARK, Bomb


def _pickled_shard(folder: Path, rng: random.Random, home: Path) -> None:
    random_shard(folder, rng).write_bytes(pickle.dumps(Bomb(folder.parent / MARK)))
    seal(folder)


def _flipped_header(folder: Path, rng: random.Random, home: Path) -> None:
    path = random_shard(folder, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 4, 30])):
        content[rng.randrange(min(len(content), 4000))] = rng.randrange(256)
    path.write_bytes(content)
    seal(folder)


def _truncated(folder: Path, rng: random.Random, home: Path) -> None:
    path = random_shard(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    seal(folder)


def _parquet(folder: Path, rng: random.Random, home: Path) -> None:
    """All shards as Parquet, some of them hostile."""
    record = read_record(folder)
    how = rng.choice(["good", "metadata", "extension", "strings", "nested", "null", "zeros", "flip", "types", "empty"])
    for shard in record["shards"]:
        path = folder / shard["file"]
        with h5py.File(path) as file:
            columns = {name: file[name][()] for name in file}
        arrays = {name: pa.array(values if values.ndim == 1 else values.tolist()) for name, values in columns.items()}
        table = pa.table(arrays)
        path.unlink()
        path = path.with_suffix(".parquet")
        shard["file"] = path.name
        match how:
            case "metadata":
                huge = {b"pandas": b"x" * 10**6, b"ARROW:schema": b"noise", b"huggingface": ANSI.encode()}
                table = table.replace_schema_metadata(huge)
            case "extension":
                bomb = pickle.dumps(Bomb(folder.parent / MARK))
                hidden = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}
                field = pa.field("reward", table["reward"].type, metadata=hidden)
                table = table.set_column(table.column_names.index("reward"), field, table["reward"])
            case "strings":
                table = table.set_column(0, table.column_names[0], pa.array([ANSI] * len(table)))
            case "nested":
                table = table.set_column(0, table.column_names[0], pa.array([[[[[[1]]]]]] * len(table)))
            case "null":
                table = table.set_column(0, table.column_names[0], pa.nulls(len(table)))
            case "zeros":
                table = table.set_column(0, "reward", pa.array([[0.0] * 3 * 10**6] * len(table)))
            case "types":
                kind = rng.choice([pa.decimal128(30), pa.date64(), pa.duration("s"), pa.binary(), pa.float16()])
                table = table.set_column(0, table.column_names[0], pa.nulls(len(table), kind))
            case "empty":
                table = table.slice(0, 0)
        pyarrow.parquet.write_table(table, path)
        if how == "flip":
            content = bytearray(path.read_bytes())
            for _ in range(20):
                content[-rng.randrange(1, 3000)] = rng.randrange(256)
            path.write_bytes(content)
    write_record(folder, record)
    seal(folder)


MUTATIONS: dict[str, Mutation] = {
    "pickled-shard": _pickled_shard,
    "flipped": _flipped_header,
    "truncated": _truncated,
    "parquet": _parquet,
}
