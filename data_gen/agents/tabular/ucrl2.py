"""UCRL2: follows the optimal policy of the best MDP that the observed transitions do not rule out."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Spec
from data_gen.agents.sweep import PerLearner
from data_gen.agents.tabular.model import ModelBased, Positive, normalised
from data_gen.streams import Seeds, SlotStreams
from icrl.config.components import component


@component
class UCRL2(ModelBased):
    """UCRL2 (Jaksch, Ortner and Auer 2010) for episodic MDPs, with a new plan at each episode's start.

    For a state and action tried n times, let `mean` be its mean reward and p its transition probabilities. In the t-th
    episode, the learner considers rewards up to `mean + scaling sqrt(4 log(2 S A (t + 1) / delta) / n)` possible, and
    probabilities within `scaling sqrt(4 S log(2 S A (t + 1) / delta) / n)` of p in the L1 norm. These are the
    confidence sets of Osband's code, which Duan et al. 2016 compare with. An n of 0 counts as 1. Unlike in the paper,
    an episode ends where the environment's does, not when a count has doubled.

    The prior should be weak, because the confidence sets do not count it.
    """

    prior_std: Positive = 100.0
    concentration: Positive = 1e-5
    scaling: PerLearner[Annotated[float, Field(ge=0)]] = 0.1
    """Factor of the confidence sets' widths. The theory asks for 1; much smaller values do better."""
    delta: PerLearner[Annotated[float, Field(gt=0, lt=1)]] = 0.05
    """Probability with which the confidence sets may miss the true MDP."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.scalings, self.deltas = (self.drawn(name, seeds)[:, None, None] for name in ("scaling", "delta"))

    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        reward, _ = self.reward_posterior(learners)
        transition = normalised(self.dirichlet(learners))
        num_learners, num_states, num_actions = reward.shape
        tries = np.maximum(self.visits[learners], 1)
        time = self.episodes[learners, None, None] + 2  # t + 1 in the t-th episode
        logarithm = np.log(2 * num_states * num_actions * time / self.deltas[learners])
        slack = self.scalings[learners] * np.sqrt(4 * logarithm / tries)
        distance = slack * np.sqrt(num_states)
        q = np.empty((num_learners, self.horizon, num_states, num_actions))
        value = np.zeros((num_learners, num_states + 1))
        for step in reversed(range(self.horizon)):
            q[:, step] = reward + slack + optimistic_value(transition, distance, value)
            value[:, :-1] = q[:, step].max(axis=2)
        return q


def optimistic_value(
    transition: NDArray[np.float64], distance: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Highest expected value over all distributions within an L1 `distance` of `transition`.

    Jaksch et al. 2010, figure 2: half the distance is added to the probability of the best next state, and taken from
    the worst ones. The episode's end, which comes last and is worth 0, may lose probability but not gain it: an end
    that was never seen stays impossible.

    Args:
        transition: (n, states, actions, states + 1) probabilities.
        distance: (n, states, actions).
        value: (n, states + 1).

    Returns:
        (n, states, actions) expected values.
    """
    best = value[:, :-1].max(axis=1)[:, None, None, None]
    order = value.argsort(axis=1)  # worst first
    values = np.take_along_axis(value, order, axis=1)[:, None, None]
    probabilities = np.take_along_axis(transition, order[:, None, None], axis=3)
    # Probability to move: at most half the distance, and at most the probability of states worse than the best.
    worse = np.where(values < best, probabilities, 0.0)
    moved = np.minimum(distance / 2, worse.sum(axis=3))[..., None]
    before = worse.cumsum(axis=3) - worse
    lost = np.clip(moved - before, 0.0, worse)
    result: NDArray[np.float64] = ((probabilities - lost) * values).sum(axis=3) + (moved * best)[..., 0]
    return result
