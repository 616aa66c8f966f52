"""Descriptions of components for people: a table of all of one kind, and the details of a single one."""

import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

import pydantic

from icrl.config.components import find_component, parameters

_MEANING_WIDTH = 110
"""Characters per line of documentation."""


def component_table(names: dict[str, str]) -> str:
    """One line per component: its name, and the first line of its documentation."""
    rows = [("name", "description")]
    rows += [(name, first_line(find_component(name, names))) for name in sorted(names)]
    return aligned(rows)


def describe_component(name: str, built: Any) -> str:
    """The details of a component: its documentation, and its parameters with their values, ranges and meanings."""
    lines = [inspect.getdoc(type(built)) or "", "", f"name: {name}", "parameters:"]
    meanings = _meanings(type(built))
    for line, key in zip(parameter_lines(built), parameters(built), strict=True):
        lines.append(line)
        if meanings.get(key):
            lines += [f"      {part}" for part in textwrap.wrap(" ".join(meanings[key].split()), _MEANING_WIDTH)]
    return "\n".join(lines)


def parameter_lines(built: Any) -> list[str]:
    """One line per parameter of a component: its name, its value, and the values that it accepts."""
    given = parameters(built)
    width = max(map(len, given), default=0)
    accepted = pydantic.TypeAdapter(type(built)).json_schema(mode="validation")["properties"]
    return [f"  {key.ljust(width)}  {_shown(value)}{_accepted(accepted[key])}" for key, value in given.items()]


def first_line(cls: type) -> str:
    """The first line of a class's documentation."""
    return next(iter((inspect.getdoc(cls) or "").splitlines()), "")


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """A table as text with aligned columns. The last column is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def _shown(value: Any) -> str:
    if isinstance(value, pydantic.BaseModel):  # a range that learners draw from
        return str(value.model_dump())
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def _meanings(cls: type) -> dict[str, str]:
    """The docstrings under a component's parameters, inherited ones included."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own = base.__dict__.get("__pydantic_fields__", {})
        meanings |= {name: field.description for name, field in own.items() if field.description}
    return meanings


def _accepted(schema: dict[str, Any]) -> str:
    """The values that a parameter accepts, in parentheses, from its JSON schema; empty if the schema states none."""
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if "oneOf" in schema:  # a parameter that each learner may draw for itself
        return _accepted(schema["oneOf"][0])[:-1] + "; from a list or a range, each learner draws its own value)"
    if "anyOf" in schema:
        kinds = [_accepted(kind).strip(" ()") for kind in schema["anyOf"]]
        text = " or ".join(kind for kind in kinds if kind)
    elif "enum" in schema:
        text = ", ".join(map(str, schema["enum"]))
    else:
        text = " and ".join(f"{words} {schema[key]}" for key, words in bounds.items() if key in schema)
        text = " ".join(filter(None, [schema.get("type", ""), text]))
    return f"  ({text})" if text else ""
