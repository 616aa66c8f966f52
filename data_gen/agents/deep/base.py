"""Base class of the deep learners: a device, features of observations, and a twin for a lone learner."""

from abc import abstractmethod
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from data_gen.agents.base import Agent, Spec, Transition
from data_gen.agents.deep.encoding import Encoder
from data_gen.agents.deep.networks import Stack
from data_gen.spaces import map_leaves
from data_gen.streams import Seeds, SlotStreams, derive
from icrl.support.allocator import keep_freed_memory

HiddenSizes = Annotated[tuple[Annotated[int, Field(ge=1, le=2**14)], ...], Field(min_length=1)]
"""Widths of a network's hidden layers."""


class DeepLearner(Agent):
    """Base of the learners with networks.

    On a CPU, a learner's history does not depend on its neighbours, bit for bit. The bits of a matrix in MKL's batched
    product do not depend on the number of matrices if MKL is configured so (`data_gen/agents/deep/__init__.py`) and if
    there are at least two. So a lone learner gets a twin: a copy with the same observations and rewards, whose actions
    are discarded.
    """

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        keep_freed_memory()
        self.device = torch.device(spec.device)
        self.encoder = Encoder(spec.observation_space, self.device)
        self._twinned = len(seeds) == 1
        self.seeds = np.repeat(seeds, 2) if self._twinned else seeds
        self.num_learners = len(self.seeds)
        self.streams = SlotStreams(derive(self.seeds, 0))
        self.planned_steps, self.steps = spec.planned_steps, 0
        self.begin(spec)

    def act(self, observation: Any) -> NDArray[Any]:
        actions = self.choose(self._doubled(observation))
        return actions[: len(actions) // 2] if self._twinned else actions

    def observe(self, transition: Transition) -> None:
        self.steps += 1
        self.learn(Transition(**{name: self._doubled(values) for name, values in vars(transition).items()}))

    def diverged(self) -> NDArray[np.bool_] | None:
        stacks = [value for value in vars(self).values() if isinstance(value, Stack)]
        if not stacks:
            return None
        # A learner may have several rows of a stack, such as its critics; they are neighbours.
        rows = [torch.isfinite(stack.flat).view(self.num_learners, -1).all(dim=1) for stack in stacks]
        bad: NDArray[np.bool_] = (~torch.stack(rows).all(dim=0)).cpu().numpy()
        return bad[:1] if self._twinned else bad

    @abstractmethod
    def begin(self, spec: Spec) -> None:
        """Sets up `num_learners` new learners. Raises UserError if they cannot handle the spaces."""

    @abstractmethod
    def choose(self, observation: Any) -> NDArray[Any]:
        """(num_learners * actors, ...) observations -> (num_learners * actors, ...) actions."""

    @abstractmethod
    def learn(self, transition: Transition) -> None:
        """Records a step of all environments, step number `steps` counted from 1, and learns when due."""

    def parameter(self, name: str, *trailing: int) -> Tensor:
        """Every learner's value of the parameter `name`, as a tensor (num_learners, *trailing); `trailing` are ones."""
        values = torch.from_numpy(self.drawn(name, self.seeds).astype(np.float32)).to(self.device)
        return values.reshape(-1, *trailing)

    @property
    def progress(self) -> float:
        """Fraction of the planned lifetime that has passed, at most 1."""
        return min(1.0, self.steps / self.planned_steps)

    def rows(self, values: NDArray[Any]) -> Tensor:
        """(N x A, ...) values of all environments -> (N, A, ...) tensor on the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        return tensor.view(self.num_learners, self.actors, *tensor.shape[1:])

    def _doubled(self, values: Any) -> Any:
        if not self._twinned:
            return values
        return map_leaves(lambda leaf: np.concatenate([leaf, leaf]), values)
