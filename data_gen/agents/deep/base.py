"""What deep learners share: a device, features of observations, and a twin for a learner that is alone."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.allocator import keep_freed_memory
from data_gen.agents.base import Agent, Spec, Transition
from data_gen.agents.deep.encoding import Encoder
from data_gen.spaces import map_leaves
from data_gen.streams import Seeds, SlotStreams, derive


class DeepLearner(Agent):
    """Base of the learners with networks.

    Batched matrix products of two matrices and more give each the same bits, however many there are, and of one matrix
    others (measured with MKL, for all shapes of these networks). So that a learner lives the same life alone, it gets a
    twin then: the same learner in the same environments, of whom nobody hears.
    """

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        keep_freed_memory()
        self.device = torch.device(spec.device)
        self.encoder = Encoder(spec.observation_space, self.device)
        self._twinned = len(seeds) == 1
        self.seeds = np.repeat(seeds, 2) if self._twinned else seeds
        self.num_learners = len(self.seeds)
        self.streams = SlotStreams(derive(self.seeds, 0))
        self.num_steps, self.steps = spec.num_steps, 0
        self.begin(spec)

    def act(self, observation: Any) -> NDArray[Any]:
        actions = self.choose(self._doubled(observation))
        return actions[: len(actions) // 2] if self._twinned else actions

    def observe(self, transition: Transition) -> None:
        self.learn(Transition(**{name: self._doubled(values) for name, values in vars(transition).items()}))
        self.steps += 1

    @abstractmethod
    def begin(self, spec: Spec) -> None:
        """Sets up `num_learners` new learners. Raises UserError if they cannot handle the spaces."""

    @abstractmethod
    def choose(self, observation: Any) -> NDArray[Any]:
        """(num_learners * actors, ...) observations -> actions."""

    @abstractmethod
    def learn(self, transition: Transition) -> None:
        """Takes note of a step of all learners' environments, and learns where it is time to."""

    def parameter(self, name: str, *trailing: int) -> Tensor:
        """Every learner's value of a parameter, as a tensor (num_learners, *(1 for trailing axes))."""
        values = torch.from_numpy(self.drawn(name, self.seeds).astype(np.float32)).to(self.device)
        return values.reshape(-1, *trailing)

    @property
    def progress(self) -> float:
        """Share of the planned lifetime that has passed, at most 1."""
        return min(1.0, self.steps / self.num_steps)

    def _doubled(self, values: Any) -> Any:
        if not self._twinned:
            return values
        return map_leaves(lambda leaf: np.concatenate([leaf, leaf]), values)
