"""Certainty equivalence: the agent takes the model's means as the truth, and explores with random actions."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Spec
from data_gen.agents.sweep import PerLearner
from data_gen.agents.tabular.model import ModelBased, normalised, value_iteration
from data_gen.streams import Seeds, SlotStreams
from icrl.config.components import component


@component
class EpsilonGreedy(ModelBased):
    """Epsilon-greedy on the optimal policy of the posterior's mean MDP; greedy with epsilon 0.

    The baseline of Duan et al. 2016, where the prior is very weak: `prior_std: 100`, `concentration: 0.0001`.
    """

    epsilon: PerLearner[Annotated[float, Field(ge=0, le=1)]] = 0.1
    """Probability of a uniformly random action."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.epsilons = self.drawn("epsilon", seeds)

    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        mean, _ = self.reward_posterior(learners)
        return value_iteration(mean, normalised(self.dirichlet(learners)), self.horizon)

    def choose(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        coin, uniform = self.streams.uniform(2).T
        random = (uniform * self.actions.size).astype(np.intp)
        return np.where(coin < self.epsilons, random, super().choose(values))
