"""Loads an `ExperimentConfig` from a YAML file and dotted overrides, with readable errors.

An override is `--tasks.size 7`, `--tasks.size=7` or `tasks.size=7`. Its value is read as YAML. List items are addressed
by their number (`data.sources.0.step_size`), and lists and mappings can be given as a whole
(`--evaluation.baselines '[random]'`).
"""

import copy
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from icrl.config.components import find_component
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent, Component, ObjectiveComponent, Source, TasksComponent
from icrl.config.shipped import find_config
from icrl.support.errors import ConfigError, did_you_mean

RENAMED = {
    "training.target": "is now training.objective: write {name: imitation} for action, or {name: optimal_action}",
    "training.selection.weight": "is now training.selection.likelihood",
    "data.sources.*.weight": "is now called share",
}
"""Keys of earlier versions, and their replacements."""

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
    if isinstance(name, Mapping):
        values, where = copy.deepcopy(dict(name)), "config"
    else:
        path = find_config(name)
        values, where = _read(path), str(path)
        values.setdefault("name", path.stem)
    for key, value in parse_overrides(overrides):
        _set(values, key, value)
    return validate(values, where)


def validate(values: dict[str, Any], where: str = "config") -> ExperimentConfig:
    """Checks plain `values` against the schema, and every component's parameters against its class.

    Raises ConfigError with one line per problem.
    """
    problems = []
    try:
        config = ExperimentConfig.model_validate(values)
    except pydantic.ValidationError as error:
        problems = _lines(error)
    problems += _component_problems(values)
    if problems:
        raise ConfigError("\n".join(f"{where}: {line}" for line in problems))
    return config


def load_tasks(name: str, overrides: Sequence[str] = ()) -> Any:
    """The task distribution `name`, with its parameters given as overrides (`--size 7`). Raises ConfigError."""
    return _built(TasksComponent, name, parse_overrides(overrides))


def load_agent(name: str, overrides: Sequence[str] = ()) -> Any:
    """The agent `name`, with its parameters given as overrides (`--learning_rate 0.1`). Raises ConfigError."""
    return _built(AgentComponent, name, parse_overrides(overrides))


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
            raise ConfigError(f"{key}: is not a parameter of {name!r}")
        _set(values, key, value)
    problems = _problems_of(location, kind, values)
    if problems:
        raise ConfigError("\n".join(problems))
    return kind.model_validate(values).build()


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Splits command-line words into dotted keys and YAML values. Raises ConfigError for a word that is neither."""
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals:
            if not word.startswith("--") or not rest:
                raise ConfigError(f"argument {word!r}: expected an override such as --tasks.size 7 or tasks.size=7")
            text = rest.pop(0)
        try:
            pairs.append((key.replace("-", "_"), yaml.safe_load(text)))
        except yaml.YAMLError as error:
            raise ConfigError(f"argument {word!r}: its value is not YAML: {_one_line(error)}") from error
    return pairs


def dump(config: ExperimentConfig) -> str:
    """The resolved config as YAML, defaults included. `load_config` reads it back to a config with the same text."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def fingerprint(*parts: Any) -> str:
    """A short hash of config sections. Sections that are equal, defaults included, have equal fingerprints."""
    plain = [part.model_dump(mode="json") if isinstance(part, pydantic.BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {_one_line(error)}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, such as 'tasks:' and 'data:'")
    return values


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Sets one dotted key in place. A key that is not in the schema is left for validation to report."""
    *parents, last = dotted.split(".")
    node: Any = values
    for depth, key in enumerate([*parents, last]):
        index: Any = key
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                where = ".".join(dotted.split(".")[:depth])
                raise ConfigError(f"{dotted}: {where} is a list of {len(node)}; address its items as {where}.0 ...")
            index = int(key)
        elif not isinstance(node, dict):
            where = ".".join(dotted.split(".")[:depth])
            raise ConfigError(f"{dotted}: {where} is the value {node!r}, which has no key {key!r}")
        if depth == len(parents):
            node[index] = value
            return
        if isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        if isinstance(node[index], str):
            node[index] = {"name": node[index]}  # a component written as its bare name
        node = node[index]


def _component_problems(values: dict[str, Any]) -> list[str]:
    """Problems that the components' own classes find in their parameters, one line each."""
    return [line for location, kind, value in _components(values) for line in _problems_of(location, kind, value)]


def _problems_of(location: tuple[str | int, ...], kind: type[Component], value: Any) -> list[str]:
    """Problems of the parameters of one component, one line each."""
    try:
        component = kind.model_validate(value)
    except pydantic.ValidationError:  # the schema reports it
        return []
    try:
        component.build()
    except ConfigError as error:
        return [f"{_dotted((*location, 'name'))}: {error}"]
    except pydantic.ValidationError as error:
        cls = find_component(component.name, component.table)
        names = [*type(component).model_fields, *(field.name for field in dataclasses.fields(cls))]
        return _lines(error, location, names)
    return []


def _components(values: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], type[Component], Any]]:
    """The location, kind and value of every component in a plain config."""
    if "tasks" in values:
        yield ("tasks",), TasksComponent, values["tasks"]
    if isinstance(values.get("training"), dict) and "objective" in values["training"]:
        yield ("training", "objective"), ObjectiveComponent, values["training"]["objective"]
    for section, key, kind in (("data", "sources", Source), ("evaluation", "baselines", AgentComponent)):
        items = values[section].get(key) if isinstance(values.get(section), dict) else None
        for index, item in enumerate(items if isinstance(items, list) else []):
            yield (section, key, index), kind, item


