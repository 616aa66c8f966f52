"""Tries faults of every kind and writes what became of them.

    python -m tests.faults.harness                                  # all of it, half an hour on two cores
    python -m tests.faults.harness --kinds kills --number 40        # 40 cases of one kind
    python -m tests.faults.harness --kinds kills --case CASE        # one case again, with its details

An interrupted run is continued: cases in OUTPUT/outcomes.jsonl are not tried again. The table is written to
OUTPUT/table.md, and the exit code is 1 if a promise did not hold.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tests.faults.harness.outcomes import add_outcome, read_outcomes, table

for _name, _value in {"OMP_NUM_THREADS": "1", "MKL_CBWR": "AUTO,STRICT", "HF_HUB_OFFLINE": "1"}.items():
    os.environ.setdefault(_name, _value)  # before torch is imported: forked children have no threads to share

KINDS = (
    "kills",
    "full_disks",
    "damaged_files",
    "flips",
    "hostile_data",
    "hostile_models",
    "neighbours",
    "configs",
    "parameters",
)
"""Modules and packages with `NUMBER`, `prepare(home)`, `cases(home, number)` and `attempt(home, case, folder)`."""


def module_of(kind: str) -> ModuleType:
    """The module of a kind of faults."""
    return importlib.import_module(f"tests.faults.harness.{kind}")


def main() -> int:
    """Runs the harness; each of its processes takes every n-th case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--number", type=int, help="cases of each kind; the default is each kind's own")
    parser.add_argument("--case", help="tries only this case, and prints its outcome")
    parser.add_argument("--output", type=Path, default=Path("runs/faults"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)  # this process's number
    given = parser.parse_args()
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    log = output / "outcomes.jsonl"
    if given.case is not None:
        [kind] = given.kinds
        home = prepared(kind, output)
        with tempfile.TemporaryDirectory(dir=output) as folder:
            print(module_of(kind).attempt(home, given.case, Path(folder)))
        return 0
    if given.part is not None:
        for kind in given.kinds:
            try_part(kind, output, log, given)
        return 0
    if given.processes == 1:  # this one
        given.part = 0
        for kind in given.kinds:
            try_part(kind, output, log, given)
    for kind in given.kinds:
        prepared(kind, output)
    parts = (
        []
        if given.processes == 1
        else [
            subprocess.Popen([sys.executable, "-m", "tests.faults.harness", *sys.argv[1:], "--part", str(part)])
            for part in range(given.processes)
        ]
    )
    codes = [part.wait() for part in parts]
    outcomes = [outcome for outcome in read_outcomes(log) if outcome.kind in given.kinds]
    outcomes.sort(key=lambda outcome: KINDS.index(outcome.kind))
    text = table(outcomes)
    (output / "table.md").write_text(text)
    print(text)
    bad = [outcome for outcome in outcomes if outcome.broken]
    for outcome in bad:
        print(f"--- {outcome.kind} {outcome.case}: {', '.join(outcome.broken)}\n{outcome.detail}")
    return 1 if bad or any(codes) else 0


def prepared(kind: str, output: Path) -> Path:
    """The folder with what a kind's cases start from, such as finished runs; made once."""
    home = output / kind
    if not (home / "prepared").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        module_of(kind).prepare(home)
        (home / "prepared").touch()
    return home


def try_part(kind: str, output: Path, log: Path, given: argparse.Namespace) -> None:
    """Tries this process's share of the cases of a kind, without those that the log already has."""
    home, module = prepared(kind, output), module_of(kind)
    done = {outcome.case for outcome in read_outcomes(log) if outcome.kind == kind}
    cases = module.cases(home, module.NUMBER if given.number is None else given.number)
    for number, case in enumerate(cases[given.part :: given.processes]):
        if case in done:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=output, ignore_cleanup_errors=True) as folder:
            outcome = module.attempt(home, case, Path(folder))
        add_outcome(log, replace(outcome, seconds=time.monotonic() - started))
        if outcome.broken or number % 50 == 0:
            print(f"{kind} {case}: {outcome.ending} {' '.join(outcome.broken)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
