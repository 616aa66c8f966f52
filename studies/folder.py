"""The folder of a study: what was asked, its runs, its tables, and the locks with which processes wait for one another.

study.yaml            what was asked, sealed with a checksum
runs/NAME/            one run folder per run, as `icrl run` makes them, and in it
    study.json        the run's cell, seeds and state
    output.txt        what the run printed
runs.parquet          a row per run
figures.parquet       a row per figure, run, agent, split and scale, and the rows over all seeds of a cell
report.html           tables, curves, and the figures over the axes
tables.json           the checksums of these three, written last
"""

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from icrl.run.folder import RunFolder, locked, write_sealed
from icrl.run.records import Record, read_record, write_record
from icrl.support.errors import UserError
from icrl.support.files import remove
from icrl.support.yaml12 import write_yaml
from studies.cells import Run
from studies.reading import STUDY_FILE, Asked

RUN_RECORD, OUTPUT = "study.json", "output.txt"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_AGAIN = "delete it, and run the study again"


@dataclass(frozen=True)
class StudyFolder:
    """Paths inside one study's folder."""

    path: Path

    @property
    def study(self) -> Path:
        """The study as it was asked for."""
        return self.path / STUDY_FILE

    @property
    def runs(self) -> Path:
        """The run folders."""
        return self.path / "runs"

    @property
    def run_table(self) -> Path:
        """The table of runs."""
        return self.path / "runs.parquet"

    @property
    def figure_table(self) -> Path:
        """The table of figures."""
        return self.path / "figures.parquet"

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / "report.html"

    @property
    def tables_record(self) -> Path:
        """The checksums of the tables and the report, written last."""
        return self.path / "tables.json"

    @property
    def locks(self) -> Path:
        """The files that are locked while one process makes what several need."""
        return self.path / ".locks"

    def run(self, name: str) -> RunFolder:
        """The run folder of this name."""
        return RunFolder(self.runs / name)

    def remove_runs(self) -> None:
        """Deletes all runs and tables. Raises UserError if another process is at work on one of the runs."""
        for path in (self.tables_record, self.report, self.figure_table, self.run_table):
            remove(path)
        for path in sorted(self.runs.glob("*/")):
            with locked(RunFolder(path)):
                remove(path)


class RunRecord(Record):
    """`study.json` in a run folder."""

    study: str
    """Name of the study."""
    cell: str
    """Name of the cell."""
    settings: dict[str, Any]
    """The value on every axis."""
    seeds: dict[str, int]
    """The seeds that the study sets."""
    state: Literal["running", "complete", "failed"]
    fingerprint: str
    """Fingerprint of the run's evaluation."""
    seconds: float = 0.0
    """Wall time of all finished attempts."""
    problem: str = ""
    """The error of the last attempt, in one line."""
    linked: list[str] = []
    """The things that were linked from another run instead of made again: data, meta-learners, cache, training."""


def read_run_record(folder: RunFolder) -> RunRecord | None:
    """The record of a run; None if the run has not begun. Raises UserError if it is damaged."""
    path = folder.path / RUN_RECORD
    return read_record(path, RunRecord, _AGAIN) if path.exists() else None


def write_run_record(folder: RunFolder, record: RunRecord) -> None:
    """Writes the record of a run, whole or not at all."""
    write_record(folder.path / RUN_RECORD, record)


def new_record(run: Run, study: str, fingerprint: str) -> RunRecord:
    """The record of a run that begins."""
    return RunRecord(
        study=study,
        cell=run.cell.name,
        settings=run.cell.settings,
        seeds=run.seeds,
        state="running",
        fingerprint=fingerprint,
    )


def write_study(folder: StudyFolder, asked: Asked) -> None:
    """Writes what was asked."""
    write_sealed(folder.study, write_yaml(asked.values))


@contextlib.contextmanager
def turn(folder: StudyFolder, what: str) -> Iterator[None]:
    """Waits until no other process of the study is at work on `what`, and keeps others waiting for the block.

    The operating system ends the turn of a process that is killed. Where the file system has no locks, nobody waits:
    two processes may then make the same thing, each in its own run folder.
    """
    path = folder.locks / what
    try:
        folder.locks.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from error
    with open(descriptor, "w"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(f"{path} cannot be locked: {error.strerror}") from error
            print(f"warning: {path}: its file system has no locks: runs may make the same data twice", file=sys.stderr)
        yield
