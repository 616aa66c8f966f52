"""A full disk at every write of every stage: one line, nothing lost, and the same command finishes when there is room.

A case is `STAGE HOW NUMBER`. `mount` is a real file system of limited size, with room for NUMBER thousandths of what
the stage adds. `ENOSPC`, `EDQUOT` and `EIO` come after NUMBER thousandths of its file operations, and with `limit` no
file may grow beyond NUMBER KiB, which writes of C libraries meet, too.
"""

import contextlib
import ctypes
import errno
import os
import pickle
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icrl.cli import main
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.promises import broken_lines, broken_promises, described
from tests.faults.harness.tiny_runs import make_states, results, stage_of, words, write_config
from tests.faults.harness.watched import MINARI, Fault, Result, watched

NUMBER = 150

STAGES = {
    "train": ("generated", "train"),
    "generate": ("empty", "generate"),
    "report": ("reporting", "evaluate"),
    "meta-train": ("empty", "meta-train"),
    "resume": ("training", "train"),
    "evaluate": ("evaluation", "evaluate"),
    "run": ("empty", "run"),
    "meta-train-again": ("finished", "meta-train --overwrite"),
    "generate-again": ("finished", "generate --overwrite"),
    "train-again": ("finished", "train --overwrite"),
    "evaluate-again": ("finished", "evaluate --overwrite"),
    "run-again": ("finished", "run --overwrite"),
    "import": ("exported", "import"),
    "import-again": ("imported", "import --overwrite"),
    "export": ("finished", "export"),
}
"""By name, the state that the stage starts from, and its command."""

ERRORS = ("ENOSPC", "EDQUOT", "EIO")
LIMITS_KIB = (16, 24, 32, 48, 64, 128, 160)
_DATA_SET = "tiny/histories-v0"
_NEW_NAMESPACE, _NEW_USER = 0x00020000, 0x10000000
_REMOUNT = 32


