"""Runs the console command in a forked child that is watched: what it opens, imports and executes, what it leaves.

A fork of a process that has imported torch already takes milliseconds instead of seconds, so hundreds of faults fit
into minutes. The child's file operations are counted by an audit hook (PEP 578), which also makes the faults: a fault
comes before the k-th operation, never after a time. The parent must not use torch itself, because a fork has no
threads.
"""

import contextlib
import importlib
import mmap
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.harness.leftovers import processes_left, shared_memory, shared_memory_left

for _module in (
    *("ad_model.train", "data_gen.__main__", "data_gen.meta.__main__", "data_gen.scoring.report", "eval.__main__"),
    *("data_gen.exchange.minari_data", "data_gen.exchange.minari_export", "data_gen.exchange.xland", "eval.report"),
    *("publish.data", "publish.model", "torch.utils.tensorboard"),
):
    importlib.import_module(_module)  # what children need is imported already, so that they begin at once

MINARI = "MINARI_DATASETS_PATH"
"""Variable with the folder of Minari's data sets, for `environment`."""

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "fsync"}
_EXECUTES = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
_EXECUTES |= {"socket.connect", "urllib.Request", "ctypes.dlopen"}
_ALLOWED = {"git", None, "concurrent.futures.process"}
"""The version of the repository is asked of git, a program's own symbols are looked up by `dlopen(None)`, and workers
send their results as pickles."""


@dataclass(frozen=True)
class Fault:
    """An event before a file operation of the child.

    Args:
        at: number of the operation, from 1, among those that change something below `below`.
        happens: called just before it. It may raise OSError, as a full disk does, or send a signal.
        repeats: whether it happens before every later operation, too.
    """

    at: int
    happens: Callable[[], None]
    repeats: bool = False


@dataclass(frozen=True)
class Result:
    """How the child ended and what it did."""

    code: int
    """Exit code; minus the number of the signal that ended it."""
    output: str
    errors: str
    seconds: float
    peak_bytes: int
    """Growth of the child's memory over that of the parent, at its peak."""
    operations: int
    """File operations that changed something below `below`."""
    executed: list[str] = field(default_factory=list)
    """Audit events that run code or reach another machine, with their arguments."""
    imported: list[str] = field(default_factory=list)
    """Python files that ran from places outside the interpreter and the repository, and libraries opened there."""
    opened: list[str] = field(default_factory=list)
    """Files that were opened below one of the `forbidden` folders."""
    left: list[str] = field(default_factory=list)
    """Processes of the child's session, and shared memory, that outlived it."""

    @property
    def error_lines(self) -> list[str]:
        """The lines of standard error that are not progress."""
        return [line for line in self.errors.replace("\r", "\n").splitlines() if line.startswith("error: ")]

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.errors + self.output


