"""Tabular SARSA: Q-learning's table and policy, but learning from the value of the action that is taken next."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from data_gen.agents.base import Spec, Transition
from data_gen.agents.tabular.q_learning import QLearning
from data_gen.streams import Seeds
from icrl.config.components import component


@component
class Sarsa(QLearning):
    """SARSA (Rummery and Niranjan 1994; Sutton and Barto 2018, section 6.4), with Q-learning's parameters.

    `Q(s, a) += step_size (r + discount (1 - terminated) Q(s', a') - Q(s, a))`, where a' is the action that is taken
    next. At a time limit no action follows, and a' is the action that the policy would have taken.
    """

    called: ClassVar[str] = "sarsa"

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.following = np.zeros(num_envs, dtype=np.int64)  # the next action
        self.begins = np.ones(num_envs, dtype=np.bool_)  # True where no next action is chosen yet

    def act(self, observation: Any) -> NDArray[Any]:
        slots = np.flatnonzero(self.begins)
        self.following[slots] = self.choose(self.row(observation)[slots], slots)
        return self.actions.elements(self.following)

    def next_value(self, next_row: NDArray[np.int64], transition: Transition) -> NDArray[np.float32]:
        self.begins = transition.terminated | transition.truncated
        self.following = self.choose(next_row, slice(None))
        value: NDArray[np.float32] = self.q[next_row, self.following]
        return value
