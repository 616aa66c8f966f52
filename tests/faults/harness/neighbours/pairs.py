"""Two commands at once: the second starts and ends while the first waits before one of its file operations."""

import os
import pickle
import shutil
import time
from pathlib import Path

from tests.faults.harness.neighbours.commands import COMMANDS, broken_answer, broken_results, expected
from tests.faults.harness.stages import run
from tests.faults.harness.watched import Fault, Result

READERS = {
    "info": ["info", "runs/tiny"],
    "push": ["push", "data", "runs/tiny", "--repo", "me/tiny", "--dry-run"],
}
"""Commands that only read: they work beside any other, or say in one line what is not there yet."""

PAIRS = [
    *(("generate", second) for second in ("generate", "generate-overwrite", "run", "info")),
    *(("train", second) for second in ("train", "train-overwrite", "generate-overwrite", "push")),
    *(("evaluate", second) for second in ("evaluate", "train-overwrite", "run-overwrite", "info")),
    *(("run", second) for second in ("run", "evaluate")),
]
"""Commands that run at once, first and second."""
NAMES = [f"{first}:{second}:{share}" for share in (3, 8) for first, second in PAIRS]


def attempt(home: Path, folder: Path, first: str, second: str, share: str) -> tuple[str, dict[str, str]]:
    """Pauses the first command at `share` tenths of its operations, runs the second, and lets the first go on."""
    reference, (start, words) = expected(home, first), COMMANDS[first]
    work = folder / "work"
    shutil.copytree(home / start, work)
    paused, go, answer = folder / "paused", folder / "go", folder / "answer"

    def pause() -> None:
        paused.touch()
        while not go.exists():
            time.sleep(0.01)

    at = max(4, reference["operations"] * int(share) // 10)
    helper = os.fork()
    if helper == 0:
        try:
            answer.write_bytes(pickle.dumps(run(words, work, Fault(at, pause))))
        finally:
            os._exit(0)
    while not paused.exists() and not answer.exists():
        time.sleep(0.01)
    other = run(READERS[second] if second in READERS else COMMANDS[second][1], work)
    go.touch()
    os.waitpid(helper, 0)
    result: Result = pickle.loads(answer.read_bytes())
    allowed = ((0, 1, 2), "") if second in READERS else ((1,), "in use by another process")
    broken = broken_answer(other, *allowed) | broken_answer(result, (0,))
    return "refused" if other.code else "read", broken | broken_results(reference["agreed"], work)
