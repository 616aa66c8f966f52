"""Damage to every kind of file of a run folder: made again, or named in one line; never used, never a traceback.

By default each kind of file gets one kind of damage. `FAULTS=long` tries every kind, and 100 flips of each file.
"""

import contextlib
import json
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from conftest import TINY, merged

from ad_model.checked_arrays import CheckedFolder
from ad_model.load import check_checksums
from data_gen.storage.folder import check_task_files, checked_shards, load_info
from eval.summary import intact_summary
from icrl.cli import main
from icrl.config.loader import dump, validate
from icrl.run.checkpoints import MetaTrainingRecord, TrainingRecord, intact_record
from icrl.run.folder import RunFolder, config_text
from icrl.support.errors import UserError

LONG = os.environ.get("FAULTS") == "long"
FLIPS = 100 if LONG else 1

LEARNER = {"name": "rl2", "iterations": 3, "trials": 2, "minibatches": 1, "units": 4, "trial_episodes": 1}
CONFIG = merged(
    TINY,
    {
        "evaluation": {"baselines": [{"name": "random"}, LEARNER], "episodes": 2, "test_tasks": 2, "train_tasks": 1},
        "training": {"steps": 4},
        "runtime": {"meta_checkpoint_every": 1, "keep_checkpoints": 2},
    },
)
"""A tiny experiment with a meta-learner; its checkpoints are those of updates 2 and 4, and of iterations 2 and 3."""

FINISHED = (
    "data/train-00000-of-00003.h5 data/tasks-train.npz data/tasks-test.npz data/info.json data/README.md "
    "meta/*/step-000003/weights.safetensors meta/*/step-000003/training_state.safetensors "
    "meta/*/step-000003/training.json meta/*/training_log.jsonl "
    "checkpoints/step-000004/model/model.safetensors checkpoints/step-000004/model/config.json "
    "checkpoints/step-000004/training.json checkpoints/step-000004/optimizer.bin training_log.jsonl "
    "eval/returns.parquet eval/paths.npz eval/summary.json report.html config.yaml"
).split()
"""Files of a finished run."""

TRAINING = (
    "cache/*/previous_reward.npy cache/*/observation.npy cache/*/action.npy cache/*/strands.npy "
    "cache/*/statistics.json cache/*/checksums.json "
    "checkpoints/step-000002/model.safetensors checkpoints/step-000002/optimizer.bin "
    "checkpoints/step-000002/random_states_0.pkl checkpoints/step-000002/training.json "
    "checkpoints/step-000002/model/model.safetensors training_log.jsonl"
).split()
"""Files that an interrupted training continues with."""

META_TRAINING = (
    "meta/*/step-000002/weights.safetensors meta/*/step-000002/training_state.safetensors "
    "meta/*/step-000002/training.json meta/*/training_log.jsonl"
).split()
"""Files that an interrupted meta-training continues with."""

REPORTING = "eval/returns.parquet eval/paths.npz eval/summary.json training_log.jsonl config.yaml".split()
"""Files that a missing report is made from."""

DAMAGES = ("flip", "truncate", "empty", "delete", "text", "not_utf8")


def run(folder: Path) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    with contextlib.redirect_stdout(None):
        return main(["run", "--config", str(folder / "tiny.yaml")])


