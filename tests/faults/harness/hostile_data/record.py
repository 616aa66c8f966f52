"""Forged records, `info.json`: components, spaces, counts, names, and text that JSON readers stumble over."""

import json
import random
from pathlib import Path
from typing import Any

from tests.faults.harness.hostile_data.folder import Mutation, read_record, write_record
from tests.faults.harness.payloads import ANSI, RIGHT_TO_LEFT, TEXTS, replaced

CARTPOLE = {"name": "gymnasium", "env_id": "CartPole-v1"}
FAMILIES: list[Any] = [
    {**CARTPOLE, "vary": {"x": {"call": "trap_module:load", "seeds": 2}}},
    {**CARTPOLE, "vary": {"x": {"call": "torch.hub:load", "seeds": 2, "repo_or_dir": ".", "source": "local"}}},
    {**CARTPOLE, "layouts": 3, "wrappers": [{"name": "trap_module:load"}]},
    {"name": "gymnasium", "env_id": "trap_module:X-v0", "layouts": 3},
    {"name": "pixels", "of": {"name": "trap_module:Family"}},
    {"name": "pixels", "of": "trap_module:Family"},
    {"name": "pixels", "of": {"name": "pixels", "of": {"name": "trap_module:Family"}}},
    {"name": "dark_room", "size": {"call": "trap_module:load"}},
    {"name": "dark_room", "size": [[{"name": "trap_module:Family"}]]},
    {"name": "dark_room", "of": {"params": {"name": "trap_module:Family"}}},
    {"name": "dark_room", "size": 2**16, "episode_length": 1},
    {"name": "meta_world", "benchmark": "trap_module:Family"},
    {"name": "trap_module:Family"},
    {"name": "os:system", "command": "touch executed"},
    {"name": "builtins:exec", "params": {"source": "import trap_module"}},
]


def _with(**changes: Any) -> Mutation:
    return lambda folder, rng, home: write_record(folder, {**read_record(folder), **changes})


def _family(folder: Path, rng: random.Random, home: Path) -> None:
    write_record(folder, {**read_record(folder), "tasks": rng.choice(FAMILIES)})


def _sources(folder: Path, rng: random.Random, home: Path) -> None:
    parameter = rng.choice([{"call": "trap_module:load"}, rng.choice(TEXTS), float("nan"), 1e400, [[[1]]]])
    names = ["trap_module:Family", ANSI, RIGHT_TO_LEFT, "a\nerror: b", "x" * 10**5, "q_learning"]
    write_record(
        folder, {**read_record(folder), "sources": [{"name": rng.choice(names), rng.choice(TEXTS): parameter}]}
    )


def _fuzzed(folder: Path, rng: random.Random, home: Path) -> None:
    write_record(folder, replaced(read_record(folder), rng))


def _fuzzed_space(folder: Path, rng: random.Random, home: Path) -> None:
    write_record(folder, replaced(read_record(folder), rng, (rng.choice(["observation_space", "action_space"]),)))


def _space(folder: Path, rng: random.Random, home: Path) -> None:
    box = {"type": "Box", "shape": [2], "dtype": "float32", "low": 0.0, "high": 1.0}
    space = rng.choice(
        [
            {**box, "shape": [2**24]},
            {**box, "shape": [2**12, 2**12], "dtype": "float64"},
            {**box, "shape": [10**9]},
            {**box, "shape": [-(10**5), -(10**5)]},
            {**box, "dtype": "1000000000f8", "shape": [1]},
            {**box, "dtype": "U1000000", "shape": [1000]},
            {**box, "dtype": "V100000000", "shape": [10]},
            {**box, "dtype": "O"},
            {**box, "low": [0.0] * 10**5},
            {**box, "low": None, "high": -1.0},
            {"type": "Discrete", "n": 2**62, "start": 0},
            {"type": "Discrete", "n": 10**30, "start": 0},
            {"type": "Discrete", "n": 0, "start": 0},
            {"type": "MultiDiscrete", "nvec": [[2] * 1000] * 1000, "start": [[0] * 1000] * 1000},
            {"type": "Dict", "spaces": {f"k{number}": box for number in range(3000)}},
            {"type": "Dict", "spaces": {ANSI: box}},
            {"type": "Tuple", "spaces": [{**box, "shape": [2**20]}] * 16},
            {"type": "Dict", "spaces": {}},
            {"type": ["Box"]},
            {"type": "trap_module:Family"},
        ]
    )
    which = rng.choice(["observation_space", "action_space"])
    write_record(folder, {**read_record(folder), which: space})


