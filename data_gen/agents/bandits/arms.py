"""Base class of the bandit algorithms: the pulls and rewards of every arm, and how ties are broken."""

from abc import abstractmethod
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Agent, Spec, Transition
from data_gen.spaces import one_line
from data_gen.streams import Seeds, SlotStreams
from icrl.config.components import component
from icrl.support.errors import UserError

_LEAST_SHAPE = 0.1  # smallest parameter of a Beta prior; below it, a sample can be 0 / 0


@component
class BanditAgent(Agent):
    """Pulls the arm with the highest score; one learner per bandit.

    Every arm starts as if it had been pulled `prior_pulls` times with a reward of `prior_mean` each time. The defaults
    are one success and one failure, the uniform prior of a Bernoulli mean, as in Duan et al. 2016.

    Subclasses define the scores. `total` and `pulls`, both (num_envs, arms), hold the summed reward and the number of
    pulls of every arm so far, including the prior's; `steps` is the number of pulls made.
    """

    prior_mean: float = 0.5
    prior_pulls: Annotated[float, Field(ge=0)] = 2.0
    ties: Literal["random", "first"] = "random"
    """Arm that is pulled when several share the highest score: a random one, or the first."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        name, space, actions = type(self).__name__, spec.observation_space, spec.action_space
        if not (isinstance(space, gymnasium.spaces.Discrete) and space.n == 1):
            raise UserError(f"{name} is for bandits, with the observation space Discrete(1), not {one_line(space)}")
        if not isinstance(actions, gymnasium.spaces.Discrete):
            raise UserError(f"{name} needs a Discrete action space, one action per arm, not {actions}")
        self.arms, self.first_arm = int(actions.n), int(actions.start)
        self.pulls = np.full((num_envs, self.arms), float(self.prior_pulls))
        self.total = self.prior_mean * self.pulls
        self.row = np.arange(num_envs)
        self.streams = SlotStreams(seeds)
        self.steps = 0

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """(num_envs, arms) scores; the arm with the highest score is pulled next."""

    def act(self, observation: Any) -> NDArray[Any]:
        return self.first_arm + self.best(self.scores())

    def best(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """(num_envs, arms) scores -> (num_envs,) arms with the highest score; `ties` decides among several."""
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
        """(num_envs, arms) mean rewards, including the prior's pulls; infinite for an arm without any pull."""
        return np.where(self.pulls > 0, self.total / self.counts(), np.inf)

    def counts(self) -> NDArray[np.float64]:
        """(num_envs, arms) `pulls`, with 1 in place of 0: a safe divisor."""
        return np.where(self.pulls > 0, self.pulls, 1.0)


def require_zero_or_one(reward: NDArray[Any], agent: str, otherwise: str) -> None:
    """Raises UserError, naming `agent` and what to do `otherwise`, if a reward is neither 0 nor 1."""
    other = (reward != 0) & (reward != 1)
    if other.any():
        raise UserError(f"{agent} needs rewards of 0 and 1, but got {reward[other][0]:g}: {otherwise}")


def require_beta(prior_mean: float, prior_pulls: float) -> None:
    """Raises ValueError if the prior is not a Beta distribution, or if its samples would round to 0 and 1."""
    if not (0 < prior_mean < 1 and min(prior_mean, 1 - prior_mean) * prior_pulls >= _LEAST_SHAPE):
        raise ValueError(
            f"prior_mean {prior_mean} and prior_pulls {prior_pulls} do not make a Beta prior that can be sampled: "
            f"prior_mean and 1 - prior_mean, each times prior_pulls, must be at least {_LEAST_SHAPE}"
        )
