"""A training with two processes, one of which is killed by progress."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.faults.harness.neighbours.commands import broken_results
from tests.faults.harness.stages import reference
from tests.faults.harness.startup import variables_that_run
from tests.faults.harness.watched import Result, watched

RANKS = [(1, 12), (1, 30), (0, 8), (0, 24)]
"""(rank of the process that is killed, the first process's file operation that it is killed before)."""
NAMES = [f"{rank}:{at}" for rank, at in RANKS]

_DIES = """
import os, signal, sys
_left, _pids = int(os.environ["DIES_AT"]), os.environ["DIES_PIDS"]

def _hook(event, args):
    global _left
    writes = event == "open" and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event == "os.rename") and os.path.abspath(str(args[0])).startswith(os.environ["DIES_BELOW"]):
        _left -= 1
        if _left == 0:
            with open(os.path.join(_pids, os.environ["DIES_RANK"])) as file:
                os.kill(int(file.read()), signal.SIGKILL)

if "RANK" in os.environ:
    with open(os.path.join(_pids, os.environ["RANK"]), "w") as file:
        file.write(str(os.getpid()))
if os.environ.get("RANK") == "0":  # the first process writes most files, so it tells how far the training is
    sys.addaudithook(_hook)
"""
"""Code of every process: it tells its number, and the first process kills the one of rank DIES_RANK."""


def expected(home: Path) -> dict[str, Any]:
    """The results of such a training without a fault."""
    return reference(home, "two-ranks", "generate", lambda folder, fault: launched(folder, {}))


def attempt(home: Path, folder: Path, rank: str, at: str) -> tuple[str, dict[str, str]]:
    """Kills a process, and trains again."""
    work = folder / "work"
    shutil.copytree(home / "generate", work)
    site = folder / "site"
    dies = variables_that_run(_DIES, folder, DIES_RANK=rank, DIES_AT=at, DIES_BELOW=work, DIES_PIDS=site)
    killed = launched(work, dies)
    result = launched(work, {})
    seen = {
        "exit code": "the launch ended with code 0" if killed.code == 0 else "",
        "orphan": "; ".join([*killed.left, *result.left]),
        "failed restart": result.errors[-1000:] if result.code else "",
        **broken_results(expected(home)["agreed"], work),
    }
    return "continued", {promise: what for promise, what in seen.items() if what}


def launched(work: Path, environment: dict[str, str]) -> Result:
    """Trains with two processes on the CPU."""
    config = ROOT / "configs/accelerate/multi_cpu.yaml"
    words = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    words += ["-m", "ad_model.train", "--config", "tiny.yaml"]

    def call() -> int:
        os.execv(sys.executable, [sys.executable, *words])

    return watched(words, work, call=call, environment={"PYTHONPATH": str(ROOT), **environment})
