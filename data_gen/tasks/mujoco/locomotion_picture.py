"""Pictures of locomotion tasks: the path of an episode, its goal, and the factors of the model fields."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_WAY, _GOAL, _START, _LINE = "#2563eb", "#f59e0b", "#111827", "#e5e7eb"
_FIELDS = {"body_mass": "#2563eb", "body_inertia": "#10b981", "dof_damping": "#a855f7", "geom_friction": "#ef4444"}
_FONT = 6  # points
_TOP, _BOTTOM = (0.14, 0.68, 0.36, 0.28), (0.14, 0.04, 0.36, 0.28)  # insets: left, bottom, width, height


def draw_task(axes: Any, goal: str, task: Arrays, times: NDArray[Any], path: NDArray[Any], seconds: float) -> None:
    """Draws the path and the goal with the factors in an inset; without a goal, the factors with the path in an inset.

    Args:
        axes: matplotlib axes.
        goal: the kind of goal.
        task: the arrays of a single task.
        times: (steps,) seconds since the start of the episode.
        path: (steps, 1 or 2) the robot's positions in metres; may be empty.
        seconds: duration of a full episode.
    """
    factors = {name: np.log2(values.ravel()) for name, values in task.items() if name in _FIELDS}
    if goal == "none":
        _draw_factors(axes, factors)
        small = {"fontsize": _FONT - 1, "handlelength": 0.7, "columnspacing": 0.5}
        legend = axes.legend(frameon=False, loc="lower left", ncols=2, **small)
        legend.set_in_layout(False)
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.45 * (high - low), high + 0.8 * (high - low))  # room for the legend and the path
        if len(path):
            inset = _inset(axes, _TOP)
            _draw_over_time(inset, times, path)
            inset.set(xticks=[], yticks=[], xlabel="", ylabel="")
        return
    if goal == "position":
        axes.plot(*task["position"], "*", color=_GOAL, markersize=12)
    elif goal == "angle":
        axes.plot([0, np.cos(task["angle"])], [0, np.sin(task["angle"])], color=_GOAL, linewidth=3)
    else:  # a velocity is a slope; a direction is the slope of 1 m/s
        axes.plot([0, seconds], [0, seconds * task[goal]], "--", color=_GOAL, linewidth=2)
    if goal in ("position", "angle"):
        _draw_from_above(axes, path)
    else:
        _draw_over_time(axes, times, path)
    if factors:
        falls = goal == "direction" and task[goal] < 0
        inset = _inset(axes, _BOTTOM if falls else _TOP)
        _draw_factors(inset, factors)
        inset.set(yticks=[])


def _inset(axes: Any, bounds: tuple[float, float, float, float]) -> Any:
    """Axes inside `axes` that take no space of their own in the layout, since small axes have none to spare."""
    inset = axes.inset_axes(bounds)
    inset.set_in_layout(False)
    return inset


def _draw_from_above(axes: Any, path: NDArray[Any]) -> None:
    axes.plot(*path.T, color=_WAY, linewidth=1.2, alpha=0.8)
    axes.plot(0, 0, "o", color=_START, markersize=4)
    axes.set_aspect("equal", adjustable="datalim")
    _label(axes, "x (m)", "y (m)")


def _draw_over_time(axes: Any, times: NDArray[Any], path: NDArray[Any]) -> None:
    axes.plot(times, path[:, 0], color=_WAY, linewidth=1.2, alpha=0.8)
    axes.axhline(0, color=_LINE, linewidth=0.6, zorder=0)
    _label(axes, "time (s)", "x (m)")


def _draw_factors(axes: Any, factors: Arrays) -> None:
    """Draws a bar for each body, joint and geom, coloured by field; upwards for a factor above 1."""
    first = 0
    for name, values in factors.items():
        axes.bar(first + np.arange(len(values)), values, color=_FIELDS[name], label=name)
        first += len(values)
    axes.axhline(0, color=_START, linewidth=0.6)
    axes.set(xticks=[], yticks=[-1, 0, 1], yticklabels=["x0.5", "x1", "x2"])
    axes.tick_params(labelsize=_FONT)


def _label(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=_FONT + 1)
    axes.set_ylabel(y_label, fontsize=_FONT + 1)
    axes.tick_params(labelsize=_FONT)
