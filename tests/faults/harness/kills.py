"""SIGKILL, SIGTERM and SIGINT before the k-th file operation of every command, each followed by the same command again.

After a kill, what was complete must still be there and intact. After the restart, the folder must equal that of an
uninterrupted run, bit by bit, with nothing left over.
"""

import json
import os
import random
import shutil
import signal
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ad_model.train  # noqa: F401
import data_gen.exchange.minari_data
import data_gen.exchange.minari_export
import data_gen.exchange.xland
import data_gen.meta.training  # noqa: F401
import eval.evaluate
import eval.report  # noqa: F401 - imported here so that forked children need not
from eval.summary import intact_summary
from icrl.config.loader import dump, validate
from icrl.run.checkpoints import (
    MetaTrainingRecord,
    TrainingRecord,
    checkpoint_path,
    checkpoint_steps,
    intact_record,
)
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError
from tests.conftest import TINY, merged
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.uninterrupted import agreement, contents, differences, digest
from tests.faults.harness.watched import Fault, Result, watched

NUMBER = 340

LEARNER = {"name": "rl2", "iterations": 3, "trials": 2, "minibatches": 1, "units": 4, "trial_episodes": 1}
CONFIG = merged(
    TINY,
    {
        "output": "runs",
        "data": {
            "sources": [{"name": "q_learning"}, {"name": "a2c"}, LEARNER],
            "histories_per_task": 3,
            "episodes": 16,
        },
        "training": {"subsample": 2},
        "evaluation": {"baselines": [{"name": "random"}], "episodes": 2, "test_tasks": 2, "train_tasks": 1},
        "runtime": {"meta_checkpoint_every": 1, "keep_checkpoints": 2},
    },
)
"""A tiny experiment with a tabular source, a deep one and a meta-learner; checkpoints at updates 2, 4 and 6."""

STAGES = ("meta-train", "generate", "train", "evaluate")
_ON = ["--config", "tiny.yaml"]
_EXPORT = ["export", "minari", "runs/tiny", "--id", "tiny/room-v0", "--by-task"]
_IMPORT = ["import", "minari", "tiny/whole-v0", "--to", "imported"]
_XLAND = ["import", "xland", "rooms.hdf5", "--to", "imported"]
_OTHER = ["--seed", "1"]


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and the state of the folder that it starts from."""

    start: str
    """Name of the state: the last stage that is complete."""
    words: Sequence[str]
    weight: int = 1
    """Share of the cases."""
    group: bool = False
    """The command has several processes, and SIGINT and SIGTERM go to all of them."""
    worker: bool = False
    """A worker process is killed, and not the command's own."""


# `icrl push --dry-run` writes nothing.
SCENARIOS = {
    "meta-train": Scenario("nothing", ["meta-train", *_ON], 3),
    "meta-train-overwrite": Scenario("evaluate", ["meta-train", *_ON, "--overwrite"], 2),
    "generate": Scenario("meta-train", ["generate", *_ON], 3),
    "generate-overwrite": Scenario("evaluate", ["generate", *_ON, "--overwrite"], 2),
    "generate-2-workers": Scenario("meta-train", ["generate", *_ON, "--workers", "2"], 2, group=True),
    "generate-dead-worker": Scenario("meta-train", ["generate", *_ON, "--workers", "2"], 1, worker=True),
    "train": Scenario("generate", ["train", *_ON], 4),
    "train-overwrite": Scenario("evaluate", ["train", *_ON, "--overwrite"], 3),
    "train-other": Scenario("evaluate", ["train", *_ON, "--overwrite", "--training.learning_rate", "0.01"], 2),
    "evaluate": Scenario("train", ["evaluate", *_ON], 2),
    "evaluate-overwrite": Scenario("evaluate", ["evaluate", *_ON, "--overwrite"], 2),
    "evaluate-other": Scenario("evaluate", ["evaluate", *_ON, "--overwrite", "--evaluation.seeds", "1"]),
    "report": Scenario("no-report", ["evaluate", *_ON]),
    "run": Scenario("nothing", ["run", *_ON], 6),
    "run-overwrite": Scenario("evaluate", ["run", *_ON, "--overwrite"], 5),
    "run-other": Scenario("evaluate", ["run", *_ON, "--overwrite", *_OTHER], 5),
    "export": Scenario("evaluate", _EXPORT, 2),
    "import-minari": Scenario("exported", _IMPORT, 2),
    "import-minari-overwrite": Scenario("imported", [*_IMPORT, "--overwrite"], 2),
    "import-xland": Scenario("xland", _XLAND),
    "import-xland-overwrite": Scenario("imported", [*_XLAND, "--overwrite"]),
}

