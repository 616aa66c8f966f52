"""Generation: source agents live on the training tasks, and their learning histories are written as shards.

A shard is a pure function of (config, shard index): a learner has its task, its source and its seed from its number
alone, so the same config gives the same bytes on any number of workers, finished shards are skipped on a restart, and
any `concurrent.futures.Executor` can make them.
"""

import dataclasses
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.agents.base import Agent
from data_gen.generation.learners import Learners, learners_of, recorded_actors
from data_gen.interaction import agent_seeds, interact, spec_of
from data_gen.meta.store import ready_agent, source_weights, sources_steps
from data_gen.spaces import to_json
from data_gen.storage.folder import TASK_FILES, finish_data_folder, load_info
from data_gen.storage.given import take_given
from data_gen.storage.shards import damaged, shard_fingerprint, shard_name, write_shard
from data_gen.streams import Seeds
from data_gen.tasks.base import TaskDistribution, Tasks
from icrl.config.loader import fingerprint as fingerprint_of
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent, Source
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import SCHEMA_VERSION, RunFolder, locked, run_folder, stale, write_config
from icrl.support.device import check_device
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import remove_leftovers, sha256


def split_tasks(config: ExperimentConfig) -> tuple[TaskDistribution, Tasks, Tasks]:
    """The task distribution with its training and its held-out tasks. Raises ConfigError if it has not so many."""
    distribution: TaskDistribution = config.tasks.build()
    return distribution, *distribution.split(config.split.train, config.split.test, config.seed)


def history_steps(config: ExperimentConfig, distribution: TaskDistribution) -> int:
    """Length of a learning history in steps."""
    return config.data.episodes * distribution.episode_length


def planned_steps(config: ExperimentConfig, distribution: TaskDistribution) -> int:
    """The lifetime that an agent plans for: a learning history's, or an evaluation's where histories are given."""
    episodes = config.evaluation.episodes if config.data.given else config.data.episodes
    return episodes * distribution.episode_length


def generate(config: ExperimentConfig, overwrite: bool = False) -> bool:
    """Makes the shards that are missing, and then `info.json`, which says that the data is complete.

    Data that is given is taken instead. Returns whether there was anything to do.

    Raises UserError if the folder holds data of another config (unless `overwrite`), or a shard is damaged.
    """
    if config.data.given:
        return take_given(config, overwrite)
    folder, fingerprint = run_folder(config), data_fingerprint(config)
    distribution, train, test = split_tasks(config)
    check_spaces(distribution)
    check_sources(config, distribution, train)
    learners = learners_of(config, len(train))
    if config.data.shards > len(learners):
        raise ConfigError(f"data.shards: {config.data.shards} is more than the {len(learners)} learners")
    with locked(folder):
        trained = _source_weights(config, folder, overwrite)
        if overwrite:
            shutil.rmtree(folder.data, ignore_errors=True)
        folder.data.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.data)
        recorded = _recorded_checksums(folder, fingerprint, trained)
        names = [shard_name(index, config.data.shards) for index in range(config.data.shards)]
        checksums = {
            name: _finished(folder.data / name, _shard_fingerprint(config, trained), recorded) for name in names
        }
        strangers = {path.name for path in folder.data.glob("train-*.h5")} - set(names)
        if strangers:
            raise stale(folder.data / min(strangers))
        missing = [index for index, name in enumerate(names) if checksums[name] is None]
        if not missing and recorded and all((folder.data / name).exists() for name in TASK_FILES):
            return False
        write_config(config, folder)
        started = time.perf_counter()
        lengths = _shard_steps(config, distribution, learners)
        with tqdm(total=sum(lengths), unit=" steps", unit_scale=True, desc="generate", dynamic_ncols=True) as bar:
            bar.update(sum(lengths) - sum(lengths[index] for index in missing))
            for index, checksum in _make_shards(config, folder, missing, lengths, bar.update):
                checksums[names[index]] = checksum
        for name in names:
            if recorded.get(name, checksums[name]) != checksums[name]:
                raise UserError(
                    f"{folder.data / name}: made again, it differs from {folder.data_info}: use --overwrite"
                )
        finish_data_folder(
            folder.data,
            config.name,
            (train, test),
            {
                "fingerprint": fingerprint,
                "observation_space": to_json(distribution.observation_space),
                "action_space": to_json(distribution.action_space),
                "episode_length": distribution.episode_length,
                "num_histories": int(learners.histories.sum()),
                "num_steps": history_steps(config, distribution),
                "seed": config.seed,
                "tasks": config.tasks.model_dump(mode="json"),
                "optimal_actions": config.data.optimal_actions,
                "swept": _swept_columns(config),
                "sources": [source.model_dump(mode="json") for source in config.data.sources],
                "meta_learners": trained,
                "shards": [{"file": name, "sha256": checksums[name]} for name in names],
                "seconds": time.perf_counter() - started,
                "device": source_device(config),
            },
        )
    return True


