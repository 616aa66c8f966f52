"""A command in a folder that may not be written to, and the same command when it may."""

import ctypes
import os
import shutil
import struct
from pathlib import Path

from tests.faults.harness.neighbours.commands import COMMANDS, broken_answer, broken_results, expected, only_added
from tests.faults.harness.stages import run
from tests.faults.harness.uninterrupted import contents, differences
from tests.faults.harness.watched import watched

FOLDERS = {
    "parent": ("run", "runs"),
    "run": ("evaluate", "runs/tiny"),
    "run-again": ("run-again", "runs/tiny"),
    "data": ("generate", "runs/tiny/data"),
    "checkpoints": ("train", "runs/tiny/checkpoints"),
    "last-checkpoint": ("train-overwrite", "runs/tiny/checkpoints/step-000006"),
    "report": ("evaluate", "runs/tiny/report"),
    "eval": ("evaluate-overwrite", "runs/tiny/eval"),
}
"""By name: the command, and the folder that nothing may be written to."""
NAMES = [*FOLDERS]


def attempt(home: Path, folder: Path, name: str) -> tuple[str, dict[str, str]]:
    """Runs the command without the right to write, and then with it."""
    command, place = FOLDERS[name]
    (start, words), work = COMMANDS[command], folder / "work"
    shutil.copytree(home / start, work)
    (work / place).mkdir(parents=True, exist_ok=True)
    (work / place).chmod(0o555)
    before = contents(work)

    def call() -> int:
        _bound_by_modes()
        from icrl.cli import main

        return main(list(words))

    result = watched(words, work, call=call)
    broken = broken_answer(result, (0, 1))
    if (
        result.code
        and "--overwrite" not in words
        and (changed := differences(before, contents(work)))
        and not only_added(changed)
    ):
        broken["lost"] = "; ".join(changed[:5])
    for path, _, _ in os.walk(work):
        Path(path).chmod(0o755)
    broken |= broken_answer(run(words, work), (0,)) | broken_results(expected(home, command)["agreed"], work)
    return "refused" if result.code else "done", broken


def _bound_by_modes() -> None:
    """From now on, file modes bind this process even if it is root's."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    sets = ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    values = list(struct.unpack("6I", sets.raw))
    for index in (0, 1):  # effective, permitted
        values[index] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *values))) == 0