_DECIDED = {".h5", ".npz", ".npy", ".safetensors", ".parquet", ".hdf5"}
"""Files whose bytes follow from the config."""

_SYNCS_OF_A_WORKER = 4
"""One of two workers makes at least two of three shards, and syncs a file and a folder for each."""

_FILL = ("kill", "terminate", "kill", "interrupt")
"""Signals in turn: half of the cases are SIGKILL."""
_SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
_CODES = {"kill": -9, "terminate": 143, "interrupt": 130}
_WORDS = {"terminate": "terminated", "interrupt": "interrupted"}
_RESTARTS = ("again", "again", "twice", "overwrite", "thrice")
"""The command that follows a kill: the same again; killed once or twice more before; or with `--overwrite`."""


def prepare(home: Path) -> None:
    """Makes the states that cases start from, and runs every command twice without a fault."""
    last = make_stages(home)
    make_exchanged(home, last)
    for name in SCENARIOS:
        expected(home, name)


def make_stages(home: Path, config: dict[str, Any] = CONFIG, stages: Sequence[str] = STAGES) -> Path:
    """The folders `nothing`, `meta-train` ... `evaluate`: a config and the work up to that stage; returns the last one.

    Stages that are not in `stages` do nothing.
    """
    folder = home / "nothing"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(dump(validate(config)))
    for stage in STAGES:
        folder = _next_state(home, folder, stage)
        if stage in stages:
            _done(run([stage, *_ON], folder))
    return folder


def make_exchanged(home: Path, folder: Path) -> None:
    """The states without a report, with an exported and an imported data set, and with a file in XLand's layout."""
    no_report = _next_state(home, folder, "no-report")
    (no_report / "runs/tiny/report.html").unlink()
    exported = _next_state(home, folder, "exported")
    _done(run(["export", "minari", "runs/tiny", "--id", "tiny/whole-v0"], exported))
    imported = _next_state(home, exported, "imported")
    _done(run(_IMPORT, imported))
    for state in (imported, _next_state(home, home / "nothing", "xland")):
        write_rooms(state / "rooms.hdf5")


def write_rooms(path: Path) -> None:
    """A small file in XLand-100B's layout."""
    with h5py.File(path, "w") as file:
        for task in range(5):
            rng = np.random.default_rng(task)
            group = file.create_group(str(task))
            about = {"env-id": "XLand-MiniGrid-R1-3x3", "benchmark-id": "trivial-1m", "ruleset-id": task}
            group.attrs.update(about)
            ends = np.tile(np.arange(60) % 20 == 19, (2, 1))
            for name, values in {
                "states": rng.integers(13 * 12, size=(2, 60, 5, 5)).astype(np.uint8),
                "actions": rng.integers(6, size=(2, 60)).astype(np.uint8),
                "rewards": np.where(ends, 0.5, 0).astype(np.float16),
                "dones": ends,
                "expert_actions": rng.integers(6, size=(2, 60)).astype(np.uint8),
            }.items():
                group.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")


