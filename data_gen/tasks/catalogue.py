"""The task families for people: a table of them all, one in full, and a picture of a few of its tasks."""

import inspect
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pydantic
from matplotlib.figure import Figure

from data_gen.spaces import leaves
from data_gen.tasks.base import TaskDistribution
from icrl.config.components import TASKS, find_component
from icrl.config.describe import aligned, first_line, parameter_lines
from icrl.support.errors import UserError
from icrl.support.files import write_file
from icrl.support.pictures import png

_PICTURED_TASKS = 8
_WIDEST_SPACE = 28  # characters of a space in the table


def family_table() -> str:
    """One line per family: name, what varies, spaces, and the first line of its documentation."""
    rows = [("name", "varies", "observation", "action", "what it is")]
    for name in sorted(TASKS):
        cls = find_component(name, TASKS)
        try:
            family = cls()
            row = (family.varies, _brief(family.observation_space), _brief(family.action_space))
        except (UserError, pydantic.ValidationError):  # a parameter without a default, or a package that is missing
            row = ("by parameters", "", "")
        rows.append((name, *row, first_line(cls)))
    return aligned(rows)


def describe_family(name: str, family: TaskDistribution) -> str:
    """One family in full: its documentation, parameters with their values, spaces, and what varies."""
    tasks = family.sample(1, seed=0)
    every = family.all_tasks()
    lines = [
        inspect.getdoc(type(family)) or "",
        "",
        f"name: {name}",
        f"varies: {family.varies}",
        f"tasks: {'unlimited' if every is None else format(len(every), ',')}",
        *(f"  {key}: {tasks[key].dtype}{list(tasks[key].shape[1:])}" for key in tasks),
        f"observation space: {family.observation_space}",
        f"action space: {family.action_space}",
        f"episode length: {family.episode_length}",
        "parameters:",
        *parameter_lines(family),
    ]
    return "\n".join(lines)


def draw_tasks(family: TaskDistribution, title: str, path: Path) -> bool:
    """Writes a picture of a few sampled tasks to `path`; returns False for a family without pictures."""
    every = family.all_tasks()
    count = _PICTURED_TASKS if every is None else min(_PICTURED_TASKS, len(every))
    if every is None:
        tasks = family.sample(count, seed=0)
    else:  # without repeats
        tasks = every.take(np.random.default_rng(0).permutation(len(every))[:count])
    with matplotlib.rc_context({"text.parse_math": False}):  # the names and values of users are no formulas
        columns = min(4, count)
        rows = -(-count // columns)
        figure = Figure(figsize=(2.4 * columns, 2.3 * rows + 0.4), layout="constrained")
        figure.suptitle(title)
        # A family draws a task from an episode; one of no steps shows the task alone.
        parts = {
            path: np.empty((0, *space.shape), space.dtype) for path, space in leaves(family.observation_space).items()
        }
        nothing = parts.get("", parts)
        axes = figure.subplots(rows, columns, squeeze=False)
        for number, panel in enumerate(axes.flat):
            if number >= count:
                panel.set_axis_off()
            elif not family.draw(panel, tasks.take([number]), nothing, np.empty(0)):
                return False
        picture = png(figure, dpi=120)
    write_file(path, picture)
    return True


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
