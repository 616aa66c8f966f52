"""The start of a training: from scratch, from its last checkpoint, or, with more updates than before, from the
checkpoint at which a longer training is still the same.

A finished training whose `training.steps` was raised goes on. With a constant learning rate, the result is that of a
training of that length from scratch, to the bit. So it is with `warmup_stable_decay`: training goes back to the
checkpoint before the rate began to fall, which is always kept, and makes those last updates again. A cosine leads to
its own last update, and cannot be that of a longer training; its rate is warmed up again, and the result is another.
"""

from dataclasses import dataclass
from pathlib import Path

from ad_model.initial import initial_weights, is_away
from ad_model.schedule import decay_start
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import (
    Stretch,
    TrainingRecord,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    intact_record,
)
from icrl.run.fingerprints import training_fingerprint
from icrl.run.folder import stale
from icrl.run.progress import check_training, finished, stretches_of
from icrl.support.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The start of a training, and what the records of its checkpoints say about it."""

    fingerprint: str
    data: str
    """Identity of the training data."""
    stretches: list[Stretch]
    start: int = 0
    """The update to resume after; 0 from scratch."""
    complete: TrainingRecord | None = None
    """The record of the last checkpoint, if there is nothing left to do."""
    initial: str | None = None
    """Fingerprint of the weights that the training begins with; None if they are random."""

    @property
    def rewarmed(self) -> int:
        """The update at which the present part of the training began."""
        return self.stretches[-1].first


def plan_training(config: ExperimentConfig, folder: Path, data: str, overwrite: bool = False) -> Plan:
    """Decides where to start. Nothing is deleted yet.

    Args:
        config: the experiment.
        folder: the folder of the checkpoints.
        data: identity of the training data.
        overwrite: start from scratch, whatever there is.

    Raises UserError if the last checkpoint belongs to another config or other data, or is damaged, or if training
    cannot go on from it.
    """
    fingerprint, steps = training_fingerprint(config), config.training.steps
    saved = checkpoint_steps(folder)
    if overwrite or not saved:
        return Plan(fingerprint, data, [Stretch(first=0, steps=steps)], initial=initial_weights(config))
    path = checkpoint_path(folder, saved[-1])
    record = checkpoint_record(path, TrainingRecord)
    check_training(path, record, config)
    if record.data != data:
        raise stale(path)
    intact_record(path, TrainingRecord)
    stretches, complete = stretches_of(record, config), finished(record, config)
    if not (complete and is_away(config)) and record.initial != initial_weights(config):
        raise UserError(
            f"training.initial: {config.training.initial}: has other weights than when {folder} was trained from it: "
            "choose another --name, or --overwrite to start again"
        )
    if complete:
        return Plan(fingerprint, data, stretches, record.step, complete=record, initial=record.initial)
    if stretches[-1].steps < steps:
        start = _start_of_more(config, folder, saved, stretches[-1])
        kept = [stretch for stretch in stretches if stretch.first < start]
        stretches = [*kept, Stretch(first=start, steps=steps)]
        intact_record(checkpoint_path(folder, start), TrainingRecord)
        return Plan(fingerprint, data, stretches, start, initial=record.initial)
    return Plan(fingerprint, data, stretches, record.step, initial=record.initial)


def _start_of_more(config: ExperimentConfig, folder: Path, saved: list[int], stretch: Stretch) -> int:
    """The update from which a training that has more updates than `stretch` goes on. Raises UserError."""
    settings, last = config.training, saved[-1]
    if settings.schedule == "constant":
        return last
    if settings.schedule == "cosine":
        if last == stretch.steps:
            return last
        raise UserError(
            f"{folder}: training stopped at update {last} of {stretch.steps}, to which its cosine leads: finish it "
            f"with --training.steps {stretch.steps} before you raise training.steps, or --overwrite to start again"
        )
    fall = decay_start(settings.model_copy(update={"steps": stretch.steps}))
    before = [step for step in saved if step <= fall]
    if before:
        return before[-1]
    raise UserError(
        f"{folder}: has no checkpoint from before update {fall}, where the learning rate began to fall, so a longer "
        "training cannot go on: choose another --name, or --overwrite to start again"
    )


def kept_for_more(config: ExperimentConfig, folder: Path) -> Path | None:
    """The checkpoint that is kept so that training can go on with more updates; None if the last one serves."""
    if config.training.schedule != "warmup_stable_decay":
        return None
    return checkpoint_path(folder, decay_start(config.training))
