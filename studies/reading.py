"""Reads a study: from a file, from a shipped study, from an earlier study's folder, or from the command line alone.

The values under `overrides` and `axes` keep their letters (`Written`), since only the config that they are set in knows
which keys are text: `1.10` may be a name.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from icrl.config.loader import plain_values, read_overrides
from icrl.config.problems import error_lines, impossible, joined
from icrl.config.shipped import STUDIES, shipped_folder, shipped_studies
from icrl.run.folder import config_text
from icrl.support.errors import ConfigError, did_you_mean, shown
from icrl.support.files import read_bytes
from icrl.support.yaml12 import YAMLFault, read_yaml
from studies.spec import StudySpec

STUDY_FILE = "study.yaml"
"""The study as it was asked for, in its folder; sealed with a checksum."""

_MOST_BYTES = 2**22
_WITH_LETTERS = ("overrides", "axes")
_UNNAMED = "study"
"""Name of a study without a file, if the command line gives none."""


@dataclass(frozen=True)
class Asked:
    """A study, and the words of its command line that changed it."""

    spec: StudySpec
    values: dict[str, Any]
    """The plain values as they were given, without defaults."""
    where: str
    """The study's file, or `study`, for messages."""


@dataclass(frozen=True)
class Words:
    """The parts of a command line that describe a study, each as the user wrote it."""

    base: str | None = None
    name: str | None = None
    axes: Sequence[str] = ()
    """Each `KEY=VALUE,VALUE` or `NAME={GROUP: {KEY: VALUE}}`."""
    seeds: Sequence[str] = ()
    """Each `KIND=NUMBER` or `KIND=SEED,SEED`."""
    show: str | None = None
    combine: str | None = None
    threads: int | None = None
    overrides: Sequence[str] = field(default_factory=list)


def read_study(name: str | None, words: Words) -> Asked:
    """The study in the file `name`, changed by the words of a command line; without a name, of these words alone.

    Raises ConfigError with one line per problem.
    """
    values, where = ({}, "study") if name is None else _file_values(find_study(name))
    if name is not None and is_study_folder(name):
        values["name"] = Path(name).resolve().name  # the folder may have been renamed
    elif name is not None:
        values.setdefault("name", find_study(name).stem)
    values = _changed(values, words)
    if "base" not in values:
        raise ConfigError(f"{where}: base: is required but missing: the config of all runs, such as demo")
    values.setdefault("name", _UNNAMED)
    return checked_study(values, where)


def checked_study(values: Mapping[str, Any], where: str = "study") -> Asked:
    """A study of plain values, which may have letters (`Written`). Raises ConfigError with one line per problem."""
    plain = plain_values(dict(values))
    problems = impossible(plain)
    if not problems:
        try:
            kept = {key: values[key] if key in _WITH_LETTERS else plain[key] for key in values}
            return Asked(StudySpec.model_validate(kept), dict(values), where)
        except pydantic.ValidationError as error:
            problems = error_lines(error, plain, schema=StudySpec)
    raise ConfigError("\n".join(f"{where}: {line}" for line in problems))


def find_study(name: str | Path) -> Path:
    """The file of a study, given as a path, as a study's own folder, or as the name of a shipped study.

    Raises ConfigError, with the nearest name, if there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if is_study_folder(path):
        return path / STUDY_FILE
    plain = path.as_posix().removeprefix("configs/").removeprefix(f"{STUDIES}/").removesuffix(".yaml")
    names = shipped_studies()
    if plain in names:
        return shipped_folder() / STUDIES / f"{plain}.yaml"
    raise ConfigError(f"{name}: is neither a study's file or folder, nor a shipped study{did_you_mean(plain, names)}")


def is_study_folder(name: str | Path) -> bool:
    """True if `name` is the folder of an earlier study."""
    return (Path(name) / STUDY_FILE).is_file()


def _file_values(path: Path) -> tuple[dict[str, Any], str]:
    """The values in a study's file, and its path. Raises ConfigError."""
    unclear: list[str] = []
    try:
        if path.name == STUDY_FILE:
            text = config_text(path, "run the study again from its own file")
        else:
            text = read_bytes(path, _MOST_BYTES).decode()
        values = read_yaml(text, with_letters=True, unclear=unclear)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {joined(error)}") from error
    except YAMLFault as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    for note in unclear:
        print(f"warning: {path}: {note}", file=sys.stderr)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, such as 'base:' and 'axes:'")
    if "tasks" in values and "base" not in values:
        raise ConfigError(f"{path}: is an experiment, not a study: icrl run {path}, or a study with `base: {path}`")
    return values, str(path)


def _changed(values: dict[str, Any], words: Words) -> dict[str, Any]:
    """`values` with what the command line adds or replaces. Raises ConfigError for words that cannot be read."""
    given = {"base": words.base, "name": words.name, "combine": words.combine, "threads": words.threads}
    changed = {**values, **{key: value for key, value in given.items() if value is not None}}
    if words.show is not None:
        changed["show"] = [key.strip() for key in words.show.split(",")]
    for option, texts in (("axis", words.axes), ("seeds", words.seeds)):
        for text in texts:
            _add(changed, option, text)
    if words.overrides:
        pairs = {key.removeprefix("--"): value for key, value in read_overrides(words.overrides)}
        changed["overrides"] = {**_mapping(changed, "overrides"), **pairs}
    return changed


def _add(values: dict[str, Any], option: str, text: str) -> None:
    """Adds one `--axis` or `--seeds` to `values`. Raises ConfigError."""
    key, equals, content = text.partition("=")
    key = key.strip()
    if not equals or not key:
        example = "training.learning_rate=1e-3,3e-3" if option == "axis" else "training=3"
        raise ConfigError(f"--{option} {shown(text)}: write it as {example}")
    try:
        items = read_yaml(f"[{content}]", with_letters=True)
    except YAMLFault as error:
        raise ConfigError(f"--{option} {shown(text)}: its value {error}") from error
    section = "axes" if option == "axis" else "seeds"
    there = _mapping(values, section)
    if option == "axis" and key in there:
        raise ConfigError(f"--axis {shown(text)}: the axis {key} is given twice")
    alone = len(items) == 1 and (option == "seeds" or isinstance(items[0], dict))
    values[section] = {**there, key: items[0] if alone else items}


def _mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    there = values.get(key) or {}
    if not isinstance(there, dict):
        raise ConfigError(f"{key}: expected a mapping (got {shown(plain_values(there))})")
    return there
