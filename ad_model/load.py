"""A trained transformer from a folder or from the hub, loaded without running the code that lies beside its weights."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging

from ad_model import ADModel  # which registers it with transformers
from ad_model.model_files import checked_config, no_larger_than, stored_shapes, weight_files
from icrl.run.checkpoints import checkpoint_steps, last_checkpoint
from icrl.run.folder import CHECKSUMS, MODEL, RunFolder
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
        place: a model folder, a checkpoint, a run folder (its last checkpoint), or a repository of the hub,
            `USER/NAME[@REVISION]`.
        device: the device to load the model on; by default the first accelerator, or the CPU.
        trust_remote_code: use the model code that lies beside the weights, instead of this project's own class.

    Raises UserError if the model is missing or damaged.
    """
    path = given_model(str(place), trust_remote_code)
    check_device(device)
    where = torch.device(device or (torch.accelerator.current_accelerator() or "cpu"))
    check_checksums(path)
    verbosity = logging.get_verbosity()
    try:
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # what it would report becomes one line below
        if trust_remote_code:
            options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
            loaded = cast(Any, _own_class(path)).from_pretrained(path, output_loading_info=True, **options)
        else:
            files = weight_files(path)
            config, shapes = checked_config(path), stored_shapes(files)
            with no_larger_than(shapes):  # transformers gets the values, and never the folder
                weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
                loaded = ADModel.from_pretrained(None, config=config, state_dict=weights, output_loading_info=True)
        model, loading = cast(Any, loaded)
        wrong = [*loading["missing_keys"], *loading["unexpected_keys"], *loading["mismatched_keys"]]
        if wrong:
            raise ValueError(f"the weights do not match the config, see {wrong[0]}")
        for name, parameter in model.named_parameters():
            if not parameter.isfinite().all():
                raise ValueError(f"the weights {name} are not finite")
        placed: ADModel = model.to(where)
        return placed
    except UserError:
        raise
    except Exception as error:  # transformers and its backbones may raise anything
        raise UserError(f"{path}: cannot load the model: {' '.join(str(error).split())[:300]}") from error
    finally:
        logging.set_verbosity(verbosity)


def write_checksums(path: Path) -> None:
    """Writes the checksums of the weights and the config in the model folder `path` beside them."""
    kept = {name: value for name, value in checksums(path).items() if name.endswith((".json", ".safetensors"))}
    write_record(path / CHECKSUMS, Checksums(files=kept))


def check_checksums(path: Path) -> None:
    """Raises UserError if a file of the model folder `path` differs from its checksum, or is missing or no weights."""
    weight_files(path)
    if (path / CHECKSUMS).exists():
        check_files(path, read_record(path / CHECKSUMS, Checksums, _AGAIN).files, _AGAIN)


def given_model(place: str, with_code: bool = False, key: str = "evaluation.checkpoint") -> Path:
    """The model folder at `place`: the folder itself, the one in a checkpoint or in a run's last one, or from the hub.

    From a repository, only config and weights are fetched: no pickles, and no code unless `with_code`. Raises
    UserError, which begins with `key`, if the model is missing.
    """
    given = Path(place)
    if given.is_dir():
        checkpoints = RunFolder(given).checkpoints
        if not (given / "config.json").exists() and checkpoint_steps(checkpoints):
            given = last_checkpoint(checkpoints)
        return given / MODEL if (given / MODEL).is_dir() else given
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UserError(f"{key}: {place}: this folder does not exist")
    try:
        remote = snapshot(repository(place, "model", key))
        wanted = [
            "config.json",
            CHECKSUMS,
            "*.safetensors",
            "model.safetensors.index.json",
            *(["*.py"] if with_code else []),
        ]
        return fetch(remote, remote.matching(wanted))
    except UserError as error:
        raise UserError(f"{key}: {place} is neither a folder nor a model on the hub: {error}") from error


def _own_class(path: Path) -> type:
    """The class that a model's own code defines; `AutoModel` would prefer this project's registered class.

    Raises KeyError if config.json does not name a class.
    """
    return cast(
        type, get_class_from_dynamic_module(read_json(path / "config.json", _AGAIN)["auto_map"]["AutoModel"], str(path))
    )
