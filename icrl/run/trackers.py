"""Experiment trackers: TensorBoard, Weights & Biases and trackio. The one module that knows them.

A training is one run in every tracker that `runtime.trackers` names, and so is each meta-training. A `logs` folder
beside the training log holds the trackers' files, and the run's id: by that id a training that was killed goes on in
the same run, and the evaluation adds its report to it. What is sent where is each tracker's own setting, such as
WANDB_MODE or TRACKIO_SPACE_ID; unset, TensorBoard and trackio only write files.
"""

import os
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from icrl.config.schema import ExperimentConfig
from icrl.run.folder import run_folder
from icrl.run.records import Record, read_record, write_record
from icrl.support.errors import UserError, did_you_mean
from icrl.support.files import sha256

PROJECT = "in-context-rl"
"""Weights & Biases and trackio gather runs in projects, and in groups within one: ours are called by the experiment."""


class RunRecord(Record):
    """`run.json`: by which the trackers know a run again."""

    id: str
    reported: dict[str, str] = {}
    """By tracker, the SHA-256 of the summary of the evaluation that it has."""


@dataclass(frozen=True)
class TrackedRun:
    """One run as trackers show it."""

    config: ExperimentConfig
    name: str
    kind: str
    logs: Path

    @property
    def id(self) -> str:
        """The identifier by which trackers find the run again."""
        return self.record.id

    @property
    def record(self) -> RunRecord:
        """The record of the run; made where there is none."""
        if not self._record_file.exists():
            write_record(self._record_file, RunRecord(id=secrets.token_hex(4), reported={}))
        return read_record(self._record_file, RunRecord)

    def remember(self, tracker: str, evaluation: str) -> None:
        """Records that a tracker has an evaluation."""
        reported = {**self.record.reported, tracker: evaluation}
        write_record(self._record_file, self.record.model_copy(update={"reported": reported}))

    @property
    def config_file(self) -> Path:
        """The resolved config, as the stage has written it."""
        return run_folder(self.config).config

    @property
    def _record_file(self) -> Path:
        return self.logs / "run.json"


@dataclass(frozen=True)
class Report:
    """An evaluation, for a tracker."""

    figures: dict[str, float]
    text: str
    summary: Path
    page: Path
    pictures: Sequence[Path]


class Tracker(ABC):
    """One run in one tracker. It begins, or goes on after `step`, with the resolved config attached."""

    @abstractmethod
    def __init__(self, run: TrackedRun, step: int) -> None: ...

    @abstractmethod
    def log(self, figures: dict[str, float], step: int) -> None:
        """A point of every curve."""

    @abstractmethod
    def report(self, report: Report, step: int) -> None:
        """Attaches an evaluation: its figures as scalars, its pictures, its files."""

    @abstractmethod
    def close(self) -> None:
        """Waits until everything is written, or sent."""


