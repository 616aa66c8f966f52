"""Kills programs by their progress, so that no test depends on the speed of the machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
import os, signal
os.environ.setdefault("KILLED_MAIN", str(os.getpid()))
_left, _fsync = int(os.environ["KILLED_AT"]), os.fsync

def fsync(descriptor):
    global _left
    _left -= 1
    if _left == 0:
        main, by = int(os.environ["KILLED_MAIN"]), int(os.environ["KILLED_BY"])
        (os.killpg if by == signal.SIGINT else os.kill)(main, by)
    _fsync(descriptor)

os.fsync = fsync
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell, and their tests, ignore it
"""


def killed_at(
    number: int,
    words: Sequence[str],
    folder: Path,
    places: Sequence[Path],
    by: signal.Signals = signal.SIGKILL,
    **environment: str,
) -> subprocess.CompletedProcess:
    """Runs Python with `words`; once one of its processes syncs a file for the `number`-th time, the signal `by` comes.

    Everything that is written here is synced before it is renamed, so the number of synced files is the progress. The
    signal goes to the first process, and SIGINT to all of them, as from a terminal. The call returns when all of its
    children have ended, too.

    Args:
        number: counts from 1, in every process.
        words: arguments of the interpreter.
        folder: the working directory.
        places: directories to import from.
        by: the signal.
        environment: further variables.
    """
    site = folder / "killing"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_PROGRAM)
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, (site, *places))),
        "KILLED_AT": str(number),
        "KILLED_BY": str(int(by)),
    }
    return subprocess.run(  # the children have its output open, so this waits for them
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **variables, **environment},
        capture_output=True,
        text=True,
        start_new_session=True,
    )
