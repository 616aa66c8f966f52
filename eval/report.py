"""The report: one self-contained HTML file, made from the files of a run folder."""

import base64
import zipfile
import zlib
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ad_model.training_log import read_log
from data_gen.experiment import Experiment
from data_gen.scoring.report import DataReport, data_report
from data_gen.storage.folder import load_info
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.validation import MEMORISES
from eval.emergence import emergence, validation_lines
from eval.figures import FINAL_EPISODES
from eval.profiles import aggregates, draw_profiles, final_returns_by_agent
from eval.results import scores_array
from eval.statistics import iqm, tasks_interval
from eval.summary import SPLIT_TITLES, TRANSFORMER, Estimate, Summary, intact_summary
from eval.summary_text import NO_HELD_OUT, trained_with
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import TrainingRecord, checkpoint_path, checkpoint_record, checkpoint_steps
from icrl.run.folder import CHECKSUMS, RunFolder, config_text, locked
from icrl.run.records import Record, read_record, write_record
from icrl.support.arrays import read_npz
from icrl.support.errors import UserError
from icrl.support.files import check_files, remove, remove_leftovers, sha256, write_file
from icrl.support.pictures import STYLE, png

_CURVE_RESAMPLES = 300
_TRANSFORMER_COLOR = "#2563eb"
_COLORS = ["#d97706", "#9ca3af", "#16a34a", "#db2777", "#7c3aed", "#0891b2", "#65a30d"]


def write_report(given: Experiment | ExperimentConfig) -> Path:
    """Writes `report.html` and the pictures in `report/` from the run's data, training log and evaluation.

    Raises UserError if the evaluation's files cannot be read.
    """
    experiment = Experiment.of(given)
    with locked(experiment.folder):
        return _write_report(experiment)


class ReportRecord(Record):
    """`checksums.json` beside the report's pictures, written last."""

    files: dict[str, str]
    """SHA-256 of the report and its pictures, by their paths in the run folder."""


def report_exists(folder: RunFolder) -> bool:
    """True if the report and its pictures are there, undamaged; otherwise they are to be made again."""
    try:
        record = read_record(folder.report_pictures / CHECKSUMS, ReportRecord)
        check_files(folder.path, record.files, "")
    except UserError:
        return False
    return True


def _write_report(experiment: Experiment) -> Path:
    config, folder = experiment.config, experiment.folder
    summary = intact_summary(folder)
    info = load_info(folder) if folder.data_info.exists() else None  # a checkpoint can be evaluated without data
    steps = checkpoint_steps(folder.checkpoints)
    trained = checkpoint_record(checkpoint_path(folder.checkpoints, steps[-1]), TrainingRecord) if steps else None
    log = read_log(folder.training_log, trained)
    watched = validation_lines(log)
    report = data_report(folder, info) if info and not info.streamed else None
    try:
        table = pd.read_parquet(folder.returns)
        paths = read_npz(folder.paths)
    except (OSError, ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{folder.eval}: cannot be read ({error}); run `icrl evaluate --overwrite`") from error
    ablated = [TRANSFORMER, *summary.ablations]
    contestants = [agent for agent in summary.agents if agent not in summary.ablations]
    finals = final_returns_by_agent(table, summary, contestants)
    with matplotlib.rc_context(STYLE):
        figures = {
            "curves": _curves(table, summary, summary.main_split, contestants),
            "ablations": _curves(table, summary, summary.main_split, ablated) if summary.ablations else None,
            **{f"curves-{name}": _curves(table, summary, name, contestants) for name in summary.task_sets},
            "profiles": draw_profiles(finals, summary.scale, partial(agent_color, contestants)),
            "tasks": _per_task(table, summary),
            "paths": _paths(experiment.family, paths),
            "loss": _loss(log),
            "emergence": emergence(watched),
            "data": learning_curve(report) if report else None,
        }
    pictures = {}
    if folder.report_pictures.is_symlink():  # what it leads to is not this folder's
        remove(folder.report_pictures)
    remove_leftovers(folder.report_pictures)
    for name, figure in figures.items():
        if figure is not None:
            picture = png(figure)
            write_file(folder.report_pictures / f"{name}.png", picture)
            pictures[name] = base64.b64encode(picture).decode()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        resources.files("eval").joinpath("report.html.j2").read_text()
    )
    learners = {learner.weights: learner for learner in (info.meta_learners.values() if info else ())}
    html = template.render(
        name=config.name,
        summary=summary,
        split_titles=SPLIT_TITLES,
        no_held_out="" if "test" in summary.splits else NO_HELD_OUT,
        aggregates=aggregates(finals, summary.normalised_return.known),
        is_estimate=lambda value: isinstance(value, Estimate),
        info=info,
        meta_learners=list(learners.values()),
        tasks=config.tasks.name,
        report=report,
        trained_with=trained_with,
        contestants=contestants,
        pictures=pictures,
        log=log,
        watched=watched,
        stopped=trained.stopped if trained else None,
        memorises=MEMORISES if any(line["memorises"] for line in watched[-1:]) else None,
        config=config_text(folder.config),
    )
    write_file(folder.report, html)
    made = [folder.report, *(folder.report_pictures / f"{name}.png" for name in pictures)]
    files = {path.relative_to(folder.path).as_posix(): sha256(path) for path in made}
    write_record(folder.report_pictures / CHECKSUMS, ReportRecord(files=files))
    return folder.report