def _counts(folder: Path, rng: random.Random, home: Path) -> None:
    names = ["num_histories", "num_steps", "episode_length", "split_seed"]
    name = rng.choice([*names, "num_train_tasks", "num_validation_tasks", "num_test_tasks"])
    value = rng.choice([-1, 0, 1, 7, 10**9, 10**12, 2**63, 10**400, 10**4000, 2.5, True])
    write_record(folder, {**read_record(folder), name: value})


def _shard_names(folder: Path, rng: random.Random, home: Path) -> None:
    record = read_record(folder)
    names = [
        *(ANSI + ".h5", RIGHT_TO_LEFT + ".h5", "a\nb.h5", "[t]*.h5", "x" * 300 + ".h5", "x" * 10**6 + ".h5", "."),
        *("../secret/secret.h5", "/etc/passwd", str(home / "secret" / "secret.h5"), "a/../../secret.h5", "\0.h5", ""),
        *(
            "https://127.0.0.1:9/x.h5",
            "hf://datasets/x/y/z.h5",
            "/dev/zero",
            "info.json",
            "README.md",
            "tasks-train.npz",
        ),
        *("file::x.h5", "C:x.h5", "..\\x.h5", "-rf.h5", "~root/x.h5", "sub/./x.h5", "config.yaml", "zip://x.h5"),
    ]
    name = rng.choice(names)
    old = folder / record["shards"][0]["file"]
    if "/" not in name and "\0" not in name and 0 < len(name) < 250 and not (folder / name).exists():
        old.rename(folder / name)
    record["shards"][0]["file"] = name
    write_record(folder, record)


def _text(text: str | bytes) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        content = text.encode() if isinstance(text, str) else text
        (folder / "info.json").write_bytes(content.replace(b"RECORD", json.dumps(read_record(folder))[1:-1].encode()))

    return mutate


def _big_record(folder: Path, rng: random.Random, home: Path) -> None:
    """80 MB of JSON, each byte of which stands for many."""
    part = rng.choice(["[],", "{},", '"\U0001f600",'])
    text = json.dumps(read_record(folder))[:-1]
    (folder / "info.json").write_text(f'{text}, "more": [{part * (80 * 10**6 // len(part.encode()))} 0]}}')


MUTATIONS: dict[str, Mutation] = {
    "family": _family,
    "sources": _sources,
    "swept": _with(swept=[ANSI, "trap_module:Family", "reward"]),
    "versions": _with(made_with={ANSI: "x", "torch": RIGHT_TO_LEFT, "a\nb": "<script>"}),
    "given": _with(given={"repo": "../../x", "commit": ANSI, "folder": "/etc", "streaming": False}),
    "streamed": _with(given={"repo": "me/x", "commit": "main", "streaming": True}),
    "learners": _with(meta_learners={"data.sources.0": {"weights": ANSI, "environment_steps": 10**400}}),
    "statistics": _with(statistics={"reward_scale": 1e-320, "observation_statistics": {}}),
    "fuzz": _fuzzed,
    "space": _space,
    "space-fuzz": _fuzzed_space,
    "counts": _counts,
    "shard-names": _shard_names,
    "digits": _text('{"num_steps": ' + "9" * 5000 + ", RECORD}"),
    "nested": _text('{"more": ' + "[" * 100_000 + "]" * 100_000 + ", RECORD}"),
    "twice": _text('{RECORD, "shards": []}'),
    "nan": _text('{"sources": [{"name": "x", "a": NaN, "b": -Infinity, "c": 1e999}], RECORD}'),
    "utf-16": _text("{RECORD}".encode("utf-16")),
    "surrogate": _text('{RECORD, "sources": [{"name": "\\ud800"}]}'),
    "list": _text("[1, 2, 3]"),
    "big": _big_record,
}
