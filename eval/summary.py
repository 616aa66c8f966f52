"""`summary.json`: the figures of an evaluation by agent and split, as a typed record."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from eval.figures import BOTH_SCALES, Figure, ScaleName, Scores, figure_values
from eval.statistics import Statistic, iqm, mean, median, optimality_gap, tasks_interval, too_few
from icrl.run.folder import RunFolder
from icrl.run.records import Record, read_record
from icrl.support.files import check_files

TRANSFORMER = "transformer"
"""The transformer's name among the agents."""

SPLIT_TITLES = {"test": "held-out", "validation": "validation", "train": "training"}
"""The splits of an evaluation in the order in which they are shown, and their names for people."""

_AGAIN = "run `icrl evaluate --overwrite` to make the evaluation again"


class Estimate(pydantic.BaseModel):
    """A figure of a split, estimated from tasks and seeds; None if no task has a value."""

    model_config = pydantic.ConfigDict(frozen=True)

    iqm: float | None = None
    """Interquartile mean over tasks and seeds."""
    interval: tuple[float | None, float | None] = (None, None)
    """95% bootstrap interval of the interquartile mean, over tasks; None below 5 tasks."""
    mean: float | None = None
    """Plain mean. Unlike the interquartile mean, it shows the lifetimes that fail."""
    mean_interval: tuple[float | None, float | None] = (None, None)
    """95% bootstrap interval of the plain mean, likewise."""
    median: float | None = None
    """Median over tasks of the mean over seeds."""
    optimality_gap: float | None = None
    """Mean distance by which normalised returns fall short of 1; None for other figures."""
    tasks: int | None = None
    """Number of tasks with a value; None in summaries that were written before it was counted."""

    @property
    def without_interval(self) -> str:
        """Why there is no interval, in a few words; empty if there is one."""
        return "" if self.tasks is None else too_few(self.tasks)


Value = Estimate | float | None


class FigureTitle(pydantic.BaseModel):
    """The properties of a figure that are needed to show it, as in `Figure`."""

    model_config = pydantic.ConfigDict(frozen=True)

    key: str
    title: str
    unit: str
    scales: tuple[ScaleName, ...]
    brief: bool = True


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
    """The meaning of 0 and 1 on the scale of normalised returns, by split."""

    zero: Annotated[dict[str, str], Field(alias="0")]
    one: Annotated[dict[str, str], Field(alias="1")]
    zero_error: Annotated[dict[str, float | None], Field(alias="standard_error_of_0")] = {}
    """Standard error of a task's 0, the root mean square over tasks with a scale, in normalised return: 0 where the
    random policy's return is exact, None if no task has a scale."""
    known: bool
    """False if the scale of some task is unknown; raw returns are then shown."""
    unknown_tasks: dict[str, int] = {}
    """Number of tasks whose scale is unknown, which figures of normalised returns leave out."""

    @pydantic.field_validator("zero", "one", mode="before")
    @classmethod
    def _by_split(cls, given: Any) -> Any:
        """Earlier summaries have one meaning for all splits."""
        return {"test": given, "train": given} if isinstance(given, str) else given


class TaskSetFigures(Record):
    """A set of `evaluation.tasks`; its figures are among those of the splits."""

    changes: dict[str, Any]
    """Parameters in which its family differs from that of the training tasks."""
    tasks: int
    """Number of tasks."""
    left_out: int
    """Number of its family's tasks that were left out because they equal training or validation tasks by value."""
    seen_tasks: int | None
    """Number of the tasks that equal a task that the transformer was trained on; None if it has no record."""


