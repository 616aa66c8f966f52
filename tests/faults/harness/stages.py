"""Run folders of a tiny experiment after each stage, and the results of commands without a fault."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from icrl.config.loader import dump, validate
from icrl.run.checkpoints import checkpoint_steps
from icrl.run.folder import RunFolder
from tests.faults.harness.uninterrupted import agreement, contents
from tests.faults.harness.watched import MINARI, Fault, Result, watched

STAGES = ("meta-train", "generate", "train", "evaluate")
ON = ["--config", "tiny.yaml"]

_DECIDED = {".h5", ".npz", ".npy", ".safetensors", ".parquet", ".hdf5"}
"""Files whose bytes follow from the config."""


def run(
    words: Sequence[str], folder: Path, fault: Fault | None = None, environment: Mapping[str, str] | None = None
) -> Result:
    """Runs a command in a watched child; Minari's data sets lie in the folder, too."""
    places = {MINARI: str(folder / "minari"), **(environment or {})}
    return watched(words, folder, below=folder, fault=fault, environment=places)


def done(words: Sequence[str], folder: Path) -> None:
    """Runs a command that must succeed."""
    result = run(words, folder)
    assert result.code == 0, result.errors[-2000:]


def make_stages(home: Path, config: dict[str, Any], stages: Sequence[str] = STAGES) -> Path:
    """The folders `nothing`, `meta-train` ... `evaluate`: a config and the work up to that stage; returns the last one.

    Stages that are not in `stages` do nothing.
    """
    folder = home / "nothing"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(dump(validate(config)))
    for stage in STAGES:
        folder = next_state(home, folder, stage)
        if stage in stages:
            done([stage, *ON], folder)
    return folder


def next_state(home: Path, folder: Path, name: str) -> Path:
    """A copy of a state, in which more work can be done."""
    shutil.copytree(folder, home / name)
    return home / name


def reference(home: Path, name: str, start: str, act: Callable[[Path, Fault], Result]) -> dict[str, Any]:
    """The results of a command without a fault: what two runs of it `agreed` on, its file `operations`, its `progress`.

    Args:
        home: holds the states, and keeps the results.
        name: of the results.
        start: the state that the command starts from.
        act: runs the command in a folder, with a fault that only takes notes.
    """
    path, trace = home / f"{name}.json", home / f"{name}.trace"
    if not path.exists():
        found = []
        for folder in (home / f"{name}-first", home / f"{name}-second"):
            trace.unlink(missing_ok=True)
            shutil.copytree(home / start, folder)

            def note(folder: Path = folder) -> None:
                with open(trace, "a") as file:
                    file.write(json.dumps(progress(folder)) + "\n")

            result = act(folder, Fault(1, note, repeats=True))
            assert result.code == 0, result.errors[-2000:]
            found.append(contents(folder))
            shutil.rmtree(folder)
        steps = [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []
        agreed = agreement(*found)
        lacking = [key for key, value in agreed.items() if value is None and Path(key).suffix in _DECIDED]
        assert not lacking, f"two uninterrupted runs differ in {lacking}"
        path.write_text(json.dumps({"agreed": agreed, "operations": result.operations, "progress": steps}))
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def progress(folder: Path) -> dict[str, int]:
    """The complete parts, under names that a later moment must have, too, with numbers that are no smaller."""
    run_folder, complete = RunFolder(folder / "runs/tiny"), {}
    for path in run_folder.data.glob("train-*.h5"):
        complete[f"data/{path.name}"] = 1
    for home in (run_folder.checkpoints, *run_folder.meta.glob("[!.]*")):
        if steps := checkpoint_steps(home):
            complete[home.relative_to(run_folder.path).as_posix()] = steps[-1]
    for path in (run_folder.data_info, run_folder.summary, run_folder.report, *folder.glob("imported/info.json")):
        if path.exists():
            complete[path.relative_to(folder).as_posix()] = 1
    for path in folder.glob("minari/**/metadata.json"):
        if ".tmp" not in str(path):
            complete[path.relative_to(folder).as_posix()] = 1
    return complete
