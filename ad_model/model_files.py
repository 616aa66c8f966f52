"""A model folder from anywhere, checked before transformers sees any of it.

transformers follows what `config.json` and the files beside it name: other folders and repositories, code, attention
kernels, quantizers, adapters. And it builds a model of any size before it looks at the weights. So only the keys below
are taken from the config, only safetensors are read, and a model that is larger than its weights is not built.
"""

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, PositiveFloat, field_validator
from safetensors import safe_open
from torch.nn.modules import module as hooks
from transformers import CONFIG_MAPPING

from ad_model.configuration_ad import ADConfig
from data_gen.spaces import check_json
from data_gen.storage.info import Moments
from icrl.run.folder import CHECKSUMS
from icrl.run.records import Record, checked_record
from icrl.support.errors import UserError, shown
from icrl.support.files import check_name, leads_out, open_file, read_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

_OWN_CODE = {"AutoConfig": "configuration_ad.ADConfig", "AutoModel": "modeling_ad.ADModel"}
_WORD = re.compile(r"[\w.+ -]{0,64}")
_LARGEST_NUMBER = 2**32
_MOST_LAYERS = 1000  # as in the schema; other things that come in numbers are bounded by the number of weights
_MOST_HEADS = 64
_MOST_ITEMS = 2**16
_SLACK = 2**24
"""Numbers that a model may have beside its stored weights: tables of positions, masks."""

Outputs = Annotated[int, Field(ge=1, le=2**20)]


class ModelRecord(Record):
    """The keys that are taken from a model's `config.json`; everything else in the file is ignored."""

    model_config = ConfigDict(extra="ignore")

    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    context_length: Annotated[int, Field(ge=1, le=_LARGEST_NUMBER)] = 100
    action_bins: Annotated[int, Field(ge=2, le=2**16)] = 32
    reward_scale: Annotated[PositiveFloat, Field(allow_inf_nan=False)] = 1.0
    observation_statistics: dict[str, Moments] = {}
    backbone: dict[str, Any] = {"model_type": "llama"}
    heads: dict[str, Outputs] = {}
    training_tasks: Any = None
    dtype: Annotated[str, Field(pattern="^(float16|bfloat16|float32|float64)$")] | None = None

    @field_validator("observation_space", "action_space")
    @classmethod
    def _is_space(cls, space: dict[str, Any]) -> dict[str, Any]:
        check_json(space)
        return space

    @field_validator("backbone")
    @classmethod
    def _is_plain_backbone(cls, backbone: dict[str, Any]) -> dict[str, Any]:
        return _known(backbone)

    @field_validator("heads")
    @classmethod
    def _are_names(cls, heads: dict[str, int]) -> dict[str, int]:
        if len(heads) > _MOST_HEADS:
            raise ValueError(f"has {len(heads):,} heads, the limit is {_MOST_HEADS}")
        for name in heads:
            if not name.isidentifier() or hasattr(torch.nn.ModuleDict, name):
                raise ValueError(f"{shown(name)} is not a name of a head")
        return heads


def checked_config(path: Path) -> ADConfig:
    """The config of the model folder `path`. Raises UserError if the config is not one of this project."""
    content = read_json(path / CONFIG)
    if not isinstance(content, dict) or content.get("model_type") != ADConfig.model_type:
        raise UserError(f"{path}: cannot load the model: {CONFIG} is not of a model of this project")
    if _attention_elsewhere(content):
        raise UserError(f"{path}: not loaded: {CONFIG} asks for attention code from elsewhere")
    if "quantization_config" in content:
        raise UserError(f"{path}: not loaded: quantized weights are not supported")
    content = {"dtype": content.get("torch_dtype"), **content}
    try:
        record = checked_record(content, ModelRecord, path / CONFIG)
        return ADConfig(**record.model_dump(exclude_unset=True))
    except UserError:
        raise
    except Exception as error:  # a backbone's config may raise anything
        raise UserError(f"{path}: cannot load the model: {' '.join(str(error).split())[:300]}") from error


