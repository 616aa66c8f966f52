"""Two commands at once, dead ranks, read-only folders and symbolic links.

The second of two commands is refused in one line, or reads only. Wherever a fault is survived, the results are those of
an uninterrupted run; nothing outside of the run folder is changed.
"""

import ctypes
import json
import os
import pickle
import shutil
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from icrl.config.loader import dump, validate
from tests.conftest import TINY, merged
from tests.faults.harness.kills import is_progress, run
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.uninterrupted import agreement, contents, differences
from tests.faults.harness.watched import Fault, Result, watched

NUMBER = 66

CONFIG = merged(TINY, {"output": "runs", "evaluation": {"episodes": 2, "test_tasks": 2, "train_tasks": 1}})
_ON = ["--config", "tiny.yaml"]
_ROOT = Path(__file__).parents[3]

COMMANDS: dict[str, tuple[str, Sequence[str]]] = {
    "generate": ("nothing", ["generate", *_ON]),
    "train": ("generate", ["train", *_ON]),
    "evaluate": ("train", ["evaluate", *_ON]),
    "run": ("nothing", ["run", *_ON]),
    "run-again": ("evaluate", ["run", *_ON]),
    "generate-overwrite": ("evaluate", ["generate", *_ON, "--overwrite"]),
    "train-overwrite": ("evaluate", ["train", *_ON, "--overwrite"]),
    "evaluate-overwrite": ("evaluate", ["evaluate", *_ON, "--overwrite"]),
    "run-overwrite": ("evaluate", ["run", *_ON, "--overwrite"]),
}
"""By name: the state that a command starts from, and its words."""

READERS = {
    "info": ["info", "runs/tiny"],
    "push": ["push", "data", "runs/tiny", "--repo", "me/tiny", "--dry-run"],
}
"""Commands that only read: they work beside any other, or say in one line what is not there yet."""

PAIRS = [
    *(("generate", second) for second in ("generate", "generate-overwrite", "run", "info")),
    *(("train", second) for second in ("train", "train-overwrite", "generate-overwrite", "push")),
    *(("evaluate", second) for second in ("evaluate", "train-overwrite", "run-overwrite", "info")),
    *(("run", second) for second in ("run", "evaluate")),
]
"""Commands that run at once, first and second."""

RANKS = [(1, 12), (1, 30), (0, 8), (0, 24)]
"""(rank of a process of two that is killed, the first process's file operation that it is killed before)."""


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

READ_ONLY = {
    "parent": ("run", "runs"),
    "run": ("evaluate", "runs/tiny"),
    "run-again": ("run-again", "runs/tiny"),
    "data": ("generate", "runs/tiny/data"),
    "checkpoints": ("train", "runs/tiny/checkpoints"),
    "last-checkpoint": ("train-overwrite", "runs/tiny/checkpoints/step-000006"),
    "report": ("evaluate", "runs/tiny/report"),
    "eval": ("evaluate-overwrite", "runs/tiny/eval"),
}
"""By name: the command, and the folder that nothing may be written to."""


def prepare(home: Path) -> None:
    """Makes the states that cases start from, and runs every command twice without a fault."""
    folder = home / "nothing"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(dump(validate(CONFIG)))
    for stage in ("generate", "train", "evaluate"):
        shutil.copytree(folder, home / stage)
        folder = home / stage
        result = run([stage, *_ON], folder)
        assert result.code == 0, result.errors
    for name, (start, words) in {**COMMANDS, "two-ranks": ("generate", [])}.items():
        found = []
        for _ in range(2):
            work = home / "work"
            shutil.copytree(home / start, work)
            result = _launch(work, {}) if name == "two-ranks" else run(words, work)
            assert result.code == 0, result.errors
            found.append(contents(work))
            shutil.rmtree(work)
        value = {"agreed": agreement(*found), "operations": result.operations}
        (home / f"{name}.json").write_text(json.dumps(value))


