"""Purposes of seeds. Two purposes of one experiment's seed never share random numbers."""

from enum import IntEnum


class Purpose(IntEnum):
    """The number that follows the experiment's seed wherever random numbers are derived from it.

    Results depend on these numbers. A new purpose takes a new number, and a number is never changed or reused.
    """

    HISTORIES = 1
    """Learners whose histories are recorded."""
    WINDOWS = 2
    """Windows of the training updates."""
    EVALUATION = 3
    """Lifetimes of the evaluation."""
    DROPOUT = 4
    """Dropout in training, by update and process."""
    META_TRAINING = 5
    """Networks, tasks and lifetimes of meta-training."""
    SHARD_ORDER = 6
    """The order in which streamed shards are read."""
    BENCHMARKS = 7
    """Lifetimes that only a benchmark runs."""
    VALIDATION = 8
    """Validation tasks, beside the training and held-out tasks of the split."""
    VALIDATION_LIFETIMES = 9
    """Lifetimes on validation tasks, during training and meta-training."""
    TASK_SETS = 12
    """Tasks of the evaluation's task sets."""
