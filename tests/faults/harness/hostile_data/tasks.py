"""Forged files of tasks, `tasks-train.npz` and the others: zip files of arrays, each with a header in Python."""

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.faults.harness.hostile_data.folder import Mutation, read_record, seal, write_record
from tests.faults.harness.payloads import ANSI, MARK, Bomb

_FILES = ("tasks-train.npz", "tasks-validation.npz", "tasks-test.npz")


def _array(values: NDArray[Any]) -> bytes:
    """The content of an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _header(text: str, data: bytes = b"") -> bytes:
    """The content of an npy file with this header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1") + data


def _claimed(shape: str, data: bytes = b"") -> bytes:
    """The content of an npy file whose header claims a shape."""
    return _header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}}}\n", data)


def _bombs(goal: NDArray[Any], folder: Path) -> dict[str, bytes]:
    return {"goal.npy": _array(np.array([Bomb(folder.parent / MARK)] * 12, object))}


def _with_another(goal: NDArray[Any], folder: Path) -> dict[str, bytes]:
    return {"goal.npy": _array(goal), "more.npy": _array(goal)[:-8]}


MEMBERS: dict[str, Callable[[NDArray[Any], Path], dict[str, bytes]]] = {
    "pickle": _bombs,
    "path": lambda goal, _: {"../../goal.npy": _array(goal), "/tmp/goal.npy": _array(goal)},
    "eval": lambda goal, _: {"goal.npy": _header("__import__('trap_module')\n", goal.tobytes())},
    "huge": lambda *_: {"goal.npy": _claimed("(1000000000000, 2)")},
    "fortran": lambda goal, _: {"goal.npy": _array(np.asfortranarray(goal))},
    "object": _bombs,
    "bomb": lambda *_: {"goal.npy": _array(np.zeros((10**8, 2), np.int64))},
    "many": lambda *_: {f"{number}.npy": _header("{}") for number in range(20000)},
    "twice": _with_another,
    "version": lambda *_: {"goal.npy": b"\x93NUMPY\x09\x00" + bytes(100)},
    "negative": lambda *_: {"goal.npy": _claimed("(-13, -2)", bytes(208))},
    "text": lambda *_: {"goal.npy": b"goal = 1\n"},
    "nan": lambda goal, _: {"goal.npy": _array(np.full(goal.shape, np.nan))},
    "members": _with_another,
    "long header": lambda *_: {"goal.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 50_000_000) + b"[" * 50_000_000},
    "name": lambda goal, _: {f"{ANSI}.npy": _array(goal)},
    "encrypted": _with_another,
}
"""By fault: the members of the zip file, from the goals of the tasks and the data folder."""


def _npz(folder: Path, rng: random.Random, home: Path) -> None:
    path = folder / rng.choice(_FILES)
    goal = np.load(path)["goal"]
    how = rng.choice([*MEMBERS])
    members = MEMBERS[how](goal, folder)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if how == "twice":
            archive.writestr("goal.npy", members["goal.npy"])
    if how == "encrypted":
        content = bytearray(path.read_bytes())
        content[6] |= 1
        path.write_bytes(content)
    seal(folder)


def _secret_tasks(folder: Path, rng: random.Random, home: Path) -> None:
    """Links to a secret, without a recorded checksum, and with tasks that nothing is known of."""
    name = rng.choice(_FILES)
    write_record(folder, {**read_record(folder), "files": {}, "tasks": None})
    (folder / name).unlink()
    (folder / name).symlink_to(home / "secret" / rng.choice(["secret.npz", "secret.txt"]))


MUTATIONS: dict[str, Mutation] = {"npz": _npz, "secret-tasks": _secret_tasks}
