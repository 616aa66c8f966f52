"""Experiment trackers: TensorBoard, Weights & Biases and trackio. No other module knows them.

Training is one run in every tracker that `runtime.trackers` names, and so is the meta-training of each meta-learner. A
`logs` folder beside the training log holds the trackers' files and the run's id. With that id, a training that was
killed continues the same run, and the evaluation adds its report to the run. Each tracker has its own settings for what
it sends where, such as WANDB_MODE or TRACKIO_SPACE_ID. Without them, TensorBoard and trackio only write files.
"""

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib import metadata
from pathlib import Path
from typing import Any

from icrl.config.schema import ExperimentConfig
from icrl.run.folder import run_folder
from icrl.run.tracked_run import Report, TrackedRun
from icrl.support.errors import ConfigError, UserError, did_you_mean, shown
from icrl.support.files import sha256
from icrl.support.threads import quiet_threads

PROJECT = "in-context-rl"
"""Name of the project in Weights & Biases and trackio. Within it, runs are grouped by experiment."""


class Tracker(ABC):
    """One run in one tracker. The run starts, or resumes after `step`, with the resolved config attached."""

    @abstractmethod
    def __init__(self, run: TrackedRun, step: int) -> None: ...

    @classmethod  # noqa: B027 - optional: most need no login
    def check(cls) -> None:
        """Raises an error if the tracker certainly cannot start on this machine; called before the first stage."""

    @abstractmethod
    def log(self, figures: dict[str, float], step: int) -> None:
        """Adds one point to every curve."""

    @abstractmethod
    def report(self, report: Report, step: int) -> None:
        """Attaches an evaluation: its figures as scalars, its pictures, its files."""

    @abstractmethod
    def close(self) -> None:
        """Waits until everything is written or sent."""


class TensorBoard(Tracker):
    """Event files in the `logs` folder. The config is added as text and as hyper-parameters."""

    def __init__(self, run: TrackedRun, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # The error of its writing thread is raised by its next method.
        self.quiet = ExitStack()
        self.quiet.enter_context(quiet_threads(lambda args: type(args.thread).__module__.startswith("tensorboard")))
        # a process that was killed logged the points after `step`; they will be logged again
        self.writer = SummaryWriter(str(run.logs), purge_step=step + 1)
        flat = _flat(run.config)
        values = {key: value if isinstance(value, int | float) else str(value) for key, value in flat.items()}
        # `add_hparams` would put them in a separate run
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
        with self.quiet:
            self.writer.close()

    def _text(self, name: str, text: str, step: int) -> None:
        self.writer.add_text(name, f"```\n{text}\n```", step)


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, resumed by its id. Offline, resuming adds another folder with the same id."""

    @classmethod
    def check(cls) -> None:
        """Raises an error without a login; on a terminal, asks for it."""
        import wandb

        if wandb.setup().settings.mode not in ("offline", "disabled", "dryrun"):
            wandb.login()

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
        self.run.log(shown, step=max(step + 1, self.run.step))  # a past step accepts no more values
        for path in (report.page, report.summary, *report.pictures):
            self._save(path)

    def close(self) -> None:
        self.run.finish(exit_code=int(sys.exception() is not None))

    def _save(self, path: Path) -> None:
        """Saves a file under the run folder's name, because Weights & Biases has its own `config.yaml` at the top.

        The file is copied, not linked, so that an offline run can be moved to another machine and sent from there.
        """
        copy = Path(self.run.dir) / path.relative_to(self.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        self.run.save(str(copy), base_path=self.run.dir, policy="now")


class Trackio(Tracker):
    """A run of trackio. It identifies runs by name alone, so the name ends with the id."""

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
    """Raises ConfigError if `runtime.trackers` names an unknown tracker, UserError if one is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"runtime.trackers: {shown(name)} is not a tracker{did_you_mean(name, TRACKERS)}")
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UserError(
                f"runtime.trackers: {name!r} is not installed; install its package, or remove the tracker"
            ) from None


