"""SIGKILL, SIGTERM and SIGINT before the k-th file operation of every command, each followed by the same command again.

After a kill, what was complete must still be there and intact. After the restart, the folder must equal that of an
uninterrupted run, bit by bit, with nothing left over.

A case is `SCENARIO:SIGNAL:OPERATION:RESTART`.
"""

import os
import random
import shutil
import signal
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness.kills.judging import broken_ending, broken_restart, lost_or_damaged
from tests.faults.harness.kills.scenarios import SCENARIOS, Scenario, expected, make_states
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.stages import progress, run
from tests.faults.harness.startup import variables_that_run
from tests.faults.harness.uninterrupted import contents, differences
from tests.faults.harness.watched import Fault, Result

NUMBER = 340

_SYNCS_OF_A_WORKER = 4
"""One of two workers makes at least two of three shards, and syncs a file and a folder for each."""

_FILL = ("kill", "terminate", "kill", "interrupt")
"""Signals in turn: half of the cases are SIGKILL."""
_SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
_RESTARTS = ("again", "again", "twice", "overwrite", "thrice")
"""The command that follows a kill: the same again; killed once or twice more before; or with `--overwrite`."""

_DIES = """
import multiprocessing, os, signal
_left, _fsync = int(os.environ["DIES_AT"]), os.fsync

def fsync(descriptor):
    global _left
    _left -= 1
    if _left == 0 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    _fsync(descriptor)

os.fsync = fsync
"""
"""Code with which a worker kills itself when it syncs a file for the DIES_AT-th time."""


def prepare(home: Path) -> None:
    """Makes the states that cases start from, and runs every command twice without a fault."""
    make_states(home)
    for name in SCENARIOS:
        expected(home, name)


def cases(home: Path, number: int) -> list[str]:
    """Names such as `train:terminate:37:again`, with the kills spread evenly over every command's operations."""
    names = []
    total = sum(scenario.weight for scenario in SCENARIOS.values())
    for name, scenario in SCENARIOS.items():
        operations = _SYNCS_OF_A_WORKER if scenario.worker else expected(home, name)["operations"]
        count = min(max(1, round(number * scenario.weight / total)), operations)
        rng = random.Random(zlib.crc32(f"{name} {number}".encode()))
        for index in range(count):
            at = 1 + int((index + rng.random()) * operations / count)
            by = "kill" if scenario.worker else _FILL[(index + zlib.crc32(name.encode())) % len(_FILL)]
            restart = _RESTARTS[rng.randrange(len(_RESTARTS))]
            if restart == "overwrite" and "--overwrite" not in scenario.words:
                restart = "again"
            names.append(f"{name}:{by}:{at}:{restart}")
    return names


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Kills the command, checks what is left, and starts it again."""
    name, by, at, restart = case.split(":")
    scenario, reference = SCENARIOS[name], expected(home, name)
    work = folder / "work"
    shutil.copytree(home / scenario.start, work)
    broken: dict[str, str] = {}
    rng = random.Random(zlib.crc32(case.encode()))
    again = [word for word in scenario.words if word != "--overwrite"]
    # The kills.
    words, number, ending = scenario.words, int(at), "continued"
    reached = reference["progress"][number - 1] if not scenario.worker else {}
    for _ in range({"twice": 2, "thrice": 3}.get(restart, 1)):
        fault = None if scenario.worker else Fault(number, _happens(by, scenario.group))
        dies = variables_that_run(_DIES, folder, DIES_AT=number) if scenario.worker else None
        result = run(words, work, fault, dies)
        if _is_stale(scenario, result):  # what is left is still of the config before
            words, ending = scenario.words, "refused, overwritten"
            continue
        if _was_complete(result):
            break
        broken |= broken_ending(result, by, scenario.worker or result.operations >= number, scenario.worker)
        broken |= lost_or_damaged(home / scenario.start, work, reference["agreed"], reached)
        words, reached = again, progress(work)
        if scenario.worker:  # fewer shards are left, so the same progress may not come again
            break
        number = rng.randint(1, max(1, result.operations))
    # The restart.
    result = run(scenario.words if restart == "overwrite" else words, work)
    if _is_stale(scenario, result):
        ending = "refused, overwritten"
        broken |= broken_restart(result, 1)
        result = run(scenario.words, work)
    if _was_complete(result):
        ending = "was complete"
        broken |= broken_restart(result, 1)
    else:
        broken |= broken_restart(result, 0)
    if wrong := differences(reference["agreed"], contents(work)):
        broken["leftover" if all("left over" in line for line in wrong) else "silent"] = "; ".join(wrong[:5])
    return Outcome("kills", case, ending, tuple(broken), detail="\n".join(broken.values()))


def _was_complete(result: Result) -> bool:
    """True if an import or an export was refused because an earlier one is complete."""
    return result.code == 1 and any("already exists" in line for line in result.error_lines)


def _is_stale(scenario: Scenario, result: Result) -> bool:
    """True if the command, without `--overwrite`, found work of another config."""
    named = any("--overwrite" in line for line in result.error_lines)
    return result.code == 1 and named and "--overwrite" in scenario.words


def _happens(by: str, group: bool) -> Callable[[], None]:
    def happens() -> None:
        if group and by != "kill":
            os.killpg(os.getpgrp(), _SIGNALS[by])
        else:
            os.kill(os.getpid(), _SIGNALS[by])

    return happens
