"""Validation: an agent that is being trained acts on validation tasks, and on as many training tasks.

Both kinds of tasks are slots of one batch, and every validation of a training has the same tasks and the same seeds, so
that its figures differ by what was learned in between, and hardly by chance. Test tasks have no part in it.
"""

import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.agents.base import Agent
from data_gen.experiment import Experiment
from data_gen.interaction import interact
from data_gen.returns import episode_returns, final_returns
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks, return_span
from icrl.run.checkpoints import CheckpointRecord, ValidationRecord, best_checkpoint, checkpoint_record
from icrl.run.fingerprints import meta_validation_fingerprint, validation_fingerprint
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError
from icrl.support.terminal import say

LAST_SHARE = 0.25
"""Last part of a lifetime's steps: the last return is the mean of the episodes that end in this part."""

_PARTED_SHARE = 0.25
"""Share of the gain in context on training tasks that may be missing on validation tasks. On the demo, all of it is
missing with 8 training tasks, and half to a quarter with 24."""

_PARTED_ERRORS = 3.0
"""Standard errors, over tasks, by which returns on the two kinds of tasks may differ by chance. A normal number is
above 3 in one of 700 cases."""

MEMORISES = (
    "much more is earned on training tasks than on validation tasks: the training tasks are being memorised; give more "
    "of them, or evaluate the best checkpoint (evaluation.checkpoint: best)"
)
"""The warning about returns that have parted."""

ScaleName = Literal["return", "normalised_return"]


@dataclass(frozen=True)
class Validated:
    """The figures of one validation."""

    figures: dict[str, float]
    """For logs and trackers: `SPLIT_first_SCALE` and `SPLIT_last_SCALE`, where SPLIT is `validation` or `train` and
    SCALE is `return` or, if every task has a scale, `normalised_return`; `memorises`, 1 if the returns on both kinds of
    tasks have parted; and `validation_seconds`."""
    scale: ScaleName
    """The scale of `score`: normalised returns if every task has them, else raw returns."""

    @property
    def memorises(self) -> bool:
        """True if returns on training tasks and on validation tasks have parted."""
        return bool(self.figures["memorises"])

    @property
    def score(self) -> float:
        """The return in the last episodes on validation tasks, by which checkpoints are compared."""
        return self.figures[f"validation_last_{self.scale}"]

    def line(self) -> str:
        """The figures as a few words for people."""
        first, last = (self.figures[f"validation_{which}_{self.scale}"] for which in ("first", "last"))
        seen = self.figures[f"train_last_{self.scale}"]
        scale = self.scale.replace("_", " ")
        return f"{scale} {first:.2f} in episode 1, {last:.2f} in the last ones ({seen:.2f} on training tasks)"


@dataclass(frozen=True)
class Verdict:
    """The result of one validation, beside those of earlier checkpoints."""

    validated: Validated
    settings: str
    """Fingerprint of the validation: only scores of the same settings are compared."""
    is_best: bool
    """True if no checkpoint has a score as high."""
    best_step: int
    """Step of the checkpoint with the best score, which may be this one."""

    @property
    def record(self) -> ValidationRecord:
        """The part of a checkpoint's record that holds the result."""
        return ValidationRecord(settings=self.settings, score=self.validated.score)