def check_spaces(distribution: TaskDistribution) -> None:
    """Raises UserError if what happens on these tasks cannot be recorded."""
    to_json(distribution.observation_space)
    if isinstance(distribution.action_space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        raise UserError(
            f"actions of {distribution.action_space} cannot be recorded: Discrete, MultiDiscrete or Box can"
        )
    to_json(distribution.action_space)


def check_sources(config: ExperimentConfig, distribution: TaskDistribution, tasks: Tasks) -> None:
    """Raises ConfigError, naming its key of the config, if a source cannot live on these tasks."""
    check_device(config.runtime.device)
    steps, device = history_steps(config, distribution), source_device(config)
    with closing(distribution.make_vec(tasks.take([0]))) as envs:
        for index, source in enumerate(config.data.sources):
            check_agent(f"data.sources.{index}", source, envs, steps, device)
        if config.data.optimal_actions and getattr(envs, "optimal_action", None) is None:
            name = config.tasks.name
            raise ConfigError(f"data.optimal_actions: {name!r} does not know its optimal policy; leave it out")
    used = set(learners_of(config, 1).source.tolist())
    for index in set(range(len(config.data.sources))) - used:
        raise ConfigError(
            f"data.sources.{index}.weight: {config.data.sources[index].weight} leaves it none of the "
            f"{config.data.histories_per_task} learners a task; raise it, or data.histories_per_task"
        )


def check_agent(
    key: str,
    component: AgentComponent,
    envs: VectorEnv[Any, Any, Any],
    planned_steps: int,
    device: str,
    lived_steps: int | None = None,
) -> None:
    """Raises ConfigError, naming its `key` of the config, if an agent cannot live in `envs`, which has one slot.

    `planned_steps` and `lived_steps` are as `Spec` has them.
    """
    try:
        agent: Agent = component.build()
        if agent.actors < 1:
            raise UserError(f"actors {agent.actors}: an agent acts in one environment at least")
        if agent.first_update > planned_steps:
            raise UserError(
                f"{component.name} learns first after {agent.first_update} steps, but a lifetime has {planned_steps}: "
                "raise data.episodes, or learn earlier"
            )
        spec = spec_of(envs, planned_steps, component.sees, device)
        agent.check(dataclasses.replace(spec, lived_steps=lived_steps))
    except UserError as error:
        raise ConfigError(f"{key}: {error}") from error


def source_device(config: ExperimentConfig) -> str:
    """Where the sources' tensor programs run: small networks are as fast on a CPU, so only where the config says so."""
    return config.runtime.device or "cpu"


def make_shard(
    config: ExperimentConfig, folder: Path, index: int, progress: Callable[[int], object] = lambda steps: None
) -> str:
    """Makes shard `index` in `folder`, a run's data folder, and returns its SHA-256.

    A pure function of (config, index), and of the weights of the meta-learners among the sources.
    """
    run = RunFolder(folder.parent)
    distribution, train, _ = split_tasks(config)
    learners = learners_of(config, len(train))
    mine = learners.shards(config.data.shards)[index]
    owner = np.repeat(np.arange(len(mine)), learners.histories[mine])  # the learner of each of the shard's histories
    actor = np.concatenate([np.arange(count) for count in learners.histories[mine]])
    columns: dict[str, NDArray[Any]] = {}
    for number, source in enumerate(config.data.sources):
        chosen = mine[learners.source[mine] == number]
        if not len(chosen):
            continue
        rows = np.flatnonzero(learners.source[mine][owner] == number)
        agent = ready_agent(config, run, source)
        lived = _live(
            config, source, agent, distribution, train.take(learners.task[chosen]), learners.seed[chosen], progress
        )
        for name, values in lived.items():
            if name not in columns:
                columns[name] = _unfilled(len(owner), values)
            columns[name][rows] = values
    for name in _swept_columns(config):  # every shard has the same ones
        columns.setdefault(name, np.full(len(owner), np.nan))
    task = learners.task[mine][owner]
    said_once = {
        "history": learners.first_history[mine][owner] + actor,
        "task": task,
        "source": learners.source[mine][owner],
        "seed": learners.seed[mine][owner],
        "actor": actor,
        **{f"task_{name}": train[name][task] for name in train},
    }
    return write_shard(
        folder / shard_name(index, config.data.shards),
        columns | said_once,
        {"fingerprint": _shard_fingerprint(config, source_weights(config, run)), "schema_version": SCHEMA_VERSION},
    )


def _live(
    config: ExperimentConfig,
    source: Source,
    agent: Agent,
    distribution: TaskDistribution,
    tasks: Tasks,
    seeds: Seeds,
    progress: Callable[[int], object],
) -> dict[str, NDArray[Any]]:
    """Columns of the histories that learners of one source leave, one a task; a learner's actors beside each other."""
    histories = recorded_actors(source, agent)
    envs = distribution.make_vec(tasks.take(np.repeat(np.arange(len(tasks)), agent.actors)))
    lived = interact(
        agent,
        envs,
        history_steps(config, distribution),
        seeds,
        sees=source.sees,
        recorded=slice(None, None, agent.actors // histories),
        optimal_actions=config.data.optimal_actions,
        device=source_device(config),
        progress=progress,
    )
    envs.close()
    # A learner's hyper-parameters follow from the seed that `interact` gives it.
    drawn = {f"hyper_{name}": agent.drawn(name, agent_seeds(seeds)) for name in agent.swept()}
    return lived.columns() | {name: np.repeat(values, histories) for name, values in drawn.items()}


def _swept_columns(config: ExperimentConfig) -> list[str]:
    """Names of the columns that hold the learners' own hyper-parameters."""
    return sorted({f"hyper_{name}" for source in config.data.sources for name in source.build().swept()})


def _unfilled(rows: int, values: NDArray[Any]) -> NDArray[Any]:
    """Room for `rows` rows like those of `values`; numbers that no source gives are NaN."""
    if values.ndim == 1:
        return np.full(rows, np.nan)
    return np.empty((rows, *values.shape[1:]), values.dtype)


def _shard_steps(config: ExperimentConfig, distribution: TaskDistribution, learners: Learners) -> list[int]:
    """Environment steps that each shard takes to make."""
    steps = history_steps(config, distribution)
    return [int(learners.actors[part].sum()) * steps for part in learners.shards(config.data.shards)]


def environment_steps(config: ExperimentConfig, folder: RunFolder) -> int:
    """What the histories cost: the steps of every actor, and those that the sources were meta-trained with.

    Of data that is given, the steps that are recorded.
    """
    if config.data.given:
        info = load_info(folder)
        return int(info["num_histories"] * info["num_steps"])
    distribution, train, _ = split_tasks(config)
    lived = int(learners_of(config, len(train)).actors.sum()) * history_steps(config, distribution)
    return lived + sources_steps(config, folder)


def _source_weights(config: ExperimentConfig, folder: RunFolder, anew: bool) -> dict[str, dict[str, Any]]:
    """What the sources' meta-training came to; of complete data, as it says itself where the weights are gone."""
    try:
        return source_weights(config, folder)
    except UserError:
        if anew or not folder.data_info.exists():
            raise
        trained: dict[str, dict[str, Any]] = load_info(folder).get("meta_learners", {})
        return trained


def _shard_fingerprint(config: ExperimentConfig, trained: dict[str, dict[str, Any]]) -> str:
    """Of everything that a shard follows from; `trained` is what `source_weights` says."""
    if not trained:
        return data_fingerprint(config)
    return fingerprint_of(data_fingerprint(config), {key: learner["weights"] for key, learner in trained.items()})


def _recorded_checksums(folder: RunFolder, fingerprint: str, trained: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Checksums by file from `info.json`, or nothing if there is none yet. Raises UserError for another config's."""
    if not folder.data_info.exists():
        return {}
    info = load_info(folder)
    if info["fingerprint"] != fingerprint:
        raise stale(folder.data)
    for key, learner in info.get("meta_learners", {}).items():
        if key in trained and trained[key]["weights"] != learner["weights"]:
            raise UserError(f"{folder.data}: {key} has been meta-trained anew since; make the data again: --overwrite")
    return {shard["file"]: shard["sha256"] for shard in info["shards"]}


def _finished(path: Path, fingerprint: str, recorded: dict[str, str]) -> str | None:
    """The checksum of a finished shard, None if it is not there. Raises UserError if it is not ours, or damaged."""
    if not path.exists():
        return None
    checksum = sha256(path)
    if path.name in recorded:
        if checksum != recorded[path.name]:
            raise damaged(path, "its checksum differs from info.json")
    elif shard_fingerprint(path) != fingerprint:
        raise stale(path)
    return checksum


def _make_shards(
    config: ExperimentConfig,
    folder: RunFolder,
    missing: list[int],
    lengths: list[int],
    progress: Callable[[int], object],
) -> Iterator[tuple[int, str]]:
    """Makes the `missing` shards on the config's executor; gives (index, checksum) as they are finished.

    `lengths` are the environment steps that each shard takes.
    """
    workers = min(config.runtime.workers, len(missing))
    if workers == 0:  # killed between the last shard and info.json
        return
    if config.runtime.executor == "processes" and workers == 1:
        for index in missing:
            yield index, make_shard(config, folder.data, index, progress)
        return
    with _executor(config, workers) as executor:
        futures = {executor.submit(make_shard, config, folder.data.resolve(), index): index for index in missing}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                progress(lengths[futures[future]])
        except BaseException:
            for future in futures:
                future.cancel()
            raise


@contextmanager
def _executor(config: ExperimentConfig, workers: int) -> Iterator[Executor]:
    """Local processes, or the Dask cluster that `runtime.scheduler` names. Raises UserError if it cannot be had."""
    if config.runtime.executor == "processes":
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(workers, context, _start_worker, (workers,)) as processes:
                yield processes
        except BrokenProcessPool as error:
            raise UserError("a worker was killed; if for memory, take fewer --workers or more data.shards") from error
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("the dask executor needs Dask: pip install 'in-context-rl[dask]'") from error
    address = config.runtime.scheduler
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"runtime.scheduler: no Dask scheduler answers at {address}: {error}") from error
    with client, client.get_executor() as cluster:
        yield cluster


def _start_worker(workers: int) -> None:
    """Gives this worker its share of the cores, and ends it when the process that started it is gone, however it went.

    Tensor programs would else take all cores in every worker, and their threads wait for each other; with these limits
    set before torch is imported, two workers on two cores are as fast as can be. Nothing else would end an orphan.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for limit in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(limit, str(max(1, cores // workers)))
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
