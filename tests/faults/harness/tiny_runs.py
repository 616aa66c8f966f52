"""Run folders of one tiny experiment, finished and interrupted, to try faults on; and the results of its stages."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icrl.config.loader import dump, validate
from tests.conftest import TINY, merged
from tests.faults.harness.watched import watched

LEARNER = {"name": "rl2", "iterations": 3, "trials": 2, "minibatches": 1, "units": 4, "trial_episodes": 1}
CONFIG = merged(
    TINY,
    {
        "evaluation": {"baselines": [{"name": "random"}, LEARNER], "episodes": 2, "test_tasks": 2, "train_tasks": 1},
        "training": {"steps": 4},
        "runtime": {"meta_checkpoint_every": 1, "keep_checkpoints": 2, "trackers": ["tensorboard"]},
        "output": "runs",
    },
)
"""A tiny experiment with a meta-learner; its checkpoints are those of updates 2 and 4, and of iterations 2 and 3."""

REMOVED = {
    "finished": (),
    "generation": (
        "data/info.json",
        "data/README.md",
        "data/*-00002-of-*.h5",
        "cache",
        "checkpoints",
        "eval",
        "report*",
    ),
    "meta_training": ("meta/*/step-000003", "checkpoints/step-000004", "eval", "report*"),
    "training": ("checkpoints/step-000004", "eval", "report*"),
    "evaluation": ("eval", "report*"),
    "reporting": ("report*",),
}
"""States of a run folder: by name, what an interruption has not made yet."""

RESULTS = {
    "meta-train": ("meta/*/step-000003/weights.safetensors",),
    "generate": ("data/*.h5", "data/*.npz"),
    "train": ("checkpoints/step-000004/model/model.safetensors",),
    "evaluate": ("eval/returns.parquet", "eval/values.parquet", "eval/paths.npz", "eval/summary.json"),
}
"""By stage, the files that hold its results."""


def words(command: str) -> list[str]:
    """The arguments of the console command for a verb, in a folder that `write_config` was called for."""
    verb, *rest = command.split()
    if verb == "info":
        return ["info", "runs/tiny"]
    if verb == "push":
        return ["push", *rest, "runs/tiny", "--repo", "user/name", "--dry-run"]
    return [verb, "--config", "tiny.yaml", *rest]


def make_states(home: Path, config: dict = CONFIG) -> None:
    """Makes `home/STATE/runs/tiny` for every state, with one run."""
    finished = home / "finished"
    finished.mkdir(parents=True)
    write_config(finished, config)
    result = watched(words("run"), finished)
    if result.code:
        raise RuntimeError(f"the run without a fault failed: {result.errors}")
    for state, removed in REMOVED.items():
        if state != "finished":
            shutil.copytree(finished, home / state)
        for pattern in removed:
            for path in (home / state / "runs/tiny").glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_config(folder: Path, config: dict = CONFIG) -> None:
    """Writes `tiny.yaml` into the folder that commands are called in."""
    (folder / "tiny.yaml").write_text(dump(validate(config)))


def results(folder: Path, stages: Sequence[str] = tuple(RESULTS)) -> dict[str, object]:
    """Everything that the stages decide, without times, by file in the run folder."""
    tiny, found = folder / "runs/tiny", dict[str, object]()
    for pattern in (pattern for stage in stages for pattern in RESULTS[stage]):
        for path in sorted(tiny.glob(pattern)):
            name = path.relative_to(tiny).as_posix()
            if path.name == "paths.npz":  # a zip file with times
                with np.load(path) as file:
                    found[name] = {key: file[key].tolist() for key in file.files}
            elif path.name == "summary.json":
                found[name] = re.sub(r'"(seconds|git|checksum|.*\.(npz|parquet))": .*', "", path.read_text())
            else:
                found[name] = path.read_bytes()
    return found


def stage_of(name: str) -> str | None:
    """The stage that makes a file of `results`; None for any other file."""
    stages = (stage for stage, patterns in RESULTS.items() if any(Path(name).match(each) for each in patterns))
    return next(stages, None)
