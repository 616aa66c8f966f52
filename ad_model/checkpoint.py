"""Checkpoints of training, each complete or absent: written under a temporary name, synced, then renamed.

`step-000600/` holds accelerate's full training state, `model/` for `from_pretrained`, and `training.json`, the record
of the config and the data that the checkpoint belongs to. (Accelerate's automatic naming is not used: it deletes old
checkpoints before the new one is written, and never checks that a checkpoint is complete.)
"""

import contextlib
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from ad_model.load import write_checksums
from icrl.run.checkpoints import (
    TrainingRecord,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    intact_record,
    keep_last_checkpoints,
)
from icrl.run.folder import MODEL, RECORD, stale
from icrl.run.records import write_record
from icrl.support.errors import UserError
from icrl.support.files import TEMPORARY_SUFFIX, checksums, remove, sync

_COMPILED = "_orig_mod."  # torch.compile puts this before the names of weights


def resume_step(folder: Path, fingerprint: str, data: str) -> int:
    """The update to resume from; 0 without a checkpoint.

    Raises UserError if the last checkpoint belongs to another config or to other data, or is damaged.
    """
    steps = checkpoint_steps(folder)
    if not steps:
        return 0
    path = checkpoint_path(folder, steps[-1])
    record = checkpoint_record(path, TrainingRecord)
    if (record.fingerprint, record.data) != (fingerprint, data):
        raise stale(path)
    intact_record(path, TrainingRecord)
    return steps[-1]


def save_checkpoint(accelerator: Accelerator, model: Any, folder: Path, record: TrainingRecord, keep: int) -> Path:
    """Saves the full training state, then deletes all checkpoints but the last `keep`. Every process calls it.

    Raises UserError if the checkpoint cannot be written; the earlier checkpoints then remain.
    """
    path = checkpoint_path(folder, record.step)
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        # Every process writes its part of the state under the temporary name.
        if accelerator.is_main_process:
            remove(temporary)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(temporary))
        weights = {name.replace(_COMPILED, ""): tensor for name, tensor in accelerator.get_state_dict(model).items()}
        # The record comes last, then the name: only now is the checkpoint complete.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            accelerator.unwrap_model(model).save_pretrained(temporary / MODEL, state_dict=weights)
            write_checksums(temporary / MODEL)
            write_record(temporary / RECORD, record.model_copy(update={"files": checksums(temporary)}))
            for file in temporary.rglob("*"):
                sync(file)
            remove(path)
            temporary.rename(path)
            sync(folder)
            keep_last_checkpoints(folder, keep)
        accelerator.wait_for_everyone()
    except (OSError, RuntimeError, SafetensorError) as error:
        with contextlib.suppress(UserError):
            remove(temporary)
        why = " ".join(str(error).split())[:300]
        free = shutil.disk_usage(folder).free // 2**20
        raise UserError(f"cannot write the checkpoint {path}: {why} ({free} MiB free on that disk)") from error
    return path


def load_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Restores the full training state; every process calls it. Raises UserError if the checkpoint is damaged."""
    path = checkpoint_path(folder, step)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's about a pickle that it then refuses
            accelerator.load_state(str(path))
    except (
        *(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError),
        *(EOFError, pickle.UnpicklingError, SafetensorError),
    ) as error:  # of a checkpoint without checksums, or in place of its files
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: the checkpoint is damaged ({why}); delete this folder to resume from an older one"
        ) from error
