"""Keys that tell that two runs of a study can have one training, and whose training is in a folder of checkpoints."""

from pathlib import Path

from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import (
    TrainingRecord,
    best_checkpoint,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    intact_record,
)
from icrl.run.fingerprints import meta_validation_fingerprint, training_fingerprint, validation_fingerprint
from icrl.run.progress import finished


def training_key(config: ExperimentConfig) -> str:
    """A key that is equal for runs that can have one training.

    Validation only watches a training, and has no part in its fingerprint. But where the best checkpoint is evaluated,
    it decides which one that is.
    """
    own = training_fingerprint(config)
    if config.evaluation.checkpoint != "best":
        return own
    return fingerprint(own, validation_fingerprint(config), config.validation.every)


def is_trained(checkpoints: Path, config: ExperimentConfig, data: str) -> bool:
    """True if a folder of checkpoints holds the finished training of this config, on data of this identity.

    A training that was given more updates later is left out: where its learning rate was warmed up again, the result is
    not that of a training from scratch. Raises UserError if a checkpoint that counts is damaged.
    """
    steps = checkpoint_steps(checkpoints)
    if not steps:
        return False
    path = checkpoint_path(checkpoints, steps[-1])
    record = checkpoint_record(path, TrainingRecord)
    same = (record.fingerprint, record.data) == (training_fingerprint(config), data)
    if not same or not finished(record, config) or len(record.stretches) > 1:
        return False
    best = best_checkpoint(checkpoints, validation_fingerprint(config))
    if config.evaluation.checkpoint == "best":
        if best is None:
            return False
        intact_record(best, TrainingRecord)
    intact_record(path, TrainingRecord)
    return True


def is_validated(checkpoints: Path, config: ExperimentConfig) -> bool:
    """True if a meta-learner's checkpoints have a best one by the validation of this config."""
    return best_checkpoint(checkpoints, meta_validation_fingerprint(config)) is not None
