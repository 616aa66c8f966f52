"""BEB: acts greedily in the posterior's mean MDP, whose rewards have a bonus for what was seldom tried."""

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
class BEB(ModelBased):
    """Bayesian Exploration Bonus (Kolter and Ng 2009, "Near-Bayesian Exploration in Polynomial Time", equation 4).

    Value iteration in the posterior's mean MDP with the reward `mean + beta / (1 + n)`, where n counts a state and
    action's visits and the prior's counts of its next states. Osband's code, which Duan et al. 2016 compare with, has
    two bonuses, `1 / (2 + visits)` and `beta left / (1 + n)` with so many steps left; tuned, it earns about the same.
    """

    beta: PerLearner[Annotated[float, Field(ge=0)]] = 30.0
    """The theory asks for 2 H^2, with an episode's H steps and rewards within [0, 1]; much less does better."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.betas = self.drawn("beta", seeds)[:, None, None]

    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        mean, _ = self.reward_posterior(learners)
        counts = self.dirichlet(learners)
        bonus = self.betas[learners] / (1 + counts.sum(axis=-1))
        return value_iteration(mean + bonus, normalised(counts), self.horizon)
