"""One experiment: everything that follows from its config, computed once, on first use.

Stages take an `Experiment`, so that tasks are drawn and split only here, and once per process.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.agents.base import Agent
from data_gen.storage.folder import load_info
from data_gen.storage.given_split import split_of_data, without_tasks_of_data
from data_gen.storage.source import located, record_at
from data_gen.streams import Seeds, make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.sets import TaskSet, draw_set
from data_gen.tasks.splits import Splits, split_tasks
from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import Source
from icrl.run.folder import INFO, MODEL, RunFolder, config_text, run_folder
from icrl.run.progress import chosen_checkpoint
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError, UserError


class Experiment:
    """The experiment of a config: its run folder, task family with its splits, lengths, and learners."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config

    @classmethod
    def of(cls, given: "Experiment | ExperimentConfig") -> "Experiment":
        """`given` as an experiment, so that every stage accepts an experiment or a config."""
        return given if isinstance(given, Experiment) else cls(given)

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder."""
        return run_folder(self.config)

    @cached_property
    def family(self) -> TaskDistribution:
        """The task distribution."""
        family: TaskDistribution = self.config.tasks.build()
        return family

    @cached_property
    def splits(self) -> Splits:
        """Training, validation and held-out tasks, which never overlap.

        A run on given data takes the data's own split, unless the config gives one, or the data does not say it.

        Raises ConfigError if the family has too few tasks, UserError if the given data is missing or damaged.
        """
        if self.given_split is not None:
            return self.given_split
        if self.config.data.given and self.folder.data_info.exists():
            info = load_info(self.folder)
            return without_tasks_of_data(self.family, self.split_of_config, self.folder.data, info)
        return self.split_of_config

    @cached_property
    def given_split(self) -> Splits | None:
        """The split of the given data if this run takes it, else None. Only small files are fetched to find out.

        Raises UserError if the data is missing, or if its split is not one.
        """
        if not self.config.takes_given_split:
            return None
        if self.folder.data_info.exists():
            return split_of_data(self.config, self.family, self.folder.data, load_info(self.folder))
        _, _, source = located(self.config, self.folder)
        return split_of_data(self.config, self.family, source, record_at(self.config, source))

    @cached_property
    def split_of_config(self) -> Splits:
        """The split that follows from the config alone. Raises ConfigError if the family has too few tasks."""
        split, seed = self.config.own_split, self.config.seed_for("split")
        return split_tasks(self.family, split.train, split.validation, split.test, seed)

    def forget_split(self) -> None:
        """Works the split out again on its next use, since the given data has been replaced."""
        for name in ("splits", "given_split", "task_sets"):
            self.__dict__.pop(name, None)

    @property
    def one_task(self) -> Tasks:
        """A single task to try agents on, and never a held-out one."""
        return self.train_tasks.take([0])

    @property
    def train_tasks(self) -> Tasks:
        """The training tasks: all generated data comes from these tasks."""
        return self.splits.train

    @property
    def validation_tasks(self) -> Tasks:
        """The tasks to choose checkpoints and settings on; there may be none."""
        return self.splits.validation

    @property
    def test_tasks(self) -> Tasks:
        """The held-out tasks: no training data ever comes from these tasks, and no choice looks at them."""
        return self.splits.test

    @cached_property
    def task_sets(self) -> list[TaskSet]:
        """The sets of `evaluation.tasks`, without training and validation tasks.

        Raises ConfigError if a set has other spaces, or no task that is new.
        """
        known = [tasks for tasks in (self.train_tasks, self.validation_tasks) if len(tasks)]
        seed = int(make_seeds(1, self.config.seed_for("split"), Purpose.TASK_SETS)[0] >> np.uint64(32))
        return [
            draw_set(
                name,
                given.family(self.config.tasks),
                given.changes,
                self.family,
                known,
                given.num_tasks or self.config.evaluation.test_tasks,
                seed,
            )
            for name, given in self.config.evaluation.tasks.items()
        ]

    @property
    def history_steps(self) -> int:
        """Length of a learning history, in environment steps."""
        return self.config.data.episodes * self.family.episode_length

    @property
    def lived_steps(self) -> int:
        """Length of a lifetime in the evaluation, in environment steps."""
        return self.config.evaluation.episodes * self.family.episode_length

    @property
    def planned_episodes(self) -> int:
        """Episodes that agents plan for: those of a history, or of an evaluation's lifetime if data is given."""
        return self.config.evaluation.episodes if self.config.data.given else self.config.data.episodes

    @property
    def source_device(self) -> str:
        """Device of the sources' networks.

        Small networks are as fast on a CPU, so an accelerator is used only if the config names it.
        """
        return self.config.runtime.device or "cpu"

    @property
    def model_folder(self) -> Path:
        """The model of the last checkpoint, or of the best one if `evaluation.checkpoint` says so.

        Raises UserError if there is none.
        """
        return chosen_checkpoint(self.config, self.folder.checkpoints) / MODEL

    @cached_property
    def learners(self) -> "Learners":
        """The learners that generate the data, each with its training task."""
        return learners_of(self.config, len(self.train_tasks))


