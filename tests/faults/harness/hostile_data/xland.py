"""Forged files in the layout of XLand-100B, and a valid one."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.faults.harness.hdf5_links import make_external_link, make_external_storage, make_virtual
from tests.faults.harness.payloads import ANSI, replace_file

Fault = Callable[[h5py.Group, random.Random, Path], None]
"""Changes one group of the file, which holds the histories of one task: (group, random numbers, home)."""


def write_xland(
    path: Path, tasks: int, size: int, steps: int, episode: int, storage: Callable[[tuple[int, ...]], dict]
) -> None:
    """Writes a valid file: two histories of each task in a square room, with a reward at the end of each episode.

    Args:
        path: the file.
        tasks: number of tasks.
        size: side of the room.
        steps: steps of a history.
        episode: steps of an episode.
        storage: arguments of `create_dataset` for a column of a shape.
    """
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for task in range(tasks):
            group = file.create_group(str(task))
            about = {"env-id": f"XLand-MiniGrid-R1-{size}x{size}", "benchmark-id": "trivial-1m", "ruleset-id": task}
            group.attrs.update(about)
            ends = np.tile(np.arange(steps) % episode == episode - 1, (2, 1))
            columns = {
                "states": rng.integers(0, 156, (2, steps, 5, 5), np.uint8),
                "actions": rng.integers(0, 6, (2, steps), np.uint8),
                "rewards": np.where(ends, 0.5, 0).astype(np.float16),
                "dones": ends,
                "expert_actions": rng.integers(0, 6, (2, steps), np.uint8),
            }
            for name, values in columns.items():
                group.create_dataset(name, data=values, **storage(values.shape))


def _soft_link(group: h5py.Group, rng: random.Random, home: Path) -> None:
    del group["rewards"]
    group["rewards"] = h5py.SoftLink("/0/actions")


def _attribute(group: h5py.Group, rng: random.Random, home: Path) -> None:
    group.attrs["ruleset-id"] = rng.choice([1.5, "x", 2**63, -(2**62)])


def _name(value: str) -> Fault:
    def change(group: h5py.Group, rng: random.Random, home: Path) -> None:
        group.attrs["env-id"] = value

    return change


def _surrogate(group: h5py.Group, rng: random.Random, home: Path) -> None:
    group.attrs["benchmark-id"] = b"\xff\xfe" + ANSI.encode()


def _group(group: h5py.Group, rng: random.Random, home: Path) -> None:
    group.file.move("0", rng.choice(["9" * 5000, "²", ANSI, "1e5"]))


def _sparse(group: h5py.Group, rng: random.Random, home: Path) -> None:
    for name in list(group):
        rest, dtype = group[name].shape[2:], group[name].dtype
        del group[name]
        group.create_dataset(name, (2, 4 * 10**8, *rest), dtype, chunks=(1, 4096, *rest))


def _chunk(group: h5py.Group, rng: random.Random, home: Path) -> None:
    shape, dtype = group["actions"].shape, group["actions"].dtype
    del group["actions"]
    chunks = {"chunks": (1, 2**31), "maxshape": (None, None), "compression": "gzip"}
    group.create_dataset("actions", shape, dtype, **chunks)[...] = 0


def _types(group: h5py.Group, rng: random.Random, home: Path) -> None:
    shape = group["actions"].shape
    del group["actions"]
    if rng.random() < 0.5:
        group.create_dataset("actions", shape, h5py.vlen_dtype(np.uint8))
    else:
        h5py.h5d.create(group.id, b"actions", h5py.h5t.STD_B8LE, h5py.h5s.create_simple(shape))


def _values(group: h5py.Group, rng: random.Random, home: Path) -> None:
    group[rng.choice(["actions", "states", "expert_actions"])][0, 0] = 255


def _no_steps(group: h5py.Group, rng: random.Random, home: Path) -> None:
    shape = group["actions"].shape
    del group["actions"]
    group.create_dataset("actions", (shape[0], 0), np.uint8)


FAULTS: dict[str, Fault] = {
    "external": lambda group, rng, home: make_external_link(group, "rewards", home),
    "virtual": lambda group, rng, home: make_virtual(group, "rewards", home),
    "soft": _soft_link,
    "attribute": _attribute,
    "digits": _name(f"XLand-MiniGrid-R1-{'9' * 5000}x9"),
    "group": _group,
    "sparse": _sparse,
    "chunk": _chunk,
    "types": _types,
    "values": _values,
    "fifo": lambda *_: None,  # see below: of the file
    "raw": lambda group, rng, home: make_external_storage(group, "actions", home),
    "surrogate": _surrogate,
    "ansi": _name(ANSI),
    "long": _name(f"XLand-MiniGrid-R1-{'9' * 300}x9"),
    "zero": _no_steps,
}
MUST_REFUSE = ("external", "virtual", "raw", "values", "fifo")
"""Faults that change results, or read other files, if they are accepted."""


def forge_xland(path: Path, rng: random.Random, home: Path) -> bool:
    """Writes a file with one fault; True if it must be refused."""
    shutil.copy(home / "xland.h5", path)
    how = rng.choice([*FAULTS])
    with h5py.File(path, "r+") as file:
        FAULTS[how](file["0"], rng, home)
    if how == "fifo":
        replace_file(path, rng.choice(["fifo", "zero", "folder", "huge", "empty"]), home)
    return how in MUST_REFUSE
