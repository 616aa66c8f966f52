"""Finds what is wrong with the plain values of a config, one line per problem, with the dotted path of each."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import pydantic

from icrl.config.components import find_component
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent, Component, ObjectiveComponent, Source, TasksComponent
from icrl.support.errors import ConfigError, did_you_mean, shown
from icrl.support.yaml12 import MOST_LEVELS

_LARGEST_INTEGER = 2**63 - 1
"""Largest integer of a config: arrays hold 64 bits."""

_LONGEST_EPISODE = 2**32
"""Most steps of an episode; sums over its steps have to fit into 64 bits."""

_RENAMED = {
    "training.target": "is now training.objective: write {name: imitation} for action, or {name: optimal_action}",
    "training.selection.weight": "is now training.selection.likelihood",
    "data.sources.*.weight": "is now called share",
}
"""Keys of earlier versions, and their replacements."""


def impossible(values: Any, location: tuple[str | int, ...] = ()) -> list[str]:
    """Problems of values anywhere: integers beyond 64 bits, numbers that are not finite, endless nesting."""
    if len(location) > 2 * MOST_LEVELS:
        return [f"{_dotted(location[:3])}: has more than {MOST_LEVELS} levels of lists and mappings"]
    if isinstance(values, int) and abs(values) > _LARGEST_INTEGER:
        return [f"{_dotted(location)}: is beyond the largest integer, {_LARGEST_INTEGER} (got {shown(values)})"]
    if isinstance(values, str) and not _is_writable(values):
        return [f"{_dotted(location)}: has characters that no file can hold (got {shown(values)})"]
    if isinstance(values, float) and not math.isfinite(values):
        return [f"{_dotted(location)}: is not a finite number (got {values})"]
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list | tuple):
        items = enumerate(values)
    lines = []
    for key in values if isinstance(values, dict) else ():
        if not isinstance(key, str):  # the records of a run are JSON, which would turn it into text
            lines.append(f"{_dotted((*location, key))}: is a key that is not text (got {shown(key)}); put it in quotes")
        elif not _is_writable(key):
            lines.append(f"{_dotted((*location, key))}: is a key with characters that no file can hold")
    return lines + [line for key, value in items for line in impossible(value, (*location, key))]


def _is_writable(text: str) -> bool:
    """False for text with half of a surrogate pair, which has no UTF-8, or with a zero byte, which ends a path."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def component_problems(values: dict[str, Any]) -> list[str]:
    """Problems that the components' own classes find in their parameters, one line each."""
    return [line for location, kind, value in _components(values) for line in problems_of(location, kind, value)]


def problems_of(location: tuple[str | int, ...], kind: type[Component], value: Any) -> list[str]:
    """Problems of the parameters of one component, one line each."""
    try:
        component = kind.model_validate(value)
    except pydantic.ValidationError:  # the schema reports it
        return []
    try:
        built = component.build()
    except ConfigError as error:
        return [f"{_dotted((*location, 'name'))}: {joined(error)}"]
    except pydantic.ValidationError as error:
        cls = find_component(component.name, component.table)
        names = [*type(component).model_fields, *(field.name for field in dataclasses.fields(cls))]
        return error_lines(error, component.params, location, names)
    length = getattr(built, "episode_length", 0) if kind is TasksComponent else 0
    if isinstance(length, int) and length > _LONGEST_EPISODE:
        return [f"{_dotted((*location, 'episode_length'))}: is beyond the limit, {_LONGEST_EPISODE} (got {length})"]
    return []


def _components(values: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], type[Component], Any]]:
    """The location, kind and value of every component in a plain config."""
    if "tasks" in values:
        yield ("tasks",), TasksComponent, values["tasks"]
        yield from _task_sets(values)
    if isinstance(values.get("training"), dict) and "objective" in values["training"]:
        yield ("training", "objective"), ObjectiveComponent, values["training"]["objective"]
    for section, key, kind in (("data", "sources", Source), ("evaluation", "baselines", AgentComponent)):
        items = values[section].get(key) if isinstance(values.get(section), dict) else None
        for index, item in enumerate(items if isinstance(items, list) else []):
            yield (section, key, index), kind, item


