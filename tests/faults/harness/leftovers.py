"""Leftovers of a child process: processes of its session that run on, and shared memory that nobody uses."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_PATIENCE = 20.0  # seconds that a leftover may take to go away by itself


def processes_left(session: int) -> list[str]:
    """The command lines of a session's processes that run on, after a while; they are killed."""
    deadline = time.monotonic() + _PATIENCE
    while left := list(_processes(session)):
        if time.monotonic() > deadline:
            names = []
            for process in left:
                with contextlib.suppress(OSError):
                    names.append(Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")[:200])
                    os.kill(process, signal.SIGKILL)
            return names
        time.sleep(0.02)
    return []


def shared_memory() -> set[str]:
    """The names of the semaphores and of the shared memory of this machine."""
    return {path.name for path in _SHARED_MEMORY.iterdir()} if _SHARED_MEMORY.exists() else set()


def shared_memory_left(before: set[str]) -> list[str]:
    """Semaphores and shared memory that are new, that no living process uses, and that stay."""
    new, deadline = shared_memory() - before, time.monotonic() + _PATIENCE
    while new and time.monotonic() < deadline:
        time.sleep(0.02)
        new = (new & shared_memory()) - _shared_memory_in_use()
    return sorted(new)


def _processes(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    yield int(entry.name)


def _shared_memory_in_use() -> set[str]:
    """Names that living processes have mapped: those of other programs, since the child's processes have ended."""
    names = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            lines = maps.read_text(errors="replace").splitlines()
            names |= {line.rpartition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line}
    return names