def watched(
    words: Sequence[str],
    folder: Path,
    *,
    below: Path | None = None,
    fault: Fault | None = None,
    forbidden: Sequence[Path] = (),
    seconds: float = 300.0,
    call: Callable[[], int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Runs `icrl WORDS` in a forked child, and waits for it and for all that it started.

    Args:
        words: arguments of the console command.
        folder: the working directory.
        below: operations are counted that change something below this folder; all of them by default.
        fault: what happens at one of them.
        forbidden: folders that nothing may be opened in.
        seconds: the child is killed after this time (its code is then -9, its `seconds` at least this).
        call: runs in the child in place of the console command, and returns its exit code.
        environment: variables that the child has, and this process does not.
    """
    shared_before = shared_memory()
    counter = mmap.mmap(-1, 8)
    place = Path(tempfile.mkdtemp(prefix="watched-"))
    try:
        started, grown = time.monotonic(), _resident_bytes()
        child = os.fork()
        if child == 0:
            _child(words, folder, place, below, fault, forbidden, counter, call, environment)
        code, peak = _wait(child, started + seconds)
        took = time.monotonic() - started
        events = (place / "events").read_text(errors="replace").splitlines() if (place / "events").exists() else []
        sorted_events: dict[str, list[str]] = {"executed": [], "imported": [], "opened": []}
        for event in events:
            kind, _, text = event.partition(" ")
            sorted_events[kind].append(text)
        return Result(
            code,
            (place / "output").read_text(errors="replace"),
            (place / "errors").read_text(errors="replace"),
            took,
            max(peak - grown, 0),
            int.from_bytes(counter[:8], "little"),
            left=[*processes_left(child), *shared_memory_left(shared_before)],
            **sorted_events,
        )
    finally:
        counter.close()
        shutil.rmtree(place, ignore_errors=True)


def _child(
    words: Sequence[str],
    folder: Path,
    place: Path,
    below: Path | None,
    fault: Fault | None,
    forbidden: Sequence[Path],
    counter: mmap.mmap,
    call: Callable[[], int] | None,
    environment: Mapping[str, str] | None,
) -> None:
    """The forked child; never returns."""
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for descriptor, name in ((1, "output"), (2, "errors")):
            opened = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        # The streams of the parent may be pipes of pytest; these are the descriptors from above.
        sys.stdout, sys.stderr = (
            open(descriptor, "w", buffering=1, encoding="utf-8", closefd=False) for descriptor in (1, 2)
        )
        os.chdir(folder)
        os.environ.update(environment or {})
        main = sys.modules["__main__"]  # processes that are spawned would import the harness otherwise
        main.__spec__ = None
        if hasattr(main, "__file__"):
            del main.__file__
        _install(place, below, fault, forbidden, counter)
        from icrl.cli import main as console

        code = call() if call is not None else console(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            import multiprocessing.util

            multiprocessing.util._exit_function()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _install(
    place: Path, below: Path | None, fault: Fault | None, forbidden: Sequence[Path], counter: mmap.mmap
) -> None:
    """Installs the audit hook, which cannot be removed again."""
    events = os.open(place / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    inside = None if below is None else os.path.realpath(below)
    kept_out = tuple(os.path.realpath(path) + os.sep for path in forbidden)
    repository = os.path.realpath(ROOT) + os.sep
    trusted = tuple({os.path.realpath(path) + os.sep for path in (sys.prefix, sys.base_prefix, repository)})
    process, fsync, busy = os.getpid(), os.fsync, False

    def note(kind: str, text: str) -> None:
        os.write(events, f"{kind} {text[:500]!r}\n".encode())

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal busy
        if busy or os.getpid() != process:
            return
        if event in _EXECUTES:
            if args[0] not in _ALLOWED:
                busy = True
                note("executed", f"{event} {args}")
                busy = False
            return
        if event == "exec":  # the body of a module, too
            name = getattr(args[0], "co_filename", "<")
            if not name.startswith(("<", *trusted)) and not os.path.realpath(name).startswith(trusted):
                note("imported", name)
            return
        if event == "open":
            path, _, flags = args
            if not isinstance(path, str | bytes | os.PathLike):
                return
            busy = True
            real = os.path.realpath(os.fsdecode(path))
            if kept_out and real.startswith(kept_out):
                note("opened", real)
            if real.endswith(".so") and not real.startswith(trusted):
                note("imported", real)
            busy = False
            if not int(flags) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):  # type: ignore[call-overload]
                return
        elif event in _CHANGES:
            real = os.path.realpath(os.fsdecode(args[0])) if args and isinstance(args[0], str | bytes | Path) else ""
            if event in ("os.remove", "os.rmdir", "os.mkdir") and len(args) > 1 and args[-1] != -1:
                real = ""  # relative to an open folder, as in shutil.rmtree
        else:
            return
        if inside is not None and real and not (real + os.sep).startswith(inside + os.sep):
            return
        number = int.from_bytes(counter[:8], "little") + 1
        counter[:8] = number.to_bytes(8, "little")
        if fault is not None and (number == fault.at or (fault.repeats and number > fault.at)):
            busy = True
            try:
                fault.happens()
            finally:
                busy = False

    def counted_fsync(descriptor: int) -> None:
        hook("fsync", ())
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(hook)


def _wait(child: int, deadline: float) -> tuple[int, int]:
    """(exit code, peak of resident bytes) of the child."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.005)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