def prepare(home: Path) -> None:
    """The states of a run folder; those of imports and exports are made when they are needed."""
    states = home / "states"
    make_states(states)
    (states / "empty/runs").mkdir(parents=True)
    write_config(states / "empty")
    shutil.copytree(states / "training", states / "generated")
    for name in ("checkpoints", "cache", "training_log.jsonl", "logs"):
        path = states / "generated/runs/tiny" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cases(home: Path, number: int) -> list[str]:
    """`number` cases, every stage in turn, each at places that are spread over it."""
    chosen = []
    each = -(-number // len(STAGES))
    for turn in range(each):
        for stage in STAGES:
            how, place = ("mount", ERRORS[turn // 3 % 3], "limit")[turn % 3], int(1000 * (turn + 0.5) / each)
            if how == "limit" and stage in ("generate", "import", "import-again", "export", "meta-train"):
                how = "ENOSPC"  # no file of these is larger than the least limit
            if how == "mount" and stage.endswith("again") and stage != "evaluate-again":
                how = "EDQUOT"  # these delete first, so there is room
            kib = LIMITS_KIB[turn // 3 % len(LIMITS_KIB)]
            chosen.append(f"{stage} {how} {kib if how == 'limit' else place}")
    return [*dict.fromkeys(chosen)][:number]


def made(home: Path, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `home/name`, which `make` fills if it does not exist."""
    folder = home / name
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        make(unfinished)
        with contextlib.suppress(OSError):  # another process of the harness was faster
            unfinished.rename(folder)
    return folder


def state_of(home: Path, state: str) -> Path:
    """The folder that stages of this state start from."""

    def make(folder: Path) -> None:
        shutil.copytree(state_of(home, "finished" if state == "exported" else "exported"), folder)
        _call("export" if state == "exported" else "import", folder)

    return made(home, f"states/{state}", make)


def without_a_fault(home: Path, stage: str) -> tuple[Path, int, int]:
    """The folder after a stage without a fault, the number of its file operations, and the KiB that it added."""
    state, command = STAGES[stage]

    def make(folder: Path) -> None:
        shutil.copytree(state_of(home, state), folder)
        before = _bytes(folder / "runs")
        operations = _call(command, folder).operations
        (folder / "size").write_text(f"{operations} {max(0, _bytes(folder / 'runs') - before) // 1024}")

    folder = made(home, f"without_a_fault/{stage}", make)
    operations, added = map(int, (folder / "size").read_text().split())
    return folder, operations, added


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Runs the stage on a full disk, looks at what it left, and runs it again with room."""
    stage, how, _ = case.split()
    if how != "mount":
        shutil.copytree(state_of(home, STAGES[stage][0]), folder, dirs_exist_ok=True)
        return _tried(home, case, folder, lambda: None)
    without_a_fault(home, stage)
    (folder / "runs").mkdir()
    outcome = _in_new_namespace(lambda: _on_a_small_disk(home, case, folder))
    return Outcome("full_disks", case, f"no mount here: {outcome}") if isinstance(outcome, str) else outcome


def _tried(home: Path, case: str, folder: Path, make_room: Callable[[], None]) -> Outcome:
    """The outcome of a case in `folder`, which holds the state that the stage starts from."""
    stage, how, number = case.split()
    command = STAGES[stage][1]
    whole, operations, _ = without_a_fault(home, stage)
    before, right = _kept(folder), _kept(whole)
    overwritten = [command.split()[0]] if command.endswith("--overwrite") else []
    result = _call(command, folder, how, int(number) if how == "limit" else 1 + operations * int(number) // 1000)
    broken = broken_promises(result, (0, 1)) | broken_lines(result) if result.code else {}
    now = _kept(folder)
    lost = [name for name in before if name not in now and not _is_of(name, overwritten)]
    wrong = [name for name in now if now[name] != right.get(name, now[name])]
    make_room()
    again = _call(command, folder)
    after = _kept(folder)
    complete = now == right and "already exists" in again.errors  # the error came after everything was in place
    if after != right or (again.code and not complete):
        broken["not finished"] = described(again)
    left = [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".sha256"))]
    found = {"lost": lost, "half-written": wrong, "leftover": left}
    broken |= {promise: "; ".join(names) for promise, names in found.items() if names}
    told = [line for line in result.errors.splitlines() if line.startswith("warning: ")]
    ending = ("told, went on" if told else "there was room") if result.code == 0 else "refused, then finished"
    differs = [name for name in {*after, *right} if after.get(name) != right.get(name)]
    seen = f"{broken}\ndiffers {differs}\n{described(result)}" if broken else ""
    return Outcome("full_disks", case, ending, tuple(broken), detail=seen)


def _call(command: str, folder: Path, how: str = "", number: int = 0) -> Result:
    """Runs a stage's command, on a full disk if `how` says so."""
    verb, *rest = command.split()
    if verb == "import":
        given = ["import", "minari", _DATA_SET, "--to", "runs/imported", *rest]
    elif verb == "export":
        given = ["export", "minari", "runs/tiny", "--id", _DATA_SET]
    else:
        given = words(command)
    fault = None
    if how in ERRORS:
        code = getattr(errno, how)

        def happens() -> None:
            raise OSError(code, os.strerror(code))

        fault = Fault(number, happens, repeats=True)

    def call() -> int:
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (number * 1024, resource.RLIM_INFINITY))
        return main(given)

    store = {MINARI: str(folder / "runs/minari")}
    return watched(given, folder, below=folder / "runs", fault=fault, call=call, environment=store)


def _kept(folder: Path) -> dict[str, object]:
    """Everything that is complete in a folder, by name: the results of all stages, and imported data."""
    kept = results(folder)
    imported = folder / "runs/imported"
    for path in sorted(imported.rglob("*")) if (imported / "info.json").exists() else []:
        content = path.read_bytes()
        if path.suffix != ".h5":  # the commit of the repository is in it
            content = re.sub(rb"git [0-9a-f]{40}[a-z-]*|\"(git|checksum)\": .*", b"", content)
        kept[f"imported/{path.name}"] = content
    return kept


def _is_of(name: str, verbs: list[str]) -> bool:
    """True if a file of `_kept` is made by one of the verbs."""
    if "run" in verbs or (name.startswith("imported/") and "import" in verbs):
        return True
    return stage_of(name) in verbs


def _bytes(folder: Path) -> int:
    """Bytes of the files in a folder, in whole pages, as a file system in memory counts them."""
    return sum(4096 * (1 + path.stat().st_size // 4096) for path in folder.rglob("*"))


def _on_a_small_disk(home: Path, case: str, folder: Path) -> Outcome | str:
    """Mounts a small file system at `folder/runs` and tries the case on it; why not, if it cannot be mounted."""
    stage, _, number = case.split()
    state = state_of(home, STAGES[stage][0])
    libc = ctypes.CDLL(None, use_errno=True)
    runs = str(folder / "runs").encode()
    if libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None):  # private: other namespaces do not see it
        return os.strerror(ctypes.get_errno())
    if libc.mount(b"tmpfs", runs, b"tmpfs", 0, b"size=1g"):
        return os.strerror(ctypes.get_errno())
    shutil.copytree(state, folder, dirs_exist_ok=True)
    usage = os.statvfs(folder / "runs")
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize

    def resize(size: int) -> None:
        if libc.mount(b"tmpfs", runs, b"tmpfs", _REMOUNT, f"size={size}".encode()):
            raise OSError(ctypes.get_errno(), "remount")

    resize(used + 1024 * (4 + without_a_fault(home, stage)[2] * int(number) // 1000))
    return _tried(home, case, folder, lambda: resize(2**30))


def _in_new_namespace(call: Callable[[], Any]) -> Any:
    """Calls a function in a child with mounts of its own, and returns its result, or why there are none here."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_NEW_NAMESPACE) and libc.unshare(_NEW_NAMESPACE | _NEW_USER):
                answer: Any = os.strerror(ctypes.get_errno())
            else:
                answer = call()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        with os.fdopen(writable, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    return pickle.loads(content)