def open_run(path: str | Path) -> Experiment:
    """The experiment of a run folder, even if the folder has moved. Raises UserError if `path` is not a run folder.

    A data folder may hold a config too, but may come from anywhere: its config can name any code, and is not read.
    """
    folder = RunFolder(Path(path))
    if (folder.path / INFO).is_file():  # the config beside pulled data is not the user's, and may name any code
        raise UserError(
            f"{path}: is a data folder, not a run folder; a config with data: {{folder: {path}}} uses the data"
        )
    if not folder.config.exists():
        raise UserError(f"{path}: is not a run folder: it has no {folder.config.name}")
    config_text(folder.config)  # verifies the checksum
    home = folder.path.resolve()
    try:
        config = load_config(folder.config, [])
    except ConfigError as error:  # of an earlier version, or replaced
        again = "run a stage of this experiment with its own config, and the file is written again"
        raise ConfigError(f"{str(error).splitlines()[0]}; {again}") from error
    experiment = Experiment(config.model_copy(update={"output": str(home.parent), "name": home.name}))
    experiment.folder = folder  # as the user wrote it, for messages
    return experiment


@dataclass(frozen=True)
class Learners:
    """All learners of an experiment, as arrays (learners,). A learner leaves one history, or one per actor."""

    task: NDArray[np.int64]
    """Number of the learner's training task."""
    source: NDArray[np.int64]
    """Number of the learner's source in the config."""
    seed: Seeds
    actors: NDArray[np.int64]
    """Number of environments that the learner acts in."""
    histories: NDArray[np.int64]
    """Number of histories that the learner leaves."""

    def __len__(self) -> int:
        return len(self.task)

    @property
    def first_history(self) -> NDArray[np.int64]:
        """Number of each learner's first history; its other histories follow."""
        return np.cumsum(self.histories) - self.histories

    def shards(self, count: int) -> list[NDArray[np.int64]]:
        """The learners' numbers, one array per shard."""
        return np.array_split(np.arange(len(self)), count)


def learners_of(config: ExperimentConfig, num_tasks: int) -> Learners:
    """The learners of `config` on `num_tasks` training tasks: `data.histories_per_task` on each."""
    sources = config.data.sources
    agents: list[Agent] = [source.build() for source in sources]
    replica, task = np.divmod(np.arange(num_tasks * config.data.histories_per_task), num_tasks)
    source = _source_of_replica(sources, config.data.histories_per_task)[replica]
    actors = np.array([agent.actors for agent in agents])
    histories = np.array([recorded_actors(*pair) for pair in zip(sources, agents, strict=True)])
    seed = make_seeds(len(task), config.seed_for("data"), Purpose.HISTORIES)
    return Learners(task, source, seed, actors[source], histories[source])


def recorded_actors(source: Source, agent: Agent) -> int:
    """Number of a learner's actors that leave a history."""
    return agent.actors if source.record == "all" else 1


def _source_of_replica(sources: tuple[Source, ...], replicas: int) -> NDArray[np.int64]:
    """(replicas,) number of the source of each of a task's learners, by share, the same on every task.

    Each replica goes to the source that is furthest behind its share, so any number of replicas is divided as closely
    to the shares as whole learners allow.
    """
    asked = np.array([source.share for source in sources])
    share = asked / asked.sum()
    counts, chosen = np.zeros(len(share)), []
    for replica in range(replicas):
        chosen.append(int(np.argmax(share * (replica + 1) - counts)))
        counts[chosen[-1]] += 1
    return np.array(chosen)
