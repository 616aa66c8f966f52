"""The agent protocol: everything that acts, for a batch of environments at once, each with its own task."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.agents.sweep import per_learner, swept_parameters
from data_gen.streams import Seeds, make_seeds
from icrl.support.errors import UserError


@dataclass(frozen=True)
class Spec:
    """What an agent is told about the environments it is put into."""

    observation_space: gymnasium.Space[Any]
    """Of what the agent is shown."""
    action_space: gymnasium.Space[Any]
    planned_steps: int
    """Length of the lifetime that the agent should plan for, in steps; schedules run over it."""
    optimal_action: Callable[[], NDArray[Any]] | None = None
    """Reads an optimal action from the environments' hidden state. For oracles; a learner has no business with it."""
    episode_length: int | None = None
    """Steps after which an episode is truncated, where that is known; finite-horizon planners need it."""
    device: str = "cpu"
    """Where tensor programs run."""
    lived_steps: int | None = None
    """Steps that will really be lived, where that may be more than the lifetime that is planned for."""


@dataclass(frozen=True)
class Transition:
    """One step of all environments. Arrays have a leading axis of environments; an observation may be a tree."""

    observation: Any
    action: NDArray[Any]
    reward: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    next_observation: Any
    """What the action led to: at an episode's end its last observation, not the first of the next episode."""


class Agent(ABC):
    """Acts in, and may learn from, a batch of environments. Subclasses are components: dataclasses of parameters.

    Most learners act in one environment each. One with several `actors` learns from that many environments of the same
    task at once; a learner's environments are neighbours in the batch, so that (num_envs, ...) is
    (num_learners * actors, ...).
    """

    actors: int = 1
    """Environments that each learner acts in."""

    @property
    def first_update(self) -> int:
        """The step, from 1, after which it may behave otherwise than at first; a shorter lifetime shows no learning."""
        return 1

    @abstractmethod
    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        """Forgets everything: a new lifetime begins in every environment.

        Args:
            spec: the environments' spaces and the length of the lifetime.
            num_envs: number of environments, num_learners * actors.
            seeds: (num_learners,) one seed a learner; what happens to one never depends on the others.

        Raises UserError if the agent cannot handle the spaces.
        """

    def check(self, spec: Spec) -> None:
        """Raises UserError if the agent cannot live in such environments; forgets everything."""
        self.reset(spec, self.actors, make_seeds(1, 0))

    @abstractmethod
    def act(self, observation: Any) -> NDArray[Any]:
        """(num_envs, ...) observations -> (num_envs, ...) actions."""

    def observe(self, transition: Transition) -> None:  # noqa: B027 - an agent that does not learn needs none
        """Takes note of what came of the last action; learners learn here."""

    def swept(self) -> list[str]:
        """Names of the parameters that each learner draws for itself."""
        return swept_parameters(self)

    def drawn(self, name: str, seeds: Seeds) -> NDArray[np.float64]:
        """Every learner's value of the parameter `name`, shape (num_learners,); it follows from its seed alone.

        Args:
            name: a `PerLearner` parameter.
            seeds: (num_learners,) as `reset` gets them.
        """
        return per_learner(name, getattr(self, name), seeds)


_LARGEST_TABLE = 2**24  # elements; a learner has a row for each


class TableIndex:
    """Numbers the elements of a finite space, for tables: Discrete and MultiDiscrete."""

    def __init__(self, space: gymnasium.Space[Any], user: str) -> None:
        """Raises UserError, naming `user`, for any other space."""
        if isinstance(space, gymnasium.spaces.Discrete):
            sizes, start = [int(space.n)], [int(space.start)]
        elif isinstance(space, gymnasium.spaces.MultiDiscrete) and space.nvec.ndim == 1:
            sizes, start = space.nvec.tolist(), space.start.tolist()
        else:
            raise UserError(f"{user} keeps a table, and needs a Discrete or MultiDiscrete space, not {space}")
        self.size = math.prod(sizes)
        if self.size > _LARGEST_TABLE:
            raise UserError(f"{user} keeps a table, which {self.size:,} elements of the space {space} are too many for")
        self._sizes, self._start = sizes, np.array(start)  # of int64, whatever the space's own type
        self._strides = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
        self._flat = isinstance(space, gymnasium.spaces.Discrete)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """(num_envs, ...) elements of the space -> (num_envs,) numbers below `size`."""
        places = values.reshape(len(values), -1)
        numbers = (places[:, 0] - self._start[0]) * self._strides[0]
        for place in range(1, len(self._strides)):  # a few array operations; an integer matrix product is slower
            numbers += (places[:, place] - self._start[place]) * self._strides[place]
        return numbers

    def elements(self, numbers: NDArray[np.intp]) -> NDArray[np.int64]:
        """(num_envs,) numbers below `size` -> (num_envs, ...) elements of the space."""
        if self._flat:
            return self._start[0] + numbers
        return self._start + np.stack(np.unravel_index(numbers, self._sizes), axis=1)
