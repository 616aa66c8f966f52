"""Commands that are given hostile data or a hostile model: what they must not do."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from icrl.config.loader import dump, validate
from tests.conftest import ROOT, TINY
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.payloads import MARK, SECRET, SECRET_NUMBER, set_traps
from tests.faults.harness.promises import broken_lines, broken_promises, described
from tests.faults.harness.watched import Result, watched

MOST_SECONDS = 30.0
"""Longest time until a hostile folder is refused."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def make_run(home: Path, verb: str) -> None:
    """Runs a tiny experiment: the config `home/made.yaml`, the run folder `home/runs/made`."""
    config = validate({**TINY, "name": "made", "output": str(home / "runs")})
    (home / "made.yaml").write_text(dump(config))
    made = watched([verb, "made.yaml"], home)
    assert made.code == 0, made.errors


def given_to(
    kind: str,
    case: str,
    words: list[str],
    folder: Path,
    home: Path,
    must_refuse: bool,
    call: Callable[[], int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs the command in `folder` and judges what it did.

    Args:
        kind, case: of the outcome.
        words: the command; `call` in its place, if given.
        folder: holds what is hostile. It is the working directory, which is also searched for modules.
        home: holds the secrets.
        must_refuse: whether going on would change a result, or would have read something else.
        call, environment: as in `watched`.
    """
    set_traps(folder)
    theirs = set(folder.rglob("*"))
    places = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), **(environment or {})}
    result = watched(
        words, folder, forbidden=[home / "secret"], seconds=MOST_SECONDS + 15, call=call, environment=places
    )
    broken = broken_promises(result, seconds=MOST_SECONDS) | broken_lines(result) | _let_in(result, folder, theirs)
    if must_refuse and result.code == 0:
        broken["silent"] = "it was not refused"
    ending = {0: "harmless", 1: "refused", 2: "refused"}.get(result.code, f"code {result.code}")
    return Outcome(kind, case, ending, tuple(broken), detail=f"{broken}\nicrl {' '.join(words)}\n{described(result)}")


def _let_in(result: Result, folder: Path, theirs: set[Path]) -> dict[str, str]:
    """The promises about what is hostile that a command broke; `theirs` are the files that it was given."""
    seen = {
        "outside": "; ".join(result.opened),
        "leftover": "; ".join(str(path) for path in folder.rglob(".*.tmp") if path not in theirs),
        "control characters": "; ".join(map(ascii, _CONTROL.findall(result.output + result.errors))),
    }
    if marks := [str(path) for path in folder.rglob(MARK) if path not in theirs]:
        seen["executed"] = "; ".join(marks)
    if SECRET in result.output + result.errors or _leaked(folder, theirs):
        seen["outside"] += " the secret"
    return {promise: what for promise, what in seen.items() if what}


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
