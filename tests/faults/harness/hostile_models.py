"""Model folders and checkpoints as an attacker or a broken exporter would make them.

A case is `MUTATION:SEALED:USE:SEED`: the mutation changes a copy of a trained model's folder, whose checksums are then
made to fit (`sealed`), left as they were (`stale`) or deleted (`without`), and the use is the command that gets it.
"""

import json
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

import publish.model  # noqa: F401
from icrl.config.loader import dump, validate
from icrl.run.records import record_text
from icrl.support.files import sha256
from tests.conftest import TINY, merged
from tests.faults.harness.hostile import INSTEAD, Bomb, attempt_words, make_secrets, replace_file, replaced
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.watched import watched

NUMBER = 120

Mutation = Callable[[Path, random.Random, Path], None]
"""Changes a model folder: (folder, random numbers, home)."""


def _config(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if key == "backbone":
            value = {**content["backbone"], **value}
        content[key] = value
    (folder / "config.json").write_text(json.dumps(content))


def _with(**changes: Any) -> Mutation:
    return lambda folder, rng, home: _config(folder, **changes)


def _backbone(**changes: Any) -> Mutation:
    return lambda folder, rng, home: _config(folder, backbone=changes)


def _fuzzed(*at: str) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(replaced(content, rng, at)))

    return mutate


def _code(folder: Path, rng: random.Random, home: Path) -> None:
    """The model's own code, with a bomb in it."""
    for name in ("modeling_ad.py", "configuration_ad.py", "modeling_trap.py"):
        (folder / name).write_text("import trap_module\ntrap_module.load()\n")
    names = rng.choice(
        [
            {"AutoModel": "modeling_ad.ADModel", "AutoConfig": "configuration_ad.ADConfig"},
            {"AutoModel": "modeling_trap.Model"},
            {"AutoModel": "me/elsewhere--modeling_trap.Model", "AutoConfig": "me/elsewhere--configuration_trap.Config"},
            {"AutoModel": "../../trap_module.Family"},
            {"AutoTokenizer": ["trap_module.Family", None], "AutoBackbone": "trap_module.Family"},
        ]
    )
    _config(folder, auto_map=names, trust_remote_code=True)
    if rng.random() < 0.3:
        _config(folder, backbone={"auto_map": names, "trust_remote_code": True})


def _types(folder: Path, rng: random.Random, home: Path) -> None:
    names = ["trap_module", "llama", "timm_wrapper", "maskformer", "auto", "encoder-decoder", "rag", "whisper", "mamba"]
    where = rng.choice(["top", "backbone", "backbone", "backbone"])
    if where == "top":
        _config(folder, model_type=rng.choice(names))
    else:
        _config(
            folder, backbone={"model_type": rng.choice(names), "architecture": "resnet18", "use_timm_backbone": True}
        )


def _sizes(folder: Path, rng: random.Random, home: Path) -> None:
    keys = ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "head_dim"]
    keys += ["max_position_embeddings", "num_key_value_heads", "action_bins", "context_length"]
    value = rng.choice(
        [10**9, 10**6, 10**12, 10**30, -1, 0, 2.5, float("nan"), 1e308, "big", None, [1], {"a": 1}, True]
    )
    key = rng.choice(keys)
    if key in ("action_bins", "context_length"):
        _config(folder, **{key: value})
    else:
        _config(folder, backbone={key: value})


