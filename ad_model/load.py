"""A trained transformer from a folder or from the hub, loaded without running the code that lies beside its weights."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging

from ad_model import ADModel  # which registers it with transformers
from icrl.run.folder import CHECKSUMS, MODEL
from icrl.run.records import Record, read_record, write_record
from icrl.support.device import check_device
from icrl.support.errors import UserError
from icrl.support.files import check_files, checksums, read_json
from icrl.support.hub import fetch, repository, snapshot

_AGAIN = "use another checkpoint, or train again"


class Checksums(Record):
    """`checksums.json` of a model folder; model folders of earlier versions have none."""

    files: dict[str, str]
    """SHA-256 of every other file of the folder, by its name."""


def load_model(place: Path | str, device: str | None = None, trust_remote_code: bool = False) -> ADModel:
    """A trained transformer, ready to act.

    Args:
        place: a model folder, a checkpoint, or a repository of the hub, `USER/NAME[@REVISION]`.
        device: the device to load the model on; by default the first accelerator, or the CPU.
        trust_remote_code: use the model code that lies beside the weights, instead of this project's own class.

    Raises UserError if the model is missing or damaged.
    """
    path = given_model(str(place), trust_remote_code)
    check_device(device)
    where = torch.device(device or (torch.accelerator.current_accelerator() or "cpu"))
    check_checksums(path)
    if (
        not trust_remote_code
        and (path / "config.json").exists()
        and _attention_elsewhere(read_json(path / "config.json", _AGAIN))
    ):
        raise UserError(f"{path}: not loaded: config.json asks for attention code from elsewhere")
    try:
        logging.disable_progress_bar()
        kind: Any = _own_class(path) if trust_remote_code else ADModel
        loaded: Any = kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
        model, loading = loaded
        wrong = [*loading["missing_keys"], *loading["unexpected_keys"], *loading["mismatched_keys"]]
        if wrong:
            raise ValueError(f"the weights do not match the config, see {wrong[0]}")
        placed: ADModel = model.to(where)
        return placed
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise UserError(f"{path}: cannot load the model: {' '.join(str(error).split())[:300]}") from error


def write_checksums(path: Path) -> None:
    """Writes the checksums of the weights and the config in the model folder `path` beside them."""
    kept = {name: value for name, value in checksums(path).items() if name.endswith((".json", ".safetensors"))}
    write_record(path / CHECKSUMS, Checksums(files=kept))


def check_checksums(path: Path) -> None:
    """Raises UserError if a file of the model folder `path` differs from its checksum, or is missing."""
    if (path / CHECKSUMS).exists():
        check_files(path, read_record(path / CHECKSUMS, Checksums, _AGAIN).files, _AGAIN)


def given_model(place: str, with_code: bool = False) -> Path:
    """The model folder at `place`: the folder itself, the one in a checkpoint, or one fetched from the hub.

    From a repository, only config and weights are fetched: no pickles, and no code unless `with_code`. Raises UserError
    if the model is missing.
    """
    given = Path(place)
    if given.is_dir():
        return given / MODEL if (given / MODEL).is_dir() else given
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UserError(f"evaluation.checkpoint: {place}: this folder does not exist")
    try:
        remote = snapshot(repository(place, "model", "evaluation.checkpoint"))
        wanted = [
            "config.json",
            CHECKSUMS,
            "*.safetensors",
            "model.safetensors.index.json",
            *(["*.py"] if with_code else []),
        ]
        return fetch(remote, remote.matching(wanted))
    except UserError as error:
        raise UserError(
            f"evaluation.checkpoint: {place} is neither a folder nor a model on the hub: {error}"
        ) from error


def _attention_elsewhere(value: Any) -> bool:
    """True if a model's config asks for attention code that transformers would fetch from elsewhere and run."""
    if isinstance(value, list):
        return any(map(_attention_elsewhere, value))
    if not isinstance(value, dict):
        return False
    return any(
        _attention_elsewhere(part) or ("attn_implementation" in key and not _own_attention(part))
        for key, part in value.items()
    )


def _own_attention(value: Any) -> bool:
    return isinstance(value, dict) or value in (None, "eager", "sdpa", "flex_attention")


def _own_class(path: Path) -> type:
    """The class that a model's own code defines; `AutoModel` would prefer this project's registered class.

    Raises KeyError if config.json does not name a class.
    """
    return cast(
        type, get_class_from_dynamic_module(read_json(path / "config.json", _AGAIN)["auto_map"]["AutoModel"], str(path))
    )
