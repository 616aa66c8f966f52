"""What meta-learners share: networks that `icrl meta-train` trains on many tasks, and then a life like any agent's.

A meta-learner has two sides. Before anything else, it is *meta-trained*: `start` once, then `improve` once an
iteration, on tasks drawn from the training tasks alone. After that its networks are frozen and it is an `Agent`: in
`reset` a new lifetime begins on a task that it knows nothing of, and what it learns there (a hidden state, adapted
parameters, a posterior) it learns within that lifetime.
"""

from abc import abstractmethod
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_gen.agents.base import Agent, Spec
from data_gen.agents.sweep import Count
from data_gen.interaction import Histories, interact
from data_gen.streams import Seeds, make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks
from icrl.config.components import component
from icrl.run.purpose import Purpose
from icrl.support.allocator import keep_freed_memory
from icrl.support.errors import UserError

_WEIGHTS, _TASKS, _SEEDS = range(3)  # what a seed of it is for


@dataclass(frozen=True)
class TrainingTasks:
    """What a meta-learner is trained on."""

    distribution: TaskDistribution
    tasks: Tasks
    """The training tasks; held-out ones are never here."""
    spec: Spec
    """Of one environment; its lifetime (`planned_steps`) means nothing here."""
    seed: int
    """Everything random in meta-training follows from it and the number of the iteration."""
    sees: str = "observation"
    """What of an environment the meta-learner is shown, as `interact` takes it."""

    def live(self, agent: Agent, rows: NDArray[np.int64], lived_steps: int, seeds: Seeds) -> Histories:
        """Lets `agent` live on the tasks at `rows`, one environment each, from a new start; as `interact`.

        Args:
            agent: reset here.
            rows: (num_envs,) numbers of training tasks; of an agent with several actors, those of a learner together.
            lived_steps: steps in every environment.
            seeds: (num_learners,).
        """
        with closing(self.distribution.make_vec(self.tasks.take(rows))) as envs:
            return interact(agent, envs, lived_steps, seeds, sees=self.sees, device=self.spec.device)

    def rows(self, count: int, iteration: int) -> NDArray[np.int64]:
        """Numbers of the training tasks of an iteration, shape (count,): different ones, while there are enough."""
        random = np.random.default_rng((self.seed, Purpose.META_TRAINING, _TASKS, iteration))
        parts, number = [], len(self.tasks)
        while count > 0:
            parts.append(random.choice(number, size=min(count, number), replace=False, shuffle=True))
            count -= number
        return np.concatenate(parts)

    def seeds(self, count: int, iteration: int, purpose: int = 0) -> Seeds:
        """(count,) seeds of an iteration, for `interact` and what else is random in it; `purpose` sets uses apart."""
        return make_seeds(count, self.seed, Purpose.META_TRAINING, _SEEDS, iteration, purpose)

    def generator(self, iteration: int, purpose: int = 0) -> torch.Generator:
        """A generator of torch, on the CPU, seeded likewise."""
        return torch.Generator().manual_seed(int(self.seeds(1, iteration, purpose)[0] >> np.uint64(1)))


@component
class MetaLearner(Agent):
    """Base of the meta-learners. A subclass says what its networks are, how they are trained, and how they act.

    Its parameters are everything that meta-training depends on, together with the tasks and the seed; but those that
    are named in `acting_only`, which only a lifetime depends on.
    """

    iterations: Count = 100
    """Iterations of meta-training."""

    acting_only: ClassVar[frozenset[str]] = frozenset()
    """Parameters that meta-training does not depend on: changing one asks for no new meta-training."""

    networks: ClassVar[nn.Module | None] = None  # of an instance, from `set_up` on
    weights: ClassVar[dict[str, Tensor] | None] = None  # of an instance that has been meta-trained

    # --- what a subclass gives

    @abstractmethod
    def build(self, spec: Spec) -> nn.Module:
        """New networks for the spaces of `spec`, on its device, with random weights from torch's global generator.

        Their `state_dict` is everything that acting needs: parameters, and statistics of normalisation as buffers.
        May set attributes that follow from `spec` alone. Raises UserError if the spaces are not for this algorithm.
        """

    @abstractmethod
    def begin(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        """A new lifetime in every environment, with `self.networks`; as `Agent.reset`."""

    @abstractmethod
    def begin_training(self, training: TrainingTasks) -> None:
        """Sets up optimisers and whatever else meta-training keeps; `self.networks` are there, and new."""

    @abstractmethod
    def improve(self, iteration: int) -> dict[str, float]:
        """One iteration of meta-training, from 0: a function of the networks, `training_state` and `iteration` alone.

        Returns what happened, by name, among it `environment_steps`, those made in this iteration, and `return`, the
        mean return of an episode that shows how training goes (which one, its docstring says).
        """

    @abstractmethod
    def training_state(self) -> dict[str, Tensor]:
        """Everything beside the networks that the next iteration depends on: moments, replay memories, counters."""

    @abstractmethod
    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes up what `training_state` gave, after `begin_training`."""

    # --- what all of them do

    def set_up(self, spec: Spec, seed: int = 0) -> nn.Module:
        """Builds the networks, with weights that follow from the seed.

        Raises UserError if the spaces are not for this algorithm.
        """
        keep_freed_memory()
        self.device = torch.device(spec.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = self.build(spec)
        self.networks = networks  # type: ignore[misc]
        return networks

    @property
    def trained_networks(self) -> nn.Module:
        """The networks. Raises UserError if there are none yet."""
        if self.networks is None:
            raise UserError(f"{type(self).__name__} has not been meta-trained; run `icrl meta-train` with this config")
        return self.networks

    def check(self, spec: Spec) -> None:
        """It can be asked before it is meta-trained."""
        self.set_up(spec)

    def start(self, training: TrainingTasks) -> None:
        """Begins meta-training anew, with weights that follow from the seed."""
        self.set_up(
            training.spec, int(make_seeds(1, training.seed, Purpose.META_TRAINING, _WEIGHTS)[0] >> np.uint64(1))
        )
        self.begin_training(training)

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        if self.weights is not None:
            self.set_up(spec).load_state_dict(self.weights)
        else:
            _ = self.trained_networks
        self.begin(spec, num_envs, seeds)


def optimiser_state(optimiser: torch.optim.Optimizer, name: str = "optimiser") -> dict[str, Tensor]:
    """An optimiser's moments and counters as named tensors, for `training_state`."""
    return {
        f"{name}.{number}.{key}": torch.as_tensor(value)
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: dict[str, Tensor], name: str = "optimiser") -> None:
    """Takes up what `optimiser_state` gave."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{name}."):
            number, part = key.removeprefix(f"{name}.").split(".", 1)
            found.setdefault(int(number), {})[part] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": found})