def _other_backbone(folder: Path, rng: random.Random, home: Path) -> None:
    """Architectures that make large tables or many modules of small numbers."""
    values = rng.choice(
        [
            {"model_type": "gpt2", "n_positions": 10**6, "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 1},
            {"model_type": "gpt2", "n_layer": 10**8, "n_embd": 16, "n_head": 2, "vocab_size": 1},
            {"model_type": "mixtral", "num_local_experts": 10**7},
            {"model_type": "qwen2_moe", "num_experts": 10**6, "num_hidden_layers": 1000},
            {"model_type": "qwen3", "layer_types": ["full_attention"] * 10**6},
            {"model_type": "gpt_neox", "max_position_embeddings": 10**9},
            {"model_type": "opt", "max_position_embeddings": 10**9},
            {"model_type": "bloom", "n_layer": 10**6},
        ]
    )
    _config(folder, backbone=values)


def _spaces(folder: Path, rng: random.Random, home: Path) -> None:
    space = rng.choice(
        [
            {"type": "Box", "shape": [10**9], "dtype": "float32", "low": 0.0, "high": 1.0},
            {"type": "Box", "shape": [2**24], "dtype": "float32", "low": 0.0, "high": 1.0},
            {"type": "Box", "shape": [10**5, 10**5, 3], "dtype": "uint8", "low": 0, "high": 255},
            {"type": "Discrete", "n": 10**12, "start": 0},
            {"type": "Discrete", "n": 2**24, "start": 0},
            {"type": "Discrete", "n": -5, "start": 0},
            {"type": "MultiDiscrete", "nvec": [10**6] * 1000, "start": [0] * 1000},
            {
                "type": "Dict",
                "spaces": {f"k{number}": {"type": "Discrete", "n": 2, "start": 0} for number in range(10**4)},
            },
            {"type": "trap_module:Family"},
            {"type": "Tuple", "spaces": []},
            [],
        ]
    )
    _config(folder, **{rng.choice(["observation_space", "action_space"]): space})


def _references(folder: Path, rng: random.Random, home: Path) -> None:
    """Keys by which transformers loads something else."""
    secret = str(home / "secret")
    key, value = rng.choice(
        [
            ("attn_implementation", "me/kernels"),
            ("_attn_implementation", "kernels-community/flash-attn"),
            ("_attn_implementation_internal", "me/kernels:attend"),
            ("experts_implementation", "me/experts"),
            ("quantization_config", {"quant_method": "gptq", "bits": 4}),
            ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
            ("quantization_config", {"quant_method": "trap_module"}),
            ("torch_dtype", "trap_module"),
            ("dtype", "os.system"),
            ("dtype", "float64"),
            ("transformers_weights", f"{secret}/secret.h5"),
            ("transformers_weights", "../../secret/secret.txt"),
            ("_name_or_path", "me/elsewhere"),
            ("base_model_tp_plan", {"layers.*": "trap_module"}),
            ("fusion_config", {"patch": "trap_module"}),
            ("custom_generate", "me/elsewhere"),
            ("use_pretrained_backbone", True),
            ("kernel_config", {"kernel": "me/kernels"}),
            ("id2label", {"a": "b"}),
            ("num_labels", 10**9),
            ("problem_type", "trap_module"),
            ("torchscript", True),
            ("pruned_heads", {"0": [0]}),
            ("return_dict", False),
        ]
    )
    if rng.random() < 0.5:
        _config(folder, **{key: value})
    else:
        _config(folder, backbone={key: value})


def _heads(folder: Path, rng: random.Random, home: Path) -> None:
    heads = rng.choice(
        [
            {"value": 10**9},
            {"forward": 1},
            {"a.b": 1},
            {"": 1},
            {f"h{n}": 1 for n in range(10**5)},
            {"x": -1},
            [1],
            {"x": "y"},
        ]
    )
    _config(folder, heads=heads)


def _statistics(folder: Path, rng: random.Random, home: Path) -> None:
    bad = rng.choice(
        [{"": {"mean": [float("nan")], "std": [0.0]}}, {"": {}}, [1], {"x": {"mean": [0] * 10**6, "std": [1]}}]
    )
    _config(folder, observation_statistics=bad)


def _scale(folder: Path, rng: random.Random, home: Path) -> None:
    _config(folder, reward_scale=rng.choice([0, float("nan"), -1.0, float("inf"), "x", None, 10**400]))


def _tasks(folder: Path, rng: random.Random, home: Path) -> None:
    record = rng.choice(
        [{"family": "DarkRoom", "keys": "x"}, {"family": "DarkRoom", "keys": "A" * 10**6}, {"family": 7}, [1], "x"]
    )
    _config(folder, training_tasks=record)


def _raw_config(text: str) -> Mutation:
    return lambda folder, rng, home: (folder / "config.json").write_text(text) and None


# weights


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
    bomb = pickle.dumps(Bomb(folder.parent / "executed"))
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


def _extras(folder: Path, rng: random.Random, home: Path) -> None:
    """Files that transformers also reads, if they are there."""
    secret = str(home / "secret")
    adapter = {
        "base_model_name_or_path": secret,
        "peft_type": "LORA",
        "auto_mapping": {"parent_library": "trap_module"},
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(folder.parent / "executed")))
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
    "code": _code,
    "types": _types,
    "sizes": _sizes,
    "other-backbone": _other_backbone,
    "spaces": _spaces,
    "references": _references,
    "fuzz": _fuzzed(),
    "fuzz-backbone": _fuzzed("backbone"),
    "heads": _heads,
    "statistics": _statistics,
    "scale": _scale,
    "tasks": _tasks,
    "deep": _raw_config("[" * 10**5),
    "digits": _raw_config('{"model_type": "algorithm_distillation", "context_length": ' + "9" * 5000 + "}"),
    "no-object": _raw_config("[1, 2]"),
    "nan": _weights(_nan),
    "missing": _weights(_missing),
    "more": _weights(_more),
    "shape": _weights(_other_shape),
    "type": _weights(_other_type),
    "header": _header,
    "pickles": _pickles,
    "sharded": _sharded,
    "extras": _extras,
    "linked-extra": _linked_extra,
    "checksums": _checksums,
    **{f"instead-{how}": _instead(how) for how in INSTEAD},
}
WEIGHTS = {"sizes": 4, "other-backbone": 3, "spaces": 3, "references": 5, "fuzz": 3, "fuzz-backbone": 3, "header": 4}
MUST_REFUSE = {"nan", "missing", "more", "shape"}
USES = ("evaluate", "evaluate", "load", "push", "run", "resume")


