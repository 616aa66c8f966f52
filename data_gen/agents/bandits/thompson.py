"""Thompson sampling: pulls each arm with the probability that it is the best one."""

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
    """Thompson sampling (Thompson 1933): draws the arms' means from the posterior and pulls the best arm of the draw.

    The posterior of an arm follows from its total reward and its number of pulls, including the prior's:

    - `beta`, for rewards of 0 and 1: Beta(total, pulls - total).
    - `normal`, for Gaussian rewards of known standard deviation `noise`: Normal(total / pulls, noise^2 / pulls). For
      standard normal means and noise 1, use `prior_mean: 0` and `prior_pulls: 1`.
    """

    posterior: Literal["beta", "normal"] = "beta"
    noise: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of Gaussian rewards, 1 by default; for posterior `normal` only."""

    def __post_init__(self) -> None:
        if self.posterior == "beta":
            require_beta(self.prior_mean, self.prior_pulls)
            if self.noise is not None:
                raise ValueError(f"noise {self.noise} is for posterior normal: remove noise, or set posterior: normal")
        elif self.prior_pulls == 0:
            raise ValueError("prior_pulls 0 leaves an unpulled arm without a posterior: set prior_pulls above 0")

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
            require_zero_or_one(transition.reward, "posterior beta", "use posterior normal")
        super().observe(transition)


@component
class OptimisticThompson(Thompson):
    """Draws the arms' means several times from the posterior, and acts on the most likely draw.

    The baseline OTS of Duan et al. 2016, who "sample N times from the posterior, and take the one with the highest
    probability": here, the draw with the highest joint density over all arms.
    """

    samples_per_step: Annotated[int, Field(ge=1)] = 10
    """Draws from the posterior per step."""

    def scores(self) -> NDArray[np.float64]:
        mean = self.samples(self.samples_per_step)
        likely = self.log_density(mean).argmax(axis=1)
        return mean[self.row, likely]

    def log_density(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """(num_envs, count, arms) means -> (num_envs, count) joint log densities, up to a constant per learner."""
        total, pulls = self.total[:, None], self.pulls[:, None]
        if self.posterior == "normal":
            density: NDArray[np.float64] = -(pulls * np.square(mean - total / pulls)).sum(axis=2)
        else:
            density = ((total - 1) * np.log(mean) + (pulls - total - 1) * np.log1p(-mean)).sum(axis=2)
        return density
