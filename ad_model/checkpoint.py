"""Checkpoints that are complete or absent: written under a temporary name, synced, renamed.

`step-000600/` holds accelerate's full training state, `model/` for `from_pretrained`, and `training.json`, which says
which config it belongs to. (Accelerate's automatic naming deletes old checkpoints before the new one is written and
never checks that one is complete.)
"""

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from configs.errors import UserError
from configs.files import TEMPORARY_SUFFIX, read_record, sync, write_json
from configs.run_folder import SCHEMA_VERSION, stale

_RECORD = "training.json"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in `folder`, in order."""
    names = [re.fullmatch(r"step-(\d+)", path.parent.name) for path in folder.glob(f"step-*/{_RECORD}")]
    return sorted(int(name.group(1)) for name in names if name)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies, or would lie."""
    return folder / f"step-{step:06d}"


def last_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint. Raises UserError if there is none."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{folder}: there is no complete checkpoint; run `icrl train` with this config first")
    return checkpoint_path(folder, steps[-1])


def checkpoint_record(path: Path) -> dict[str, Any]:
    """What `training.json` says: `step`, `fingerprint` and what training reported. Raises UserError if unreadable."""
    return read_record(path / _RECORD, SCHEMA_VERSION, ("step", "fingerprint", "data", "parameters", "seconds", "loss"))


def resume_step(folder: Path, fingerprint: str, data: str) -> int:
    """The step to go on from, 0 without a checkpoint. Raises UserError if one is of another config or data."""
    steps = checkpoint_steps(folder)
    if not steps:
        return 0
    record = checkpoint_record(checkpoint_path(folder, steps[-1]))
    if (record["fingerprint"], record["data"]) != (fingerprint, data):
        raise stale(checkpoint_path(folder, steps[-1]))
    return steps[-1]


def save_checkpoint(
    accelerator: Accelerator, model: Any, folder: Path, step: int, keep: int, record: dict[str, Any]
) -> Path:
    """Saves the full training state; called by every process. Older checkpoints but the last `keep` are then deleted.

    Raises UserError if the disk refuses; the earlier checkpoints are still there then.
    """
    path = checkpoint_path(folder, step)
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(temporary))
        weights = accelerator.get_state_dict(model)
        if accelerator.is_main_process:
            accelerator.unwrap_model(model).save_pretrained(temporary / "model", state_dict=weights)
            write_json(temporary / _RECORD, {"schema_version": SCHEMA_VERSION, "step": step, **record})
            for file in temporary.rglob("*"):
                sync(file)
            _delete(path)
            temporary.rename(path)
            sync(folder)
            for old in checkpoint_steps(folder)[:-keep]:
                _delete(checkpoint_path(folder, old))
        accelerator.wait_for_everyone()
    except (OSError, RuntimeError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        why = " ".join(str(error).split())[:300]
        free = shutil.disk_usage(folder).free // 2**20
        raise UserError(f"cannot write the checkpoint {path}: {why} ({free} MiB free on that disk)") from error
    return path


def _delete(path: Path) -> None:
    """Deletes a checkpoint under a temporary name: one that a kill leaves half deleted must not pass for complete."""
    if path.exists():
        going = path.with_name(f".{path.name}.deleted{TEMPORARY_SUFFIX}")
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
        shutil.rmtree(going)


def load_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Restores the full training state; called by every process. Raises UserError if the checkpoint is damaged."""
    path = checkpoint_path(folder, step)
    try:
        accelerator.load_state(str(path))
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: the checkpoint is damaged ({why}); delete it to go on from an older one") from error
