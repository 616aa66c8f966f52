"""The sections `split` and `seeds` of the schema: the sizes of the sets of tasks, and the seeds of everything random.

Three sets of tasks never meet. The training tasks are the only ones that data comes from. The validation tasks are for
choices: a checkpoint, a learning rate, a temperature. The held-out tasks (`test`) are for the figures that are
reported, and are looked at once.
"""

from typing import Annotated, Literal

from pydantic import Field

from icrl.config.sections import Section

TaskShare = Annotated[int, Field(ge=1, le=2**24, strict=True)] | Annotated[float, Field(gt=0, lt=1)]

ValidationShare = Annotated[int, Field(ge=0, le=2**24, strict=True)] | Annotated[float, Field(gt=0, lt=1)]

Seed = Annotated[int, Field(ge=0, lt=2**32)]

SeedName = Literal["split", "data", "training", "evaluation"]
"""A seed of its own: a key of the section `seeds`."""


class SplitConfig(Section):
    """The sizes of the three sets of tasks. The seed `split` decides which tasks go into which set."""

    train: TaskShare = 0.8
    """Training tasks: a number (1 or more), or a fraction of all tasks (below 1) if the family is finite. All data
    comes from these tasks. A fraction includes the validation tasks that no tasks are left over for."""

    validation: ValidationShare | None = None
    """Validation tasks, for choices between checkpoints and settings: a number, or a fraction of all tasks. By default,
    a tenth of `train` in a finite family, at least 1 where it can, and 64 in an unbounded one. 0 turns them off.

    They are taken from the tasks that `train` and `test` leave over. Where too few are left, a `train` that is a
    fraction gives the rest; a `train` that is a number stays as it is, and there are fewer validation tasks, or none.
    """

    test: TaskShare = 0.2
    """Held-out tasks: a number or a fraction, as for `train`. No training data ever comes from these tasks, and no
    choice looks at them."""


class SeedsConfig(Section):
    """The seeds of the parts of an experiment. Each is the experiment's `seed` unless it is given here.

    Equal seeds share no random numbers: each part has a purpose of its own (`icrl.run.purpose`). So several training
    seeds on one data set are `seeds: {training: 1}`, `seeds: {training: 2}`, and so on.
    """

    split: Seed | None = None
    """Seed of the split: which tasks are training, validation and held-out tasks."""

    data: Seed | None = None
    """Seed of the learning histories, and of meta-training, since a meta-learner is a source or a baseline."""

    training: Seed | None = None
    """Seed of the transformer's initial weights, its windows, the order of streamed shards, and dropout."""

    evaluation: Seed | None = None
    """Seed of the lifetimes in the evaluation."""
