"""The random policy: a normalised return of 0 is its return."""

from typing import Any

from numpy.typing import NDArray

from data_gen.agents.base import Agent, Spec
from data_gen.streams import Seeds, SlotStreams
from data_gen.tasks.base import sample_actions
from icrl.config.components import component


@component
class Random(Agent):
    """Takes uniformly random actions."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.space, self.streams = spec.action_space, SlotStreams(seeds)

    def act(self, observation: Any) -> NDArray[Any]:
        return sample_actions(self.space, self.streams)