class TasksRecord(Record):
    """The tasks of a split."""

    family: str
    """Fingerprint of the task family with all of its parameters."""
    keys: list[str]
    """A key for every task, in order, that depends only on the task's value."""


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
    chosen_tasks: int | None = None
    """Number of the held-out tasks that were validation tasks of the transformer's training, by which its checkpoint or
    its settings may have been chosen; None if it has no record of them."""
    held_out_tasks: int | None = None
    """Number of the held-out tasks; 0 if the evaluation left them out."""
    ablations: list[str] = []
    """Names of the agents that are ablations of the transformer."""
    task_sets: dict[str, TaskSetFigures] = {}
    """The sets of `evaluation.tasks` by name."""
    tasks: dict[str, TasksRecord] = {}
    """The tasks by split; empty in evaluations of earlier versions."""
    figures: list[FigureTitle]
    agents: dict[str, dict[str, SplitFigures]]
    """By agent and split: `test`, `validation` and `train`, those that were evaluated, and the task sets."""
    files: dict[str, str] = {}
    """SHA-256 of the other files of the evaluation, by name; empty in evaluations of earlier versions."""

    @property
    def scale(self) -> ScaleName:
        """The scale to show: normalised returns if every task has them, else raw returns."""
        return "normalised_return" if self.normalised_return.known else "return"

    @property
    def splits(self) -> list[str]:
        """The splits that were evaluated, in the order in which they are shown."""
        return [split for split in SPLIT_TITLES if split in self.agents[TRANSFORMER]]

    @property
    def main_split(self) -> str:
        """The split whose figures are shown first: the held-out tasks, unless the evaluation left them out."""
        return self.splits[0]

    @property
    def main_title(self) -> str:
        """The name of `main_split` for people: `held-out`, `validation` or `training`."""
        return SPLIT_TITLES[self.main_split]

    def scale_on(self, split: str) -> ScaleName:
        """The scale to show on a split or task set: a set whose own scale is unknown shows raw returns."""
        unknown = split in self.task_sets and self.normalised_return.unknown_tasks.get(split)
        return "return" if unknown else self.scale

    def set_title(self, name: str) -> str:
        """The name of a task set with its changes and its number of tasks, in a few words."""
        own = self.task_sets[name]
        changes = "".join(f"{key} {value}, " for key, value in own.changes.items())
        raw = ", raw returns" if self.scale_on(name) != self.scale else ""
        return f"{name} ({changes}{own.tasks} tasks{raw})"

    def shown(self, brief: bool = False) -> list[FigureTitle]:
        """The figures to show: those that this evaluation has, or the `brief` ones of them.

        If the scale is unknown, only figures of raw returns are shown.
        """
        splits = [figures for agent in self.agents.values() for figures in agent.values()]
        present = {key for figures in splits for scale in BOTH_SCALES for key in figures.on(scale)}
        return [
            each
            for each in self.figures
            if each.key in present
            and (self.normalised_return.known or "return" in each.scales)
            and (each.brief or not brief)
        ]

    def value(self, agent: str, split: str, figure: FigureTitle) -> Value:
        """A figure of an agent on a split or task set, on the scale to show if it exists there."""
        scale = self.scale_on(split)
        return self.agents[agent][split].on(scale if scale in figure.scales else figure.scales[0]).get(figure.key)

    @property
    def seen(self) -> str:
        """A sentence about held-out tasks that the transformer was trained on or chosen by; "" if there are none."""
        if not self.held_out_tasks:
            return ""
        if self.seen_tasks is None:
            return "unknown whether the transformer was trained on these tasks: it has no record of its training tasks"
        met = [("was trained on", self.seen_tasks), ("had as validation tasks", self.chosen_tasks)]
        parts = [f"{how} {count}" for how, count in met if count]
        return f"the transformer {' and '.join(parts)} of the {self.held_out_tasks} held-out tasks" if parts else ""

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
    return read_record(folder.summary, Summary, _AGAIN)


def intact_summary(folder: RunFolder) -> Summary:
    """The summary, after the other files of the evaluation are verified. Raises UserError."""
    summary = load_summary(folder)
    check_files(folder.eval, summary.files, _AGAIN)
    return summary


def figure_titles(figures: list[Figure], **numbers: int) -> list[FigureTitle]:
    """The figures as a summary lists them, with the evaluation's `numbers` in their titles."""
    return [
        FigureTitle(
            key=each.key, title=_filled(each.title, numbers), unit=each.unit, scales=each.scales, brief=each.brief
        )
        for each in figures
    ]


def _filled(title: str, numbers: Mapping[str, int]) -> str:
    """The title with the numbers that it names in braces; other braces stay as they are."""
    for name, number in numbers.items():
        title = title.replace(f"{{{name}}}", str(number))
    return title


def split_figures(
    figures: list[Figure], scores: dict[ScaleName, Scores], seconds: float, environment_steps: int
) -> SplitFigures:
    """All figures of one agent on one split, from its scores on each scale; without those that lack what they need."""
    by_scale = {
        scale: {
            figure.key: _value(figure, own, scale)
            for figure in figures
            if scale in figure.scales and (figure.needs is None or getattr(own, figure.needs) is not None)
        }
        for scale, own in scores.items()
    }
    return SplitFigures(
        returns=by_scale["return"],
        normalised_return=by_scale["normalised_return"],
        seconds=seconds,
        environment_steps=environment_steps,
    )


def _value(figure: Figure, scores: Scores, scale: ScaleName) -> Value:
    # Tasks whose scale is unknown have NaN as normalised returns.
    known = scores.take(np.asarray(~np.isnan(scores.episodes).any(axis=(1, 2))))
    if not len(known.episodes):
        return Estimate() if figure.unit == "return" else None
    values = figure_values(figure, known)
    if not isinstance(values, np.ndarray):
        return values
    return _estimate(values, gap=scale == "normalised_return" and figure.unit == "return")


def _estimate(values: NDArray[Any], gap: bool) -> Estimate:
    if not len(values):
        return Estimate()
    return Estimate(
        iqm=float(iqm(values)),
        interval=_ends(values, iqm),
        mean=float(mean(values)),
        mean_interval=_ends(values, mean),
        median=float(median(values)),
        optimality_gap=float(optimality_gap(values)) if gap else None,
        tasks=len(values),
    )


def _ends(values: NDArray[Any], statistic: Statistic) -> tuple[float | None, float | None]:
    low, high = (None if np.isnan(end) else float(end) for end in tasks_interval(values, statistic))
    return low, high
