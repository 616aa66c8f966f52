"""What the bandit algorithms share: how often each arm was pulled, what it brought, and how ties are broken."""

from abc import abstractmethod
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Agent, Spec, Transition
from data_gen.streams import Seeds, SlotStreams
from icrl.config.components import component
from icrl.support.errors import UserError

_LEAST_SHAPE = 0.1  # of a Beta prior; below, a sample can be 0 / 0


@component
class BanditAgent(Agent):
    """Pulls the arm of the highest score, one learner a bandit.

    An arm starts as if it had been pulled `prior_pulls` times and had brought `prior_mean` each time. The defaults are
    one success and one failure, the uniform prior of a Bernoulli mean, as Duan et al. 2016 have it.

    Subclasses give the scores. `total` and `pulls`, both (num_envs, arms), hold the reward and the pulls of every arm
    so far, those of the prior included; `steps` is the number of pulls made.
    """

    prior_mean: float = 0.5
    prior_pulls: Annotated[float, Field(ge=0)] = 2.0
    ties: Literal["random", "first"] = "random"
    """Which of several arms of the highest score is pulled: any, or the one that comes first."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        name, space, actions = type(self).__name__, spec.observation_space, spec.action_space
        if not (isinstance(space, gymnasium.spaces.Discrete) and space.n == 1):
            raise UserError(f"{name} is for bandits, whose one observation is Discrete(1), not {space}")
        if not isinstance(actions, gymnasium.spaces.Discrete):
            raise UserError(f"{name} chooses among the arms of a Discrete action space, not {actions}")
        self.arms, self.first_arm = int(actions.n), int(actions.start)
        self.pulls = np.full((num_envs, self.arms), float(self.prior_pulls))
        self.total = self.prior_mean * self.pulls
        self.row = np.arange(num_envs)
        self.streams = SlotStreams(seeds)
        self.steps = 0

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """(num_envs, arms) how good a pull of each arm looks now."""

    def act(self, observation: Any) -> NDArray[Any]:
        return self.first_arm + self.best(self.scores())

    def best(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """(num_envs, arms) scores -> (num_envs,) an arm of the highest score, drawn if there are several."""
        if self.ties == "first":
            return scores.argmax(axis=1)
        highest = scores == scores.max(axis=1, keepdims=True)
        return np.where(highest, self.streams.uniform(self.arms), -1.0).argmax(axis=1)

    def observe(self, transition: Transition) -> None:
        arm = transition.action - self.first_arm
        self.total[self.row, arm] += transition.reward
        self.pulls[self.row, arm] += 1
        self.steps += 1

    def means(self) -> NDArray[np.float64]:
        """(num_envs, arms) each arm's mean reward, the prior's pulls included; infinite without any pull."""
        return np.where(self.pulls > 0, self.total / self.counts(), np.inf)

    def counts(self) -> NDArray[np.float64]:
        """(num_envs, arms) `pulls`, but 1 where there were none: what one may divide by."""
        return np.where(self.pulls > 0, self.pulls, 1.0)


def require_zero_or_one(reward: NDArray[Any], agent: str, otherwise: str) -> None:
    """Raises UserError, naming `agent` and what to do `otherwise`, for rewards that are no Bernoulli variable's."""
    other = (reward != 0) & (reward != 1)
    if other.any():
        raise UserError(f"{agent} is for rewards of 0 and 1, and got {reward[other][0]:g}: {otherwise}")


def require_beta(prior_mean: float, prior_pulls: float) -> None:
    """Raises ValueError for a prior that is no Beta distribution, or one whose samples would round to 0 and 1."""
    if not (0 < prior_mean < 1 and min(prior_mean, 1 - prior_mean) * prior_pulls >= _LEAST_SHAPE):
        raise ValueError(
            f"prior_mean {prior_mean} and prior_pulls {prior_pulls} make no Beta prior that can be sampled: "
            f"the mean must lie between 0 and 1, and its share of the pulls be {_LEAST_SHAPE} at least"
        )
