"""Building blocks of the schema: sections that reject unknown keys, and components with their parameters."""

from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field, PositiveFloat, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from icrl.config.components import AGENTS, OBJECTIVES, TASKS, find_component, parameters
from icrl.support.errors import ConfigError

Count = Annotated[int, Field(ge=1, le=2**32)]
"""A number of things that are made one after another."""

Many = Annotated[int, Field(ge=1, le=2**24)]
"""A number of things that are in memory at once."""


class Section(pydantic.BaseModel):
    """A part of the config. It is immutable and rejects unknown keys."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("is true or false, but must be another kind of value")
        return value


class Component(Section):
    """A named class with its parameters, written as one flat mapping: `{name: ..., key: ...}`."""

    name: str
    params: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "params" not in value:
            own = {key: value[key] for key in value if key in cls.model_fields}
            return {**own, "params": {key: value[key] for key in value if key not in own}}
        return value

    @model_serializer
    def _as_flat_mapping(self) -> dict[str, Any]:
        own = {key: getattr(self, key) for key in type(self).model_fields if key != "params"}
        given = {key: value for key, value in own.items() if value is not None}
        return {**given, **parameters(self.build())}

    table: ClassVar[dict[str, str]] = AGENTS
    """Known names of this kind of component, and their classes."""

    methods: ClassVar[tuple[str, ...]] = ("reset", "act", "observe", "actors", "swept")
    """Methods and attributes that the class must have."""

    base: ClassVar[str] = "derive it from icrl.Agent"
    """Advice, in an error message, for a class that lacks one of `methods`."""

    def build(self) -> Any:
        """A new instance. Raises ConfigError for an unknown name, pydantic.ValidationError for bad parameters."""
        cls = find_component(self.name, self.table)
        lacking = [method for method in self.methods if not hasattr(cls, method)]
        if lacking:
            raise ConfigError(f"{self.name!r} cannot be used here: the class has no {lacking[0]!r}; {self.base}")
        try:
            return cls(**self.params)
        except (ConfigError, pydantic.ValidationError):
            raise
        except Exception as error:  # the user's own class may raise anything
            raise ConfigError(f"{self.name!r} cannot be built: {type(error).__name__}: {error}") from error


class TasksComponent(Component):
    """A task distribution."""

    table: ClassVar[dict[str, str]] = TASKS
    methods: ClassVar[tuple[str, ...]] = ("split", "make_vec", "optimal_return", "random_return")
    base: ClassVar[str] = "derive it from icrl.TaskDistribution"


class ObjectiveComponent(Component):
    """The objective of the transformer's training."""

    table: ClassVar[dict[str, str]] = OBJECTIVES
    methods: ClassVar[tuple[str, ...]] = ("columns", "imitates", "heads", "loss", "act")
    base: ClassVar[str] = "derive it from icrl.Objective"


class AgentComponent(Component):
    """An agent, its input, and its name in results."""

    sees: Literal["observation", "state"] = "observation"
    """Input of the agent: the `observation`, or the environment's whole `state` if the environment hides more than the
    task. Histories hold the observation in either case, so a source may learn from more than the transformer gets."""

    label: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] | None = None
    """Name of the agent in results. By default, its `name`."""


class Source(AgentComponent):
    """An agent whose learning histories are recorded."""

    share: PositiveFloat = 1.0
    """Share of the learners that run this source, relative to the shares of the other sources."""

    record: Literal["first", "all"] = "first"
    """Actors of a learner that leave a history: the `first` only, or `all` of them."""


def problem(path: str, value: object, message: str) -> PydanticCustomError:
    """A validation error about a relation between fields, reported at `path`."""
    return PydanticCustomError("relation", "{message}", {"path": path, "value": value, "message": message})
