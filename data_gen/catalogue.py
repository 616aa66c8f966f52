"""The task families and the agents, for people: a table of them all, one in full, a picture of a few of its tasks."""

import inspect
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
from matplotlib.figure import Figure

from data_gen.agents.base import Agent
from data_gen.agents.sweep import Range
from data_gen.spaces import leaves
from data_gen.tasks.base import TaskDistribution
from icrl.config.components import AGENTS, TASKS, find_component, parameters
from icrl.support.errors import UserError
from icrl.support.files import write_file

_PICTURED_TASKS = 8
_MEANING_WIDTH = 110  # characters of a line of documentation
_WIDEST_SPACE = 28  # characters of a space in the table


def table() -> str:
    """One line a family: name, what varies, spaces, and the first line of its documentation."""
    rows = [("name", "varies", "observation", "action", "what it is")]
    for name in sorted(TASKS):
        cls = find_component(name, TASKS)
        what = inspect.getdoc(cls) or ""
        try:
            family = cls()
            row = (family.varies, _brief(family.observation_space), _brief(family.action_space))
        except (UserError, pydantic.ValidationError):  # parameters without defaults, or a package that is not there
            row = ("by parameters", "", "")
        rows.append((name, *row, what.splitlines()[0]))
    return _aligned(rows)


def agents_table() -> str:
    """One line an agent: name, and the first line of its documentation."""
    rows = [("name", "what it is")]
    rows += [(name, (inspect.getdoc(find_component(name, AGENTS)) or "").splitlines()[0]) for name in sorted(AGENTS)]
    return _aligned(rows)


def describe_agent(name: str, agent: Agent) -> str:
    """One agent in full: its documentation, and its parameters with their values here, what they accept and mean."""
    lines = [inspect.getdoc(type(agent)) or "", "", f"name: {name}", "parameters:"]
    meanings = _meanings(type(agent))
    for line, key in zip(_parameter_lines(agent), parameters(agent), strict=True):
        lines.append(line)
        if meanings.get(key):
            lines += [f"      {part}" for part in textwrap.wrap(" ".join(meanings[key].split()), _MEANING_WIDTH)]
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """A table as text; the last column as wide as it comes."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def _parameter_lines(built: Any) -> list[str]:
    """A line a parameter of a component: its name, its value here, and what it accepts."""
    given = parameters(built)
    width = max(map(len, given), default=0)
    accepted = pydantic.TypeAdapter(type(built)).json_schema(mode="validation")["properties"]
    return [f"  {key.ljust(width)}  {_shown(value)}{_accepted(accepted[key])}" for key, value in given.items()]


def _shown(value: Any) -> str:
    if isinstance(value, Range):
        return str(value.model_dump())
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def _meanings(cls: type) -> dict[str, str]:
    """The docstrings under a component's parameters, those of the classes that it inherits them from included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own = base.__dict__.get("__pydantic_fields__", {})
        found |= {name: field.description for name, field in own.items() if field.description}
    return found


def describe(name: str, family: TaskDistribution) -> str:
    """One family in full: its documentation, parameters with their values here, spaces, and what varies."""
    tasks = family.sample(1, seed=0)
    every = family.all_tasks()
    lines = [
        inspect.getdoc(type(family)) or "",
        "",
        f"name: {name}",
        f"varies: {family.varies}",
        f"tasks: {'without end' if every is None else format(len(every), ',')}",
        *(f"  {key}: {tasks[key].dtype}{list(tasks[key].shape[1:])}" for key in tasks),
        f"observation space: {family.observation_space}",
        f"action space: {family.action_space}",
        f"episode length: {family.episode_length}",
        "parameters:",
        *_parameter_lines(family),
    ]
    return "\n".join(lines)


def draw_tasks(family: TaskDistribution, title: str, path: Path) -> bool:
    """Writes a picture of a few sampled tasks to `path`; returns whether the family has pictures."""
    every = family.all_tasks()
    count = _PICTURED_TASKS if every is None else min(_PICTURED_TASKS, len(every))
    if every is None:
        tasks = family.sample(count, seed=0)
    else:  # without repeats
        tasks = every.take(np.random.default_rng(0).permutation(len(every))[:count])
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.4 * columns, 2.3 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    parts = {path: np.empty((0, *space.shape), space.dtype) for path, space in leaves(family.observation_space).items()}
    nothing = parts.get("", parts)
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, place in enumerate(axes.flat):
        if number >= count:
            place.set_axis_off()
        elif not family.draw(place, tasks.take([number]), nothing, np.empty(0)):
            return False
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_file(path, image.getvalue())
    return True


def _accepted(schema: dict[str, Any]) -> str:
    """What a parameter accepts, from its JSON schema, in brackets; nothing where the type alone says it."""
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if "oneOf" in schema:  # a parameter that learners may draw for themselves
        return _accepted(schema["oneOf"][0])[:-1] + "; a list or a range: each learner draws its own)"
    if "anyOf" in schema:
        kinds = [_accepted(kind).strip(" ()") for kind in schema["anyOf"]]
        text = " or ".join(kind for kind in kinds if kind)
    elif "enum" in schema:
        text = ", ".join(map(str, schema["enum"]))
    else:
        text = " and ".join(f"{words} {schema[key]}" for key, words in bounds.items() if key in schema)
        text = " ".join(filter(None, [schema.get("type", ""), text]))
    return f"  ({text})" if text else ""


def _brief(space: Any) -> str:
    """A space in a few characters: the type, and the shape or the number of values."""
    kind = type(space).__name__
    if hasattr(space, "spaces"):
        parts = space.spaces.items() if isinstance(space.spaces, dict) else enumerate(space.spaces)
        text = f"{kind}({', '.join(f'{key}: {_brief(part)}' for key, part in parts)})"
    elif hasattr(space, "nvec"):
        text = f"{kind}({space.nvec.tolist()})"
    else:
        text = f"{kind}({space.n})" if hasattr(space, "n") else f"{kind}{space.shape}"
    return text if len(text) <= _WIDEST_SPACE else text[: _WIDEST_SPACE - 3] + "..."
