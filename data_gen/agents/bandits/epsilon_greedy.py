"""Epsilon-greedy for bandits: the arm with the highest mean so far, and now and then a random one."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.bandits.arms import BanditAgent
from data_gen.agents.base import Spec
from data_gen.agents.sweep import PerLearner
from data_gen.streams import Seeds
from icrl.config.components import component


@component
class EpsilonGreedy(BanditAgent):
    """Pulls a random arm with probability epsilon, otherwise the arm with the highest mean so far; 0 is greedy.

    As in Duan et al. 2016 (Table 1), means start from the prior's pulls. Rewards may be any numbers.
    """

    epsilon: PerLearner[Annotated[float, Field(ge=0, le=1)]] = 0.1
    """Probability of a uniformly random arm."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.threshold = self.drawn("epsilon", seeds)

    def scores(self) -> NDArray[np.float64]:
        return self.means()

    def act(self, observation: Any) -> NDArray[Any]:
        greedy = super().act(observation)
        coin, uniform = self.streams.uniform(2).T
        return np.where(coin < self.threshold, self.first_arm + (uniform * self.arms).astype(np.int64), greedy)
