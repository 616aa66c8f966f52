"""Loads an `ExperimentConfig` from a YAML file and dotted overrides, with readable errors.

An override is `--tasks.size 7`, `--tasks.size=7` or `tasks.size=7`. Its value is read as YAML 1.2. List items are
addressed by their number (`data.sources.0.step_size`), and lists and mappings can be given as a whole
(`--evaluation.baselines '[random]'`). For a key that is text, such as `name`, the letters of a number are kept: 1.10
stays 1.10.
"""

import copy
import hashlib
import json
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from icrl.config.components import find_component
from icrl.config.problems import component_problems, error_lines, impossible, joined, problems_of
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent, Component, ObjectiveComponent, Section, TasksComponent
from icrl.config.shipped import find_config
from icrl.support.errors import ConfigError, shown
from icrl.support.yaml12 import MOST_LEVELS, Written, YAMLFault, read_yaml, write_yaml

_RESOLVED = {"output", "seed", "tasks", "split", "data", "model", "training", "evaluation", "runtime"}
"""The sections of a config that a run wrote, as `config.yaml` or with a model. If one has no `split.validation`, an
earlier version wrote it, which had no validation tasks: the run and the model are made again as they were."""

_KEY_PREFIX: dict[type[Component], tuple[str, ...]] = {TasksComponent: ("tasks",), AgentComponent: ()}
"""Prefix of the keys in error messages about a component that is built without a config."""


