"""Forged columns of shards: values, links, types, shapes, filters and attributes of HDF5."""

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.faults.harness.hdf5_links import make_external_link, make_external_storage, make_virtual
from tests.faults.harness.hostile_data.folder import Mutation, random_shard, seal
from tests.faults.harness.payloads import ANSI


def _values(folder: Path, rng: random.Random, home: Path) -> None:
    """Values that would change results."""
    path = random_shard(folder, rng)
    with h5py.File(path, "r+") as file:
        how = rng.choice(["nan", "inf", "action", "observation", "task", "source", "float action"])
        if how in ("nan", "inf"):
            file["reward"][0, 3] = float(how)
        elif how == "float action":
            values = file["action"][()].astype(np.float32) + 0.5
            del file["action"]
            file["action"] = values
        else:
            file[how][(0,) * file[how].ndim] = 200
    seal(folder)


def _dataset(change: Callable[[h5py.File, str, random.Random, Path], None]) -> Mutation:
    """Replaces one column of one shard by another member of that name."""

    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        with h5py.File(random_shard(folder, rng), "r+") as file:
            name = rng.choice(["reward", "action", "observation", "terminated"])
            change(file, name, rng, home)
        seal(folder)

    return mutate


def _external_link(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    make_external_link(file, name, home)


def _external_storage(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    make_external_storage(file, name, home)


def _virtual(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    make_virtual(file, "reward", home)  # of the secret's own kind of shape


def _soft_link(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink(rng.choice(["/elsewhere", f"/{name}", "/nothing"]))


def _type(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    shape = file[name].shape
    del file[name]
    how = rng.choice(["vlen", "string", "compound", "opaque", "reference", "enum", "time", "bitfield", "big", "named"])
    match how:
        case "vlen":
            file.create_dataset(name, shape, h5py.vlen_dtype(np.int32))
        case "string":
            file.create_dataset(name, shape, h5py.string_dtype())
        case "compound":
            file.create_dataset(name, shape, np.dtype([("a", "f4"), ("b", "f4")]))
        case "opaque":
            file.create_dataset(name, shape, h5py.opaque_dtype(np.dtype("V8")))
        case "reference":
            file.create_dataset(name, shape, h5py.ref_dtype)
        case "enum":
            file.create_dataset(name, shape, h5py.enum_dtype({"A": 0, "B": 42}, basetype="i1"))
        case "time" | "bitfield":
            kind = h5py.h5t.UNIX_D32LE if how == "time" else h5py.h5t.STD_B8LE
            h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape))
        case "big":
            file.create_dataset(name, shape, np.dtype(">c16"))
        case "named":
            file[name] = np.dtype("f4")


def _shape(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    histories, steps, *rest = file[name].shape
    dtype = file[name].dtype
    del file[name]
    how = rng.choice(["huge", "sparse", "chunk", "zero", "scalar", "null", "many", "bomb", "small bomb"])
    match how:
        case "huge":
            file.create_dataset(name, (10**9, 10**6), dtype, chunks=(1, 10**4))
        case "sparse":
            file.create_dataset(name, (histories, 10**9), dtype, chunks=(1, 10**4), compression="gzip")
        case "chunk":
            most = (None,) * (2 + len(rest))
            file.create_dataset(name, (histories, steps, *rest), dtype, chunks=(1, 2**28, *rest), maxshape=most)
        case "zero":
            file.create_dataset(name, (histories, 0, *rest), dtype)
        case "scalar":
            file[name] = dtype.type(0)
        case "null":
            file[name] = h5py.Empty(dtype)
        case "many":
            file.create_dataset(name, (1,) * 32, dtype)
        case "bomb" | "small bomb":  # a megabyte of file that really holds 1.5 GB of zeros, or a tenth of that
            length = 15 * 10**8 // dtype.itemsize if how == "bomb" else 10**8
            made = file.create_dataset(name, (1, length), dtype, chunks=(1, 2**26), compression="gzip")
            block = np.zeros(2**26, dtype)
            for first in range(0, length, 2**26):
                made[0, first : first + 2**26] = block[: length - first]


def _filter(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(tuple(shape))
    created.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    made = h5py.h5d.create(
        file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), dcpl=created
    )
    made.write_direct_chunk((0,) * len(shape), b"\x28\xb5\x2f\xfd" + bytes(50), filter_mask=0)


def _groups(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    """A cycle of groups, a group in place of a column, and many members."""
    if rng.random() < 0.3:
        del file[name]
        file.create_group(name)[name] = file
    for number in range(3000):
        file[f"observation.{number}{ANSI if number == 7 else ''}"] = file["/"]


def _attributes(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    for target in (file, file[name]):
        target.attrs["name"] = ANSI
        target.attrs.create("fingerprint", "x" * 60000)
        target.attrs.create("CLASS", rng.choice([b"DIMENSION_SCALE", np.zeros(3), h5py.Empty("f4")]))


MUTATIONS: dict[str, Mutation] = {
    "values": _values,
    "external-link": _dataset(_external_link),
    "soft-link": _dataset(_soft_link),
    "external-storage": _dataset(_external_storage),
    "virtual": _dataset(_virtual),
    "type": _dataset(_type),
    "shape": _dataset(_shape),
    "filter": _dataset(_filter),
    "groups": _dataset(_groups),
    "attributes": _dataset(_attributes),
}
