"""The cells of a study and their runs: axes -> cells -> one config per cell and seed.

A cell is one combination of settings. Its runs differ by their seeds alone. The name of a run follows from its own
settings and seeds, not from its number, so that a study which gets another value on an axis keeps the runs it has.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icrl.config.loader import config_of, config_values, plain_values
from icrl.config.schema import ExperimentConfig
from icrl.config.splits import SeedName
from icrl.run.fingerprints import evaluation_fingerprint
from icrl.support.errors import ConfigError, shown
from studies.reading import Asked
from studies.spec import StudySpec, is_groups

MOST_RUNS = 100_000
"""Most runs of a study; far more than anyone runs, and few enough to list."""

_MOST_NAME = 120  # letters of a run's name; a run folder may have 200
_DIGITS = 6  # of the hash after a name that is not all of its settings
_MOST_LINES = 20  # of problems that are reported at once


@dataclass(frozen=True)
class Cell:
    """One combination of settings."""

    name: str
    """The cell in files: the beginning of its runs' names."""
    settings: dict[str, Any]
    """The value on every axis, as a plain value; the name of the group on an axis of groups."""
    pairs: tuple[tuple[str, Any], ...]
    """The dotted keys that the cell sets, and their values."""

    @property
    def label(self) -> str:
        """The cell for people."""
        return label_of(self.settings)


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    name: str
    cell: Cell
    seeds: dict[str, int]
    """The seeds that the study sets, by what they are for: `seed`, or some of `SEEDS`."""
    config: ExperimentConfig

    def seed(self, kind: SeedName) -> int:
        """The seed that this run has for one of `SEEDS`."""
        return self.config.seed_for(kind)


@dataclass(frozen=True)
class Study:
    """A study with all of its cells and runs, in the order of its axes."""

    asked: Asked
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]

    @property
    def spec(self) -> StudySpec:
        """The study as it was asked."""
        return self.asked.spec


def label_of(settings: Mapping[str, Any]) -> str:
    """Settings in a few words: the last part of each key, and its value."""
    keys = _short_keys(settings)
    return ", ".join(f"{keys[axis]} {_letters(value)}" for axis, value in settings.items()) or "all runs"


def runs_of(asked: Asked, folder: Path) -> Study:
    """All runs of a study, with their run folders in `folder`.

    Raises ConfigError with one line per problem: an unknown base, a setting that no config has, two cells that are the
    same.
    """
    spec = asked.spec
    cells = tuple(_cells(spec))
    by_kind = spec.seeds.values()
    combinations = [dict(zip(by_kind, seeds, strict=True)) for seeds in itertools.product(*by_kind.values())]
    if len(cells) * len(combinations) > MOST_RUNS:
        raise ConfigError(f"{asked.where}: has {len(cells) * len(combinations):,} runs, the limit is {MOST_RUNS:,}")
    try:
        base, _ = config_values(spec.base)
    except ConfigError as error:
        raise ConfigError(f"{asked.where}: base: {error}") from error
    runs: list[Run] = []
    problems: dict[str, tuple[str, list[str]]] = {}  # one line per key, with the cells that have it
    for cell in cells:
        try:
            runs += [_run(cell, seeds, base, spec, folder) for seeds in combinations]
        except ConfigError as error:
            for line in str(error).splitlines():
                problems.setdefault(line.removeprefix(": ").partition(": ")[0], (line, []))[1].append(cell.label)
    if problems:
        raise ConfigError("\n".join(_lines(problems, len(cells), asked.where)))
    _check_different(runs, asked.where)
    return Study(asked, cells, tuple(runs))


def _cells(spec: StudySpec) -> Iterator[Cell]:
    """Yields the cells in order, the last axis fastest."""
    by_axis = [[*_choices(axis, values)] for axis, values in spec.axes.items()]
    combined = zip(*by_axis, strict=True) if spec.combine == "pairs" and by_axis else itertools.product(*by_axis)
    for choices in combined:
        settings = {axis: value for axis, value, _ in choices}
        yield Cell(_cell_name(settings), settings, tuple(pair for _, _, pairs in choices for pair in pairs))


def _choices(axis: str, values: Any) -> Iterator[tuple[str, Any, list[tuple[str, Any]]]]:
    """Yields the values of an axis: (axis, plain value or name of the group, what it sets)."""
    if is_groups(values):
        for name, group in values.items():
            yield axis, str(name), [*group.items()]
        return
    for value in values:
        yield axis, _setting(value), [(axis, value)]


def _setting(value: Any) -> Any:
    """The value of a setting as tables and names have it: a number or text as it is, anything else as its JSON."""
    plain = plain_values(value)
    return plain if isinstance(plain, str | int | float) else json.dumps(plain)


def _run(cell: Cell, seeds: dict[str, int], base: Mapping[str, Any], spec: StudySpec, folder: Path) -> Run:
    """One run, with its config. Raises ConfigError with the problems of the config."""
    name = "_".join([cell.name, *(f"{kind}-{seed}" for kind, seed in seeds.items())]).lstrip("_")
    name = name or "run"
    own = [("seed" if kind == "seed" else f"seeds.{kind}", seed) for kind, seed in seeds.items()]
    pairs = [*spec.overrides.items(), *cell.pairs, *own, ("name", name), ("output", str(folder))]
    return Run(name, cell, seeds, config_of(base, pairs, ""))


def _cell_name(settings: Mapping[str, Any]) -> str:
    """The name of a cell in files. A name that leaves something out ends with a hash of all settings."""
    keys = _short_keys(settings)
    written = "_".join(f"{keys[axis]}-{_letters(value)}" for axis, value in settings.items())
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", written).lstrip("._-")[:_MOST_NAME] or ("cell" if settings else "")
    if name == written:
        return name
    content = json.dumps(settings, sort_keys=True)
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]}"


def _short_keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """The last part of every axis, or all of it where two axes would be called the same."""
    last = [axis.rpartition(".")[2] for axis in settings]
    return {axis: short if last.count(short) == 1 else axis for axis, short in zip(settings, last, strict=True)}


def _letters(value: Any) -> str:
    """A setting as people write it: .001 rather than 1e-03."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _lines(problems: Mapping[str, tuple[str, list[str]]], cells: int, where: str) -> Iterator[str]:
    """Yields a line for each problem, with the cell that has it unless all have it."""
    for line, labels in itertools.islice(problems.values(), _MOST_LINES):
        cell = f" (cell {labels[0]}{f', and {len(labels) - 1} more' if len(labels) > 1 else ''})"
        yield f"{where}: {line.removeprefix(': ')}{cell if len(labels) < cells else ''}"
    if len(problems) > _MOST_LINES:
        yield f"{where}: and {len(problems) - _MOST_LINES} more problems"


def _check_different(runs: list[Run], where: str) -> None:
    """Raises ConfigError if two runs are the same experiment, or would have the same folder."""
    seen: dict[str, Run] = {}
    folders: dict[str, Run] = {}
    for run in runs:
        same = seen.setdefault(evaluation_fingerprint(run.config), run)
        if same is not run:
            names = dict.fromkeys((same.name, run.name))
            raise ConfigError(f"{where}: two runs are the same experiment: {' and '.join(names)}; leave one out")
        same = folders.setdefault(run.name.lower(), run)  # some file systems take a and A for one name
        if same is not run:
            raise ConfigError(f"{where}: axes: the runs {shown(same.name)} and {shown(run.name)} need different names")
