"""The pictures of a study and of a comparison: adaptation curves with bands, and a figure over one axis or two."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.cells import Cell
from studies.pool import Pooled

Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

_MOST_IN_LEGEND = 24
_MOST_PANELS = 6
_WIDE = 20.0  # ratio of an axis' ends from which it is drawn on a logarithmic scale
_GREY, _BLUE = "#6b7280", "#2563eb"
_DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def draw_curves(
    curves: Mapping[str, Curve],
    others: Mapping[str, Curve],
    scale: str,
    thin: Sequence[NDArray[np.float64]] = (),
) -> Figure:
    """Return by episode: a line with a band for each of `curves`, a dashed grey line for each of `others`.

    `thin` are lines without a name: the seeds that a curve is made of.
    """
    figure = Figure(figsize=(9.0, 4.6))
    axes: Axes = figure.subplots()
    colors = _colors(len(curves))
    for (label, (middle, low, high)), color in zip(curves.items(), colors, strict=True):
        episodes = np.arange(1, len(middle) + 1)
        axes.plot(episodes, middle, color=color, label=_shown(label), linewidth=2.0, zorder=3)
        axes.fill_between(episodes, low, high, color=color, alpha=0.18, linewidth=0)
    for line in thin:
        axes.plot(np.arange(1, len(line) + 1), line, color=_BLUE, linewidth=0.6, alpha=0.6)
    for number, (label, (middle, _, _)) in enumerate(others.items()):
        style: Any = _DASHES[number % len(_DASHES)]
        axes.plot(
            np.arange(1, len(middle) + 1), middle, linestyle=style, color=_GREY, label=_shown(label), linewidth=1.2
        )
    longest = max(len(middle) for middle, _, _ in curves.values())
    axes.set(xlabel="episode", ylabel=f"{scale.replace('_', ' ')} (IQM)", xlim=(1, max(2, longest)))
    if len(curves) + len(others) <= _MOST_IN_LEGEND:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure


def draw_axes(cells: Sequence[Cell], figures: Mapping[str, Pooled], axes: Sequence[str], title: str) -> Figure | None:
    """A figure over the axes of a study, by the cells' names: a curve over one axis, heat maps over two or more.

    With three axes or more, each combination of the others has its own heat map. None without an axis, or where there
    would be too many maps.
    """
    if not axes:
        return None
    if len(axes) == 1:
        return _curve_over(cells, figures, axes[0], title)
    panels: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        panels.setdefault(tuple(cell.settings[axis] for axis in axes[2:]), []).append(cell)
    if len(panels) > _MOST_PANELS:
        return None
    rows, columns = (_values(cells, axis) for axis in axes[:2])
    size = (1.6 + 1.25 * len(columns) * len(panels), 1.4 + 0.8 * len(rows))
    figure = Figure(figsize=(max(5.0, min(size[0], 18.0)), max(3.0, min(size[1], 12.0))))
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    known = [each.value for each in figures.values() if each.value is not None]
    limits = (min(known), max(known)) if known else (0.0, 1.0)
    for place, (others, members) in zip(drawn, panels.items(), strict=True):
        _heat_map(place, members, figures, axes[0], axes[1], rows, columns, limits)
        if others:
            place.set_title(
                ", ".join(f"{axis} {value}" for axis, value in zip(axes[2:], others, strict=True)), fontsize=9
            )
    figure.suptitle(title, fontsize=11)
    return figure


def _curve_over(cells: Sequence[Cell], figures: Mapping[str, Pooled], axis: str, title: str) -> Figure:
    """A figure over one axis, with intervals. Numbers lie where they belong, anything else side by side."""
    figure = Figure(figsize=(7.2, 4.0))
    axes: Axes = figure.subplots()
    shown = [(cell.settings[axis], figures[cell.name]) for cell in cells if cell.name in figures]
    shown = [(value, each) for value, each in shown if each.value is not None]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in shown)
    if numeric:
        shown.sort(key=lambda pair: pair[0])
    places = [value if numeric else number for number, (value, _) in enumerate(shown)]
    middles = np.array([each.value for _, each in shown], dtype=float)
    axes.plot(places, middles, "o-" if numeric else "o", color=_BLUE, linewidth=1.6)
    for place, (_, each) in zip(places, shown, strict=True):
        if each.low is not None and each.high is not None:
            axes.vlines(place, each.low, each.high, color=_BLUE, linewidth=1.2)
    if numeric and places and min(places) > 0 and max(places) / min(places) >= _WIDE:
        axes.set_xscale("log")
    axes.set_xticks(places, [_shown(str(value)) for value, _ in shown], fontsize=8)
    axes.minorticks_off()
    axes.set(xlabel=axis, ylabel=title)
    return figure


def _heat_map(
    axes: Axes,
    cells: Sequence[Cell],
    figures: Mapping[str, Pooled],
    down: str,
    across: str,
    rows: Sequence[Any],
    columns: Sequence[Any],
    limits: tuple[float, float],
) -> None:
    """One field per cell, with the figure and its interval in it; fields without a value stay empty."""
    grid = np.full((len(rows), len(columns)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    for cell in cells:
        place = rows.index(cell.settings[down]), columns.index(cell.settings[across])
        each = figures.get(cell.name)
        if each is not None and each.value is not None:
            grid[place] = each.value
            ends = "" if each.low is None or each.high is None else f"\n[{each.low:.2f}, {each.high:.2f}]"
            texts[place] = f"{each.value:.2f}{ends}"
    low, high = limits
    axes.imshow(grid, cmap="viridis", vmin=low, vmax=high if high > low else low + 1.0, aspect="auto")
    for (row, column), text in texts.items():
        dark = grid[row, column] < low + 0.6 * (high - low)
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), [_shown(str(value)) for value in columns], fontsize=8)
    axes.set_yticks(range(len(rows)), [_shown(str(value)) for value in rows], fontsize=8)
    axes.set(xlabel=across, ylabel=down)
    axes.grid(False)


def _values(cells: Sequence[Cell], axis: str) -> list[Any]:
    """The values on an axis, in order: numbers from small to large, anything else as the study has them."""
    values = [*dict.fromkeys(cell.settings[axis] for cell in cells)]
    numeric = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numeric else values


def _colors(count: int) -> list[Any]:
    """So many colours that can be told apart, in order."""
    if count <= 1:
        return [_BLUE] * count
    return [*matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count))]


def _shown(label: str) -> str:
    """A label; matplotlib leaves those that begin with _ out of the legend."""
    return f" {label}" if label.startswith("_") else label
