"""Damage to every kind of file of a run folder: made again, or named in one line; never used, never a traceback.

A case is `STATE COMMAND FILE DAMAGE SEED`: in a run folder of that state, the file is damaged, and the command is
called that a user would call next. Its answer is right in one of two ways: it ends without an error and everything
that it makes is that of a run without damage, or it names the file, or a folder around it, with what to do.
"""

import contextlib
import io
import json
import pickle
import re
import shutil
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from tests.conftest import merged
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.payloads import MARK, Bomb
from tests.faults.harness.promises import broken_lines, broken_promises, described
from tests.faults.harness.tiny_runs import CONFIG, REMOVED, RESULTS, make_states, results, stage_of, words
from tests.faults.harness.watched import watched

NUMBER = 1200

FLIPS = tuple(f"flip {seed}" for seed in range(3))
CUTS = ("half 0", "byte 0", "anywhere 0", "empty 0", "delete 0")
REPLACED = ("text 0", "not_utf8 0", "code 0", "other_run 0", "sibling 0", "directory 0", "link 0")
DAMAGES = (*FLIPS, *CUTS, *REPLACED)
"""Kinds of damage. `code` is a file of the right type that leaves a mark if anything unpickles or runs it, `other_run`
the same file of a run with another seed, `sibling` the same file of another shard or checkpoint of this run."""

COMMANDS = {
    "finished": {
        "data/": ("generate", "info", "push data", "run"),
        "cache/": ("run",),
        "checkpoints/": ("evaluate", "push model", "train", "info", "run"),
        "meta/": ("meta-train", "evaluate", "info", "run"),
        "eval/": ("evaluate", "info", "push model"),
        "report": ("evaluate", "push model"),
        "training_log": ("evaluate", "train"),
        "logs/": ("evaluate",),
        "config.yaml": ("info", "push data", "push model", "evaluate", "generate"),
        ".lock": ("run", "info"),
    },
    "generation": {"data/": ("generate", "run"), "config.yaml": ("generate",)},
    "meta_training": {"meta/": ("meta-train", "run"), "config.yaml": ("meta-train",)},
    "training": {
        **{"cache/": ("train", "run"), "checkpoints/": ("train", "run"), "data/": ("train", "run")},
        **{"training_log": ("train",), "logs/": ("train",), "config.yaml": ("train",)},
    },
    "evaluation": {"checkpoints/": ("evaluate", "push model"), "meta/": ("evaluate",), "data/": ("evaluate",)},
    "reporting": {
        **{"eval/": ("evaluate", "push model"), "training_log": ("evaluate",), "config.yaml": ("evaluate",)},
        **{"data/": ("evaluate",), "logs/": ("evaluate",)},
    },
}
"""By state and the begin of a file's path, the commands that a user would call next and that may use the file."""

MADE = {
    **{"meta-train": ("meta/*/step-000003/",), "generate": ("data/",), "train": ("checkpoints/step-000004/",)},
    **{"evaluate": ("eval/", "report"), "run": ("data/", "checkpoints/step-000004/", "eval/", "report", "config.yaml")},
}
"""By command, the begin of the files that it promises to have made: after it, they are as they were without damage."""

KEPT = {".lock": "holds nothing", "logs/events": "belongs to TensorBoard, which alone reads it"}
"""Files that a command may open and leave as they are, and why."""

REMEDY = re.compile(r"\b(delete|run|use|make|made|again|choose|train|evaluate|generate|resume|--overwrite)\b")


def prepare(home: Path) -> None:
    """The states of a run folder, and a run with another seed."""
    make_states(home / "states")
    make_states(home / "other", merged(CONFIG, {"seed": 1}))
    for state in set(REMOVED) - {"finished"}:
        shutil.rmtree(home / "other" / state)