def cases(home: Path, number: int) -> list[str]:
    """Names such as `pair:train:generate-overwrite:3`; the first ones of every kind if `number` is small."""
    kinds = [
        [f"pair:{first}:{second}:{share}" for share in (3, 8) for first, second in PAIRS],
        [f"rank:{rank}:{at}" for rank, at in RANKS],
        [f"read-only:{name}" for name in READ_ONLY],
        [f"link:{name}" for name in LINKS],
    ]
    total = sum(map(len, kinds))
    return [name for names in kinds for name in names[: max(1, round(number * len(names) / total))]]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Tries one case; `pair`, `rank`, `read-only` or `link`."""
    kind, *words = case.split(":")
    broken: dict[str, str] = {}
    ending = {"pair": _pair, "rank": _rank, "read-only": _read_only, "link": _links}[kind](home, folder, broken, *words)
    return Outcome("neighbours", case, ending, tuple(broken), detail="\n".join(broken.values()))


def _pair(home: Path, folder: Path, broken: dict[str, str], first: str, second: str, share: str) -> str:
    """The second command starts and ends while the first waits before one of its operations."""
    reference, (start, words) = _reference(home, first), COMMANDS[first]
    work = folder / "work"
    shutil.copytree(home / start, work)
    paused, go, answer = folder / "paused", folder / "go", folder / "answer"

    def pause() -> None:
        paused.touch()
        while not go.exists():
            time.sleep(0.01)

    at = max(4, reference["operations"] * int(share) // 10)
    helper = os.fork()
    if helper == 0:
        try:
            answer.write_bytes(pickle.dumps(run(words, work, Fault(at, pause))))
        finally:
            os._exit(0)
    while not paused.exists() and not answer.exists():
        time.sleep(0.01)
    other = run(READERS[second] if second in READERS else COMMANDS[second][1], work)
    go.touch()
    os.waitpid(helper, 0)
    result: Result = pickle.loads(answer.read_bytes())
    if second in READERS:
        _expect(broken, other, (0, 1, 2))
    else:
        _expect(broken, other, (1,), "in use by another process")
    _expect(broken, result, (0,))
    _compare(broken, reference, work)
    return "refused" if other.code else "read"


def _rank(home: Path, folder: Path, broken: dict[str, str], rank: str, at: str) -> str:
    """One of two processes of a training is killed by progress."""
    work, site = folder / "work", folder / "site"
    shutil.copytree(home / "generate", work)
    site.mkdir()
    (site / "sitecustomize.py").write_text(_DIES)
    killed = _launch(work, {"DIES_RANK": rank, "DIES_AT": at, "DIES_BELOW": str(work), "DIES_PIDS": str(site)}, site)
    if killed.code == 0:
        broken["exit code"] = "the launch ended with code 0"
    result = _launch(work, {})
    for each in (killed, result):
        if each.left:
            broken["orphan"] = "; ".join(each.left)
    if result.code:
        broken["failed restart"] = result.errors[-1000:]
    _compare(broken, _reference(home, "two-ranks"), work)
    return "continued"


def _read_only(home: Path, folder: Path, broken: dict[str, str], name: str) -> str:
    """A command whose folder may not be written to, and then the same command when it may."""
    command, place = READ_ONLY[name]
    (start, words), work = COMMANDS[command], folder / "work"
    shutil.copytree(home / start, work)
    (work / place).mkdir(parents=True, exist_ok=True)
    (work / place).chmod(0o555)
    before = contents(work)

    def call() -> int:
        _bound_by_modes()
        from icrl.cli import main

        return main(list(words))

    result = watched(words, work, call=call)
    _expect(broken, result, (0, 1))
    if (
        result.code
        and "--overwrite" not in words
        and (changed := differences(before, contents(work)))
        and not _only_added(changed)
    ):
        broken["lost"] = "; ".join(changed[:5])
    for path, _, _ in os.walk(work):
        Path(path).chmod(0o755)
    _expect(broken, run(words, work), (0,))
    _compare(broken, _reference(home, command), work)
    return "refused" if result.code else "done"


def _links(home: Path, folder: Path, broken: dict[str, str], name: str) -> str:
    """A command that meets a symbolic link."""
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
    _expect(broken, result, (0, 1))
    changed = differences(before, contents(outside))
    if name == "run-folder-outside":  # the run itself lies there
        changed = [line for line in changed if not line.startswith("moved/")]
    if changed := [line for line in changed if not _only_added([line])]:
        broken["outside"] = "; ".join(changed)
    if result.code == 0:
        agreed = _reference(home, command)["agreed"]
        found = {key: contents((work / key).parent).get(Path(key).name) for key in agreed if (work / key).is_file()}
        if wrong := differences(agreed, found):
            broken["silent"] = "; ".join(wrong[:5])
    return "refused" if result.code else "done"


def _reference(home: Path, name: str) -> dict[str, Any]:
    return json.loads((home / f"{name}.json").read_text())


def _expect(broken: dict[str, str], result: Result, codes: Sequence[int], words: str = "") -> None:
    """Notes what is wrong with a command that should end with one of `codes`, and a line with `words` if not with 0."""
    if result.code not in codes:
        broken["exit code"] = f"{result.code}: {result.errors[-800:]}"
    if result.has_traceback:
        broken["traceback"] = result.errors[-1500:]
    if result.left:
        broken["orphan"] = "; ".join(result.left)
    lines = [line for line in result.errors.replace("\r", "\n").splitlines() if line.strip() and not is_progress(line)]
    if result.code and (len(lines) != 1 or not lines[0].startswith("error: ") or words not in lines[0]):
        broken["many lines"] = "\n".join(lines)[-1000:]


def _compare(broken: dict[str, str], reference: dict[str, Any], work: Path) -> None:
    if wrong := differences(reference["agreed"], contents(work)):
        broken["leftover" if _only_added(wrong) else "silent"] = "; ".join(wrong[:5])


def _only_added(lines: Sequence[str]) -> bool:
    return all(line.endswith(": left over") for line in lines)


def _bound_by_modes() -> None:
    """From now on, file modes bind this process even if it is root's."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    sets = ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    values = list(struct.unpack("6I", sets.raw))
    for index in (0, 1):  # effective, permitted
        values[index] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *values))) == 0


def _launch(work: Path, environment: dict[str, str], site: Path | None = None) -> Result:
    """Trains with two processes on the CPU."""
    config = _ROOT / "configs/accelerate/multi_cpu.yaml"
    words = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    words += ["-m", "ad_model.train", "--config", "tiny.yaml"]
    places = os.pathsep.join(map(str, [*([site] if site else []), _ROOT]))

    def call() -> int:
        os.execve(sys.executable, [sys.executable, *words], {**os.environ, "PYTHONPATH": places, **environment})

    return watched(words, work, call=call)


_DIES = """
import os, signal, sys
_left, _pids = int(os.environ["DIES_AT"]), os.environ["DIES_PIDS"]

def _hook(event, args):
    global _left
    writes = event == "open" and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event == "os.rename") and os.path.abspath(str(args[0])).startswith(os.environ["DIES_BELOW"]):
        _left -= 1
        if _left == 0:
            with open(os.path.join(_pids, os.environ["DIES_RANK"])) as file:
                os.kill(int(file.read()), signal.SIGKILL)

if "RANK" in os.environ:
    with open(os.path.join(_pids, os.environ["RANK"]), "w") as file:
        file.write(str(os.getpid()))
if os.environ.get("RANK") == "0":  # the first process writes most files, so it tells how far the training is
    sys.addaudithook(_hook)
"""
