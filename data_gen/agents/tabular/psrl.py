"""Posterior sampling for episodic MDPs: draws an MDP from the posterior and follows its optimal policy."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.posterior_sampling import dirichlet
from data_gen.agents.sweep import PerLearner
from data_gen.agents.tabular.model import ModelBased, value_iteration
from data_gen.streams import SlotStreams
from icrl.config.components import component


@component
class PSRL(ModelBased):
    """PSRL (Osband, Russo and Van Roy 2013, "(More) Efficient Reinforcement Learning via Posterior Sampling").

    Algorithm 1: at the start of an episode, the agent draws an MDP from the posterior. It follows the optimal policy of
    that MDP until the episode ends.
    """

    concentration: PerLearner[Annotated[float, Field(ge=0.02)]] = 1.0
    """Prior count of each next state. With a count below 0.02, all numbers drawn for a row might be 0."""

    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        mean, std = self.reward_posterior(learners)
        reward = mean + std * streams.normal(*mean.shape[1:])
        return value_iteration(reward, dirichlet(streams, self.dirichlet(learners)), self.horizon)


@component
class OPSRL(PSRL):
    """Optimistic PSRL: draws and solves several MDPs, and takes the maximum of each action value over them.

    A baseline of Duan et al. 2016 ("RL^2", section 3.2), after Osband's code.
    """

    samples: Annotated[int, Field(ge=1)] = 5
    """Number of MDPs drawn; 1 is PSRL."""

    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        q = super().plan(learners, streams)
        for _ in range(1, self.samples):
            np.maximum(q, super().plan(learners, streams), out=q)
        return q
