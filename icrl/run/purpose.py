"""What a seed is for. Two uses of one experiment's seed never share their random numbers."""

from enum import IntEnum


class Purpose(IntEnum):
    """The number that follows the experiment's seed wherever something random is derived from it.

    Numbers are part of every result: a new purpose takes a new one, and none is ever changed or used again.
    """

    HISTORIES = 1
    """Seeds of the learners that leave histories."""
    WINDOWS = 2
    """Which windows an update of training sees."""
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
