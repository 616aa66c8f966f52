"""The picture of learning in context as it emerges during training: returns in validation against updates."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_STYLES = {
    "validation_last": ("#2563eb", "-", "last episodes, validation tasks"),
    "train_last": ("#2563eb", "--", "last episodes, training tasks"),
    "validation_first": ("#9ca3af", "-", "episode 1, validation tasks"),
}


def validation_lines(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a training log, or of a meta-training log, that have the result of a validation."""
    return [line for line in log if "validation_last_return" in line]


def emergence(lines: list[dict[str, Any]], unit: str = "update") -> Figure | None:
    """Return in the first and in the last episodes against updates; None without a validation.

    Args:
        lines: lines of a log with the results of validations.
        unit: the unit of the lines' `step`.
    """
    if not lines:
        return None
    scale = "normalised_return" if all("validation_last_normalised_return" in line for line in lines) else "return"
    figure = Figure(figsize=(4.6, 3.0))
    axes: Axes = figure.subplots()
    steps = [line["step"] for line in lines]
    for key, (color, style, label) in _STYLES.items():
        axes.plot(steps, [line[f"{key}_{scale}"] for line in lines], style, color=color, label=label, marker=".")
    best = max(lines, key=lambda line: line[f"validation_last_{scale}"])
    axes.plot(best["step"], best[f"validation_last_{scale}"], "o", color="#2563eb", label="best", markersize=8)
    axes.set(xlabel=unit, ylabel=scale.replace("_", " "), xlim=(0, None))
    axes.legend(fontsize=7)
    return figure
