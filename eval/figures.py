"""The figures of an evaluation as a table: one entry per figure.

Terminal, summary, report, model card, trackers and benchmarks all read this table, so a new figure is one entry of
`FIGURES`, or a function of your own that a config names under `evaluation.figures`:

    def worst_seed(scores):
        return scores.episodes.mean(axis=2).min(axis=1, keepdims=True)  # (tasks, 1)

    worst_seed.title = "worst seed"
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.statistics import first_reached, iqm
from icrl.support.errors import ConfigError

FINAL_EPISODES = 10
"""Episodes at the end of a lifetime over which the final return is averaged."""

LEVEL = 0.8
"""Normalised return that counts as solved: figures tell how soon a curve reaches it, and how many lifetimes do."""

ScaleName = Literal["return", "normalised_return"]
BOTH_SCALES: tuple[ScaleName, ...] = ("return", "normalised_return")


@dataclass(frozen=True)
class Scores:
    """Returns of one agent's lifetimes on one split and one scale."""

    episodes: NDArray[np.float64]
    """(tasks, seeds, episodes) return of each episode; as many episodes as every lifetime has."""
    final_steps: NDArray[np.float64]
    """(tasks, seeds) mean return of the episodes that ended in the last tenth of the steps; NaN where none did."""
    steps: NDArray[np.int64] | None = None
    """(tasks, seeds, episodes) environment steps of the lifetime by the end of each episode, over all actors."""
    success: NDArray[np.float64] | None = None
    """(tasks, seeds, episodes) 1 for an episode that succeeded, else 0; None if the family does not say what success
    is, and NaN on tasks that do not."""
    regret: NDArray[np.float64] | None = None
    """(tasks, seeds, episodes) raw return of the optimal policy minus that of the episode, both in expected rewards
    where the family knows them; None if the optimum is unknown, and NaN on tasks where it is."""

    def take(self, tasks: NDArray[np.bool_]) -> "Scores":
        """The scores on the tasks that a mask (tasks,) selects."""
        kept: dict[str, Any] = {name: None if each is None else each[tasks] for name, each in vars(self).items()}
        return Scores(**kept)


@dataclass(frozen=True)
class Figure:
    """One figure of an evaluation."""

    key: str
    """Name of the figure in `summary.json`."""
    title: str
    """Head of the column; `{num_final_episodes}` stands for that number of the evaluation."""
    unit: str
    """`return` if the figure is a return, else the unit of the number."""
    function: Callable[[Scores], Any]
    """Gives (tasks, seeds) values, whose aggregates and intervals are shown; or one number, or None, for the whole
    split."""
    scales: tuple[ScaleName, ...] = BOTH_SCALES
    """Scales on which the figure makes sense."""
    needs: Literal["steps", "success", "regret"] | None = None
    """The part of the scores without which there is no such figure."""
    brief: bool = True
    """True if the figure is one of the few in the terminal and on the model card; the report and the summary have all.
    """


FIGURES = (
    Figure("first_episode", "episode 1", "return", lambda scores: scores.episodes[:, :, 0]),
    Figure(
        "final_episodes",
        "last {num_final_episodes}",
        "return",
        lambda scores: scores.episodes[:, :, -FINAL_EPISODES:].mean(axis=2),
    ),
    # Where episodes end early, a lifetime goes beyond the compared episodes; this figure is about its real end.
    Figure("final_steps", "last tenth", "return", lambda scores: scores.final_steps),
    # The area under the adaptation curve, divided by its length in episodes, which keeps it on the scale of a return.
    Figure("area_under_curve", "area under curve", "return", lambda scores: scores.episodes.mean(axis=2), brief=False),
    Figure(
        f"episodes_to_{LEVEL}",
        f"episodes to {LEVEL}",
        "episodes",
        lambda scores: first_reached(iqm(scores.episodes), LEVEL),
        scales=("normalised_return",),
    ),
    Figure(
        f"steps_to_{LEVEL}",
        f"steps to {LEVEL}",
        "steps",
        lambda scores: _steps_to(LEVEL, scores),
        scales=("normalised_return",),
        needs="steps",
        brief=False,
    ),
    # An interquartile mean of 1 leaves room for a quarter of the lifetimes to fail; this share does not.
    Figure(
        f"reached_{LEVEL}",
        f"reach {LEVEL}",
        "share",
        lambda scores: (scores.episodes[:, :, -FINAL_EPISODES:].mean(axis=2) >= LEVEL).astype(float),
        scales=("normalised_return",),
    ),
    Figure(
        "success_rate",
        "success",
        "share",
        lambda scores: np.asarray(scores.success)[:, :, -FINAL_EPISODES:].mean(axis=2),
        scales=("return",),
        needs="success",
    ),
    # Cumulative: over all episodes that are compared. Often large, so it stands where there is room.
    Figure(
        "regret",
        "regret",
        "return",
        lambda scores: np.asarray(scores.regret).sum(axis=2),
        scales=("return",),
        needs="regret",
        brief=False,
    ),
)


