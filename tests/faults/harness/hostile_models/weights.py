"""Forged weights of models, `model.safetensors`: tensors, headers, pickles in their place, and indexes of shards."""

import json
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.faults.harness.hostile_models.folder import Mutation
from tests.faults.harness.payloads import MARK, Bomb


def _weights(change: Callable[[dict[str, Any], random.Random], None]) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors, rng)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return mutate


def _nan(tensors: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(sorted(name for name in tensors if tensors[name].dtype == np.float32))
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] = rng.choice([np.nan, np.inf])


def _missing(tensors: dict[str, Any], rng: random.Random) -> None:
    del tensors[rng.choice(sorted(tensors))]


def _more(tensors: dict[str, Any], rng: random.Random) -> None:
    tensors[rng.choice(["more", "__class__", "backbone.layers.99.x", "../x"])] = np.zeros(3, np.float32)


def _other_shape(tensors: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(sorted(tensors))
    tensors[name] = np.zeros((*tensors[name].shape, 2), tensors[name].dtype)


def _other_type(tensors: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(sorted(tensors))
    tensors[name] = tensors[name].astype(rng.choice([np.int64, np.float16, np.bool_, np.uint8]))


def _header(folder: Path, rng: random.Random, home: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = rng.choice(sorted(set(header) - {"__metadata__"}))
    how = rng.choice(["long", "longer", "overlap", "outside", "backwards", "twice", "dtype", "shape", "deep", "name"])
    match how:
        case "overlap":
            other = rng.choice(sorted(set(header) - {"__metadata__"}))
            header[name]["data_offsets"] = header[other]["data_offsets"]
        case "outside":
            header[name]["data_offsets"] = [0, 2**40]
        case "backwards":
            header[name]["data_offsets"] = header[name]["data_offsets"][::-1]
        case "dtype":
            header[name]["dtype"] = rng.choice(["F8_E4M3", "X", 7, None, "trap_module"])
        case "shape":
            header[name]["shape"] = rng.choice([[2**62, 2**62], [-1], [0], ["x"], [10**30]])
        case "name":
            header["\x1b]0;owned\x07"] = header.pop(name)
    text = json.dumps(header)
    if how == "twice":
        text = text[:-1] + f', "{name}": {json.dumps(header[name])}}}'
    if how == "deep":
        text = '{"a": ' + "[" * 10**5 + "]" * 10**5 + "}"
    size = {"long": 2**40, "longer": 2**64 - 1}.get(how, len(text))
    path.write_bytes(struct.pack("<Q", size) + text.encode() + data)


def _pickles(folder: Path, rng: random.Random, home: Path) -> None:
    bomb = pickle.dumps(Bomb(folder.parent / MARK))
    for name in (
        "pytorch_model.bin",
        "model.bin",
        "training_args.bin",
        "optimizer.pt",
        "model.pt",
        "flax_model.msgpack",
    ):
        (folder / name).write_bytes(bomb)
    if rng.random() < 0.7:
        (folder / "model.safetensors").unlink()
    if rng.random() < 0.3:
        (folder / "model.safetensors").write_bytes(bomb)


def _sharded(folder: Path, rng: random.Random, home: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    where = rng.choice(
        [
            "../../secret/secret.txt",
            str(home / "secret" / "secret.h5"),
            "model-1.safetensors",
            "/dev/zero",
            "",
            "a\0b",
            7,
        ]
    )
    index = {"metadata": {"total_size": rng.choice([10**30, -1, "x"])}, "weight_map": dict.fromkeys(tensors, where)}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


MUTATIONS: dict[str, Mutation] = {
    "nan": _weights(_nan),
    "missing": _weights(_missing),
    "more": _weights(_more),
    "shape": _weights(_other_shape),
    "type": _weights(_other_type),
    "header": _header,
    "pickles": _pickles,
    "sharded": _sharded,
}
