"""The optimal policy, which knows the task: a normalised return of 1 is its return."""

from typing import Any

from numpy.typing import NDArray

from data_gen.agents.base import Agent, Spec
from data_gen.streams import Seeds
from icrl.config.components import component
from icrl.support.errors import UserError


@component
class Optimal(Agent):
    """Acts optimally from the first step, by reading the environments' hidden state."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        if spec.optimal_action is None:
            raise UserError(
                "agent 'optimal': this task distribution does not know its optimal policy; remove the agent"
            )
        self.optimal_action = spec.optimal_action

    def act(self, observation: Any) -> NDArray[Any]:
        return self.optimal_action()