def expected(home: Path, name: str) -> dict[str, Any]:
    """The result of a scenario without a fault, its operations, and how far it is before each of them."""
    path = home / f"{name}.json"
    if not path.exists():
        found, scenario, trace = [], SCENARIOS[name], home / f"{name}.trace"
        for folder in (home / f"{name}-first", home / f"{name}-second"):
            trace.unlink(missing_ok=True)
            shutil.copytree(home / scenario.start, folder)

            def note(folder: Path = folder) -> None:
                with open(trace, "a") as file:
                    file.write(json.dumps(progress(folder)) + "\n")

            result = _done(run(scenario.words, folder, Fault(1, note, repeats=True)))
            found.append(contents(folder))
            shutil.rmtree(folder)
        steps = [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []
        value = {"agreed": agreement(*found), "operations": result.operations, "progress": steps}
        decided = {key: agreed for key, agreed in value["agreed"].items() if Path(key).suffix in _DECIDED}
        lacking = [key for key, agreed in decided.items() if agreed is None]
        assert not lacking, f"two uninterrupted runs differ in {lacking}"
        path.write_text(json.dumps(value))
    return json.loads(path.read_text())


def cases(home: Path, number: int) -> list[str]:
    """Names such as `train:terminate:37:again`, with the kills spread evenly over every command's operations."""
    names = []
    total = sum(scenario.weight for scenario in SCENARIOS.values())
    for name, scenario in SCENARIOS.items():
        operations = _SYNCS_OF_A_WORKER if scenario.worker else expected(home, name)["operations"]
        count = min(max(1, round(number * scenario.weight / total)), operations)
        rng = random.Random(zlib.crc32(f"{name} {number}".encode()))
        for index in range(count):
            at = 1 + int((index + rng.random()) * operations / count)
            by = "kill" if scenario.worker else _FILL[(index + zlib.crc32(name.encode())) % len(_FILL)]
            restart = _RESTARTS[rng.randrange(len(_RESTARTS))]
            if restart == "overwrite" and "--overwrite" not in scenario.words:
                restart = "again"
            names.append(f"{name}:{by}:{at}:{restart}")
    return names


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Kills the command, checks what is left, and starts it again."""
    name, by, at, restart = case.split(":")
    scenario, reference = SCENARIOS[name], expected(home, name)
    work = folder / "work"
    shutil.copytree(home / scenario.start, work)
    broken: dict[str, str] = {}
    rng = random.Random(zlib.crc32(case.encode()))
    again = [word for word in scenario.words if word != "--overwrite"]
    # The kills.
    words, number, ending = scenario.words, int(at), "continued"
    reached = reference["progress"][number - 1] if not scenario.worker else {}
    for _ in range({"twice": 2, "thrice": 3}.get(restart, 1)):
        fault = None if scenario.worker else Fault(number, _happens(by, scenario.group))
        result = run(words, work, fault, _dies_at(number, folder) if scenario.worker else None)
        if _is_stale(scenario, result):  # what is left is still of the config before
            words, ending = scenario.words, "refused, overwritten"
            continue
        if _was_complete(result):
            break
        broken |= _ended(result, by, scenario.worker or result.operations >= number, scenario.worker)
        broken |= _kept(home, scenario, work, reference, reached)
        words, reached = again, progress(work)
        if scenario.worker:  # fewer shards are left, so the same progress may not come again
            break
        number = rng.randint(1, max(1, result.operations))
    # The restart.
    result = run(scenario.words if restart == "overwrite" else words, work)
    if _is_stale(scenario, result):
        ending = "refused, overwritten"
        broken |= _restarted(result, 1)
        result = run(scenario.words, work)
    if _was_complete(result):
        ending = "was complete"
        broken |= _restarted(result, 1)
    else:
        broken |= _restarted(result, 0)
    if wrong := differences(reference["agreed"], contents(work)):
        broken["leftover" if all("left over" in line for line in wrong) else "silent"] = "; ".join(wrong[:5])
    return Outcome("kills", case, ending, tuple(broken), detail="\n".join(broken.values()))


def run(
    words: Sequence[str], folder: Path, fault: Fault | None = None, environment: dict[str, str] | None = None
) -> Result:
    """Runs a command in a watched child; Minari's data sets lie in the folder, too."""

    def call() -> int:
        os.environ.update({"MINARI_DATASETS_PATH": str(folder / "minari"), **(environment or {})})
        from icrl.cli import main

        return main(list(words))

    return watched(words, folder, below=folder, fault=fault, call=call)


def progress(folder: Path) -> dict[str, int]:
    """The complete parts, under names that a later moment must have, too, with numbers that are no smaller."""
    run_folder, done = RunFolder(folder / "runs/tiny"), {}
    for path in run_folder.data.glob("train-*.h5"):
        done[f"data/{path.name}"] = 1
    for home in (run_folder.checkpoints, *run_folder.meta.glob("[!.]*")):
        if steps := checkpoint_steps(home):
            done[home.relative_to(run_folder.path).as_posix()] = steps[-1]
    for path in (run_folder.data_info, run_folder.summary, run_folder.report, *folder.glob("imported/info.json")):
        if path.exists():
            done[path.relative_to(folder).as_posix()] = 1
    for path in folder.glob("minari/**/metadata.json"):
        if ".tmp" not in str(path):
            done[path.relative_to(folder).as_posix()] = 1
    return done


def _kept(
    home: Path, scenario: Scenario, folder: Path, reference: dict[str, Any], reached: dict[str, int]
) -> dict[str, str]:
    """Broken promises of the moment after a kill: everything complete is still there, and intact."""
    broken, now = {}, progress(folder)
    if lost := [f"{key} {now.get(key)} of {least}" for key, least in reached.items() if now.get(key, -1) < least]:
        broken["lost"] = f"after the kill: {'; '.join(lost)}"
    damaged = []
    run_folder = RunFolder(folder / "runs/tiny")
    before = home / scenario.start
    for path in run_folder.data.glob("train-*.h5"):
        name = path.relative_to(folder)
        known = [reference["agreed"].get(str(name))]
        known += [digest(before / name)] if (before / name).exists() else []
        if digest(path) not in known:
            damaged.append(str(name))
    kinds: list[tuple[Path, Any]] = [(run_folder.checkpoints, TrainingRecord)]
    kinds += [(each, MetaTrainingRecord) for each in run_folder.meta.glob("[!.]*")]
    try:
        for each, kind in kinds:
            for step in checkpoint_steps(each):
                intact_record(checkpoint_path(each, step), kind)
        if run_folder.summary.exists():
            intact_summary(run_folder)
    except UserError as error:
        damaged.append(str(error))
    if damaged:
        broken["damaged"] = f"after the kill: {'; '.join(damaged)}"
    return broken


def _was_complete(result: Result) -> bool:
    """True if an import or an export was refused because an earlier one is complete."""
    return result.code == 1 and any("already exists" in line for line in result.error_lines)


def _is_stale(scenario: Scenario, result: Result) -> bool:
    """True if the command, without `--overwrite`, found work of another config."""
    named = any("--overwrite" in line for line in result.error_lines)
    return result.code == 1 and named and "--overwrite" in scenario.words


def _ended(result: Result, by: str, hit: bool, worker: bool) -> dict[str, str]:
    """Broken promises of a command that was killed."""
    code = (1 if worker else _CODES[by]) if hit else 0
    broken = _common(result)
    if result.code != code:
        broken["exit code"] = f"{result.code} in place of {code}: {result.errors[-500:]}"
    lines = [line for line in result.errors.replace("\r", "\n").splitlines() if line.strip() and not is_progress(line)]
    if worker:
        right = len(lines) == 1 and lines[0].startswith("error: a worker was killed")
    elif by == "kill" or not hit:
        right = not lines
    else:
        right = len(lines) == 1 and lines[0].startswith(_WORDS[by])
    if not right:
        broken["many lines"] = "\n".join(lines)[-1500:]
    return broken


def _restarted(result: Result, code: int) -> dict[str, str]:
    """Broken promises of the command that was started again."""
    broken = _common(result)
    if result.code != code:
        broken["failed restart"] = f"{result.code}: {result.errors[-500:]}"
    return broken


def _common(result: Result) -> dict[str, str]:
    broken = {}
    if result.has_traceback:
        broken["traceback"] = result.errors[-1500:]
    if result.left:
        broken["orphan"] = "; ".join(result.left)
    if result.seconds >= 290:
        broken["time"] = f"{result.seconds:.0f} s"
    return broken


def is_progress(line: str) -> bool:
    """True for a line of a progress bar."""
    return "%|" in line or "it/s" in line or "?it" in line


def _done(result: Result) -> Result:
    assert result.code == 0, result.errors[-2000:]
    return result


def _next_state(home: Path, folder: Path, name: str) -> Path:
    shutil.copytree(folder, home / name)
    return home / name


def _happens(by: str, group: bool) -> Callable[[], None]:
    def happens() -> None:
        if group and by != "kill":
            os.killpg(os.getpgrp(), _SIGNALS[by])
        else:
            os.kill(os.getpid(), _SIGNALS[by])

    return happens


_DIES = """
import multiprocessing, os, signal
_left, _fsync = int(os.environ["DIES_AT"]), os.fsync

def fsync(descriptor):
    global _left
    _left -= 1
    if _left == 0 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    _fsync(descriptor)

os.fsync = fsync
"""


def _dies_at(number: int, folder: Path) -> dict[str, str]:
    """Variables with which a worker kills itself when it syncs a file for the `number`-th time."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_DIES)
    return {"PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[3])]), "DIES_AT": str(number)}
