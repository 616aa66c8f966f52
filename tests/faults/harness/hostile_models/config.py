"""Forged configs of models, `config.json`: code, sizes, references to other files, spaces, statistics, and text."""

import json
import random
from pathlib import Path

from tests.faults.harness.hostile_models.folder import Mutation, change_config
from tests.faults.harness.payloads import replaced


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
    change_config(folder, auto_map=names, trust_remote_code=True)
    if rng.random() < 0.3:
        change_config(folder, backbone={"auto_map": names, "trust_remote_code": True})


def _types(folder: Path, rng: random.Random, home: Path) -> None:
    names = ["trap_module", "llama", "timm_wrapper", "maskformer", "auto", "encoder-decoder", "rag", "whisper", "mamba"]
    where = rng.choice(["top", "backbone", "backbone", "backbone"])
    if where == "top":
        change_config(folder, model_type=rng.choice(names))
    else:
        change_config(
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
        change_config(folder, **{key: value})
    else:
        change_config(folder, backbone={key: value})


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
    change_config(folder, backbone=values)


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
    change_config(folder, **{rng.choice(["observation_space", "action_space"]): space})


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
        change_config(folder, **{key: value})
    else:
        change_config(folder, backbone={key: value})


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
    change_config(folder, heads=heads)


def _statistics(folder: Path, rng: random.Random, home: Path) -> None:
    bad = rng.choice(
        [{"": {"mean": [float("nan")], "std": [0.0]}}, {"": {}}, [1], {"x": {"mean": [0] * 10**6, "std": [1]}}]
    )
    change_config(folder, observation_statistics=bad)


def _scale(folder: Path, rng: random.Random, home: Path) -> None:
    change_config(folder, reward_scale=rng.choice([0, float("nan"), -1.0, float("inf"), "x", None, 10**400]))


def _tasks(folder: Path, rng: random.Random, home: Path) -> None:
    record = rng.choice(
        [{"family": "DarkRoom", "keys": "x"}, {"family": "DarkRoom", "keys": "A" * 10**6}, {"family": 7}, [1], "x"]
    )
    change_config(folder, training_tasks=record)


def _raw_config(text: str) -> Mutation:
    return lambda folder, rng, home: (folder / "config.json").write_text(text) and None


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
}
