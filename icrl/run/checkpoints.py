"""Checkpoint folders such as `step-000600/`, each complete or absent. A folder is complete once its record exists.

The record, `training.json`, states which config the checkpoint belongs to. The transformer's training and meta-training
store their checkpoints in the same way.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from icrl.run.folder import RECORD
from icrl.run.records import Record, read_record
from icrl.support.errors import UserError
from icrl.support.files import check_files, remove


class ValidationRecord(Record):
    """The result of validation with the weights of a checkpoint."""

    settings: str
    """Fingerprint of the tasks, seeds and lengths; only scores of the same settings are compared."""
    score: float
    """Return in the last episodes on validation tasks, normalised if every task has a scale."""


class CheckpointRecord(Record):
    """The record of any checkpoint."""

    step: int
    """Updates so far, or iterations of meta-training so far."""
    fingerprint: str
    """Fingerprint of the training that the checkpoint belongs to."""
    seconds: float
    made_with: dict[str, str] = {}
    validation: ValidationRecord | None = None
    """None if the weights were not validated."""
    files: dict[str, str] = {}
    """SHA-256 of every other file of the checkpoint, by its path; empty in checkpoints of earlier versions."""


class Stretch(Record):
    """A part of a training, which began with one number of updates as its goal."""

    first: int
    """Updates before this part."""
    steps: int
    """`training.steps` of this part."""


class TrainingRecord(CheckpointRecord):
    """The record of a checkpoint of the transformer's training."""

    stretches: list[Stretch] = []
    """The parts of the training: one, and one more for each time that a finished training was given more updates. Empty
    in checkpoints of earlier versions."""
    stopped: str | None = None
    """Why the training stopped before its last update; None if it did not."""
    initial: str | None = None
    """Fingerprint of the weights that training started from (`training.initial`); None if they were random."""

    data: str | None = None
    """Identity of the training data."""
    parameters: int = 0
    processes: int = 1
    loss: float | None = None
    """Mean loss of the last updates, in nats per action."""
    unlogged: list[float] = []
    """Losses since the last line of the log, for its next one."""


class MetaTrainingRecord(CheckpointRecord):
    """The record of a checkpoint of meta-training."""

    environment_steps: int
    """Environment steps of meta-training so far."""
    mean_return: Annotated[float | None, Field(alias="return")] = None
    """Mean return of the last iteration, as the learner reports it."""
    agent: dict[str, Any] = {}
    tasks: dict[str, Any] = {}


Kind = TypeVar("Kind", bound=CheckpointRecord)


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in `folder`, in order."""
    names = [re.fullmatch(r"step-(\d+)", path.parent.name) for path in folder.glob(f"step-*/{RECORD}")]
    return sorted(int(name.group(1)) for name in names if name)


def checkpoint_path(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of `step`, whether or not the folder exists."""
    return folder / f"step-{step:06d}"


def last_checkpoint(folder: Path, verb: str = "train") -> Path:
    """The newest complete checkpoint. Raises UserError, which suggests running `verb`, if none exists."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{folder}: has no complete checkpoint; run `icrl {verb}` with this config first")
    return checkpoint_path(folder, steps[-1])


def checkpoint_record(path: Path, kind: type[Kind]) -> Kind:
    """The record of a checkpoint. Raises UserError if it cannot be read."""
    return read_record(path / RECORD, kind, _remedy(path))


def intact_record(path: Path, kind: type[Kind]) -> Kind:
    """The record of a checkpoint, after every file of the checkpoint is verified. Raises UserError."""
    record = checkpoint_record(path, kind)
    check_files(path, record.files, _remedy(path))
    return record


def _remedy(path: Path) -> str:
    return f"delete {path} to resume from an older checkpoint, or to start again"


def best_checkpoint(folder: Path, settings: str | None = None) -> Path | None:
    """The checkpoint with the highest score in validation, the first of several; None if none was validated.

    Args:
        folder: the folder of the checkpoints.
        settings: fingerprint of the validation, since scores of different validations are not compared; by default,
            that of the newest checkpoint that was validated.

    Raises UserError if a record cannot be read.
    """
    validations = {
        step: checkpoint_record(checkpoint_path(folder, step), CheckpointRecord).validation
        for step in checkpoint_steps(folder)
    }
    known = {step: validation for step, validation in validations.items() if validation is not None}
    if not known:
        return None
    settings = settings or known[max(known)].settings
    scores = {step: validation.score for step, validation in known.items() if validation.settings == settings}
    return checkpoint_path(folder, max(scores, key=lambda step: scores[step])) if scores else None


def best_line(path: Path, unit: str) -> str:
    """The best checkpoint as a few words for people; `unit` is the unit of its step."""
    record = checkpoint_record(path, CheckpointRecord)
    score = "?" if record.validation is None else f"{record.validation.score:.2f}"
    return f"best on validation tasks: {score} in the last episodes, after {unit} {record.step}"


def keep_last_checkpoints(folder: Path, keep: int, spared: Collection[Path | None] = ()) -> None:
    """Deletes all complete checkpoints but the last `keep` and those that are `spared`."""
    for old in checkpoint_steps(folder)[:-keep]:
        if checkpoint_path(folder, old) not in spared:
            remove(checkpoint_path(folder, old))
