"""Thompson sampling: pull each arm as often as it is likely to be the best."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.bandits.arms import BanditAgent, require_beta, require_zero_or_one
from data_gen.agents.base import Transition
from data_gen.agents.posterior_sampling import beta
from icrl.config.components import component


@component
class Thompson(BanditAgent):
    """Thompson 1933: draws the arms' means from the posterior and pulls the best of them.

    The posterior of an arm follows from what it brought and how often it was pulled, the prior's pulls included:

    - `beta`, for rewards of 0 and 1: Beta(total, pulls - total).
    - `normal`, for Gaussian rewards of known deviation `noise`: Normal(total / pulls, noise^2 / pulls). For means that
      are standard normal and noise 1, take `prior_mean: 0` and `prior_pulls: 1`.
    """

    posterior: Literal["beta", "normal"] = "beta"
    noise: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of Gaussian rewards, 1 unless given; of posterior `normal` alone."""

    def __post_init__(self) -> None:
        if self.posterior == "beta":
            require_beta(self.prior_mean, self.prior_pulls)
            if self.noise is not None:
                raise ValueError(f"noise {self.noise} is of posterior normal: leave it out, or take that posterior")
        elif self.prior_pulls == 0:
            raise ValueError("prior_pulls 0 leaves an arm that was not pulled without a posterior: give more than 0")

    def samples(self, count: int) -> NDArray[np.float64]:
        """(num_envs, count, arms) joint samples of the arms' means from the posterior."""
        total, pulls = self.total[:, None].repeat(count, axis=1), self.pulls[:, None].repeat(count, axis=1)
        if self.posterior == "beta":
            return beta(self.streams, total, pulls - total)
        noise = 1.0 if self.noise is None else self.noise
        return total / pulls + noise / np.sqrt(pulls) * self.streams.normal(count, self.arms)

    def scores(self) -> NDArray[np.float64]:
        return self.samples(1)[:, 0]

    def observe(self, transition: Transition) -> None:
        if self.posterior == "beta":
            require_zero_or_one(transition.reward, "posterior beta", "take posterior normal")
        super().observe(transition)


@component
class OptimisticThompson(Thompson):
    """Draws the arms' means several times from the posterior, and believes the most likely draw.

    The baseline OTS of Duan et al. 2016, who "sample N times from the posterior, and take the one with the highest
    probability": the joint density over all arms decides.
    """

    samples_per_step: Annotated[int, Field(ge=1)] = 10

    def scores(self) -> NDArray[np.float64]:
        mean = self.samples(self.samples_per_step)
        likely = self.log_density(mean).argmax(axis=1)
        return mean[self.row, likely]

    def log_density(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """(num_envs, count, arms) means -> (num_envs, count) their joint log density, up to the learner's constant."""
        total, pulls = self.total[:, None], self.pulls[:, None]
        if self.posterior == "normal":
            density: NDArray[np.float64] = -(pulls * np.square(mean - total / pulls)).sum(axis=2)
        else:
            density = ((total - 1) * np.log(mean) + (pulls - total - 1) * np.log1p(-mean)).sum(axis=2)
        return density
