"""The learning rate of every update, a pure function of the config and the update's number.

Which schedule lets a finished training go on, and at what cost, is measured by `python -m benchmarks.going_on`; the
page Training shows the figures.
"""

import math

from icrl.config.training import TrainingConfig


def learning_rate(settings: TrainingConfig, step: int, first: int = 0) -> float:
    """Learning rate of update `step` (from 0): a linear warm-up, then `training.schedule`.

    Args:
        settings: `training`.
        step: the update.
        first: the update at which a training that has gone on began to go on; 0 otherwise. A cosine is warmed up again
            from there, from the rate that it had ended with. The other schedules do not read it.
    """
    low, peak = settings.final_learning_rate, settings.learning_rate
    if settings.schedule == "cosine":
        warmup = min(settings.warmup_steps, settings.steps - first)
        if step - first < warmup:
            start = low if first else 0.0
            return peak * (start + (1 - start) * (step - first + 1) / warmup)
        progress = (step - first - warmup) / max(1, settings.steps - first - warmup)
        return peak * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)
    # Until the rate falls, it does not depend on the number of updates.
    rate = peak * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "constant":
        return rate
    start = decay_start(settings)
    return rate * (1 - (1 - low) * max(0, step - start) / (settings.steps - start))


def decay_start(settings: TrainingConfig) -> int:
    """The number of updates before the learning rate of `warmup_stable_decay` begins to fall."""
    return settings.steps - max(1, round(settings.decay_share * settings.steps))