def prepare(home: Path) -> None:
    """A complete run, and the folder of its model."""
    make_secrets(home)
    config = validate({**TINY, "name": "made", "output": str(home / "runs")})
    (home / "made.yaml").write_text(dump(config))
    made = watched(["run", "made.yaml"], home)
    assert made.code == 0, made.errors
    shutil.copytree(home / "runs" / "made" / "checkpoints" / "step-000006" / "model", home / "model")


def cases(home: Path, number: int) -> list[str]:
    """Every mutation at least twice, then more of those with many forms."""
    rng = random.Random(17)
    names = [name for name in MUTATIONS for _ in range(WEIGHTS.get(name, 1))]
    seals = ("sealed", "sealed", "without", "stale")
    return [
        f"{names[seed % len(names)]}:{rng.choice(seals)}:{USES[(seed * 5 + seed // len(names)) % len(USES)]}:{seed}"
        for seed in range(number)
    ]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Makes the hostile model folder, and gives it to the command."""
    name, seal, use, seed = case.split(":")
    rng = random.Random(int(seed))
    if use == "resume":
        shutil.copytree(home / "runs" / "made", folder / "runs" / "made", symlinks=True)
        place = folder / "runs" / "made" / "checkpoints" / "step-000004"
        shutil.rmtree(folder / "runs" / "made" / "checkpoints" / "step-000006")
        MUTATIONS[name](place / "model", rng, home)
        _seal_checkpoint(place, seal, rng)
        (folder / "mine.yaml").write_text((home / "made.yaml").read_text())
        words = ["train", "mine.yaml", "--output", "runs"]
        return attempt_words("hostile_models", case, words, folder, home, False)
    place = folder / "theirs"
    shutil.copytree(home / "model", place)
    MUTATIONS[name](place, rng, home)
    _seal(place, seal)
    words, call = _words(use, home, folder)
    refuse = name in MUST_REFUSE and use != "push"
    return attempt_words("hostile_models", case, words, folder, home, refuse, call)


def _words(use: str, home: Path, folder: Path) -> tuple[list[str], Callable[[], int] | None]:
    """The command that gets the folder `theirs`."""
    given: dict[str, Any] = {"name": "mine", "output": "runs", "data": {"sources": [{"name": "q_learning"}]}}
    given["evaluation"] = {"checkpoint": "theirs", "allow_seen_tasks": True, "baselines": [{"name": "random"}]}
    (folder / "mine.yaml").write_text(dump(validate(merged(TINY, given))))
    if use == "load":
        return ["load_model"], _load
    if use == "push":
        (folder / "mine").mkdir()
        (folder / "mine.yaml").rename(folder / "mine" / "config.yaml")
        return ["push", "model", "mine", "--repo", "me/x", "--dry-run"], None
    return [use, "mine.yaml"], None


def _load() -> int:
    """The public face, as a script would use it."""
    import icrl
    from icrl.support.terminal import reported

    return reported(lambda: icrl.load_model("theirs"))


def _seal(place: Path, how: str) -> None:
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


def _seal_checkpoint(place: Path, how: str, rng: random.Random) -> None:
    """Besides the model, the checkpoint's own state is hostile: a pickle in place of every file of accelerate's."""
    bomb = pickle.dumps(Bomb(place.parents[3] / "executed"))
    for path in sorted(place.iterdir()):
        if path.is_file() and path.suffix in (".bin", ".pkl") and rng.random() < 0.5:
            path.write_bytes(bomb)
    record = json.loads((place / "training.json").read_text())
    if how == "without":
        record["files"] = {}
    elif how == "sealed":
        _seal(place / "model", "sealed")
        files = (path for path in place.rglob("*") if path.is_file() and path.name != "training.json")
        record["files"] = {
            path.relative_to(place).as_posix(): sha256(path) for path in files if path.stat().st_size < 2**30
        }
    if rng.random() < 0.3:
        record["files"] = {**record["files"], "../../../../secret/secret.txt": "0" * 64}
    (place / "training.json").write_text(record_text(record))
