"""Noise histories: the optimal policy with noise that fades over the lifetime, without any learning."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Spec, Transition
from data_gen.agents.optimal import Optimal
from data_gen.streams import Seeds, SlotStreams, derive
from data_gen.tasks.base import sample_actions
from icrl.config.components import component


@component
class EpsilonAnnealed(Optimal):
    """AD-eps (Zisman et al. 2023, "Emergence of In-Context Reinforcement Learning from Noise Distillation").

    Takes a uniformly random action with probability epsilon, otherwise an optimal one. Epsilon falls linearly from
    `start` to `end` over the first `fraction` of the lifetime.
    """

    start: Annotated[float, Field(ge=0, le=1)] = 1.0
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def follows_plan(self) -> bool:
        return self.start != self.end

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.space = spec.action_space
        self.coins, self.noise = SlotStreams(seeds), SlotStreams(derive(seeds, 0))
        self.steps, self.annealing_steps = 0, self.fraction * spec.planned_steps

    def act(self, observation: Any) -> NDArray[Any]:
        progress = min(1.0, self.steps / self.annealing_steps)
        epsilon = self.start + progress * (self.end - self.start)
        optimal, noise = self.optimal_action(), sample_actions(self.space, self.noise)
        noisy = self.coins.uniform() < epsilon
        return np.where(noisy.reshape(-1, *(1,) * (optimal.ndim - 1)), noise, optimal)

    def observe(self, transition: Transition) -> None:
        self.steps += 1