def _lines(
    error: pydantic.ValidationError, prefix: tuple[str | int, ...] = (), names: list[str] | None = None
) -> list[str]:
    """One line per problem. Members of a union, or a list and its items, may report the same one: the first counts."""
    lines: dict[str, str] = {}
    for item in error.errors():
        where = _dotted((*prefix, *item["loc"]))
        related = any(other.startswith(f"{where}.") or where.startswith(f"{other}.") for other in lines)
        if not related:
            lines.setdefault(where, _line(item, prefix, names))
    return list(lines.values())


def _line(error: Any, prefix: tuple[str | int, ...] = (), names: list[str] | None = None) -> str:
    """One pydantic error as `dotted.path: message (got value)`, with the nearest valid name if there is one.

    `names` are the valid keys if the schema does not know them: the parameters of the component at `prefix`.
    """
    location = (*prefix, *error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    if kind == "relation":
        return f"{context['path']}: {context['message']} (got {context['value']!r})"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        renamed = RENAMED.get(".".join("*" if isinstance(item, int) else item for item in location))
        if renamed:
            return f"{_dotted(location)}: {renamed} (value {error['input']!r})"
        valid = _names_at(location[:-1]) if names is None else [name for name in names if name != "params"]
        return f"{_dotted(location)}: unknown key (value {error['input']!r}){did_you_mean(location[-1], valid)}"
    if kind == "missing":
        return f"{_dotted(location)}: is required but missing"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{_dotted(location)}: {error['input']!r} is not a choice{did_you_mean(error['input'], choices)}"
    if kind == "value_error":  # raised by a component that checks several parameters; the message names the value
        return f"{_dotted(location)}: {context['error']}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{_dotted(location)}: {_one_line(message)} (got {error['input']!r})"


def _dotted(location: Iterable[str | int]) -> str:
    """The dotted path, without pydantic's labels for members of a union (`constrained-int`, `function-before[...]`)."""
    return ".".join(str(item) for item in location if isinstance(item, int) or item.replace("_", "").isalnum())


def _names_at(location: tuple[str | int, ...]) -> list[str]:
    """The field names of the schema's section at `location`."""
    section: Any = ExperimentConfig
    for key in location:
        if isinstance(key, str) and isinstance(section, type) and issubclass(section, pydantic.BaseModel):
            if key not in section.model_fields:
                return []
            section = section.model_fields[key].annotation
        elif isinstance(key, int):
            section = next(iter(typing.get_args(section)), None)
    if isinstance(section, types.UnionType):
        section = typing.get_args(section)[0]
    return list(section.model_fields) if hasattr(section, "model_fields") else []


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
