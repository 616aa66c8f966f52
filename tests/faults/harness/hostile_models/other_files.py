"""Whatever else may lie in a model folder: adapters, links, checksums, and things in the place of its files."""

import json
import pickle
import random
from pathlib import Path

from icrl.run.records import record_text
from tests.faults.harness.hostile_models.folder import Mutation
from tests.faults.harness.payloads import INSTEAD, MARK, Bomb, replace_file


def _extras(folder: Path, rng: random.Random, home: Path) -> None:
    """Files that transformers also reads, if they are there."""
    secret = str(home / "secret")
    adapter = {
        "base_model_name_or_path": secret,
        "peft_type": "LORA",
        "auto_mapping": {"parent_library": "trap_module"},
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(folder.parent / MARK)))
    (folder / "generation_config.json").write_text(
        json.dumps({"custom_generate": "me/x", "auto_map": {"x": "trap_module"}})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["trap_module.Family", None]}})
    )
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text("import trap_module\n")


def _linked_extra(folder: Path, rng: random.Random, home: Path) -> None:
    """A file beside the weights that is a link to a secret of the user, to be pushed with the model."""
    name = rng.choice(["secrets.json", "more.safetensors", "generation_config.json", "model.safetensors.index.json"])
    (folder / name).symlink_to(home / "secret" / "secret.json")


def _instead(how: str) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        name = rng.choice(["config.json", "model.safetensors", "model.safetensors", "checksums.json"])
        replace_file(folder / name, how, home)

    return mutate


def _checksums(folder: Path, rng: random.Random, home: Path) -> None:
    name = rng.choice(["../../secret/secret.txt", str(home / "secret" / "secret.json"), "/dev/zero", "\0", "x" * 10**6])
    record = {"schema_version": 2, "files": {name: "0" * 64}}
    (folder / "checksums.json").write_text(record_text(record))


MUTATIONS: dict[str, Mutation] = {
    "extras": _extras,
    "linked-extra": _linked_extra,
    "checksums": _checksums,
    **{f"instead-{how}": _instead(how) for how in INSTEAD},
}
