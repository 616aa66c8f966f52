"""Names of the ablations of an evaluation. `eval.ablations` has the agents, and says what each is shown."""

from typing import Literal

from icrl.config.sections import problem

AblationName = Literal[
    "no_context", "context_of_another_task", "rewards_hidden", "rewards_shuffled", "actions_shuffled", "ends_hidden"
]


def without_repeats(names: tuple[AblationName, ...]) -> tuple[AblationName, ...]:
    """Returns the names. Raises a validation error if one is there twice."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise problem(f"evaluation.ablations.{number}", name, "is in the list twice")
    return names