class TensorBoard(Tracker):
    """Event files in the `logs` folder. The config is there as text and as hyper-parameters."""

    def __init__(self, run: TrackedRun, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # points after `step` are of a process that was killed: they will come again
        self.writer = SummaryWriter(str(run.logs), purge_step=step + 1)
        flat = _flat(run.config)
        values = {key: value if isinstance(value, int | float) else str(value) for key, value in flat.items()}
        # `add_hparams` would put them in a run of their own
        for part in hparams(values, {"loss": 0.0}):
            self.writer.file_writer.add_summary(part)  # type: ignore[attr-defined]
        self._text("config", run.config_file.read_text(), step)

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def report(self, report: Report, step: int) -> None:
        import numpy as np
        from PIL import Image

        self.log(report.figures, step)
        self._text("evaluation", report.text, step)
        self._text(report.summary.name, report.summary.read_text(), step)
        for path in report.pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.writer.add_image(f"report/{path.stem}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()

    def _text(self, name: str, text: str, step: int) -> None:
        self.writer.add_text(name, f"```\n{text}\n```", step)


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, resumed by its id; offline, a further folder of the same id."""

    def __init__(self, run: TrackedRun, step: int) -> None:
        import wandb

        self.root = run.config_file.parent.parent
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=os.environ.get("WANDB_DIR", run.logs),
            id=run.id,
            name=run.name,
            group=run.config.name,
            job_type=run.kind,
            resume="allow",
        )
        self.run.config.update(run.config.model_dump(mode="json"), allow_val_change=True)
        self._save(run.config_file)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.run.log(figures, step=step)

    def report(self, report: Report, step: int) -> None:
        import wandb

        self.run.summary.update(report.figures)
        with open(report.page) as page:
            shown: dict[str, Any] = {"report": wandb.Html(page, inject=False)}
        shown |= {f"report/{path.stem}": wandb.Image(str(path)) for path in report.pictures}
        self.run.log(shown, step=max(step + 1, self.run.step))  # it takes no more at a step that is over
        for path in (report.page, report.summary, *report.pictures):
            self._save(path)

    def close(self) -> None:
        self.run.finish(exit_code=int(sys.exception() is not None))

    def _save(self, path: Path) -> None:
        """Under the run folder's name: at the top, `config.yaml` is a file of Weights & Biases' own.

        Copied rather than linked, so that an offline run can be taken to another machine and sent from there.
        """
        copy = Path(self.run.dir) / path.relative_to(self.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        self.run.save(str(copy), base_path=self.run.dir, policy="now")


class Trackio(Tracker):
    """A run of trackio, which knows runs by their names alone: so the name ends with the id."""

    def __init__(self, run: TrackedRun, step: int) -> None:
        import trackio

        self.name = f"{run.name}-{run.id}"
        self.run: Any = trackio.init(
            project=PROJECT, name=self.name, group=run.config.name, config=_flat(run.config), resume="allow"
        )
        self._attach("config", [run.config_file])

    def log(self, figures: dict[str, float], step: int) -> None:
        self.run.log(figures, step=step)

    def report(self, report: Report, step: int) -> None:
        import trackio

        pictures = {f"report/{path.stem}": trackio.Image(path) for path in report.pictures}
        self.run.log({**report.figures, "report": trackio.Html(report.page), **pictures}, step=step)
        self._attach("evaluation", [report.page, report.summary, *report.pictures])

    def close(self) -> None:
        import trackio

        trackio.finish()

    def _attach(self, kind: str, files: list[Path]) -> None:
        import trackio

        artifact = trackio.Artifact(f"{self.name}-{kind}", type=kind)
        for path in files:
            artifact.add_file(path)
        self.run.log_artifact(artifact)


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError if `runtime.trackers` names one that is not known, or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"runtime.trackers: {name!r} is no tracker{did_you_mean(name, TRACKERS)}")
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UserError(
                f"runtime.trackers: {name!r} is not installed; install its package or leave it out"
            ) from None


class Trackers:
    """A run in several trackers. One that fails is left behind, with a warning, since curves are not worth a training.

    Args:
        trackers: those that have begun, by name.
    """

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self._trackers = trackers

    def log(self, figures: dict[str, float], step: int) -> None:
        """A point of every curve, in every tracker."""
        for name, tracker in [*self._trackers.items()]:
            if not self._done(name, lambda tracker=tracker: tracker.log(figures, step)):  # type: ignore[misc]
                del self._trackers[name]

    def close(self) -> None:
        """Waits until everything is written, or sent."""
        for name, tracker in self._trackers.items():
            self._done(name, tracker.close)
        self._trackers = {}

    @staticmethod
    def _done(name: str, act: Callable[[], object]) -> bool:
        try:
            act()
        except Exception as error:  # each has its own for a network that is gone, or a service that was killed
            print(f"warning: runtime.trackers: {name!r} has failed, and is left out: {_brief(error)}", file=sys.stderr)
            return False
        return True


def open_trackers(config: ExperimentConfig, name: str, kind: str, logs: Path, step: int) -> Trackers:
    """The trackers of `runtime.trackers`, with one run in each. Call it when `config.yaml` is written.

    Args:
        config: the experiment.
        name: what people call the run.
        kind: `train` or `meta-train`.
        logs: the run's folder; once it is deleted, the next run is another.
        step: how much is done; points after it are dropped where the tracker can.

    Raises UserError if a tracker cannot begin.
    """
    run, opened = TrackedRun(config, name, kind, logs), dict[str, Tracker]()
    try:
        for tracker in dict.fromkeys(config.runtime.trackers):
            opened[tracker] = _opened(tracker, run, step)
    except UserError:
        Trackers(opened).close()
        raise
    return Trackers(opened)


def attach_report(config: ExperimentConfig, report: Report) -> None:
    """Adds an evaluation to the training's run in every tracker; one that has it already is left alone.

    Raises UserError if one of them has not got it, after the others have; the next call goes on with it.
    """
    run, step = TrackedRun(config, config.name, "train", run_folder(config).logs), config.training.steps
    evaluation, failed = sha256(report.summary), list[str]()
    for name in dict.fromkeys(config.runtime.trackers):
        if run.record.reported.get(name) == evaluation:
            continue
        try:
            with closing(_opened(name, run, step)) as tracker:
                tracker.report(report, step)
        except UserError as error:
            failed.append(str(error))
        except Exception as error:
            failed.append(f"runtime.trackers: {name!r} has not got the report: {_brief(error)}; evaluate again")
        else:
            run.remember(name, evaluation)
    if failed:
        raise UserError("\n".join(failed))


def _opened(tracker: str, run: TrackedRun, step: int) -> Tracker:
    try:
        return TRACKERS[tracker](run, step)
    except UserError:
        raise
    except Exception as error:  # each has its own for no login, no network, no room
        raise UserError(f"runtime.trackers: {tracker!r} cannot begin: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _flat(config: ExperimentConfig) -> dict[str, Any]:
    """The config's values by their dotted keys, as overrides name them."""

    def walk(key: str, value: Any) -> list[tuple[str, Any]]:
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            return [pair for name, item in items for pair in walk(f"{key}.{name}" if key else str(name), item)]
        return [(key, value)]

    return dict(walk("", config.model_dump(mode="json")))