def cases(home: Path, number: int) -> list[str]:
    """The first `number` cases, so ordered that every kind of damage to every kind of file comes early."""
    every: dict[str, list[str]] = {}
    for state, uses in COMMANDS.items():
        tiny = home / "states" / state / "runs/tiny"
        for kind in kinds_of_files(tiny):
            for command in next((commands for begin, commands in uses.items() if kind.startswith(begin)), ()):
                for damage in DAMAGES:
                    if damaged_content(home, home, only(tiny, kind), kind, *damage.split()) is not None:
                        case = f"{state} {command.replace(' ', '-')} {kind} {damage}"
                        every.setdefault(kind, []).append(case)
    # The n-th case of every kind of file comes before the next one of any, and among these each kind of damage once.
    order = []
    for of_kind in every.values():
        of_kind.sort(key=lambda case: zlib.crc32(case.encode()))
        rounds = Counter[str]()
        turns = []
        for case in of_kind:
            damage = case.split()[3]
            rounds[damage] += 1
            turns.append((rounds[damage], case))
        order += [(place, case) for place, (_, case) in enumerate(sorted(turns, key=lambda turn: turn[0]))]
    return [case for _, case in sorted(order, key=lambda pair: pair[0])][:number]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Damages a copy of a run folder and calls the command."""
    state, command, kind, damage, seed = case.split()
    command = command.replace("-data", " data").replace("-model", " model")
    shutil.copytree(home / "states" / state, folder, dirs_exist_ok=True)
    tiny, whole = folder / "runs/tiny", results(home / "states/finished")
    path = only(tiny, kind)
    before = path.read_bytes()
    content = damaged_content(home, folder, path, kind, damage, seed)
    path.unlink()
    if content == "directory":
        path.mkdir()
        (path / "file").touch()
    elif content == "link":
        path.symlink_to(folder / "nowhere")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    after = _content(path)
    result = watched(words(command), folder, forbidden=[tiny])
    broken = broken_promises(result) | broken_lines(result)
    if (folder / MARK).exists():
        broken["executed"] = "the content of the damaged file"
    if result.code == 0:
        ending = "made again" if _content(path) not in (after, None) else "not used"
        said = (result.output + result.errors).splitlines()
        name = "report.html" if kind.startswith("report") else path.name
        told = [line for line in said if line.startswith(("warning: ", "note: ")) and name in line]
        stages = RESULTS if command == "run" else [command] if command in RESULTS else []
        right, made = {name: whole[name] for name in whole if stage_of(name) in stages}, results(folder, [*stages])
        opened = any(name.strip("'") == str(path.resolve()) for name in result.opened)
        promised = kind.startswith(MADE.get(command, ()))
        kept = kind.startswith(tuple(KEPT)) or same_values(after, before)
        stays = _content(path) == after and not kept and (promised or (opened and damage != "delete"))
        if made != right or (stays and not told):
            ending = "used"
            broken["silent"] = "other results" if made != right else "the damaged file is still there"
        elif told:
            ending = "told"
    else:
        ending = "refused"
        [line] = result.error_lines[:1] or [""]
        around = [path, *path.parents][: len(path.relative_to(tiny).parts)]
        if not any(str(place.relative_to(folder)) in line for place in around) or not REMEDY.search(line):
            broken["not named"] = line
        if "another config" in line and damage not in ("other_run", "sibling"):
            broken["told as something else"] = line
    seen = f"{broken}\n{described(result)}" if broken else ""
    return Outcome("damaged_files", case, ending, tuple(broken), detail=seen)


def kinds_of_files(tiny: Path) -> list[str]:
    """Patterns of the files of a run folder, one file each, without parts that differ between configs or runs."""
    names = (path.relative_to(tiny).as_posix() for path in tiny.rglob("*") if path.is_file())
    return sorted({re.sub(r"-[0-9a-f]{8,}/", "-*/", re.sub(r"tfevents.*", "tfevents*", name)) for name in names})


def same_values(one: bytes | str | None, other: bytes) -> bool:
    """True if text says the same; a blank at its end may be missing."""
    with contextlib.suppress(TypeError, ValueError):
        if isinstance(one, bytes):
            return (
                one == other or one.decode().rstrip() == other.decode().rstrip() or json.loads(one) == json.loads(other)
            )
    return False


def only(tiny: Path, kind: str) -> Path:
    """The first of the files that a pattern names."""
    return sorted(tiny.glob(kind))[0]


def damaged_content(home: Path, folder: Path, path: Path, kind: str, damage: str, seed: str) -> bytes | str | None:
    """The content of a damaged file, or `damage` where it is not a file; None if there is no such damage to it."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng((zlib.crc32(kind.encode()), int(seed)))
    if damage in ("delete", "directory", "link"):
        return damage
    if damage in ("text", "not_utf8", "code"):
        other = {"text": b"something else\n", "not_utf8": b"\x80\x81\xff" * 40}
        return other.get(damage) or marking(folder / MARK, path)
    if damage in ("other_run", "sibling"):
        others = only(home / "other/finished/runs/tiny", kind) if damage == "other_run" else _sibling(home, kind)
        return None if others is None or others.read_bytes() == content else others.read_bytes()
    if not content:
        return None
    if damage == "flip":
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        return bytes(content)
    return bytes(content[: {"half": len(content) // 2, "byte": -1, "empty": 0}.get(damage, rng.integers(len(content)))])


def marking(mark: Path, path: Path) -> bytes:
    """The content of a file of the same type as `path` that leaves `mark` if it is run or unpickled."""
    bomb, file = pickle.dumps(Bomb(mark)), io.BytesIO()
    if path.suffix == ".py":
        return f"import os\nos.mkdir({str(mark)!r})\n".encode()
    if path.suffix == ".yaml":
        return f"!!python/object/apply:os.mkdir [{str(mark)!r}]\n".encode()
    if path.suffix == ".npy":
        np.save(file, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
        return file.getvalue()
    if path.suffix == ".npz":
        np.savez(file, allow_pickle=True, position=np.array([Bomb(mark)], dtype=object))
        return file.getvalue()
    if path.suffix in (".bin", ".pkl"):  # as torch.save writes them
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in {"data.pkl": bomb, "byteorder": b"little", "version": b"3\n"}.items():
                archive.writestr(f"archive/{name}", content)
        return file.getvalue()
    return bomb


def _sibling(home: Path, kind: str) -> Path | None:
    """The same file of another shard, checkpoint or split; None if there is none."""
    tiny = home / "states/finished/runs/tiny"
    pairs = {"00000": "00001", "00001": "00002", "00002": "00000", "step-000004": "step-000002"}
    pairs |= {"step-000003": "step-000002", "tasks-test": "tasks-train", "tasks-train": "tasks-test"}
    pairs |= {"tasks-validation": "tasks-test"}
    pairs |= {"previous_action": "action", "boundary": "action", "observation": "previous_reward"}
    if "step-000002" in kind:
        pairs = {"step-000002": "step-000004" if kind.startswith("checkpoints") else "step-000003"}
    for one, other in pairs.items():
        if one in kind:
            return next(iter(sorted(tiny.glob(kind.replace(one, other, 1)))), None)
    return None


def _content(path: Path) -> bytes | str | None:
    """Whatever is at `path`, to see whether it changes; None if nothing is there."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink():
            return f"a link to {path.readlink()}"
        return "a folder" if path.is_dir() else path.read_bytes()
    return None
