"""`summary.json`: the figures of an evaluation by agent and split, as a typed record and as lines of text."""

from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from eval.figures import BOTH_SCALES, Figure, ScaleName, Scores, figure_values
from eval.statistics import iqm, iqm_interval
from icrl.config.describe import aligned
from icrl.run.folder import RunFolder
from icrl.run.records import Record, read_record

TRANSFORMER = "transformer"
"""The transformer's name among the agents."""

_RESAMPLES = 2000


class Estimate(pydantic.BaseModel):
    """A figure of a split, estimated from tasks and seeds; None if no task has a value."""

    model_config = pydantic.ConfigDict(frozen=True)

    iqm: float | None = None
    """Interquartile mean over tasks and seeds."""
    interval: tuple[float | None, float | None] = (None, None)
    """95% bootstrap interval of the interquartile mean, over tasks."""
    mean: float | None = None


Value = Estimate | float | None


class FigureTitle(pydantic.BaseModel):
    """The properties of a figure that are needed to show it."""

    model_config = pydantic.ConfigDict(frozen=True)

    key: str
    title: str
    unit: str
    scales: tuple[ScaleName, ...]


class SplitFigures(Record):
    """One agent on one split."""

    returns: Annotated[dict[str, Value], Field(alias="return")]
    """Figures of raw returns, by key."""
    normalised_return: dict[str, Value]
    """Figures of normalised returns, by key."""
    seconds: float
    environment_steps: int

    def on(self, scale: ScaleName) -> dict[str, Value]:
        """The figures on one scale."""
        return self.returns if scale == "return" else self.normalised_return


class ReturnScale(Record):
    """The meaning of 0 and 1 on the scale of normalised returns."""

    zero: Annotated[str, Field(alias="0")]
    one: Annotated[str, Field(alias="1")]
    known: bool
    """False if the scale of some task is unknown; raw returns are then shown."""


class Summary(Record):
    """The record in `summary.json`."""

    fingerprint: str
    checkpoint: str
    weights: str
    """Fingerprint of the weights of the transformer and of every meta-learner."""
    made_with: dict[str, str]
    parameters: int
    device: str
    episodes: int
    """Episodes of a lifetime."""
    num_final_episodes: int
    interval: str
    normalised_return: ReturnScale
    training_steps: dict[str, int | None]
    """Environment steps that each agent was trained with before this evaluation; None if unknown."""
    seen_tasks: int | None = None
    """Number of the held-out tasks that the transformer was trained on; None if it has no record of its tasks."""
    held_out_tasks: int | None = None
    """Number of the held-out tasks."""
    figures: list[FigureTitle]
    agents: dict[str, dict[str, SplitFigures]]
    """By agent and split, `test` and `train`."""

    @property
    def scale(self) -> ScaleName:
        """The scale to show: normalised returns if every task has them, else raw returns."""
        return "normalised_return" if self.normalised_return.known else "return"

    def shown(self) -> list[FigureTitle]:
        """The figures that exist on the scale to show."""
        return [figure for figure in self.figures if self.scale in figure.scales]

    @property
    def seen(self) -> str:
        """A sentence about held-out tasks that the transformer was trained on; "" if there are none."""
        if self.held_out_tasks is None or self.seen_tasks == 0:
            return ""
        if self.seen_tasks is None:
            return "unknown whether the transformer was trained on these tasks: it has no record of its training tasks"
        return f"the transformer was trained on {self.seen_tasks} of the {self.held_out_tasks} held-out tasks"

    def estimates(self, agent: str, split: str) -> list[tuple[ScaleName, FigureTitle, Estimate]]:
        """All figures of an agent on a split that are estimates with a value, with their scales."""
        estimates = []
        for scale in BOTH_SCALES:
            for figure in self.figures:
                value = self.agents[agent][split].on(scale).get(figure.key)
                if isinstance(value, Estimate) and value.iqm is not None:
                    estimates.append((scale, figure, value))
        return estimates


def load_summary(folder: RunFolder) -> Summary:
    """The summary of a run's evaluation. Raises UserError if it is missing or damaged."""
    return read_record(folder.summary, Summary)


def figure_titles(figures: list[Figure], **numbers: int) -> list[FigureTitle]:
    """The figures as a summary lists them, with the evaluation's `numbers` in their titles."""
    return [
        FigureTitle(key=each.key, title=each.title.format(**numbers), unit=each.unit, scales=each.scales)
        for each in figures
    ]


def split_figures(
    figures: list[Figure], scores: dict[ScaleName, Scores], seconds: float, environment_steps: int
) -> SplitFigures:
    """All figures of one agent on one split, from its scores on each scale."""
    by_scale = {
        scale: {figure.key: _value(figure, own) for figure in figures if scale in figure.scales}
        for scale, own in scores.items()
    }
    return SplitFigures(
        returns=by_scale["return"],
        normalised_return=by_scale["normalised_return"],
        seconds=seconds,
        environment_steps=environment_steps,
    )


def describe(summary: Summary) -> str:
    """The figures on held-out tasks as a few lines of text."""
    title = "normalised return" if summary.normalised_return.known else "return"
    shown = summary.shown()
    rows = [(f"  {title} on held-out tasks (IQM):", *(figure.title for figure in shown), "trained with")]
    for agent, splits in summary.agents.items():
        values = splits["test"].on(summary.scale)
        mark = "->" if agent == TRANSFORMER else "  "
        cells = (value_text(values.get(figure.key)) for figure in shown)
        rows.append((f"  {mark} {agent}", *cells, trained_with(summary, agent)))
    widths = [max(len(row[column]) for row in rows) for column in range(1, len(rows[0]))]
    padded = [(row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))) for row in rows]
    return "\n".join(
        [
            aligned(padded),
            "  last tenth: of the steps; where episodes end early, these are later episodes",
            "  trained with: environment steps before these lifetimes began",
            *([f"  warning: {summary.seen}"] if summary.seen else []),
        ]
    )


def value_text(value: Value) -> str:
    """A value in a few characters; an estimate is shown by its interquartile mean."""
    number = value.iqm if isinstance(value, Estimate) else value
    if number is None:
        return "unknown" if isinstance(value, Estimate) else "-"
    return f"{number:.0f}" if not isinstance(value, Estimate) and float(number).is_integer() else f"{number:.2f}"


def trained_with(summary: Summary, agent: str) -> str:
    """Environment steps of an agent's training, in a few characters; for the transformer, those of its data."""
    steps = summary.training_steps.get(agent)
    if steps is None:
        return "unknown"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if steps >= 0.9995 * size:
            return f"{steps / size:.3g}{unit}"
    return str(steps)


def _value(figure: Figure, scores: Scores) -> Value:
    known = Scores(*_without_unknown(scores))
    values = figure_values(figure, known) if len(known.episodes) else np.empty((0, 1))
    return _estimate(values) if isinstance(values, np.ndarray) else values


def _without_unknown(scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores without tasks whose scale is unknown, since their normalised returns are NaN."""
    known = ~np.isnan(scores.episodes).any(axis=(1, 2))
    return scores.episodes[known], scores.final_steps[known]


def _estimate(values: NDArray[Any]) -> Estimate:
    if not len(values):
        return Estimate()
    low, high = iqm_interval(values, _RESAMPLES)
    return Estimate(iqm=float(iqm(values)), interval=(float(low), float(high)), mean=float(values.mean()))
