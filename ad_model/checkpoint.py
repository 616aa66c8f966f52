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

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from ad_model.load import write_checksums
from ad_model.objectives.base import Objective
from ad_model.windows import Batch
from icrl.run.checkpoints import TrainingRecord, checkpoint_path
from icrl.run.folder import MODEL, RECORD
from icrl.run.records import write_record
from icrl.support.errors import UserError
from icrl.support.files import TEMPORARY_SUFFIX, checksums, remove, sync

_COMPILED = "_orig_mod."  # torch.compile puts this before the names of weights


def plain_weights(accelerator: Accelerator, model: Any) -> dict[str, Any]:
    """The whole weights under the model's own names; every process calls it. Under FSDP, only the first has them."""
    return {name.replace(_COMPILED, ""): tensor for name, tensor in accelerator.get_state_dict(model).items()}


def check_finite(
    accelerator: Accelerator, model: Any, optimizer: Any, objective: Objective, batch: Batch, done: int
) -> None:
    """Raises UserError if a checkpoint after `done` updates would not be finite. Every process calls it.

    Weights may be finite and still too large for any use, so the loss of one more batch is computed with them.
    """
    bare: Any = accelerator.unwrap_model(model, keep_torch_compile=False)  # without gradients it would compile again
    with torch.no_grad(), accelerator.autocast():
        loss = objective.loss(bare, batch["tokens"], batch["columns"])
    moments = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    bad = torch.zeros(3, device=accelerator.device)
    for number, tensors in enumerate(([loss], [*model.parameters()], moments)):
        for tensor in tensors:
            own = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a part of it under FSDP
            bad[number] += (~torch.isfinite(own)).any().to(bad)
    found: Any = accelerator.reduce(bad, reduction="sum")
    names = [
        name for name, count in zip(("loss", "weights", "optimiser's state"), found.tolist(), strict=True) if count
    ]
    if names:
        raise UserError(
            f"training diverged: the {' and the '.join(names)} after update {done} would not be finite; lower "
            "training.learning_rate"
        )


def save_checkpoint(accelerator: Accelerator, model: Any, folder: Path, record: TrainingRecord) -> Path:
    """Saves the full training state. Every process calls it.

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
        weights = plain_weights(accelerator, model)
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