def agent_color(agents: list[str], agent: str) -> str:
    """The colour of an agent, the same in every picture."""
    others = [name for name in agents if name != TRANSFORMER]
    return _TRANSFORMER_COLOR if agent == TRANSFORMER else _COLORS[others.index(agent) % len(_COLORS)]


def _curves(table: pd.DataFrame, summary: Summary, where: str, agents: list[str]) -> Figure:
    """Return by episode: the agents on a split or task set, and on the main split the transformer on others too."""
    figure = Figure(figsize=(8.2, 4.2))
    axes: Axes = figure.subplots()
    column = summary.scale_on(where)
    episodes = np.arange(1, summary.episodes + 1)
    for agent in agents:
        color = agent_color(agents, agent)
        scores = scores_array(table, agent, where, column, summary.episodes)
        low, high = tasks_interval(scores, resamples=_CURVE_RESAMPLES)
        # matplotlib leaves labels that begin with _ out of the legend.
        label = f" {agent}" if agent.startswith("_") else agent
        title = f"{agent}, {SPLIT_TITLES.get(where, where)} tasks"
        width, label = (2.4, title) if agent == TRANSFORMER else (1.6, label)
        axes.plot(episodes, iqm(scores), color=color, label=label, linewidth=width, zorder=1 + width)
        axes.fill_between(episodes, low, high, color=color, alpha=0.15, linewidth=0)
    for split, style in (("validation", ":"), ("train", "--")):
        if split in summary.splits[1:] and where == summary.main_split and not {*agents} & {*summary.ablations}:
            curve = iqm(scores_array(table, TRANSFORMER, split, column, summary.episodes))
            label = f"{TRANSFORMER}, {SPLIT_TITLES[split]} tasks"
            axes.plot(episodes, curve, style, color=_TRANSFORMER_COLOR, label=label, linewidth=1.4)
    label = f"{column.replace('_', ' ')} (IQM)"
    axes.set(xlabel="episode", ylabel=label, xlim=(1, max(2, summary.episodes)))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _per_task(table: pd.DataFrame, summary: Summary) -> Figure:
    """The transformer's first episode and its last episodes, one pair of dots per task of the main split."""
    column = summary.scale
    scores = scores_array(table, TRANSFORMER, summary.main_split, column, summary.episodes).mean(axis=1)
    first, last = scores[:, 0], scores[:, -FINAL_EPISODES:].mean(axis=1)
    order = np.argsort(-last, kind="stable")
    figure = Figure(figsize=(8.2, 3.0))
    axes: Axes = figure.subplots()
    ranks = np.arange(len(order))
    axes.vlines(ranks, first[order], last[order], color="#cbd5e1", linewidth=2)
    axes.plot(ranks, first[order], "o", color="#9ca3af", label="first episode", markersize=5)
    axes.plot(ranks, last[order], "o", color=_TRANSFORMER_COLOR, label=f"last {FINAL_EPISODES} episodes", markersize=6)
    label = f"{column.replace('_', ' ')}, mean over seeds"
    axes.set(xlabel=f"{summary.main_title} task (number in returns.parquet)", ylabel=label)
    axes.set_xticks(ranks, [str(task) for task in order], fontsize=7 if len(order) > 20 else 9)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _paths(distribution: TaskDistribution, paths: dict[str, NDArray[Any]]) -> Figure | None:
    """The transformer's first and last episode on a few tasks of the main split; None if the family draws nothing."""
    count = len(paths["length"])
    figure = Figure(figsize=(1.45 * count + 0.4, 3.3))
    grid = figure.subplots(2, count, squeeze=False)
    tasks = Tasks({name.removeprefix("task_"): array for name, array in paths.items() if name.startswith("task_")})
    seen = {name.partition(".")[2]: leaf for name, leaf in paths.items() if name.partition(".")[0] == "observation"}
    for column in range(count):
        for row, title in enumerate(("first episode", "last episode")):
            length = paths["length"][column, row]
            observation: Any = {path: leaf[column, row, :length] for path, leaf in seen.items()}
            observation, reward = observation.get("", observation), paths["reward"][column, row, :length]
            if not distribution.draw(grid[row, column], tasks.take([column]), observation, reward):
                return None
            grid[row, column].spines[:].set_visible(False)
            grid[row, column].set_title(f"return {reward.sum():g}", fontsize=8, color="#4b5563")
            if column == 0:
                grid[row, column].set_ylabel(title)
    return figure


def _loss(log: list[dict[str, Any]]) -> Figure | None:
    if not log:
        return None
    figure = Figure(figsize=(4.6, 3.0))
    axes: Axes = figure.subplots()
    axes.plot([line["step"] for line in log], [line["loss"] for line in log], color=_TRANSFORMER_COLOR)
    axes.set(xlabel="update", ylabel="loss", xlim=(0, None))
    return figure


def learning_curve(report: DataReport) -> Figure:
    """Mean return of the sources by episode of their histories."""
    figure = Figure(figsize=(4.6, 3.0))
    axes: Axes = figure.subplots()
    axes.plot(np.arange(1, len(report.curve) + 1), report.curve, color=_COLORS[0])
    scale = "normalised return" if report.normalised else "return"
    axes.set(xlabel="episode of the history", ylabel=f"mean {scale}", xlim=(1, max(2, len(report.curve))))
    return figure