def _steps_to(level: float, scores: Scores) -> float | None:
    """Environment steps, a mean over lifetimes, by the end of the episode in which the IQM curve reaches `level`."""
    episode = first_reached(iqm(scores.episodes), level)
    return None if episode is None or scores.steps is None else float(scores.steps[:, :, episode - 1].mean())


def load_figures(named: Sequence[str], episodes: int = 2 * FINAL_EPISODES) -> list[Figure]:
    """All figures: those of the table, then the user's own functions.

    Args:
        named: the functions as `module:function`, as in `evaluation.figures`. A function may have the attributes
            `title`, `unit`, `scales`, `needs` and `brief`, as `Figure` has them.
        episodes: of the evaluation's lifetimes; every function is tried out with as many.

    Raises ConfigError for a function that cannot be imported, or whose return value is not a figure's.
    """
    figures = list(FIGURES)
    for number, name in enumerate(named):
        key = f"evaluation.figures.{number}"
        module, _, attribute = name.partition(":")
        if not attribute:
            raise ConfigError(f"{key}: {name!r} does not name a function: write module:function")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the user's own module may raise anything
            raise ConfigError(f"{key}: cannot import {name!r}: {type(error).__name__}: {error}") from error
        figure = Figure(
            attribute,
            getattr(function, "title", attribute.replace("_", " ")),
            getattr(function, "unit", "return"),
            function,
            getattr(function, "scales", BOTH_SCALES),
            getattr(function, "needs", None),
            getattr(function, "brief", True),
        )
        if any(figure.key == other.key for other in figures):
            raise ConfigError(f"{key}: {name!r}: a figure of this name already exists; rename the function")
        _try_out(figure, episodes, key)
        figures.append(figure)
    return figures


def figure_values(figure: Figure, scores: Scores) -> NDArray[np.float64] | float | None:
    """A figure's values: (tasks, ...) without tasks that have NaN, or one number for the split, or None.

    None also if the scores lack what the figure needs.

    Raises ConfigError if the function raises, or returns anything else.
    """
    values = _values(figure, scores)
    return values[~np.isnan(values).any(axis=1)] if isinstance(values, np.ndarray) else values


def task_values(figure: Figure, scores: Scores) -> NDArray[np.float64] | float | None:
    """A figure's values with a row for every task, (tasks, lifetimes), NaN on tasks without one; else as above."""
    known = np.asarray(~np.isnan(scores.episodes).any(axis=(1, 2)))  # the others' scale is unknown
    values = _values(figure, scores.take(known)) if known.any() else None
    if not isinstance(values, np.ndarray):
        return values
    rows = np.full((len(known), values.shape[1]), np.nan)
    rows[known] = np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)
    return rows


def _values(figure: Figure, scores: Scores) -> NDArray[np.float64] | float | None:
    """The result of the figure's function: (tasks, ...) as an array of two axes, one number, or None."""
    if figure.needs is not None and getattr(scores, figure.needs) is None:
        return None
    try:
        result = figure.function(scores)
        if result is None:
            return None
        values = _checked(np.asarray(result, dtype=np.float64), scores)
        if values.ndim == 0:
            return None if np.isnan(values) else float(values)
    except Exception as error:  # the user's own function may raise anything
        raise ConfigError(f"evaluation.figures: {figure.key}: {type(error).__name__}: {error}") from error
    return values.reshape(len(values), -1)


def _checked(values: NDArray[np.float64], scores: Scores) -> NDArray[np.float64]:
    """The values. Raises ValueError if they are infinite, or do not have one row per task."""
    if np.isinf(values).any():
        raise ValueError("returned a value that is infinite")
    if values.ndim and (len(values) != len(scores.episodes) or not values.size):
        raise ValueError(f"returned the shape {values.shape}, but (tasks, seeds) is {scores.episodes.shape[:2]}")
    return values


def _try_out(figure: Figure, episodes: int, key: str) -> None:
    """Calls the function on made-up scores, to find errors now rather than after hours of evaluation."""
    for name in ("title", "unit"):
        text = getattr(figure, name)
        if not isinstance(text, str) or not text.isprintable():
            raise ConfigError(f"{key}: {figure.key}.{name}: {text!r} must be one line of text")
    if (
        not isinstance(figure.scales, tuple)
        or not figure.scales
        or any(each not in BOTH_SCALES for each in figure.scales)
    ):
        raise ConfigError(f"{key}: {figure.key}.scales: {figure.scales!r} must be a tuple of some of {BOTH_SCALES}")
    if figure.needs not in (None, "steps", "success", "regret") or not isinstance(figure.brief, bool):
        raise ConfigError(f"{key}: {figure.key}: needs has to be steps, success or regret, and brief a boolean")
    returns = np.random.default_rng(0).random((3, 2, episodes))
    steps = np.arange(1, episodes + 1) + np.zeros_like(returns, dtype=np.int64)
    figure_values(figure, Scores(returns, returns[:, :, -1], steps, np.round(returns), 1 - returns))
