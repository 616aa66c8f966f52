"""Payloads of hostile folders: a secret, traps for code, texts and values, and things in the place of a file."""

import os
import random
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SECRET = "CANARY-5b1e9f2c7a"
"""Text of the secret files. It must never be printed or written."""
SECRET_NUMBER = 0.8642
"""Every reward in the secret shard; it must not appear in anything that is written, either."""

MARK = "executed"
"""Name of the file that anything leaves that should not have run."""

ANSI, RIGHT_TO_LEFT = "\x1b]0;owned\x07\x1b[2J", "\u202eevil\u202c"
TEXTS = [
    *(ANSI, RIGHT_TO_LEFT, "a\nerror: all is well", "\0", "\ud800", "x" * 10**6, "", ".", "../../secret/secret.txt"),
    *("/etc/passwd", "trap_module:Family", "file:///etc/passwd", "https://127.0.0.1:9/x", "C:\\x", "~/x", "<script>"),
    *("{0.__class__}", "%s%n", "$(touch executed)", "nul", "*", "[a-z]*"),
]
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**63, -(2**63) - 1, 10**30, 10**400, 10**4000, 1e308, 5e-324, float("nan"), float("inf")),
    *([], {}, [[]], {"": None}, [None], [0] * 10**5, {"name": "trap_module:Family"}, {"name": {"name": "x"}}),
    *({"call": "trap_module:load", "seeds": 2}, {"call": "torch.hub:load", "repo_or_dir": ".", "source": "local"}),
    *TEXTS,
]
"""Replacements for a value of any JSON file."""

_TRAP = """
from pathlib import Path
Path({mark!r}).write_text("ran")
def load(*_, **__):
    return 0
class Family:
    pass
"""

INSTEAD = ("fifo", "zero", "secret", "loop", "folder", "huge", "socket", "empty", "noise")
"""Things that may stand in the place of a file."""


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def make_secrets(home: Path) -> None:
    """Files that nothing may be read from, in `home/secret`."""
    secret = home / "secret"
    secret.mkdir()
    for name in ("secret.txt", "secret.yaml", "config.yaml"):
        (secret / name).write_text(f"password: {SECRET}\n")
    (secret / "secret.json").write_text(f'{{"auths": "{SECRET}"}}')
    np.savez(secret / "secret.npz", goal=np.full((12, 2), 3), secret=np.frombuffer(SECRET.encode(), np.uint8))
    with h5py.File(secret / "secret.h5", "w") as file:
        file["reward"] = np.full((32, 144), SECRET_NUMBER, np.float32)
        file["secret"] = np.frombuffer(SECRET.encode(), np.uint8)


def set_traps(folder: Path) -> None:
    """Modules in `folder` that must not be imported: each of them leaves the mark."""
    for name in ("trap_module", "hubconf", "modeling_trap", "configuration_trap"):
        (folder / f"{name}.py").write_text(_TRAP.format(mark=str(folder / MARK)))


def replaced(values: Any, rng: random.Random, at: tuple[str, ...] = ()) -> Any:
    """Plain values with one of them, at any depth (or below the keys `at`), replaced by a hostile one."""
    if at and isinstance(values, dict) and at[0] in values:
        return {**values, at[0]: replaced(values[at[0]], rng, at[1:])}
    if isinstance(values, dict) and values and (at or rng.random() < 0.85):
        key = rng.choice(sorted(values))
        if rng.random() < 0.1:
            return {**values, rng.choice(TEXTS): rng.choice(VALUES)}
        if rng.random() < 0.1:
            return {other: value for other, value in values.items() if other != key}
        return {**values, key: replaced(values[key], rng)}
    if isinstance(values, list) and values and rng.random() < 0.7:
        index = rng.randrange(len(values))
        return [*values[:index], replaced(values[index], rng), *values[index + 1 :]]
    return rng.choice(VALUES)


def sparse(path: Path, size: int) -> None:
    """A file that claims `size` bytes and takes none."""
    with open(path, "wb") as file:
        file.truncate(size)


def replace_file(path: Path, how: str, home: Path) -> None:
    """Puts something else than a file in the place of a file."""
    path.unlink(missing_ok=True)
    secret = home / "secret"
    match how:
        case "fifo":
            os.mkfifo(path)
        case "zero":
            path.symlink_to("/dev/zero")
        case "secret":
            suffix = path.suffix if (secret / f"secret{path.suffix}").exists() else ".txt"
            path.symlink_to(secret / f"secret{suffix}")
        case "loop":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()
            (path / "x").write_text("x")
        case "huge":
            sparse(path, 2**36)
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        case "empty":
            path.touch()
        case "noise":
            path.write_bytes(random.Random(0).randbytes(5000))
        case _:
            raise ValueError(how)
