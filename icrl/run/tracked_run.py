"""One run as experiment trackers see it: its name, its files and its id; and the evaluation that they receive."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icrl.config.schema import ExperimentConfig
from icrl.run.folder import run_folder
from icrl.run.records import Record, read_record, write_record


class RunRecord(Record):
    """`run.json`: the run's id, and the evaluations that its trackers have received."""

    id: str
    reported: dict[str, str] = {}
    """By tracker, the SHA-256 of the evaluation summary that it has received."""


@dataclass(frozen=True)
class TrackedRun:
    """One run, as trackers show it."""

    config: ExperimentConfig
    name: str
    kind: str
    logs: Path

    @property
    def id(self) -> str:
        """The id by which trackers find the run again."""
        return self.load_record().id

    def load_record(self) -> RunRecord:
        """The record of the run, created if it does not exist."""
        if not self._record_file.exists():
            write_record(self._record_file, RunRecord(id=secrets.token_hex(4), reported={}))
        return read_record(self._record_file, RunRecord, "delete it, and the trackers begin a new run")

    def remember(self, tracker: str, evaluation: str) -> None:
        """Records that a tracker has received an evaluation."""
        record = self.load_record()
        reported = {**record.reported, tracker: evaluation}
        write_record(self._record_file, record.model_copy(update={"reported": reported}))

    @property
    def config_file(self) -> Path:
        """The resolved config, as the stage wrote it."""
        return run_folder(self.config).config

    @property
    def _record_file(self) -> Path:
        return self.logs / "run.json"


@dataclass(frozen=True)
class Report:
    """An evaluation, in the form that trackers receive."""

    figures: dict[str, float]
    text: str
    summary: Path
    page: Path
    pictures: Sequence[Path]
