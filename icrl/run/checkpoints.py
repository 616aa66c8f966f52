"""Folders of checkpoints, each complete or absent: `step-000600/`, complete when its record is there.

The record, `training.json`, says which config the checkpoint belongs to. The transformer's training and meta-training
keep theirs in the same way.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from icrl.run.folder import SCHEMA_VERSION
from icrl.support.errors import UserError
from icrl.support.files import TEMPORARY_SUFFIX, read_record

RECORD = "training.json"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in `folder`, in order."""
    names = [re.fullmatch(r"step-(\d+)", path.parent.name) for path in folder.glob(f"step-*/{RECORD}")]
    return sorted(int(name.group(1)) for name in names if name)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies, or would lie."""
    return folder / f"step-{step:06d}"


def last_checkpoint(folder: Path, verb: str = "train") -> Path:
    """The newest complete checkpoint. Raises UserError if there is none; `verb` would make one."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{folder}: there is no complete checkpoint; run `icrl {verb}` with this config first")
    return checkpoint_path(folder, steps[-1])


def checkpoint_record(path: Path) -> dict[str, Any]:
    """What `training.json` says: `step`, `fingerprint` and what training reported. Raises UserError if unreadable."""
    return read_record(path / RECORD, SCHEMA_VERSION, ("step", "fingerprint", "seconds"))


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
