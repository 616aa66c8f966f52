"""Who lives on which task: every learner of a config with its task, source and seed, by its number alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.schema import ExperimentConfig, Source
from data_gen.agents.base import Agent
from data_gen.streams import Seeds, make_seeds

_SEED_PURPOSE = 1  # keeps the histories' seeds apart from every other use of config.seed


@dataclass(frozen=True)
class Learners:
    """Arrays with a row a learner. A learner leaves one history, or one for each of its actors."""

    task: NDArray[np.int64]
    """Number of its training task."""
    source: NDArray[np.int64]
    """Number of its source in the config."""
    seed: Seeds
    actors: NDArray[np.int64]
    """Environments that it acts in."""
    histories: NDArray[np.int64]
    """Histories that it leaves."""

    def __len__(self) -> int:
        return len(self.task)

    @property
    def first_history(self) -> NDArray[np.int64]:
        """Number of its first history; its others follow."""
        return np.cumsum(self.histories) - self.histories

    def shards(self, count: int) -> list[NDArray[np.int64]]:
        """The learners' numbers shard by shard."""
        return np.array_split(np.arange(len(self)), count)


def learners_of(config: ExperimentConfig, num_tasks: int) -> Learners:
    """The learners of `config` on `num_tasks` training tasks: `data.histories_per_task` on each."""
    sources = config.data.sources
    agents: list[Agent] = [source.build() for source in sources]
    replica, task = np.divmod(np.arange(num_tasks * config.data.histories_per_task), num_tasks)
    source = _source_of_replica(sources, config.data.histories_per_task)[replica]
    actors = np.array([agent.actors for agent in agents])
    histories = np.array([recorded_actors(*pair) for pair in zip(sources, agents, strict=True)])
    seed = make_seeds(len(task), config.seed, _SEED_PURPOSE)
    return Learners(task, source, seed, actors[source], histories[source])


def recorded_actors(source: Source, agent: Agent) -> int:
    """How many of a learner's actors leave a history."""
    return agent.actors if source.record == "all" else 1


def _source_of_replica(sources: tuple[Source, ...], replicas: int) -> NDArray[np.int64]:
    """The source's number for each of a task's learners, (replicas,): by weight, the same on every task."""
    weights = np.array([source.weight for source in sources])
    share = weights / weights.sum()
    counts, chosen = np.zeros(len(share)), []
    for replica in range(replicas):
        chosen.append(int(np.argmax(share * (replica + 1) - counts)))
        counts[chosen[-1]] += 1
    return np.array(chosen)
