"""UCB1: optimism about every arm by as much as its pulls leave open."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.bandits.arms import BanditAgent
from data_gen.agents.base import Spec
from data_gen.agents.sweep import PerLearner
from data_gen.streams import Seeds
from icrl.config.components import component


@component
class UCB1(BanditAgent):
    """Auer, Cesa-Bianchi and Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem", section 2.

    Pulls the arm of the highest `mean_i + exploration sqrt(2 ln t / m_i)` in step t, from 1, where m_i counts the pulls
    of arm i. As in Duan et al. 2016 (Table 1), the width is scaled by a parameter, where Auer et al. have 1, and means
    and counts start from the prior's pulls rather than from one pull of every arm; `prior_pulls: 0` is Auer et al.'s
    start. Rewards may be any, but the width is meant for rewards within about [0, 1].
    """

    exploration: PerLearner[Annotated[float, Field(ge=0)]] = 0.3

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.c = self.drawn("exploration", seeds)[:, None]

    def scores(self) -> NDArray[np.float64]:
        return self.means() + self.c * np.sqrt(2 * np.log(self.steps + 1) / self.counts())
