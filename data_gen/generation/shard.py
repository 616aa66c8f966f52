"""Makes one shard: runs a part of the experiment's learners, and writes their histories to a file.

A shard is a pure function of (config, shard index) and of the weights of the meta-learners among the sources. A
learner's task, source and seed follow from its number alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.agents.base import Agent
from data_gen.experiment import Experiment, recorded_actors
from data_gen.interaction import agent_seeds, interact
from data_gen.meta.store import TrainedFigures, ready_agent, source_weights
from data_gen.storage.shards import shard_name, write_shard
from data_gen.streams import Seeds
from icrl.config.loader import fingerprint as fingerprint_of
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import Source
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import SCHEMA_VERSION, RunFolder


def make_shard(
    given: Experiment | ExperimentConfig,
    folder: Path,
    index: int,
    progress: Callable[[int], object] = lambda steps: None,
) -> str:
    """Makes shard `index` in `folder`, a run's data folder, and returns its SHA-256."""
    experiment, run = Experiment.of(given), RunFolder(folder.parent)
    config, train, learners = experiment.config, experiment.train_tasks, experiment.learners
    mine = learners.shards(config.data.shards)[index]
    owner = np.repeat(np.arange(len(mine)), learners.histories[mine])  # the learner of each of the shard's histories
    actor = np.concatenate([np.arange(count) for count in learners.histories[mine]])
    columns: dict[str, NDArray[Any]] = {}
    # Run the learners of each source together, and put their histories in the order of the shard.
    for number, source in enumerate(config.data.sources):
        chosen = mine[learners.source[mine] == number]
        if not len(chosen):
            continue
        rows = np.flatnonzero(learners.source[mine][owner] == number)
        agent = ready_agent(config, run, source)
        recorded = _record(experiment, source, agent, learners.task[chosen], learners.seed[chosen], progress)
        for name, values in recorded.items():
            if name not in columns:
                columns[name] = _unfilled(len(owner), values)
            columns[name][rows] = values
    for name in swept_columns(config):  # every shard has the same columns
        columns.setdefault(name, np.full(len(owner), np.nan))
    task = learners.task[mine][owner]
    per_history = {
        "history": learners.first_history[mine][owner] + actor,
        "task": task,
        "source": learners.source[mine][owner],
        "seed": learners.seed[mine][owner],
        "actor": actor,
        **{f"task_{name}": train[name][task] for name in train},
    }
    return write_shard(
        folder / shard_name(index, config.data.shards),
        columns | per_history,
        {
            "fingerprint": shard_config_fingerprint(config, source_weights(config, run)),
            "schema_version": SCHEMA_VERSION,
        },
        beside=True,
    )


def shard_config_fingerprint(config: ExperimentConfig, trained: dict[str, TrainedFigures]) -> str:
    """Fingerprint of everything that determines the shards; `trained` is the result of `source_weights`."""
    if not trained:
        return data_fingerprint(config)
    return fingerprint_of(data_fingerprint(config), {key: learner.weights for key, learner in trained.items()})


def swept_columns(config: ExperimentConfig) -> list[str]:
    """Names of the columns that hold the learners' own hyper-parameters."""
    return sorted({f"hyper_{name}" for source in config.data.sources for name in source.build().swept()})


def _record(
    experiment: Experiment,
    source: Source,
    agent: Agent,
    tasks: NDArray[np.int64],
    seeds: Seeds,
    progress: Callable[[int], object],
) -> dict[str, NDArray[Any]]:
    """Columns of the histories of one source's learners, one per number in `tasks`. A learner's actors are adjacent."""
    histories = recorded_actors(source, agent)
    played = np.repeat(tasks, agent.actors)
    envs = experiment.family.make_vec(experiment.train_tasks.take(played))
    lifetimes = interact(
        agent,
        envs,
        experiment.history_steps,
        seeds,
        sees=source.sees,
        recorded=slice(None, None, agent.actors // histories),
        optimal_actions=experiment.config.data.optimal_actions,
        device=experiment.source_device,
        progress=progress,
        check_values=experiment.config.runtime.check_values,
        slot_name=lambda slot: f"training task {played[slot]}",
    )
    envs.close()
    # A learner's hyper-parameters follow from the seed that `interact` gives it.
    drawn = {f"hyper_{name}": agent.drawn(name, agent_seeds(seeds)) for name in agent.swept()}
    return lifetimes.columns() | {name: np.repeat(values, histories) for name, values in drawn.items()}


def _unfilled(rows: int, values: NDArray[Any]) -> NDArray[Any]:
    """An array for `rows` rows like those of `values`. One number per row starts as NaN: some sources lack it."""
    if values.ndim == 1:
        return np.full(rows, np.nan)
    return np.empty((rows, *values.shape[1:]), values.dtype)
