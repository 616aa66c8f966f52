"""Tabular actor-critic: a softmax policy and a table of values, learned from several actors at once."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Agent, Spec, TableIndex, Transition
from data_gen.agents.sweep import PerLearner
from data_gen.streams import Seeds, SlotStreams, derive
from icrl.config.components import component

Share = PerLearner[Annotated[float, Field(ge=0, le=1)]]


@component
class ActorCritic(Agent):
    """Synchronous advantage actor-critic (Mnih et al. 2016) with tables, softmax policy, and GAE.

    After every `rollout_steps` steps of its actors a learner estimates advantages A (GAE, Schulman et al. 2016) and, in
    every state that they visited, moves the value by `critic_step` towards the mean of the lambda returns from there,
    and the policy's preferences by `actor_step` along the mean of `A grad log pi(a | s)` plus `entropy_bonus` times the
    gradient of the policy's entropy. The means are over the visits to the state, not over the rollout, so that a step
    does not shrink with the number of states. Only termination ends a return: a time limit is bootstrapped through,
    with the value of the episode's last observation (Pardo et al. 2018).
    """

    actors: Annotated[int, Field(ge=1)] = 4
    """Environments that each learner acts in at once."""
    rollout_steps: Annotated[int, Field(ge=1)] = 5
    """Steps of every actor between updates."""
    actor_step: PerLearner[Annotated[float, Field(gt=0)]] = 1.0
    critic_step: PerLearner[Annotated[float, Field(gt=0, le=1)]] = 0.3
    discount: Share = 0.9
    gae_lambda: Share = 0.9
    """1 for n-step returns, 0 for one-step ones."""
    entropy_bonus: PerLearner[Annotated[float, Field(ge=0)]] = 0.01
    initial_value: PerLearner[float] = 1.0
    """Of every state. Optimistic where it exceeds what can be earned: going where no one was looks better then."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.states, self.actions = (
            TableIndex(space, "actor_critic") for space in (spec.observation_space, spec.action_space)
        )
        self.num_actions, num_learners = self.actions.size, len(seeds)
        each = np.stack([derive(seeds, actor) for actor in range(self.actors)], axis=1)
        self.streams = SlotStreams(each.reshape(-1))
        rows = num_learners * self.states.size
        self.preferences = np.zeros((rows, self.num_actions))  # (learner x state, action)
        self.policy = np.full((rows, self.num_actions), 1 / self.num_actions)
        names = ("initial_value", "critic_step", "actor_step", "entropy_bonus")
        per_row = {name: np.repeat(self.drawn(name, seeds), self.states.size) for name in names}
        self.values = per_row["initial_value"]
        self.critic_steps, self.actor_steps = per_row["critic_step"], per_row["actor_step"][:, None]
        self.entropy_bonuses = per_row["entropy_bonus"][:, None]
        self.discounts, self.lambdas = (
            np.repeat(self.drawn(name, seeds), self.actors) for name in ("discount", "gae_lambda")
        )
        self.first_row = np.repeat(np.arange(num_learners) * self.states.size, self.actors)
        self.rollout: list[tuple[NDArray[Any], ...]] = []

    def act(self, observation: Any) -> NDArray[Any]:
        policy = self.policy[self.first_row + self.states(observation)]
        above = policy.cumsum(axis=1) > self.streams.uniform()[:, None]
        above[:, -1] = True  # whatever the rounding
        return self.actions.elements(above.argmax(axis=1))

    def observe(self, transition: Transition) -> None:
        row = self.first_row + self.states(transition.observation)
        next_row = self.first_row + self.states(transition.next_observation)
        action = self.actions(transition.action)
        ends = (transition.terminated, transition.truncated)
        self.rollout.append((row, action, transition.reward, *ends, next_row))
        if len(self.rollout) == self.rollout_steps:
            self.learn()
            self.rollout.clear()

    def learn(self) -> None:
        """One update of every learner from its actors' last `rollout_steps` steps."""
        row, action, reward, terminated, truncated, next_row = (
            np.stack(part) for part in zip(*self.rollout, strict=True)
        )
        delta = reward + self.discounts * np.where(terminated, 0, self.values[next_row]) - self.values[row]
        advantage = generalised_advantages(delta, terminated | truncated, self.discounts * self.lambdas)

        # Every learner's samples lie together, in the order of its actors and steps: sums have the same order whoever
        # else is there.
        row, action, advantage = (part.T.reshape(-1) for part in (row, action, advantage))
        visited, place, visits = np.unique(row, return_inverse=True, return_counts=True)
        policy = self.policy[visited]
        # The mean of A (1[a] - pi) over a state's visits: the advantages by action, less their sum times pi.
        entry = place * self.num_actions + action
        by_action = np.bincount(entry, weights=advantage, minlength=policy.size).reshape(policy.shape)
        total = by_action.sum(axis=1, keepdims=True)
        gradient = (by_action - total * policy) / visits[:, None]
        gradient += self.entropy_bonuses[visited] * entropy_gradient(policy)

        self.values[visited] += self.critic_steps[visited] * total[:, 0] / visits
        preferences = self.preferences[visited] + self.actor_steps[visited] * gradient
        preferences -= preferences.max(axis=1, keepdims=True)
        self.preferences[visited] = preferences
        weights = np.exp(preferences)
        self.policy[visited] = weights / weights.sum(axis=1, keepdims=True)


def generalised_advantages(
    delta: NDArray[np.float64], ended: NDArray[np.bool_], decay: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums of the temporal-difference errors to come in the episode, (steps, actors), each step's `decay` times less.

    Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equation 16.

    Args:
        delta: (steps, actors) temporal-difference errors, bootstrapped where an episode was cut off.
        ended: (steps, actors) whether the step was its episode's last.
        decay: (actors,) discount times lambda.
    """
    advantage = np.empty_like(delta)
    later = np.zeros(delta.shape[1])
    for step in reversed(range(len(delta))):
        advantage[step] = later = delta[step] + decay * np.where(ended[step], 0, later)
    return advantage


def entropy_gradient(policy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the entropy of softmax policies by their preferences: -pi (log pi + entropy); (n, actions)."""
    logarithm = np.log(np.maximum(policy, np.finfo(np.float64).tiny))
    entropy = -(policy * logarithm).sum(axis=1, keepdims=True)
    gradient: NDArray[np.float64] = -policy * (logarithm + entropy)
    return gradient
