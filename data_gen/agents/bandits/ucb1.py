"""UCB1: the mean reward of every arm plus a bonus that shrinks as the arm is pulled."""

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
    """UCB1 (Auer, Cesa-Bianchi and Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem", section 2).

    In step t, counted from 1, pulls the arm with the highest `mean_i + exploration sqrt(2 ln t / m_i)`, where m_i is
    the number of pulls of arm i. As in Duan et al. 2016 (Table 1), a parameter scales the bonus, where Auer et al.
    have 1; means and counts start from the prior's pulls instead of one pull per arm. `prior_pulls: 0` gives the start
    of Auer et al. Rewards may be any numbers, but the bonus is meant for rewards within about [0, 1].
    """

    exploration: PerLearner[Annotated[float, Field(ge=0)]] = 0.3
    """Factor of the bonus."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.c = self.drawn("exploration", seeds)[:, None]

    def scores(self) -> NDArray[np.float64]:
        return self.means() + self.c * np.sqrt(2 * np.log(self.steps + 1) / self.counts())
