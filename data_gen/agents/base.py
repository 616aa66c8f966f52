"""The agent protocol: an agent acts in a batch of environments at once, each with its own task."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.agents.sweep import per_learner, swept_parameters
from data_gen.spaces import one_line
from data_gen.streams import Seeds, make_seeds
from icrl.support.errors import UserError


@dataclass(frozen=True)
class Spec:
    """Description of the environments that an agent acts in."""

    observation_space: gymnasium.Space[Any]
    """Space of the observation that the agent is shown."""
    action_space: gymnasium.Space[Any]
    planned_steps: int
    """Number of steps that the agent plans for: its schedules run over this many steps."""
    optimal_action: Callable[[], NDArray[Any]] | None = None
    """Function that reads optimal actions from the environments' hidden state; for oracles, not for learners."""
    episode_length: int | None = None
    """Steps after which an episode is truncated, if known; finite-horizon planners need it."""
    device: str = "cpu"
    """Device that tensor programs run on."""
    lived_steps: int | None = None
    """Number of steps in the whole lifetime, if there may be more than `planned_steps`."""


@dataclass(frozen=True)
class Transition:
    """One step of all environments. Arrays have a leading axis of environments; an observation may be a tree."""

    observation: Any
    action: NDArray[Any]
    reward: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    next_observation: Any
    """Observation after the action: at an episode's end its last observation, not the first of the next episode."""


class Agent(ABC):
    """Base of agents, which act in a batch of environments and may learn from it.

    Subclasses are components: dataclasses of parameters. Most learners act in one environment each. A learner with
    several `actors` learns from that many environments of one task at once. The environments of a learner are
    neighbours in the batch: (num_envs, ...) is (num_learners * actors, ...).
    """

    actors: int = 1
    """Number of environments that each learner acts in."""

    @property
    def first_update(self) -> int:
        """First step, counted from 1, after which behaviour may change; no learning shows in a shorter lifetime."""
        return 1

    @property
    def follows_plan(self) -> bool:
        """True if `Spec.planned_steps` changes what the agent does: it has a schedule over its planned lifetime."""
        return False

    @abstractmethod
    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        """Forgets everything and begins a new lifetime in every environment.

        Args:
            spec: the environments' spaces and the length of the lifetime.
            num_envs: number of environments, num_learners * actors.
            seeds: (num_learners,) one seed per learner; a learner's history never depends on the other learners.

        Raises UserError if the agent cannot handle the spaces.
        """

    def check(self, spec: Spec) -> None:
        """Raises UserError if the agent cannot act in environments of this `spec`; forgets everything."""
        self.reset(spec, self.actors, make_seeds(1, 0))

    @abstractmethod
    def act(self, observation: Any) -> NDArray[Any]:
        """(num_envs, ...) observations -> (num_envs, ...) actions."""

    def observe(self, transition: Transition) -> None:  # noqa: B027 - optional: not every agent learns
        """Records the result of the last action; learners learn here."""

    def diverged(self) -> NDArray[np.bool_] | None:
        """(num_learners,) True for each learner whose learned numbers are no longer finite; None if that is unknown."""
        return None

    def swept(self) -> list[str]:
        """Names of the parameters that each learner draws for itself."""
        return swept_parameters(self)

    def drawn(self, name: str, seeds: Seeds) -> NDArray[np.float64]:
        """Every learner's value of the parameter `name`, shape (num_learners,); a value depends on its seed alone.

        Args:
            name: a `PerLearner` parameter.
            seeds: (num_learners,) the seeds given to `reset`.
        """
        return per_learner(name, getattr(self, name), seeds)


_LARGEST_TABLE = 2**24  # rows per learner


def check_table(rows: int, user: str, called: str = "rows of observations and memory") -> None:
    """Raises UserError, naming the agent `user`, if a learner's table would have too many rows."""
    if rows > _LARGEST_TABLE:
        raise UserError(f"{user} keeps a table, and the {rows:,} {called} are too many: {_LARGEST_TABLE:,} at most")


class TableIndex:
    """Numbering of the elements of a finite space, Discrete or MultiDiscrete, for tables."""

    def __init__(self, space: gymnasium.Space[Any], user: str) -> None:
        """Raises UserError, naming `user`, for any other space and for a space with too many elements."""
        if isinstance(space, gymnasium.spaces.Discrete):
            sizes, start = [int(space.n)], [int(space.start)]
        elif isinstance(space, gymnasium.spaces.MultiDiscrete) and space.nvec.ndim == 1:
            sizes, start = space.nvec.tolist(), space.start.tolist()
        else:
            raise UserError(
                f"{user} keeps a table and needs a Discrete or flat MultiDiscrete space, not {one_line(space)}"
            )
        self.size = math.prod(sizes)
        check_table(self.size, user, f"elements of the space {one_line(space)}")
        self._sizes, self._start = sizes, np.array(start)  # int64, whatever the space's own type
        self._strides = [math.prod(sizes[part + 1 :]) for part in range(len(sizes))]
        self._flat = isinstance(space, gymnasium.spaces.Discrete)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """(num_envs, ...) elements of the space -> (num_envs,) numbers below `size`."""
        parts = values.reshape(len(values), -1)
        numbers = (parts[:, 0] - self._start[0]) * self._strides[0]
        for part in range(1, len(self._strides)):  # a few array operations; an integer matrix product is slower
            numbers += (parts[:, part] - self._start[part]) * self._strides[part]
        return numbers

    def elements(self, numbers: NDArray[np.intp]) -> NDArray[np.int64]:
        """(num_envs,) numbers below `size` -> (num_envs, ...) elements of the space."""
        if self._flat:
            return self._start[0] + numbers
        return self._start + np.stack(np.unravel_index(numbers, self._sizes), axis=1)