def _task_sets(values: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], type[Component], Any]]:
    """The family of each task set of the evaluation, unless `tasks` has problems of its own."""
    sets = values["evaluation"].get("tasks") if isinstance(values.get("evaluation"), dict) else None
    if not isinstance(sets, dict) or not sets or problems_of(("tasks",), TasksComponent, values["tasks"]):
        return
    family = values["tasks"] if isinstance(values["tasks"], dict) else {"name": values["tasks"]}
    for name, changes in sets.items():
        if isinstance(name, str) and isinstance(changes, dict) and "name" not in changes:
            own = {key: value for key, value in changes.items() if key != "num_tasks"}
            yield ("evaluation", "tasks", name), TasksComponent, {**family, **own}


def error_lines(
    error: pydantic.ValidationError,
    values: Any,
    prefix: tuple[str | int, ...] = (),
    names: list[str] | None = None,
    schema: type[pydantic.BaseModel] = ExperimentConfig,
) -> list[str]:
    """One line per problem. Members of a union, or a list and its items, may report the same one: the first counts.

    `values` are what was validated, by which pydantic's labels for members of a union are told from keys. The nearest
    valid name of an unknown key comes from `schema`, or from `names`.
    """
    lines: dict[str, str] = {}
    for item in error.errors():
        location = (*prefix, *_keys(item, values))
        where = _dotted(location)
        related = any(other.startswith(f"{where}.") or where.startswith(f"{other}.") for other in lines)
        if not related:
            lines.setdefault(where, _line(item, location, _names_at(location[:-1], schema) if names is None else names))
    return list(lines.values())


def _line(error: Any, location: tuple[str | int, ...], names: list[str]) -> str:
    """One pydantic error as `dotted.path: message (got value)`, with the nearest of the valid `names`, if any is."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "relation":
        return f"{context['path']}: {context['message']} (got {shown(context['value'])})"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        renamed = _RENAMED.get(".".join("*" if isinstance(item, int) else item for item in location))
        if renamed:
            return f"{_dotted(location)}: {renamed} (value {shown(error['input'])})"
        valid = [name for name in names if name != "params"]
        return f"{_dotted(location)}: unknown key (value {shown(error['input'])}){did_you_mean(location[-1], valid)}"
    if kind == "missing":
        return f"{_dotted(location)}: is required but missing"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{_dotted(location)}: {shown(error['input'])} is not a choice{did_you_mean(error['input'], choices)}"
    if kind == "value_error":  # raised by a component that checks several parameters; the message names the value
        return f"{_dotted(location)}: {joined(context['error'])}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{_dotted(location)}: {joined(message)} (got {shown(error['input'])})"


def _keys(error: Any, values: Any) -> tuple[str | int, ...]:
    """The part of a pydantic error's location that leads through `values`, without labels for members of a union."""
    keys: list[str | int] = []
    node = values
    for item in error["loc"]:
        try:
            node = node[item]
        except (TypeError, KeyError, IndexError):  # a label, or the last item: a key that is missing
            continue
        keys.append(item)
    return (*keys, error["loc"][-1]) if error["type"].startswith("missing") else tuple(keys)


def _dotted(location: Iterable[str | int]) -> str:
    """The dotted path of a location; keys that would be misread in it are quoted."""
    return ".".join(
        shown(item, quoted=not item or not item.isprintable() or bool(set(item) & set(". :")))
        if isinstance(item, str)
        else str(item)
        for item in location
    )


def _names_at(location: tuple[str | int, ...], schema: type[pydantic.BaseModel]) -> list[str]:
    """The field names of the schema's section at `location`."""
    section: Any = schema
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


def joined(error: object) -> str:
    """The text of an error as one line."""
    return " ".join(str(error).split())
