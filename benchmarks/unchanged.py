"""Hashes of everything that a change of the code's structure must leave alone.

    python -m benchmarks.unchanged

Runs a few shipped experiments at a small size, one thread each, and prints one line per result: the columns of every
shard, the weights of the transformer and of meta-learners, the returns of the evaluation, without those of learners
that plan for the evaluation's own lifetime. Content is hashed, not file bytes, so that a version number or a checksum
that is added to a file changes nothing here. Bits differ between machines; compare two commits on one machine. The last
lines are the names that pushed model cards and exported data sets import: each has to be importable, wherever its code
lies by now.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent

SMALL = """
    --data.shards 2 --model.hidden_size 32 --model.intermediate_size 64 --training.batch_size 16
    --evaluation.seeds 2 --evaluation.test_tasks 4 --evaluation.train_tasks 3
    --runtime.workers 1 --runtime.trackers []
""".split()

EXPERIMENTS = {
    "demo": ("demo", "--data.histories_per_task 8 --training.steps 120 --evaluation.episodes 20"),
    "dark_room_dpt": (
        "dark_room/dpt",
        "--data.histories_per_task 4 --training.steps 40 --evaluation.episodes 8",
    ),
    "dark_room_ppo": (
        "dark_room/ppo",
        "--data.histories_per_task 1 --data.episodes 100 --training.steps 30 --evaluation.episodes 5",
    ),
    "rl2_bandit": (
        "bandit/rl2",
        "--split.train 30 --split.test 10 --training.steps 20 --data.sources.0.iterations 3 "
        "--data.sources.0.trials 16 --data.sources.0.minibatches 2 --data.sources.0.units 16",
    ),
    "pearl_sparse_point_robot": (
        "points/sparse_robot_pearl",
        "--split.train 6 --split.test 4 --data.histories_per_task 2 --training.steps 10 --evaluation.episodes 3 "
        "--data.sources.0.iterations 2 --data.sources.0.updates 4 --data.sources.0.tasks_per_iteration 2 "
        "--data.sources.0.initial_episodes 1 --data.sources.0.meta_batch 2 --data.sources.0.batch_size 16 "
        "--data.sources.0.context_size 16",
    ),
}
"""By name: a shipped config, and overrides that make it small."""

OUTSIDE_NAMES = (
    *("configs.schema:TasksComponent", "data_gen.history:episode_returns", "data_gen.interaction:interact"),
    *("data_gen.streams:make_seeds", "eval.evaluate:load_model", "eval.in_context:TransformerAgent"),
    *("data_gen.tasks.gym_envs:make_env", "data_gen.tasks.gym_envs:make_vector_env"),
    *("ad_model.configuration_ad:ADConfig", "ad_model.modeling_ad:ADModel"),
)
"""Names that pushed model cards, exported Minari data sets and transformers' auto classes import, as `module:name`."""


def main() -> None:
    """Prints every line."""
    for name, (config, overrides) in EXPERIMENTS.items():
        with tempfile.TemporaryDirectory() as folder:
            words = ["--output", folder, "--name", name, *SMALL, *overrides.split()]
            run_python(["-m", "icrl", "run", "--config", config, *words])
            for line in lines_of(Path(folder) / name):
                print(f"{name:25} {line}", flush=True)
    for name in OUTSIDE_NAMES:
        module, _, attribute = name.partition(":")
        run_python(["-c", f"from {module} import {attribute}"])
        print(f"{'importable':25} {name}", flush=True)


def run_python(words: list[str]) -> None:
    """Runs Python outside of the checkout, on one thread."""
    settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, *words], cwd=folder, env={**os.environ, **settings}, check=True, capture_output=True
        )


def lines_of(run: Path) -> Iterable[str]:
    """The hashes of one run folder."""
    for shard in sorted((run / "data").glob("train-*.h5")):
        with h5py.File(shard) as file:
            yield f"{digest({name: file[name][()] for name in file})} {shard.relative_to(run)}"
    learners = sorted((run / "meta").glob("*/step-*/weights.safetensors"))
    models = sorted((run / "checkpoints").glob("step-*/model/*.safetensors"))
    for number, weights in enumerate([*learners[-1:], *models[-1:]]):
        kind = "meta-learner" if number < len(learners[-1:]) else "transformer"
        yield f"{digest(load_file(weights))} weights of the {kind}"
    table = pd.read_parquet(run / "eval" / "returns.parquet")
    table = table[~table["agent"].str.contains(" (over ", regex=False)]  # these contestants are newer than the record
    columns = {name: table[name].to_numpy() for name in table}
    texts = {name: values.astype("U32") for name, values in columns.items() if values.dtype.kind == "O"}
    yield f"{digest(columns | texts)} eval/returns.parquet"


def digest(arrays: dict[str, Any]) -> str:
    """A hash of names, types, shapes and values."""
    content = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        array = np.ascontiguousarray(values)
        content.update(f"{name} {array.dtype.str} {array.shape}".encode())
        content.update(array.tobytes())
    return content.hexdigest()[:16]


if __name__ == "__main__":
    main()
