"""Hyper-parameters that may differ between learners, so that a sweep is one batch of learners.

A parameter annotated `PerLearner[...]` takes one value for all learners, a list of values, or a range:

    learning_rate: 0.001
    learning_rate: [0.0003, 0.001, 0.003]            each learner draws one of these
    learning_rate: {low: 0.0001, high: 0.01, log: true}      each learner draws uniformly, here in the logarithm

A learner's draw depends on its seed alone, so that the draw is the same alone and among many learners. The value is
recorded beside the learner's history as `hyper_learning_rate`.
"""

import zlib
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from data_gen.streams import Seeds, SlotStreams, derive

T = TypeVar("T")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=2**32)]


class Range(pydantic.BaseModel, Generic[T]):
    """Range that learners draw a hyper-parameter from, uniformly or uniformly in the logarithm."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: T
    high: T
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range[T]":
        low, high = float(self.low), float(self.high)  # type: ignore[arg-type]
        if low > high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and low <= 0:
            raise ValueError(f"low {self.low} has no logarithm: with log, low must be above 0")
        return self


def _form(value: Any) -> str:
    if isinstance(value, dict | Range):
        return "(range)"
    return "(list)" if isinstance(value, list | tuple) else "(value)"


_BY_FORM = Discriminator(_form)

if TYPE_CHECKING:
    PerLearner: TypeAlias = T | tuple[T, ...] | Range[T]
else:

    class PerLearner:
        """Type `PerLearner[kind]` of a parameter that may be one value, a list or a range of `kind`."""

        def __class_getitem__(cls, kind: Any) -> Any:  # a plain alias would not pass `kind` to Range
            values = Annotated[tuple[kind, ...], Field(min_length=1), Tag("(list)")]
            either = Annotated[kind, Tag("(value)")] | values | Annotated[Range[kind], Tag("(range)")]
            return Annotated[either, _BY_FORM]


def swept_parameters(built: Any) -> list[str]:
    """Names of the `PerLearner` parameters of a component that hold a list or a range."""
    fields = type(built).__pydantic_fields__
    return [
        name
        for name, field in fields.items()
        if any(part is _BY_FORM for part in (field.discriminator, *field.metadata))
        and isinstance(getattr(built, name), tuple | Range)
    ]


def per_learner(name: str, value: Any, seeds: Seeds) -> NDArray[np.float64]:
    """Every learner's value of a parameter, shape (num_learners,).

    Args:
        name: the parameter's name; every parameter draws from its own streams.
        value: the value, list or range of a `PerLearner` parameter.
        seeds: (num_learners,) the learners' seeds.
    """
    if not isinstance(value, tuple | Range):
        return np.full(len(seeds), float(value))
    uniform = SlotStreams(derive(seeds, zlib.crc32(name.encode()))).uniform()
    if isinstance(value, tuple):
        return np.array(value, dtype=np.float64)[(uniform * len(value)).astype(np.intp)]
    low, high = float(value.low), float(value.high)
    if value.log:
        return np.exp(np.log(low) + uniform * (np.log(high) - np.log(low)))
    return low + uniform * (high - low)
