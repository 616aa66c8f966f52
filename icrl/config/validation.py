"""The section `validation` of the schema: how often a model that is being trained acts on validation tasks."""

from typing import Annotated

from pydantic import Field, model_validator

from icrl.config.sections import Count, Many, Section, problem


class ValidationConfig(Section):
    """Validation: now and then during training, the model acts in context on validation tasks (`split.validation`).

    Validation changes nothing in the training. It shows when learning in context emerges, finds the best checkpoint,
    and can stop the training. Held-out tasks have no part in it.
    """

    every: Annotated[int, Field(ge=0, le=2**32)] = 200
    """Updates between two validations. The last update always has one. 0 turns them off."""

    meta_every: Annotated[int, Field(ge=0, le=2**32)] = 20
    """Iterations of meta-training between two validations. The last iteration always has one. 0 turns them off."""

    tasks: Many = 16
    """Number of validation tasks, all of them if there are fewer, and of training tasks to compare them with."""

    seeds: Many = 4
    """Number of lifetimes per task."""

    episodes: Count = 10
    """Length of a lifetime, in full-length episodes."""

    patience: Annotated[int, Field(ge=1, le=2**32)] | None = None
    """Number of validations in a row without a new best return after which the transformer's training stops. By
    default, it makes all of its updates."""

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> "ValidationConfig":
        if self.patience is not None and not self.every:
            raise problem("validation.patience", self.patience, "needs validation.every above 0")
        return self
