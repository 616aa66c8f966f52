"""Named task sets of an evaluation: the experiment's task family with some parameters changed."""

from typing import Annotated, Any

from pydantic import Field, model_serializer, model_validator

from icrl.config.sections import Section, TasksComponent, problem

RESERVED = ("train", "validation", "test")
"""Names of the splits, which no task set may have."""

SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=40)]
"""Name of a task set, which is also its name among the splits in results."""


class TaskSetConfig(Section):
    """One task set, written as one flat mapping: `{size: 11}`, or `{size: 11, num_tasks: 32}`."""

    num_tasks: Annotated[int, Field(ge=1, le=2**24)] | None = None
    """Number of tasks; all of them if there are fewer. By default, `evaluation.test_tasks`."""

    changes: dict[str, Any] = {}
    """Parameters of the task family that differ from `tasks`."""

    @model_validator(mode="before")
    @classmethod
    def _flat_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict) and "changes" not in value:
            own = {key: value[key] for key in value if key in cls.model_fields}
            return {**own, "changes": {key: value[key] for key in value if key not in own}}
        return value

    @model_validator(mode="after")
    def _same_family(self) -> "TaskSetConfig":
        if self.changes.keys() & {"name", "params"}:
            raise ValueError(
                "a task set changes single parameters of the experiment's family: leave out name and params; to "
                "evaluate a model on another family, write a config of that family with evaluation.checkpoint"
            )
        return self

    @model_serializer
    def _as_flat_mapping(self) -> dict[str, Any]:
        count = {} if self.num_tasks is None else {"num_tasks": self.num_tasks}
        return {**count, **self.changes}

    def family(self, tasks: TasksComponent) -> Any:
        """The task family `tasks` with this set's changes."""
        return TasksComponent(name=tasks.name, params={**tasks.params, **self.changes}).build()


def check_names(sets: dict[str, TaskSetConfig]) -> dict[str, TaskSetConfig]:
    """Returns the sets. Raises a validation error for a name that a split has."""
    for name in sets:
        if name.lower() in RESERVED:
            raise problem(f"evaluation.tasks.{name}", name, "is the name of a split: choose another name")
    return sets
