"""How far the training of a run folder is: whose training a checkpoint is, and when it is finished.

The number of updates is a part of a training's fingerprint, but may grow: a finished training of N updates is also the
beginning of a training of more, if everything else is equal. So a checkpoint is compared with the config at the number
of updates that its record has.
"""

from pathlib import Path

from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import (
    Stretch,
    TrainingRecord,
    best_checkpoint,
    best_line,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    last_checkpoint,
)
from icrl.run.fingerprints import evaluation_fingerprint, training_fingerprint
from icrl.run.folder import RunFolder, stale
from icrl.support.errors import UserError


def with_steps(config: ExperimentConfig, steps: int) -> ExperimentConfig:
    """The config with another number of updates."""
    return config.model_copy(update={"training": config.training.model_copy(update={"steps": steps})})


def stretches_of(record: TrainingRecord, config: ExperimentConfig) -> list[Stretch]:
    """The parts of a checkpoint's training. An earlier version's record has none: it was finished, or is unchanged."""
    if record.stretches:
        return record.stretches
    unchanged = record.fingerprint == training_fingerprint(config)
    return [Stretch(first=0, steps=config.training.steps if unchanged else record.step)]


def check_training(path: Path, record: TrainingRecord, config: ExperimentConfig, flag: str = "--overwrite") -> None:
    """Raises UserError if the checkpoint at `path` belongs to a training of another config, or of more updates."""
    planned = stretches_of(record, config)[-1].steps
    if record.fingerprint != training_fingerprint(with_steps(config, planned)):
        raise stale(path, flag)
    if config.training.steps < planned:
        raise UserError(
            f"{path}: its training has {planned} updates, and training.steps {config.training.steps} is fewer: choose "
            f"another --name, or {flag} to delete it and start again"
        )


def finished(record: TrainingRecord, config: ExperimentConfig) -> bool:
    """True if nothing is left to train after the checkpoint: it is the last one, or training stopped early."""
    return record.step == config.training.steps or record.stopped is not None


def chosen_checkpoint(config: ExperimentConfig, folder: Path) -> Path:
    """The run's checkpoint that `evaluation.checkpoint` names: the best one, or else the last one.

    Raises UserError if it does not exist.
    """
    if config.evaluation.checkpoint != "best":
        return last_checkpoint(folder)
    best = best_checkpoint(folder)
    if best is None:
        raise UserError(
            f"{folder}: no checkpoint was validated, so none is known to be the best: evaluate the last one "
            "(evaluation.checkpoint: last), or train with validation.every above 0"
        )
    return best


def replaced_evaluations(config: ExperimentConfig, folder: RunFolder) -> set[str]:
    """Fingerprints of evaluations of the run's training before it was given more updates, which a new one replaces."""
    steps = checkpoint_steps(folder.checkpoints)
    if not steps:
        return set()
    record = checkpoint_record(checkpoint_path(folder.checkpoints, steps[-1]), TrainingRecord)
    return {
        evaluation_fingerprint(with_steps(config, stretch.steps))
        for stretch in stretches_of(record, config)
        if stretch.steps < config.training.steps
    }


def training_lines(record: TrainingRecord, config: ExperimentConfig, folder: RunFolder) -> list[str]:
    """The state of a run's training as a few lines for people.

    Args:
        record: the record of the last checkpoint.
        config, folder: the experiment and its run folder.
    """
    lines = [f"training: {record.step} of {config.training.steps} updates: {folder.checkpoints}"]
    if len(record.stretches) > 1:
        parts = ", ".join(f"{stretch.steps} from update {stretch.first} on" for stretch in record.stretches)
        lines.append(f"  planned updates: {parts}")
    if record.stopped:
        lines.append(f"  stopped early: {record.stopped}")
    best = best_checkpoint(folder.checkpoints)
    return lines if best is None else [*lines, f"  {best_line(best, 'update')}"]
