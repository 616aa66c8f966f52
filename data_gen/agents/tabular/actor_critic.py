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
    """Synchronous advantage actor-critic (Mnih et al. 2016) with tables, a softmax policy and GAE.

    After every `rollout_steps` steps of its actors, a learner estimates advantages A (GAE, Schulman et al. 2016). In
    every state that the actors visited, the value moves by `critic_step` towards the mean of the lambda-returns from
    that state. The policy's preferences move by `actor_step` along the mean of `A grad log pi(a | s)` plus
    `entropy_bonus` times the gradient of the policy's entropy. The means are over the visits to the state, not over
    the rollout, so that a change does not shrink with the number of states. Only termination ends a return: at a time
    limit, the return is bootstrapped from the value of the episode's last observation (Pardo et al. 2018).
    """

    actors: Annotated[int, Field(ge=1, le=2**16)] = 4
    """Environments that each learner acts in at once."""
    rollout_steps: Annotated[int, Field(ge=1)] = 5
    """Steps of every actor between updates."""
    actor_step: PerLearner[Annotated[float, Field(gt=0)]] = 1.0
    critic_step: PerLearner[Annotated[float, Field(gt=0, le=1)]] = 0.3
    discount: Share = 0.9
    gae_lambda: Share = 0.9
    """Lambda of the advantages: 1 gives n-step returns, 0 one-step returns."""
    entropy_bonus: PerLearner[Annotated[float, Field(ge=0)]] = 0.01
    initial_value: PerLearner[float] = 1.0
    """Initial value of every state. A value above what can be earned is optimistic: unvisited states look better."""

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.states, self.actions = (
            TableIndex(space, "actor_critic") for space in (spec.observation_space, spec.action_space)
        )
        self.num_actions, num_learners = self.actions.size, len(seeds)
        each = np.stack([derive(seeds, actor) for actor in range(self.actors)], axis=1)
        self.streams = SlotStreams(each.reshape(-1))
        # Tables, and hyper-parameters of every row: one row per learner and state.
        rows = num_learners * self.states.size
        self.preferences = np.zeros((rows, self.num_actions))  # (learner x state, action)
        self.policy = np.full((rows, self.num_actions), 1 / self.num_actions)
        names = ("initial_value", "critic_step", "actor_step", "entropy_bonus")
        per_row = {name: np.repeat(self.drawn(name, seeds), self.states.size) for name in names}
        self.values = per_row["initial_value"]
        self.critic_steps, self.actor_steps = per_row["critic_step"], per_row["actor_step"][:, None]
        self.entropy_bonuses = per_row["entropy_bonus"][:, None]
        # Hyper-parameters of every actor.
        self.discounts, self.lambdas = (
            np.repeat(self.drawn(name, seeds), self.actors) for name in ("discount", "gae_lambda")
        )
        self.first_row = np.repeat(np.arange(num_learners) * self.states.size, self.actors)
        self.rollout: list[tuple[NDArray[Any], ...]] = []

    def act(self, observation: Any) -> NDArray[Any]:
        policy = self.policy[self.first_row + self.states(observation)]
        above = policy.cumsum(axis=1) > self.streams.uniform()[:, None]
        above[:, -1] = True  # even if rounding leaves the sum below 1
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
        """Updates every learner from its actors' last `rollout_steps` steps."""
        # Advantages.
        row, action, reward, terminated, truncated, next_row = (
            np.stack(part) for part in zip(*self.rollout, strict=True)
        )
        delta = reward + self.discounts * np.where(terminated, 0, self.values[next_row]) - self.values[row]
        advantage = generalised_advantages(delta, terminated | truncated, self.discounts * self.lambdas)

        # The samples of a learner lie together, ordered by actor and step: sums have the same order whatever other
        # learners there are.
        row, action, advantage = (part.T.reshape(-1) for part in (row, action, advantage))
        visited, position, visits = np.unique(row, return_inverse=True, return_counts=True)
        policy = self.policy[visited]
        # Gradient: the mean of A (1[a] - pi) over a state's visits, from the advantages summed by action.
        entry = position * self.num_actions + action
        by_action = np.bincount(entry, weights=advantage, minlength=policy.size).reshape(policy.shape)
        total = by_action.sum(axis=1, keepdims=True)
        gradient = (by_action - total * policy) / visits[:, None]
        gradient += self.entropy_bonuses[visited] * entropy_gradient(policy)

        # Update.
        self.values[visited] += self.critic_steps[visited] * total[:, 0] / visits
        preferences = self.preferences[visited] + self.actor_steps[visited] * gradient
        preferences -= preferences.max(axis=1, keepdims=True)
        self.preferences[visited] = preferences
        unnormalised = np.exp(preferences)
        self.policy[visited] = unnormalised / unnormalised.sum(axis=1, keepdims=True)


def generalised_advantages(
    delta: NDArray[np.float64], ended: NDArray[np.bool_], decay: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Generalised advantage estimates, (steps, actors): sums of this and later errors, decayed, within an episode.

    Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equation 16.

    Args:
        delta: (steps, actors) temporal-difference errors, bootstrapped where an episode was cut off.
        ended: (steps, actors) True if the step was its episode's last.
        decay: (actors,) discount times lambda.
    """
    advantage = np.empty_like(delta)
    later = np.zeros(delta.shape[1])
    for step in reversed(range(len(delta))):
        advantage[step] = later = delta[step] + decay * np.where(ended[step], 0, later)
    return advantage


def entropy_gradient(policy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient of softmax policies' entropy by their preferences, -pi (log pi + entropy); shape (n, actions)."""
    logarithm = np.log(np.maximum(policy, np.finfo(np.float64).tiny))
    entropy = -(policy * logarithm).sum(axis=1, keepdims=True)
    gradient: NDArray[np.float64] = -policy * (logarithm + entropy)
    return gradient
