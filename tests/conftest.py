"""Fixtures for the tests: a tiny experiment, the console command, and a hub on the loopback interface."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Before torch is imported anywhere: the tests run in two processes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # the deep learners set it too, but are imported after torch here
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from icrl.config.loader import validate
from icrl.config.schema import ExperimentConfig

ROOT = Path(__file__).parent.parent

TINY = {
    "name": "tiny",
    "tasks": {"name": "dark_room", "size": 4, "episode_length": 6},
    "data": {"sources": [{"name": "q_learning"}], "histories_per_task": 2, "episodes": 24, "shards": 3},
    "model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32, "context_episodes": 3},
    "training": {"steps": 6, "batch_size": 8, "subsample": 4, "warmup_steps": 2},
    "evaluation": {"episodes": 3, "seeds": 2, "train_tasks": 3, "test_tasks": 3},
    "runtime": {"workers": 1, "log_every": 1, "checkpoint_every": 2, "trackers": []},
}


def merged(base: dict, changes: dict) -> dict:
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


@pytest.fixture
def tiny(tmp_path):
    """A function that makes the config of a tiny experiment, with changes, in a temporary folder."""

    def make(**changes) -> ExperimentConfig:
        return validate(merged(merged(TINY, {"output": str(tmp_path / "runs")}), changes))

    return make


@pytest.fixture
def icrl(tmp_path):
    """A function that runs the console command in a temporary folder and returns the finished process."""

    def call(*words: str, module: str = "icrl", environment: dict | None = None) -> subprocess.CompletedProcess:
        return run_python(["-m", module, *words], tmp_path, environment)

    return call


def run_python(words: Sequence[str], folder: Path, environment: dict | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=3600,  # only so that a process that hangs is found; no test depends on it
    )


@pytest.fixture
def tiny_file(tmp_path, tiny):
    """The config file of the tiny experiment. Its run folder is runs/tiny beside the file."""
    from icrl.config.loader import dump

    path = tmp_path / "tiny.yaml"
    path.write_text(dump(tiny(output="runs")))
    return path


def seal(checkpoint: Path) -> None:
    """Records new checksums of a checkpoint's files, after a test has replaced some of them."""
    from ad_model.load import write_checksums
    from icrl.run.checkpoints import CheckpointRecord, checkpoint_record
    from icrl.run.records import write_record
    from icrl.support.files import checksums

    record = checkpoint_record(checkpoint, CheckpointRecord)
    for extra in ("training.json", "model/checksums.json"):
        (checkpoint / extra).unlink(missing_ok=True)
    if (checkpoint / "model").exists():
        write_checksums(checkpoint / "model")
    files = checksums(checkpoint)
    write_record(checkpoint / "training.json", record.model_copy(update={"files": files}))


@pytest.fixture
def hub(tmp_path):
    """A hub on the loopback interface, for processes that are given its `environment`."""
    from hub_server import HubServer

    with HubServer(tmp_path / "hub") as server:
        yield server
    assert not server.errors, server.errors[0]
