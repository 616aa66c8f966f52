"""Tabular Q-learning: one independent learner per environment, and one array operation for all of them."""

from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.base import Agent, Spec, TableIndex, Transition, check_table
from data_gen.streams import Seeds, SlotStreams
from icrl.config.components import component

_TIE_BREAK = 1e-3
"""Spread of the initial values: too small to affect learning, large enough for learners to break ties differently."""


@component
class QLearning(Agent):
    """Q-learning (Watkins 1989) with optimistic initial values and an annealed epsilon-greedy policy.

    `Q(s, a) += step_size (r + discount (1 - terminated) max_a' Q(s', a') - Q(s, a))`. A time limit does not count as
    termination: the target is bootstrapped from the value of the last state (Pardo et al. 2018).
    """

    called: ClassVar[str] = "q_learning"

    step_size: Annotated[float, Field(gt=0, le=1)] = 0.5
    discount: Annotated[float, Field(ge=0, le=1)] = 0.9
    initial_value: float = 1.0
    """Initial value of every action. A value above what can be earned is optimistic: untried actions come first."""
    epsilon_start: Annotated[float, Field(ge=0, le=1)] = 0.3
    epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.0
    epsilon_fraction: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Fraction of the lifetime over which epsilon falls linearly from start to end."""
    remembered_rewards: Annotated[int, Field(ge=0, le=2**20)] = 0
    """Memory: how many steps of the episode with a positive reward are counted. The table has a row per observation and
    count. With 1, a learner in Key-to-Door knows from its reward that it holds the key. 0 remembers nothing."""

    @property
    def follows_plan(self) -> bool:
        return self.epsilon_start != self.epsilon_end

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.index, self.actions = (
            TableIndex(space, self.called) for space in (spec.observation_space, spec.action_space)
        )
        self.num_actions = self.actions.size
        self.streams = SlotStreams(seeds)
        rows = self.index.size * (self.remembered_rewards + 1)
        check_table(rows, self.called)
        noise = self.streams.uniform(rows * self.num_actions) - 0.5
        table = self.initial_value + _TIE_BREAK * noise
        self.q = table.astype(np.float32).reshape(num_envs * rows, self.num_actions)  # (env x state, action)
        self.first_row = np.arange(num_envs) * rows
        self.rewarded = np.zeros(num_envs, dtype=np.int64)  # steps of the episode with a reward, as far as remembered
        self.steps, self.annealing_steps = 0, self.epsilon_fraction * spec.planned_steps

    def act(self, observation: Any) -> NDArray[Any]:
        return self.actions.elements(self.choose(self.row(observation), slice(None)))

    def row(self, observation: Any) -> NDArray[np.int64]:
        """(num_envs,) the table's row of each environment's observation and memory."""
        if not self.remembered_rewards:
            return self.first_row + self.index(observation)
        return self.first_row + self.index(observation) * (self.remembered_rewards + 1) + self.rewarded

    def choose(self, row: NDArray[np.int64], slots: slice | NDArray[np.intp]) -> NDArray[np.intp]:
        """Epsilon-greedy actions in the table's rows `row`, which belong to the environments `slots`."""
        progress = min(1.0, self.steps / self.annealing_steps)
        epsilon = self.epsilon_start + progress * (self.epsilon_end - self.epsilon_start)
        action = self.q.take(row, axis=0).argmax(axis=1)
        if epsilon > 0:
            coin = self.streams.uniform() if isinstance(slots, slice) else self.streams.uniform_at(slots)
            explore = np.flatnonzero(coin < epsilon)
            # Given coin < epsilon, coin / epsilon is uniform again: one draw per step is enough.
            action[explore] = coin[explore] * (self.num_actions / epsilon)
        return action

    def observe(self, transition: Transition) -> None:
        self.steps += 1
        row = self.row(transition.observation)
        if self.remembered_rewards:
            self.rewarded = np.minimum(self.rewarded + (transition.reward > 0), self.remembered_rewards)
        next_row = self.row(transition.next_observation)
        if self.remembered_rewards:
            self.rewarded[transition.terminated | transition.truncated] = 0
        next_value = self.next_value(next_row, transition)
        target = transition.reward + self.discount * np.where(transition.terminated, 0, next_value)
        entry = row * self.num_actions + self.actions(transition.action)
        q = self.q.reshape(-1)
        old = q.take(entry)
        q[entry] = old + self.step_size * (target - old)

    def next_value(self, next_row: NDArray[np.int64], transition: Transition) -> NDArray[np.float32]:
        """(num_envs,) value of the next state, from the table's rows `next_row`."""
        value: NDArray[np.float32] = self.q.take(next_row, axis=0).max(axis=1)
        return value