def load_config(name: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Reads a config, applies `overrides`, and validates the result.

    Args:
        name: a YAML file, the name of a shipped config, such as `demo` or `dark_room/ppo`, or the content of a config
            as a mapping, which then needs the key `name`.
        overrides: command-line words, such as `["--tasks.size", "7"]` or `["tasks.size=7"]`.

    Raises ConfigError with one line per problem: the dotted path, the value, and the nearest valid name.
    """
    values, where = config_values(name)
    return config_of(values, read_overrides(overrides), where)


def config_values(name: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The plain values of a config before any override, with the letters of what is not text, and its file's path.

    Raises ConfigError if there is no such config, or its file is not YAML.
    """
    if isinstance(name, Mapping):
        return copy.deepcopy(dict(name)), "config"
    path = find_config(name)
    values = _read(path)
    values.setdefault("name", path.stem)
    return values, str(path)


def config_of(values: Mapping[str, Any], pairs: Iterable[tuple[str, Any]], where: str = "config") -> ExperimentConfig:
    """The config of plain `values` in which dotted keys are set to other values; `values` stays as it is.

    Args:
        values: the result of `config_values`.
        pairs: dotted keys and their values, such as `read_overrides` gives. Later ones replace earlier ones.
        where: name of the config in error messages.

    Raises ConfigError with one line per problem.
    """
    changed = copy.deepcopy(dict(values))
    for key, value in pairs:
        _set(changed, key, copy.deepcopy(value))
    return validate(_settled(changed), where)


def validate(values: dict[str, Any], where: str = "config") -> ExperimentConfig:
    """Checks plain `values` against the schema, and every component's parameters against its class.

    Raises ConfigError with one line per problem.
    """
    problems = impossible(values)
    if not problems:
        try:
            config = ExperimentConfig.model_validate(values)
        except pydantic.ValidationError as error:
            problems = error_lines(error, values)
        problems += component_problems(values)
    if problems:
        raise ConfigError("\n".join(f"{where}: {line}" for line in problems))
    return config


def load_tasks(name: str, overrides: Sequence[str] = ()) -> Any:
    """The task distribution `name`, with its parameters given as overrides (`--size 7`). Raises ConfigError."""
    return _built(TasksComponent, name, read_overrides(overrides))


def load_agent(name: str, overrides: Sequence[str] = ()) -> Any:
    """The agent `name`, with its parameters given as overrides (`--learning_rate 0.1`). Raises ConfigError."""
    return _built(AgentComponent, name, read_overrides(overrides))


def make_tasks(name: str, **parameters: Any) -> Any:
    """The task distribution `name`, such as `dark_room` or your own `module:Class`, with these parameters.

    Raises ConfigError for an unknown name or a wrong parameter, with the nearest valid name.
    """
    return _built(TasksComponent, name, parameters.items())


def make_agent(name: str, **parameters: Any) -> Any:
    """The agent `name`, such as `q_learning` or your own `module:Class`, with these parameters.

    Raises ConfigError for an unknown name or a wrong parameter, with the nearest valid name.
    """
    return _built(AgentComponent, name, parameters.items())


def make_objective(name: str, **parameters: Any) -> Any:
    """The objective `name`, such as `imitation`, or your own `module:Class`, with its parameters.

    Raises ConfigError for an unknown name or a wrong parameter, with the nearest valid name.
    """
    return _built(ObjectiveComponent, name, parameters.items())


def _built(kind: type[Component], name: str, pairs: Iterable[tuple[str, Any]]) -> Any:
    """Builds a component without a config. Raises ConfigError with the component's section before its keys."""
    location, values = _KEY_PREFIX[kind], {"name": name}
    for key, value in pairs:
        if key in kind.model_fields:
            raise ConfigError(f"{key}: is not a parameter of {shown(name)}")
        _set(values, key, value, kind)
    values = _settled(values, kind)
    problems = impossible(values, location) or problems_of(location, kind, values)
    if problems:
        raise ConfigError("\n".join(problems))
    return kind.model_validate(values).build()


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Splits command-line words into dotted keys and YAML values. Raises ConfigError for a word that is neither."""
    return [(key.replace("-", "_"), _settled(value, None)) for key, value in read_overrides(words)]


def read_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """The dotted keys of `words` as they are written, and their values, with the letters of what is not text."""
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals:
            if not word.startswith("--") or not rest:
                raise ConfigError(
                    f"argument {shown(word)}: expected an override such as --tasks.size 7 or tasks.size=7"
                )
            text = rest.pop(0)
        unclear: list[str] = []
        try:
            pairs.append((key, read_yaml(text, with_letters=True, unclear=unclear)))
        except YAMLFault as error:
            raise ConfigError(f"argument {shown(word)}: its value {error}") from error
        for note in unclear:
            print(f"warning: argument {shown(word)}: {note}", file=sys.stderr)
    return pairs


def plain_values(value: Any) -> Any:
    """`value`, such as `read_overrides` gives, without the letters of what is not text."""
    return _settled(value, None)


def dump(config: ExperimentConfig) -> str:
    """The resolved config as YAML, defaults included. `load_config` reads it back to a config with the same text."""
    return write_yaml(config.model_dump(mode="json"))


def fingerprint(*parts: Any) -> str:
    """A short hash of config sections. Sections that are equal, defaults included, have equal fingerprints."""
    plain = [part.model_dump(mode="json") if isinstance(part, pydantic.BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    unclear: list[str] = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {joined(error)}") from error
    try:
        values = read_yaml(text, with_letters=True, unclear=unclear)
    except YAMLFault as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    for note in unclear:
        print(f"warning: {path}: {note}", file=sys.stderr)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, such as 'tasks:' and 'data:'")
    if "base" in values and "tasks" not in values:
        raise ConfigError(f"{path}: is a study, not an experiment: icrl study {path}")
    if values.keys() >= _RESOLVED and isinstance(values["split"], dict):
        values["split"].setdefault("validation", 0)
    return values


def _set(values: dict[str, Any], dotted: str, value: Any, kind: type[Section] = ExperimentConfig) -> None:
    """Sets one dotted key in place. A key that is not in the schema is left for validation to report.

    A key of the schema, or of a component, may be written with - in place of _.
    """
    *parents, last = dotted.split(".")
    if len(parents) >= MOST_LEVELS:
        raise ConfigError(f"{shown(dotted)}: has more than {MOST_LEVELS} levels")
    node, annotation = values, kind
    for depth, key in enumerate([*parents, last]):
        index: Any = key
        if isinstance(node, list):
            if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < len(node)):
                where = ".".join(dotted.split(".")[:depth])
                advice = f"{where} is a list of {len(node)}; address its items as {where}.0 ..."
                raise ConfigError(f"{shown(dotted, quoted=False)}: {advice}")
            index = int(key)
        elif not isinstance(node, dict):
            where = ".".join(dotted.split(".")[:depth])
            is_value = shown(_settled(node, None))
            raise ConfigError(
                f"{shown(dotted, quoted=False)}: {where} is the value {is_value}, which has no key {shown(key)}"
            )
        else:
            plain = key.replace("-", "_")
            index = plain if key not in node and plain in _fields_of(annotation, node) else key
        annotation = _annotation_at(annotation, node, index)
        if depth == len(parents):
            node[index] = value
            return
        if isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        if isinstance(node[index], str):
            node[index] = {"name": node[index]}  # a component written as its bare name
        node = node[index]


def _settled(values: Any, annotation: Any = ExperimentConfig) -> Any:
    """`values` with every `Written` scalar as its letters if its key is text, else as its value."""
    if isinstance(values, dict):
        return {key: _settled(value, _annotation_at(annotation, values, key)) for key, value in values.items()}
    if isinstance(values, list):
        return [_settled(value, _annotation_at(annotation, values, index)) for index, value in enumerate(values)]
    if not isinstance(values, Written):
        return values
    return values.letters if _is_text(annotation) else values.value


def _is_text(annotation: Any) -> bool:
    """True if text is the only kind of value, besides None, that the annotation allows."""
    kinds = set(_kinds(annotation)) - {type(None)}
    return kinds == {str}


def _kinds(annotation: Any) -> Iterator[Any]:
    """The members of a union, without `Annotated`; the types of the choices of a Literal."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _kinds(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _kinds(member)
    elif typing.get_origin(annotation) is typing.Literal:
        yield from {type(choice) for choice in typing.get_args(annotation)}
    else:
        yield annotation


def _annotation_at(annotation: Any, node: Any, key: Any) -> Any:
    """The annotation of the item `key` of `node`, which has `annotation`; None if there is none."""
    for kind in _kinds(annotation):
        if isinstance(node, dict):
            found = _fields_of(kind, node).get(key)
            if found is not None:
                return found
        elif typing.get_origin(kind) in (tuple, list):
            items = [item for item in typing.get_args(kind) if item is not Ellipsis]
            return items[key if len(items) > 1 and key < len(items) else 0] if items else None
    return None


def _fields_of(annotation: Any, node: Any) -> dict[str, Any]:
    """The annotations of the keys of a section, or of a component and the class that `node` names; else empty."""
    for kind in _kinds(annotation):
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            continue
        fields = {name: field.annotation for name, field in kind.model_fields.items()}
        name = node.get("name") if issubclass(kind, Component) else None
        if issubclass(kind, Component) and isinstance(name, str):
            try:
                cls: Any = find_component(name, kind.table)
            except ConfigError:  # reported by validation
                return fields
            fields |= {key: field.annotation for key, field in cls.__pydantic_fields__.items() if key not in fields}
        return fields
    return {}