def check_own_code(path: Path) -> None:
    """Raises UserError if the model's config names code that is not this project's, which a push would pass on."""
    content = read_json(path / CONFIG)
    named = content.get("auto_map", {}) if isinstance(content, dict) else None
    if not isinstance(named, dict) or any(_OWN_CODE.get(kind) != code for kind, code in named.items()):
        raise UserError(f"{path / CONFIG}: auto_map names code from elsewhere ({shown(named)}), so it is not pushed")


def weight_files(path: Path) -> list[Path]:
    """The files of the weights in the model folder `path`. Raises UserError if they are missing or not safetensors.

    Nothing is read but their headers.
    """
    names = [WEIGHTS]
    for name in (CONFIG, CHECKSUMS, INDEX, WEIGHTS):
        _check_inside(path, name)
    if not (path / WEIGHTS).exists() and (path / INDEX).exists():
        index = read_json(path / INDEX)
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
            raise UserError(f"{path / INDEX}: does not say where the weights are")
        names = sorted({*places.values()})
    for name in names:
        check_name(name, path / INDEX)
        _check_inside(path, name)
        if not name.endswith(".safetensors") or not (path / name).exists():
            raise UserError(f"{path}: has no safetensors weights ({shown(name)}); other formats are not read")
        stored_shapes([path / name])
    return [path / name for name in names]


def stored_shapes(files: list[Path]) -> dict[str, list[int]]:
    """The shapes of all tensors in safetensors files, from their headers. Raises UserError for a damaged file."""
    shapes: dict[str, list[int]] = {}
    for file in files:
        try:
            open_file(file).close()
            with safe_open(file, "pt") as opened:
                shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors' own, OSError, and what strange headers bring about
            why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            raise UserError(f"{file}: cannot load the model: the weights are damaged ({why})") from error
    return shapes


@contextlib.contextmanager
def no_larger_than(shapes: Mapping[str, list[int]]) -> Iterator[None]:
    """In this context, a model with far more modules or numbers than the weights `shapes` raises ValueError.

    transformers builds models without memory for their numbers first, so nothing has been allocated by then.
    """
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    left = {"modules": 1000 + 32 * len(shapes), "numbers": _SLACK + 2 * numbers}

    def registered(_: Any, name: str, part: Any) -> None:
        kind, size = ("numbers", part.numel()) if isinstance(part, torch.Tensor) else ("modules", 1)
        left[kind] -= size
        if left[kind] < 0:
            raise ValueError(f"config.json describes a model of more {kind} than its weights have, at {name}")

    handles = [
        hooks.register_module_module_registration_hook(registered),
        hooks.register_module_parameter_registration_hook(registered),
        hooks.register_module_buffer_registration_hook(registered),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_inside(path: Path, name: str) -> None:
    if leads_out(path / name, path):
        raise UserError(f"{path / name}: is a link to another folder, which is not followed")


def _known(backbone: dict[str, Any]) -> dict[str, Any]:
    """The keys of a backbone's config that its class knows. Raises ValueError for values that are not plain."""
    kind = backbone.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING or kind == ADConfig.model_type:
        raise ValueError(f"{shown(kind)} is not a backbone of transformers")
    config_class = CONFIG_MAPPING[kind]
    known = set(inspect.signature(config_class.__init__).parameters) | set(config_class().to_dict())
    kept = {key: value for key, value in backbone.items() if key in known or key in config_class.attribute_map}
    for key, value in kept.items():
        if not _is_plain(value) or (isinstance(value, str) and "backbone" in key):
            raise ValueError(f"{key} {shown(value)} is not a plain value")
        if "layer" in key and isinstance(value, int) and value > _MOST_LAYERS:
            raise ValueError(f"{key} {value} is above the limit of {_MOST_LAYERS}")
    return {**kept, "model_type": kind}


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, bool | float) or value is None:
        return True
    if isinstance(value, int):
        return abs(value) <= _LARGEST_NUMBER
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if depth > 3 or not isinstance(value, list | dict) or len(value) > _MOST_ITEMS:
        return False
    if isinstance(value, dict):
        return all(_is_plain(part, depth + 1) for part in (*value.keys(), *value.values()))
    return all(_is_plain(part, depth + 1) for part in value)


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
