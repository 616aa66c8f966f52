"""Base of the meta-learners: networks that `icrl meta-train` trains on many tasks, and then an agent like any other.

A meta-learner has two phases. First it is *meta-trained*: `start` once, then `improve` once per iteration, on the
training tasks alone. Then its networks are frozen and it is an `Agent`: `reset` begins a lifetime on a task that it
knows nothing about. Everything that it learns there (a hidden state, adapted parameters, a posterior) it learns within
that lifetime.
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

_WEIGHTS, _TASKS, _SEEDS = range(3)  # purposes of the random streams of meta-training


@dataclass(frozen=True)
class TrainingTasks:
    """The training tasks of a meta-learner, and the means to run agents on them."""

    distribution: TaskDistribution
    tasks: Tasks
    """The training tasks; held-out tasks are never among them."""
    spec: Spec
    """Spec of one environment; its lifetime (`planned_steps`) has no meaning here."""
    seed: int
    """Seed of meta-training: all randomness follows from this seed and the number of the iteration."""
    sees: str = "observation"
    """The part of an environment that the meta-learner is shown, as in `interact`."""
    check_values: bool = True
    """Check what the environments give, as in `interact`."""

    def live(self, agent: Agent, rows: NDArray[np.int64], lived_steps: int, seeds: Seeds) -> Histories:
        """Runs a new lifetime of `agent` on the tasks at `rows`, one environment per row, and records it.

        Args:
            agent: reset here.
            rows: (num_envs,) indices of training tasks; with several actors, the rows of one learner are neighbours.
            lived_steps: steps in every environment.
            seeds: (num_learners,) one seed per learner.
        """
        with closing(self.distribution.make_vec(self.tasks.take(rows))) as envs:
            return interact(
                agent,
                envs,
                lived_steps,
                seeds,
                sees=self.sees,
                device=self.spec.device,
                check_values=self.check_values,
                slot_name=lambda slot: f"training task {rows[slot]}",
            )

    def rows(self, count: int, iteration: int) -> NDArray[np.int64]:
        """(count,) indices of the training tasks of an iteration; all tasks are drawn before any is repeated."""
        random = np.random.default_rng((self.seed, Purpose.META_TRAINING, _TASKS, iteration))
        parts, number = [], len(self.tasks)
        while count > 0:
            parts.append(random.choice(number, size=min(count, number), replace=False, shuffle=True))
            count -= number
        return np.concatenate(parts)

    def seeds(self, count: int, iteration: int, purpose: int = 0) -> Seeds:
        """(count,) seeds of an iteration, for `interact` and other random draws; `purpose` separates the uses."""
        return make_seeds(count, self.seed, Purpose.META_TRAINING, _SEEDS, iteration, purpose)

    def generator(self, iteration: int, purpose: int = 0) -> torch.Generator:
        """A `torch.Generator` on the CPU, seeded like `seeds`."""
        return torch.Generator().manual_seed(int(self.seeds(1, iteration, purpose)[0] >> np.uint64(1)))


@component
class MetaLearner(Agent):
    """Base of the meta-learners. A subclass defines its networks, how they are trained, and how they act.

    Meta-training depends on the tasks, the seed and all parameters except those named in `acting_only`, which affect
    lifetimes only.
    """

    iterations: Count = 100
    """Iterations of meta-training."""

    acting_only: ClassVar[frozenset[str]] = frozenset()
    """Parameters that meta-training does not depend on: after changing one, no new meta-training is needed."""

    networks: ClassVar[nn.Module | None] = None  # set on the instance by `set_up`
    weights: ClassVar[dict[str, Tensor] | None] = None  # set on an instance that acts with meta-trained weights

    # --- for subclasses to define

    @abstractmethod
    def build(self, spec: Spec) -> nn.Module:
        """New networks for the spaces of `spec`, on its device, with random weights from torch's global generator.

        Their `state_dict` holds everything that acting needs: parameters, and normalisation statistics as buffers.
        May set attributes that depend on `spec` alone. Raises UserError if the algorithm does not support the spaces.
        """

    @abstractmethod
    def begin(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        """Begins a new lifetime in every environment, with `self.networks`; arguments as in `Agent.reset`."""

    @abstractmethod
    def begin_training(self, training: TrainingTasks) -> None:
        """Sets up optimisers and all other state of meta-training; `self.networks` is newly built."""

    @abstractmethod
    def improve(self, iteration: int) -> dict[str, float]:
        """One iteration of meta-training, counted from 0.

        The result depends on the networks, `training_state` and `iteration` alone.

        Returns metrics by name. They include `environment_steps`, the steps made in this iteration, and `return`, a
        mean return per episode that shows the progress of training (the subclass's docstring names the episodes).
        """

    @abstractmethod
    def training_state(self) -> dict[str, Tensor]:
        """All state beside the networks that the next iteration depends on: moments, replay memories, counters."""

    @abstractmethod
    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restores the result of `training_state`; called after `begin_training`."""

    # --- shared by all meta-learners

    def set_up(self, spec: Spec, seed: int = 0) -> nn.Module:
        """Builds the networks, with weights that follow from the seed.

        Raises UserError if the algorithm does not support the spaces.
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
        """The networks. Raises UserError before `set_up`."""
        if self.networks is None:
            raise UserError(f"{type(self).__name__} has not been meta-trained; run `icrl meta-train` with this config")
        return self.networks

    def check(self, spec: Spec) -> None:
        """As `Agent.check`, by building the networks, so it needs no meta-training."""
        self.set_up(spec)

    def start(self, training: TrainingTasks) -> None:
        """Begins meta-training from scratch, with weights that follow from the seed."""
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
    """Restores the result of `optimiser_state`."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{name}."):
            number, part = key.removeprefix(f"{name}.").split(".", 1)
            states.setdefault(int(number), {})[part] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
