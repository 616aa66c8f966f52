"""The parts that hostile data and hostile models share: a secret, a trap, payloads, and the promises."""

import os
import random
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.watched import Result, watched

SECRET = "CANARY-5b1e9f2c7a"
"""Text of the secret files. It must never be printed or written."""
SECRET_NUMBER = 0.8642
"""Every reward in the secret shard; it must not appear in anything that is written, either."""
MOST_BYTES = 2**30
MOST_SECONDS = 30.0

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
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NOISE = re.compile(r"^\s*$|%\||\d+it |\[\d\d:\d\d|^warning: |^(usage|icrl )")
"""Lines on standard error that are not about the problem: progress bars."""


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


def set_traps(folder: Path, mark: Path) -> None:
    """Modules that must not be imported, in a working directory that is also searched for modules."""
    for name in ("trap_module", "hubconf", "modeling_trap", "configuration_trap"):
        (folder / f"{name}.py").write_text(_TRAP.format(mark=str(mark)))
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), str(folder)])


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


def attempt_words(
    kind: str,
    case: str,
    words: list[str],
    folder: Path,
    home: Path,
    must_refuse: bool,
    call: Callable[[], int] | None = None,
) -> Outcome:
    """Runs the command in `folder` and judges what it did."""
    mark = folder / "executed"
    set_traps(folder, mark)
    theirs = set(folder.rglob("*"))
    result = watched(words, folder, forbidden=[home / "secret"], seconds=MOST_SECONDS + 15, call=call)
    broken = judged(result, folder, theirs, mark)
    if must_refuse and result.code == 0:
        broken.append("silent")
    sys.path.remove(str(folder))
    ending = {0: "harmless", 1: "refused", 2: "refused"}.get(result.code, f"code {result.code}")
    detail = (
        f"icrl {' '.join(words)}\n{result.seconds:.1f} s, {result.peak_bytes / 2**20:.0f} MiB, code {result.code}\n"
    )
    detail += f"{result.executed} {result.imported} {result.opened} {result.left}\n"
    detail += f"{result.output[-1500:]!r}\n{result.errors[-3000:]}"
    return Outcome(kind, case, ending, tuple(broken), detail=detail)


def judged(result: Result, folder: Path, theirs: set[Path], mark: Path) -> list[str]:
    """The promises that did not hold."""
    broken = []
    if result.code not in (0, 1, 2):
        broken.append("exit code")
    if result.has_traceback:
        broken.append("traceback")
    if result.executed or result.imported or mark.exists():
        broken.append("executed")
    if result.opened or SECRET in result.output + result.errors or _leaked(folder, theirs):
        broken.append("outside")
    if result.peak_bytes > MOST_BYTES:
        broken.append("memory")
    if result.seconds > MOST_SECONDS:
        broken.append("time")
    if result.left:
        broken.append("orphan")
    if [path for path in folder.rglob(".*.tmp") if path not in theirs]:
        broken.append("leftover")
    if _CONTROL.search(result.output + result.errors):
        broken.append("control characters")
    lines = [line for line in re.split("[\r\n]", result.errors) if not _NOISE.search(line)]
    wrong = [line for line in lines if not line.startswith("error: ") or len(line) > 4000]
    if wrong or (result.code not in (0, 2) and len(lines) != 1) or (result.code == 2 and not lines):
        broken.append("many lines")
    return broken


def _leaked(folder: Path, theirs: set[Path]) -> bool:
    """True if a file that the command wrote holds the secret."""
    for path in folder.rglob("*"):
        if path in theirs or path.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
            continue
        if SECRET.encode() in path.read_bytes():
            return True
        if path.suffix in (".h5", ".hdf5"):
            with h5py.File(path) as file:
                rewards = file["reward"][()] if "reward" in file else np.zeros(1)
            if np.isclose(rewards, SECRET_NUMBER).any():
                return True
    return False


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


INSTEAD = ("fifo", "zero", "secret", "loop", "folder", "huge", "socket", "empty", "noise")
"""Things that may stand in the place of a file."""