def write_config(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(dump(validate(merged(CONFIG, {"output": str(folder)}))))


def only(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Run folders of the tiny experiment: finished, and as interruptions leave them."""
    home = tmp_path_factory.mktemp("states") / "finished"
    home.mkdir()
    write_config(home)
    assert run(home) == 0
    made = {"finished": home}
    for state in ("training", "meta_training", "reporting"):
        folder = made[state] = home.with_name(state)
        shutil.copytree(home, folder)
        tiny = folder / "tiny"
        (tiny / "report.html").unlink()
        if state != "reporting":
            shutil.rmtree(tiny / "eval")
            shutil.rmtree(tiny / "checkpoints/step-000004")
        if state == "meta_training":
            shutil.rmtree(only(tiny, "meta/*/step-000003"))
    return made


def results(folder: Path) -> dict[str, object]:
    """Everything that the run decides, without times."""
    tiny, found = folder / "tiny", {}
    for pattern in ("data/*.h5", "data/*.npz", "eval/returns.parquet"):
        for path in sorted(tiny.glob(pattern)):
            found[str(path.relative_to(tiny))] = path.read_bytes()
    for pattern in ("meta/*/step-000003/weights.safetensors", "checkpoints/step-000004/model/model.safetensors"):
        found[pattern] = only(tiny, pattern).read_bytes()
    with np.load(tiny / "eval/paths.npz") as file:
        found["paths"] = {name: file[name].tolist() for name in file.files}
    figures = re.sub(
        r'"(seconds|checkpoint|checksum|.*\.(npz|parquet))": .*', "", (tiny / "eval/summary.json").read_text()
    )
    return {**found, "figures": figures}


def damage(path: Path, kind: str, seed: int = 0) -> None:
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng((zlib.crc32(path.name.encode()), seed))
    if kind == "flip":
        at = int(rng.integers(len(content)))
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == "truncate":
        content = content[: len(content) // 2]
    elif kind == "empty":
        content = bytearray()
    elif kind == "text":
        content = bytearray(b"something else\n")
    elif kind == "not_utf8":
        content = bytearray(b"\x80\x81\xff" * 40)
    path.unlink()
    if kind != "delete":
        path.write_bytes(content)


def cases():
    states = {"finished": FINISHED, "training": TRAINING, "meta_training": META_TRAINING, "reporting": REPORTING}
    for state, files in states.items():
        for number, file in enumerate(files):
            kinds = DAMAGES if LONG else ("flip",)
            if not LONG and (state, "log" in file) == ("finished", False):
                kinds = (DAMAGES[number % len(DAMAGES)],)
            if not LONG and "log" in file:  # a damaged log is used without its damaged lines, and the stages run
                kinds = ("not_utf8",) if state == "reporting" else ()
            for kind in kinds:
                yield pytest.param(state, file, kind, id=f"{state}-{file}-{kind}")


@pytest.mark.parametrize(("state", "file", "kind"), list(cases()))
def test_a_damaged_file_is_made_again_or_named_and_never_used(states, tmp_path, capsys, state, file, kind):
    for seed in range(FLIPS if kind == "flip" else 1):
        folder = tmp_path / f"runs-{seed}"
        shutil.copytree(states[state], folder)
        write_config(folder)
        damage(only(folder / "tiny", file), kind, seed)
        capsys.readouterr()
        code, lines = run(folder), capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if code == 0:
            assert results(folder) == results(states["finished"]), "was used"
        else:
            assert code in (1, 2) and len(errors) == 1 and str(folder) in errors[0], lines
            assert "another config" not in errors[0], "told as something else"
        shutil.rmtree(folder)


def opened_cache(tiny: Path) -> None:
    """Opens the token cache and reads every window, as training would."""
    cache = CheckedFolder(only(tiny, "cache/*"))
    for name in ("strands.npy", "likelihoods.npy"):
        cache.whole(name)
    cache.file("statistics.json").verify_all()
    for name in ("observation", "previous_action", "previous_reward", "boundary", "action"):
        array = cache.array(f"{name}.npy")
        for row in range(0, len(array.values), 7):
            array.verify(np.array([row]), min(7, len(array.values) - row))


USES = {
    "cache/*/*.npy": opened_cache,
    "cache/*/*.json": opened_cache,
    "checkpoints/step-000004/*.*": lambda tiny: intact_record(tiny / "checkpoints/step-000004", TrainingRecord),
    "checkpoints/step-000004/model/*.*": lambda tiny: check_checksums(tiny / "checkpoints/step-000004/model"),
    "meta/*/step-000002/*.*": lambda tiny: intact_record(only(tiny, "meta/*/step-000002"), MetaTrainingRecord),
    "eval/*": lambda tiny: intact_summary(RunFolder(tiny)),
    "data/tasks-*.npz": lambda tiny: check_task_files(tiny / "data", load_info(RunFolder(tiny))),
    "data/*.h5": lambda tiny: list(checked_shards(RunFolder(tiny), load_info(RunFolder(tiny)))),
    "config.yaml": lambda tiny: config_text(tiny / "config.yaml"),
}
"""By pattern of files: the checks that the next stage makes before it uses them."""


@pytest.mark.parametrize("pattern", USES)
def test_random_flips_of_a_file_are_noticed_before_it_is_used(states, tmp_path, pattern):
    shutil.copytree(states["finished"] / "tiny", tmp_path / "tiny")
    for path in (tmp_path / "tiny").glob(pattern):
        if not path.is_file() or path.suffix == ".py":  # a model's own code is not used here
            continue
        whole, rng = path.read_bytes(), np.random.default_rng(zlib.crc32(path.name.encode()))
        for at in [0, len(whole) - 2, *rng.integers(len(whole), size=1000 if LONG else 20)]:
            changed = bytearray(whole)
            changed[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            try:
                USES[pattern](tmp_path / "tiny")
            except UserError as error:
                assert "\n" not in str(error)
            else:  # only the name of a checksum, or a blank, may differ without a word: what is read is the same
                assert path.suffix in (".json", ".yaml"), (path, at)
                assert same_values(bytes(changed), whole, path.suffix), (path, at)
        path.write_bytes(whole)


def same_values(changed: bytes, whole: bytes, suffix: str) -> bool:
    if suffix == ".yaml":
        return changed.split(b"\n", 1)[1] == whole.split(b"\n", 1)[1]
    read, right = json.loads(changed), json.loads(whole)
    return all(read.get(key) == value for key, value in right.items() if key != "checksum")