def check_logins(names: Sequence[str]) -> None:
    """Raises UserError if one of these trackers certainly cannot start, such as for lack of a login."""
    for name in names:
        try:
            TRACKERS[name].check()
        except Exception as error:  # each tracker raises its own
            raise UserError(f"runtime.trackers: {name!r} cannot start: {_brief(error)}") from error


class Trackers:
    """One run in several trackers. A tracker that fails is dropped with a warning, and training continues without it.

    Args:
        trackers: the trackers that have started, by name.
    """

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self._trackers = trackers

    def log(self, figures: dict[str, float], step: int) -> None:
        """Adds one point to every curve, in every tracker."""
        for name, tracker in [*self._trackers.items()]:
            if not self._done(name, lambda tracker=tracker: tracker.log(figures, step)):  # type: ignore[misc]
                del self._trackers[name]

    def close(self) -> None:
        """Waits until everything is written or sent."""
        for name, tracker in self._trackers.items():
            self._done(name, tracker.close)
        self._trackers = {}

    @staticmethod
    def _done(name: str, act: Callable[[], object]) -> bool:
        try:
            act()
        except Exception as error:  # each tracker raises its own, for a lost network or a service that was killed
            print(f"warning: runtime.trackers: {name!r} failed and is dropped: {_brief(error)}", file=sys.stderr)
            return False
        return True


def open_trackers(config: ExperimentConfig, name: str, kind: str, logs: Path, step: int) -> Trackers:
    """Starts the trackers of `runtime.trackers`, with one run in each. Call it after `config.yaml` is written.

    Args:
        config: the experiment.
        name: the run's name for people.
        kind: `train` or `meta-train`.
        logs: the folder of the trackers' files and the run's id. If it is deleted, the next call starts a new run.
        step: updates or iterations so far. Later points are dropped from the curves if the tracker can do so.

    Raises UserError if a tracker cannot start.
    """
    run, opened = TrackedRun(config, name, kind, logs), dict[str, Tracker]()
    try:
        for tracker in dict.fromkeys(config.runtime.trackers):
            opened[tracker] = _opened(tracker, run, step)
    except UserError:
        Trackers(opened).close()  # no tracker stays open if another cannot start
        raise
    return Trackers(opened)


def attach_report(config: ExperimentConfig, report: Report) -> None:
    """Adds an evaluation to the training's run in every tracker that has not received it yet.

    Raises UserError if a tracker fails, after the others have received it. The next call tries that tracker again.
    """
    run, step = TrackedRun(config, config.name, "train", run_folder(config).logs), config.training.steps
    evaluation, failed = sha256(report.summary), list[str]()
    # A failure is raised last, so that one tracker does not hold up the others.
    for name in dict.fromkeys(config.runtime.trackers):
        if run.load_record().reported.get(name) == evaluation:
            continue
        try:
            with closing(_opened(name, run, step)) as tracker:
                tracker.report(report, step)
        except UserError as error:
            failed.append(str(error))
        except Exception as error:
            failed.append(f"runtime.trackers: {name!r} did not receive the report: {_brief(error)}; evaluate again")
        else:
            run.remember(name, evaluation)
    if failed:
        raise UserError("\n".join(failed))


def _opened(tracker: str, run: TrackedRun, step: int) -> Tracker:
    try:
        return TRACKERS[tracker](run, step)
    except UserError:
        raise
    except Exception as error:  # each tracker raises its own, for a missing login, no network or a full disk
        raise UserError(f"runtime.trackers: {tracker!r} cannot start: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _flat(config: ExperimentConfig) -> dict[str, Any]:
    """The config's values by dotted key, as in overrides."""

    def walk(key: str, value: Any) -> list[tuple[str, Any]]:
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            return [pair for name, item in items for pair in walk(f"{key}.{name}" if key else str(name), item)]
        return [(key, value)]

    return dict(walk("", config.model_dump(mode="json")))
