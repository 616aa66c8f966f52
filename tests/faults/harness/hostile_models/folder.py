"""A model folder that is being forged: its config, and checksums that fit what was forged."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icrl.run.records import record_text
from icrl.support.files import sha256
from tests.faults.harness.payloads import MARK, Bomb

Mutation = Callable[[Path, random.Random, Path], None]
"""Changes a model folder: (folder, random numbers, home)."""


def change_config(folder: Path, **changes: Any) -> None:
    """Changes keys of `config.json`; of `backbone`, only those that are given."""
    content = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if key == "backbone":
            value = {**content["backbone"], **value}
        content[key] = value
    (folder / "config.json").write_text(json.dumps(content))


def seal_model(place: Path, how: str) -> None:
    """Makes the checksums of a model folder fit (`sealed`), leaves them (`stale`), or deletes them (`without`)."""
    if how == "stale" or not (place / "checksums.json").is_file() or (place / "checksums.json").is_symlink():
        return
    if how == "without":
        (place / "checksums.json").unlink()
        return
    files = {path.name: sha256(path) for path in place.iterdir() if path.is_file() and not path.is_symlink()}
    files.pop("checksums.json")
    recorded = json.loads((place / "checksums.json").read_text())["files"]
    if {*recorded} <= {"config.json", "model.safetensors", "generation_config.json"}:
        kept = {name: value for name, value in files.items() if name.endswith((".json", ".safetensors"))}
        (place / "checksums.json").write_text(record_text({"schema_version": 2, "files": kept}))


def seal_checkpoint(place: Path, how: str, rng: random.Random) -> None:
    """Puts pickles in place of the checkpoint's own files, and makes its record fit as in `seal_model`."""
    bomb = pickle.dumps(Bomb(place.parents[3] / MARK))
    for path in sorted(place.iterdir()):
        if path.is_file() and path.suffix in (".bin", ".pkl") and rng.random() < 0.5:
            path.write_bytes(bomb)
    record = json.loads((place / "training.json").read_text())
    if how == "without":
        record["files"] = {}
    elif how == "sealed":
        seal_model(place / "model", "sealed")
        files = (path for path in place.rglob("*") if path.is_file() and path.name != "training.json")
        record["files"] = {
            path.relative_to(place).as_posix(): sha256(path) for path in files if path.stat().st_size < 2**30
        }
    if rng.random() < 0.3:
        record["files"] = {**record["files"], "../../../../secret/secret.txt": "0" * 64}
    (place / "training.json").write_text(record_text(record))
