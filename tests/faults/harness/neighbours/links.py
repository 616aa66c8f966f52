"""A command that meets a symbolic link: nothing outside of the run folder is changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness.neighbours.commands import COMMANDS, broken_answer, expected, only_added
from tests.faults.harness.stages import run
from tests.faults.harness.uninterrupted import contents, differences


def _link(name: str, target: str) -> Callable[[Path, Path], None]:
    """A link at `name` in the run folder to `target`, relative to the folder outside."""

    def make(tiny: Path, outside: Path) -> None:
        path = tiny / name if name else tiny
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside / target if not target.startswith(".") else Path(target))

    return make


def _moved(name: str) -> Callable[[Path, Path], None]:
    """Moves `name` in the run folder outside, and leaves a link in its place."""

    def make(tiny: Path, outside: Path) -> None:
        path = tiny / name if name else tiny
        target = outside / "moved"
        path.rename(target)
        path.symlink_to(target)

    return make


LINKS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "run-folder-outside": ("run-overwrite", _moved("")),
    "run-folder-outside-again": ("run-again", _moved("")),
    "run-folder-dangling": ("run", _link("", "nothing/here")),
    "run-folder-loop": ("run", _link("", "./tiny")),
    "data-outside": ("train", _moved("data")),
    "data-outside-overwrite": ("generate-overwrite", _moved("data")),
    "data-dangling": ("generate", _link("data", "nothing")),
    "data-loop": ("generate", _link("data", "./data")),
    "shard-outside": ("train", _moved("data/train-00001-of-00003.h5")),
    "shard-outside-overwrite": ("generate-overwrite", _moved("data/train-00001-of-00003.h5")),
    "shard-loop": ("generate", _link("data/train-00001-of-00003.h5", "./train-00001-of-00003.h5")),
    "shard-to-another-file": ("generate", _link("data/train-00001-of-00003.h5", "mine.txt")),
    "info-to-another-file": ("generate", _link("data/info.json", "mine.txt")),
    "tasks-to-another-file": ("generate", _link("data/tasks-train.npz", "mine.txt")),
    "checkpoints-outside": ("train-overwrite", _moved("checkpoints")),
    "checkpoints-to-another-folder": ("train", _link("checkpoints", "folder")),
    "checkpoints-dangling": ("train", _link("checkpoints", "nothing")),
    "checkpoint-outside": ("train-overwrite", _moved("checkpoints/step-000006")),
    "weights-outside": ("evaluate", _moved("checkpoints/step-000006/model/model.safetensors")),
    "cache-to-another-folder": ("train", _link("cache", "folder")),
    "log-to-another-file": ("train", _link("training_log.jsonl", "mine.txt")),
    "lock-to-another-file": ("run", _link(".lock", "mine.txt")),
    "config-to-another-file": ("run", _link("config.yaml", "mine.txt")),
    "eval-to-another-folder": ("evaluate", _link("eval", "folder")),
    "report-to-another-file": ("evaluate", _link("report.html", "mine.txt")),
    "report-pictures-to-another-folder": ("evaluate", _link("report", "folder")),
}
"""By name: the command, and what is a symbolic link when it starts."""
NAMES = [*LINKS]


def attempt(home: Path, folder: Path, name: str) -> tuple[str, dict[str, str]]:
    """Makes the link and runs the command."""
    command, make = LINKS[name]
    (start, words), work, outside = COMMANDS[command], folder / "work", folder / "outside"
    shutil.copytree(home / start, work)
    (work / "runs").mkdir(exist_ok=True)
    (outside / "folder").mkdir(parents=True)
    for path in (outside / "mine.txt", outside / "folder/mine.txt"):
        path.write_text("mine")
    make(work / "runs/tiny", outside)
    before = contents(outside)
    result = run(words, work)
    broken = broken_answer(result, (0, 1))
    changed = differences(before, contents(outside))
    if name == "run-folder-outside":  # the run itself lies there
        changed = [line for line in changed if not line.startswith("moved/")]
    if changed := [line for line in changed if not only_added([line])]:
        broken["outside"] = "; ".join(changed)
    if result.code == 0:
        agreed = expected(home, command)["agreed"]
        found = {key: contents((work / key).parent).get(Path(key).name) for key in agreed if (work / key).is_file()}
        if wrong := differences(agreed, found):
            broken["silent"] = "; ".join(wrong[:5])
    return "refused" if result.code else "done", broken
