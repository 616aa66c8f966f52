"""Folders of checkpoints, each complete or absent: `step-000600/`, complete when its record is there.

The record, `training.json`, says which config the checkpoint belongs to. The transformer's training and meta-training
keep their checkpoints in the same way.
"""

import re
import shutil
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from icrl.run.folder import RECORD
from icrl.run.records import Record, read_record
from icrl.support.errors import UserError
from icrl.support.files import TEMPORARY_SUFFIX


class CheckpointRecord(Record):
    """What every checkpoint says of itself."""

    step: int
    """Updates, or iterations of meta-training, that are done."""
    fingerprint: str
    """Of the training that it belongs to."""
    seconds: float
    made_with: dict[str, str] = {}


class TrainingRecord(CheckpointRecord):
    """A checkpoint of the transformer's training."""

    data: str | None = None
    """Identity of the data that it was trained on."""
    parameters: int = 0
    processes: int = 1
    loss: float | None = None
    """Mean loss of the last updates, in nats per action."""


class MetaTrainingRecord(CheckpointRecord):
    """A checkpoint of a meta-learner."""

    environment_steps: int
    """Steps of meta-training so far."""
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
    """The folder of the checkpoint of `step`, whether it exists or not."""
    return folder / f"step-{step:06d}"


def last_checkpoint(folder: Path, verb: str = "train") -> Path:
    """The newest complete checkpoint. Raises UserError if there is none; `verb` would make one."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{folder}: there is no complete checkpoint; run `icrl {verb}` with this config first")
    return checkpoint_path(folder, steps[-1])


def checkpoint_record(path: Path, kind: type[Kind]) -> Kind:
    """The record of a checkpoint. Raises UserError if it cannot be read."""
    return read_record(path / RECORD, kind)


def delete_checkpoint(path: Path) -> None:
    """Deletes a checkpoint under a temporary name: one that a kill leaves half deleted must not pass for complete."""
    if path.exists():
        going = path.with_name(f".{path.name}.deleted{TEMPORARY_SUFFIX}")
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
        shutil.rmtree(going)


def keep_last_checkpoints(folder: Path, keep: int) -> None:
    """Deletes all complete checkpoints but the last `keep`."""
    for old in checkpoint_steps(folder)[:-keep]:
        delete_checkpoint(checkpoint_path(folder, old))
