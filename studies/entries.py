"""The entries that `icrl compare` compares: a run, or a cell of a study with all of its seeds.

Only summaries and tables are read, with the checks of their checksums. Configs are not: a config names code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icrl.run.folder import RunFolder
from icrl.support.errors import UserError
from icrl.support.terminal import say
from studies.cells import label_of
from studies.folder import StudyFolder, read_run_record
from studies.pool import Evaluated, Pool


@dataclass(frozen=True)
class Entry:
    """One column of a comparison."""

    label: str
    path: Path
    """The run folder, or the folder of the study."""
    pool: Pool


def load_entries(paths: Sequence[Path]) -> list[Entry]:
    """The entries of run folders and of studies, each with a name of its own.

    Raises UserError for a folder that is neither, without an evaluation, or damaged.
    """
    entries: list[Entry] = []
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UserError(f"{path}: is named twice")
        seen.add(path.resolve())
        entries += _study_entries(path) if StudyFolder(path).study.is_file() else [_run_entry(path)]
    for entry in entries:
        _ = entry.pool.summary  # so that a damaged file is refused before anything is computed
    return _told_apart(entries)


def _run_entry(path: Path) -> Entry:
    """The entry of a run folder. Raises UserError."""
    folder = RunFolder(path)
    if not folder.summary.exists():
        what = (
            "has no evaluation yet" if folder.config.exists() else "is neither a run folder nor the folder of a study"
        )
        raise UserError(f"{path}: {what}")
    return Entry(path.resolve().name, path, Pool([Evaluated(folder)]))


def _study_entries(path: Path) -> list[Entry]:
    """One entry per cell of a study, of its complete runs. Raises UserError if none is complete."""
    study = StudyFolder(path)
    cells: dict[str, list[Evaluated]] = {}
    left = 0
    for each in sorted(study.runs.glob("*/")):
        folder = RunFolder(each)
        record = read_run_record(folder)
        if record is None or record.state != "complete" or not folder.summary.exists():
            left += 1
            continue
        cells.setdefault(label_of(record.settings), []).append(Evaluated(folder))
    if not cells:
        raise UserError(f"{path}: has no complete run")
    if left:
        say(f"note: {path}: {left} runs are not complete, and are left out")
    name = path.resolve().name
    return [
        Entry(name if len(cells) == 1 else f"{name}: {label}", path, Pool(members)) for label, members in cells.items()
    ]


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with more of their paths in names that repeat."""
    named = [*entries]
    for depth in range(1, 4):
        labels = [entry.label for entry in named]
        if len(set(labels)) == len(labels):
            break
        named = [
            Entry("/".join([*_parents(entry.path, depth), first.label]), entry.path, entry.pool)
            if labels.count(entry.label) > 1
            else entry
            for entry, first in zip(named, entries, strict=True)
        ]
    labels = [entry.label for entry in named]
    return [
        Entry(f"{entry.label} ({labels[: number + 1].count(entry.label)})", entry.path, entry.pool)
        if labels.count(entry.label) > 1
        else entry
        for number, entry in enumerate(named)
    ]


def _parents(path: Path, depth: int) -> list[str]:
    """The names of so many folders around `path`, the outermost first."""
    return [parent.name for parent in path.resolve().parents[:depth] if parent.name][::-1]
