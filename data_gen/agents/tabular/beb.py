"""BEB: acts greedily in the posterior's mean MDP, with a bonus on the rewards of seldom tried actions."""

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

    Value iteration in the posterior's mean MDP with the reward `mean + beta / (1 + n)`, where n is the number of visits
    of a state and action plus the prior's counts of its next states. Osband's code, which Duan et al. 2016 compare
    with, has two bonuses: `1 / (2 + visits)`, and `beta left / (1 + n)` with `left` steps left. Tuned, Osband's code
    earns about the same.
    """

    beta: PerLearner[Annotated[float, Field(ge=0)]] = 30.0
    """Factor of the bonus. The theory asks for 2 H^2, for H steps per episode and rewards within [0, 1]; much smaller
    values do better."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.betas = self.drawn("beta", seeds)[:, None, None]

    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        mean, _ = self.reward_posterior(learners)
        counts = self.dirichlet(learners)
        bonus = self.betas[learners] / (1 + counts.sum(axis=-1))
        return value_iteration(mean + bonus, normalised(counts), self.horizon)
