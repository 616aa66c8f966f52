"""Base class of the model-based algorithms: a learner's counts, its posterior, and planning over an episode's steps.

The algorithms are those that Duan et al. 2016 ("RL^2", section 3.2) compare with, after Osband's agents for episodic
MDPs: one posterior per state and action, a new plan at the start of every episode, and actions that follow from the
plan, the state and the number of steps left. A learner's plan depends on its own counts and its own random stream
alone. Learners plan at different times if their episodes end at different times.
"""

from abc import abstractmethod
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Agent, Spec, TableIndex, Transition
from data_gen.agents.sweep import PerLearner
from data_gen.streams import Seeds, SlotStreams, derive
from icrl.config.components import component
from icrl.support.errors import UserError

_LARGEST_MODEL = 2**24  # transition counts per learner
_PLANNED_AT_ONCE = 2**18  # transition probabilities per array operation; as many as stay in a processor's cache

Positive = PerLearner[Annotated[float, Field(gt=0)]]


@component
class ModelBased(Agent):
    """Base of learners with a Normal posterior of every mean reward and a Dirichlet posterior of every transition.

    Prior and noise are parameters; the values of `TabularMDP` itself are prior mean 1, and 1 for the others. Subclasses
    define how to plan from the posterior.
    """

    prior_mean: PerLearner[float] = 0.0
    """Prior mean of the mean rewards."""
    prior_std: Positive = 1.0
    """Prior standard deviation of the mean rewards."""
    noise: Positive = 1.0
    """Standard deviation of a reward about its mean; assumed to be known."""
    concentration: Positive = 1.0
    """Prior count of each next state: the parameter of the symmetric Dirichlet prior."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        user = type(self).__name__
        self.states, self.actions = (TableIndex(space, user) for space in (spec.observation_space, spec.action_space))
        if spec.episode_length is None:
            raise UserError(f"{user} plans over an episode's steps: use environments with a known episode_length")
        self.horizon = spec.episode_length
        table = (num_envs, self.states.size, self.actions.size)
        if table[1] ** 2 * table[2] > _LARGEST_MODEL:
            raise UserError(f"{user} keeps a model, and {table[1]:,} states and {table[2]} actions are too many for it")
        self.visits, self.reward_sum = np.zeros(table), np.zeros(table)  # (learner, state, action)
        # Counts of every next state and, last, of the episode's end. The end has no prior: it is possible once seen.
        self.counts = np.zeros((*table, table[1] + 1), dtype=np.float32)
        self.q = np.zeros((num_envs, self.horizon, *table[1:]))  # (learner, steps elapsed, state, action)
        self.elapsed = np.zeros(num_envs, dtype=np.int64)  # steps of the current episode
        self.episodes = np.zeros(num_envs, dtype=np.int64)
        self.learners = np.arange(num_envs)
        self.streams, self.plan_seeds = SlotStreams(seeds), derive(seeds, 1)
        self.mean_0, self.std_0, self.sigma, self.alpha_0 = (
            self.drawn(name, seeds)[:, None, None] for name in ("prior_mean", "prior_std", "noise", "concentration")
        )

    @abstractmethod
    def plan(self, learners: NDArray[np.intp], streams: SlotStreams) -> NDArray[np.float64]:
        """Action values that some learners follow in the episode that begins.

        Args:
            learners: (n,) numbers of the learners.
            streams: one random stream per learner, for this plan alone.

        Returns:
            (n, horizon, states, actions) action values, by the steps elapsed in the episode.
        """

    def act(self, observation: Any) -> NDArray[Any]:
        beginning = np.flatnonzero(self.elapsed == 0)
        step = max(1, _PLANNED_AT_ONCE // self.counts[0].size)
        for first in range(0, len(beginning), step):
            part = beginning[first : first + step]
            self.plan_seeds[part] = derive(self.plan_seeds[part], 0)
            self.q[part] = self.plan(part, SlotStreams(derive(self.plan_seeds[part], 1)))
        # An episode that outlasts the horizon stays at the plan's last step.
        values = self.q[self.learners, np.minimum(self.elapsed, self.horizon - 1), self.states(observation)]
        return self.actions.elements(self.choose(values))

    def choose(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """(num_envs, actions) values -> (num_envs,) actions of the highest value, drawn uniformly among equals."""
        best = values == values.max(axis=1, keepdims=True)
        rank = (self.streams.uniform() * best.sum(axis=1)).astype(np.int64)  # which of the best, counted from 0
        return (best.cumsum(axis=1) > rank[:, None]).argmax(axis=1)

    def observe(self, transition: Transition) -> None:
        entry = (self.learners, self.states(transition.observation), self.actions(transition.action))
        self.visits[entry] += 1
        self.reward_sum[entry] += transition.reward
        end = self.states.size
        arrived = np.where(transition.terminated, end, self.states(transition.next_observation))
        self.counts[(*entry, arrived)] += 1
        ended = transition.terminated | transition.truncated
        self.episodes += ended
        self.elapsed = np.where(ended, 0, self.elapsed + 1)

    def reward_posterior(self, learners: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Posterior mean and standard deviation of the mean rewards, each (n, states, actions).

        Precisions add up: the prior's, plus one over the variance of the noise for every visit.
        """
        prior, each = self.std_0[learners] ** -2, self.sigma[learners] ** -2
        precision = prior + each * self.visits[learners]
        return (prior * self.mean_0[learners] + each * self.reward_sum[learners]) / precision, precision**-0.5

    def dirichlet(self, learners: NDArray[np.intp]) -> NDArray[np.float64]:
        """Parameters of the posterior of the transitions, (n, states, actions, states + 1).

        They are the counts plus the prior's counts; the last is for the episode's end.
        """
        parameters = self.counts[learners].astype(np.float64)
        parameters[..., :-1] += self.alpha_0[learners][..., None]
        return parameters


def normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative weights divided by their sum over the last axis."""
    result: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return result


def value_iteration(reward: NDArray[np.float64], transition: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """Optimal action values of finite-horizon MDPs, (n, horizon, states, actions), by the steps elapsed.

    Args:
        reward: (n, states, actions) mean rewards.
        transition: (n, states, actions, states + 1) probabilities of the next states and, last, of the episode's end.
        horizon: steps per episode.
    """
    q = np.empty((len(reward), horizon, *reward.shape[1:]))
    value = np.zeros((len(reward), transition.shape[-1]))  # the value of the end stays 0
    for step in reversed(range(horizon)):
        q[:, step] = reward + np.einsum("lsan,ln->lsa", transition, value)
        value[:, :-1] = q[:, step].max(axis=2)
    return q
