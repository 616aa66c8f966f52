"""The section `evaluation` of the schema: lifetimes, tasks of each split, and the agents to compare with."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from icrl.config.ablations import AblationName, without_repeats
from icrl.config.sections import AgentComponent, Count, Many, Section, problem
from icrl.config.task_sets import SetName, TaskSetConfig, check_names


class EvaluationConfig(Section):
    """Evaluation of the frozen transformer and the baselines on training and held-out tasks."""

    episodes: Count = 50
    """Length of a lifetime, in full-length episodes."""

    train_tasks: Annotated[int, Field(ge=0, le=2**24)] = 16
    """Number of training tasks to evaluate on; all of them if there are fewer. 0 leaves them out."""

    validation_tasks: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Number of validation tasks to evaluate on; all of them if there are fewer. 0, the default, leaves them out."""

    test_tasks: Annotated[int, Field(ge=0, le=2**24)] = 16
    """Number of held-out tasks to evaluate on; all of them if there are fewer. 0 leaves them out, so that settings can
    be compared on validation tasks."""

    seeds: Many = 8
    """Number of lifetimes per task and agent."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of the transformer's action distribution. 1 samples from the distribution as it is; 0 takes the most
    likely action, which stops exploration."""

    baselines: tuple[AgentComponent, ...] = (AgentComponent(name="random"), AgentComponent(name="optimal"))
    """Agents to compare with, in addition to the sources, which are always evaluated."""

    ablations: Annotated[tuple[AblationName, ...], AfterValidator(without_repeats)] = ()
    """Evaluate the transformer again, once for each of these, with one part of its context removed or exchanged, to
    show that it uses that part. `eval.ablations` says what each does."""

    tasks: Annotated[dict[SetName, TaskSetConfig], AfterValidator(check_names)] = {}
    """Further sets of tasks on which the same model is evaluated, by name: `{larger: {size: 11}}`. Each has the
    parameters of `tasks` with these changes, its own lifetimes of `episodes` episodes, and its own scale."""

    figures: tuple[str, ...] = ()
    """Your own figures in addition to the built-in ones, each as `module:function` (see `eval.figures`)."""

    checkpoint: str = "last"
    """Model to evaluate: the run's `last` checkpoint, its `best` one on validation tasks, or another model: a model
    folder, a checkpoint, a run folder, or a repository of the hub. (A folder that is called best is `./best`.) With
    `best`, meta-learners act with their best weights on validation tasks, too."""

    allow_seen_tasks: bool = False
    """Evaluate a model even if it was trained on some of the held-out tasks. Summary and report then say how many."""

    trust_remote_code: bool = False
    """Run the code beside the weights of `checkpoint` instead of this project's own. Read that code first."""

    @property
    def given(self) -> str | None:
        """The model from elsewhere; None if it is a checkpoint of the run itself."""
        return None if self.checkpoint in ("last", "best") else self.checkpoint

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _last_by_default(cls, value: Any) -> Any:
        return "last" if value is None else value  # as in configs of earlier versions

    @model_validator(mode="after")
    def _has_tasks(self) -> "EvaluationConfig":
        if not self.test_tasks + self.validation_tasks + self.train_tasks:
            raise problem(
                "evaluation.test_tasks", 0, "leaves no task: give test_tasks, validation_tasks or train_tasks"
            )
        for name, given in self.tasks.items():
            if not (given.num_tasks or self.test_tasks):
                raise problem(
                    f"evaluation.tasks.{name}.num_tasks", None, "is required where evaluation.test_tasks is 0"
                )
        return self