class Validation:
    """Validates agents on an experiment's validation tasks.

    Args:
        experiment: gives tasks and lengths.
        meta: True in meta-training, whose seed is that of the data.
    """

    def __init__(self, experiment: Experiment, meta: bool = False) -> None:
        config = experiment.config
        self.experiment = experiment
        self.seed = config.seed_for("data" if meta else "training")
        self.settings = meta_validation_fingerprint(config) if meta else validation_fingerprint(config)
        validated = experiment.validation_tasks.take(slice(config.validation.tasks))
        parts = [validated, experiment.train_tasks.take(slice(len(validated)))]
        self.sizes = [len(part) for part in parts]
        self.tasks = Tasks({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        self.scale = _scale(experiment, self.tasks)

    def __call__(self, agent: Agent, sees: str = "observation") -> Validated:
        """Runs new lifetimes of `agent` on all tasks at once. `sees` is `observation` or `state`, as in `interact`."""
        family, settings = self.experiment.family, self.experiment.config.validation
        seeds, actors, steps = settings.seeds, agent.actors, settings.episodes * family.episode_length
        lifetimes = len(self.tasks) * seeds
        started = time.perf_counter()
        # One slot per task, seed and actor; a learner's actors are neighbours.
        rows = np.repeat(np.arange(len(self.tasks)), seeds * actors)
        with closing(family.make_vec(self.tasks.take(rows))) as envs:
            histories = interact(
                agent,
                envs,
                steps,
                make_seeds(lifetimes, self.seed, Purpose.VALIDATION_LIFETIMES),
                sees=sees,
                recorded=slice(None, None, actors),
                device=self.experiment.source_device,
                check_values=self.experiment.config.runtime.check_values,
                slot_name=lambda slot: self._name(int(rows[slot])),
            )
        reward, ended = histories.reward, histories.ended
        first = episode_returns(reward, ended, 1)[:, 0].reshape(-1, seeds).mean(axis=1)
        last = final_returns(reward, ended, max(LAST_SHARE, 1 / settings.episodes))
        return self._validated(first, last.reshape(-1, seeds).mean(axis=1), time.perf_counter() - started)

    def verdict(self, agent: Agent, folder: Path, step: int, sees: str = "observation") -> Verdict:
        """Validates `agent` after `step` updates or iterations, and compares it with the checkpoints in `folder`."""
        validated, path = self(agent, sees), best_checkpoint(folder, self.settings)
        best = None if path is None else checkpoint_record(path, CheckpointRecord)
        if best is None or best.validation is None or validated.score > best.validation.score:
            return Verdict(validated, self.settings, True, step)
        return Verdict(validated, self.settings, False, best.step)

    def _name(self, task: int) -> str:
        own = task < self.sizes[0]
        return f"validation task {task}" if own else f"training task {task - self.sizes[0]}"

    def _validated(self, first: NDArray[np.float64], last: NDArray[np.float64], seconds: float) -> Validated:
        """The figures of returns (tasks,) in the first and in the last episodes."""
        scales: dict[ScaleName, tuple[NDArray[np.float64], NDArray[np.float64]]] = {"return": (first, last)}
        if self.scale is not None:
            zero, span = self.scale
            scales["normalised_return"] = ((first - zero) / span, (last - zero) / span)
        figures = {
            f"{split}_{which}_{scale}": float(part.mean())
            for scale, pair in scales.items()
            for which, values in zip(("first", "last"), pair, strict=True)
            for split, part in zip(("validation", "train"), np.split(values, self.sizes[:1]), strict=True)
        }
        scale, pair = [*scales.items()][-1]
        (_, validation), (seen_first, seen) = zip(*(np.split(each, self.sizes[:1]) for each in pair), strict=True)
        memorises = float(parted(seen_first, seen, validation))
        return Validated({**figures, "memorises": memorises, "validation_seconds": round(seconds, 3)}, scale)


def has_validation_tasks(experiment: Experiment) -> bool:
    """True if there are validation tasks. Raises ConfigError if there are none, and a setting depends on them."""
    if len(experiment.validation_tasks):
        return True
    config = experiment.config
    wants = {
        "validation.patience": config.validation.patience is not None,
        "evaluation.checkpoint: best": config.evaluation.checkpoint == "best",
    }
    for key, wanted in wants.items():
        if wanted:
            raise ConfigError(f"{key}: there are no validation tasks; raise split.validation, or lower split.train")
    return False


def tell(name: str, verdict: Verdict, warn: bool) -> None:
    """Prints the result of a validation, called `name`, for the user, above a progress bar.

    With `warn`, also tells the user if returns have parted.
    """
    with tqdm.external_write_mode(file=sys.stdout):
        say(f"validation {name}: {verdict.validated.line()}{', the best so far' if verdict.is_best else ''}")
        if warn and verdict.validated.memorises:
            say(f"warning: validation {name}: {MEMORISES}")


def parted(
    train_first: NDArray[np.float64], train_last: NDArray[np.float64], validation_last: NDArray[np.float64]
) -> bool:
    """True if an agent earns more on training tasks than on validation tasks, by too much for chance.

    The agent has then memorised its training tasks: a good part of what it gains in context on training tasks is
    missing on others. Returns are (tasks,), means over lifetimes.
    """
    gap = train_last.mean() - validation_last.mean()
    if min(len(train_last), len(validation_last)) < 2:
        return False  # the error of a single task is unknown
    error = np.sqrt(sum(values.var(ddof=1) / len(values) for values in (train_last, validation_last)))
    gain = max(0.0, train_last.mean() - train_first.mean())
    return bool(gap > max(_PARTED_SHARE * gain, _PARTED_ERRORS * error))


def _scale(experiment: Experiment, tasks: Tasks) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(tasks,) the return that becomes 0, and the distance to the one that becomes 1; None if a task has no scale."""
    best = experiment.family.optimal_return(tasks)
    if not np.isfinite(best).all():  # the random policy need not be simulated
        return None
    random = experiment.family.random_return(tasks)
    span = return_span(random, best)
    return None if np.isnan(span).any() else (random, span)
