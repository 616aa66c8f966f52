"""The section `training` of the schema: the objective, the histories that are read, and the optimiser."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from icrl.config.sections import Count, Many, ObjectiveComponent, Section, problem

_NEEDED_BY = {
    "decay_share": ("warmup_stable_decay",),
    "final_learning_rate": ("cosine", "warmup_stable_decay"),
}
"""Keys that only some schedules of the learning rate read."""


class SelectionConfig(Section):
    """Selection of the histories that training reads, and their likelihoods. The data itself does not change.

    Limits and likelihoods use three scores of a history, which `data_gen.scoring.scores` defines and `icrl info` shows.
    Scores are on the normalised scale (0 random, 1 optimal) if the task distribution knows its optimum, and are raw
    returns otherwise. A history is read if it meets every limit. By default, all are read and equally likely.
    """

    min_improvement: float | None = None
    """Minimum gain in return from the first to the last tenth of a history's episodes. No limit by default."""

    min_final_return: float | None = None
    """Minimum mean return over the last tenth of a history's episodes. No limit by default."""

    max_drop: Annotated[float, Field(ge=0)] | None = None
    """Maximum fall of the return, smoothed over a tenth of the episodes, below its highest value so far. No limit by
    default."""

    best_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each task's histories to read, rounded up: those with the best final return. 1 reads all. Works without
    a scale that all tasks share."""

    likelihood: Literal["uniform", "improvement", "final_return", "stability"] = "uniform"
    """Likelihood of each history to be drawn. `uniform` makes all equally likely. Otherwise, it is proportional to the
    distance between the history's score and the worst score among the histories that meet the limits, so the worst
    history is never drawn. The score of `stability` is the largest drop, where smaller is better."""


class TrainingConfig(Section):
    """Training of the transformer."""

    initial: str | None = None
    """Model to start from: a run folder (its last checkpoint), a checkpoint, a model folder, or a repository of the
    hub, USER/NAME or USER/NAME@REVISION. It has to have the same spaces, model and heads. By default, initial weights
    are random."""

    objective: ObjectiveComponent = ObjectiveComponent(name="imitation")
    """Training objective: `imitation` of the sources' actions (Algorithm Distillation), prediction of the
    `optimal_action`, which `data.optimal_actions` records (DPT), or your own `module:Class`."""

    selection: SelectionConfig = SelectionConfig()
    """Histories that training reads. By default, all of them, equally likely."""

    steps: Count = 600
    """Number of updates (optimiser steps). Raise it after training has finished, and `icrl train` goes on."""

    batch_size: Many = 64
    """Context windows per update, in total over all processes and accumulation steps."""

    accumulation_steps: Many = 1
    """Number of parts that each process splits its share of the batch into, to save memory. 1 does not split it."""

    subsample: Many = 16
    """Number k of strands per history. A context holds every k-th episode, so that it spans more of the learning
    (Laskin et al. 2022). 1 keeps consecutive episodes."""

    learning_rate: PositiveFloat = 3e-3
    """Peak learning rate of AdamW."""

    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    """Learning rate after the warm-up: it falls along a `cosine` until the last update, stays `constant`, or stays at
    the peak until it falls in a straight line over the last updates (`warmup_stable_decay`)."""

    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the updates over which the learning rate of `warmup_stable_decay` falls."""

    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate after the last update of a schedule that falls, as a fraction of the peak."""

    warmup_steps: Annotated[int, Field(ge=0, le=2**32)] = 100
    """Number of updates of linear warm-up. 0 starts at the peak."""

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """Decay rates of AdamW's first and second moments."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW. 0 turns it off."""

    max_grad_norm: PositiveFloat = 1.0
    """Maximum norm of the gradients of an update. Larger gradients are scaled down to this norm."""

    @property
    def imitates(self) -> bool:
        """True if the objective learns the sources' own actions, so that the histories have to improve."""
        return bool(self.objective.build().imitates)

    @model_validator(mode="after")
    def _fits(self) -> "TrainingConfig":
        if self.batch_size % self.accumulation_steps:
            raise problem(
                "training.accumulation_steps",
                self.accumulation_steps,
                f"must divide training.batch_size, which is {self.batch_size}",
            )
        for key, schedules in _NEEDED_BY.items():
            value = getattr(self, key)
            if self.schedule not in schedules and value != type(self).model_fields[key].default:
                raise problem(
                    f"training.{key}", value, f"has no meaning with training.schedule {self.schedule}; leave it out"
                )
        return self
