"""Generation: source agents live on the training tasks, and their learning histories are written as shards.

A shard is a pure function of (config, shard index): history h has its task, its source and its seed from its number
alone, so the same config gives the same bytes on any number of workers, finished shards are skipped on a restart, and
any `concurrent.futures.Executor` can make them.
"""

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from tqdm.auto import tqdm

from configs.errors import ConfigError, UserError
from configs.files import read_record, remove_leftovers, sha256, write_file, write_json
from configs.run_folder import (
    SCHEMA_VERSION,
    RunFolder,
    data_fingerprint,
    locked,
    origin,
    run_folder,
    stale,
    write_config,
)
from configs.schema import AgentComponent, ExperimentConfig
from data_gen.card import dataset_card
from data_gen.history import damaged, shard_fingerprint, shard_name, write_shard
from data_gen.interaction import interact, spec_of
from data_gen.spaces import to_json
from data_gen.streams import make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks

_TASK_FILES = ("tasks-train.npz", "tasks-test.npz")
_INFO_KEYS = ("fingerprint", "observation_space", "action_space", "episode_length", "num_histories", "num_steps")
_SEED_PURPOSE = 1  # keeps the histories' seeds apart from every other use of config.seed


def split_tasks(config: ExperimentConfig) -> tuple[TaskDistribution, Tasks, Tasks]:
    """The task distribution with its training and its held-out tasks. Raises ConfigError if it has not so many."""
    distribution: TaskDistribution = config.tasks.build()
    return distribution, *distribution.split(config.split.train, config.split.test, config.seed)


def history_steps(config: ExperimentConfig, distribution: TaskDistribution) -> int:
    """Length of a learning history in steps."""
    return config.data.episodes * distribution.episode_length


def generate(config: ExperimentConfig, overwrite: bool = False) -> bool:
    """Makes the shards that are missing, and then `info.json`, which says that the data is complete.

    Returns whether there was anything to do.

    Raises UserError if the folder holds data of another config (unless `overwrite`), or a shard is damaged.
    """
    folder, fingerprint = run_folder(config), data_fingerprint(config)
    distribution, train, test = split_tasks(config)
    check_spaces(distribution)
    envs = distribution.make_vec(train.take([0]))
    for index, source in enumerate(config.data.sources):
        check_agent(f"data.sources.{index}", source, envs, history_steps(config, distribution))
    envs.close()
    num_histories = len(train) * config.data.histories_per_task
    if config.data.shards > num_histories:
        raise ConfigError(f"data.shards: {config.data.shards} is more than the {num_histories} histories")
    with locked(folder):
        if overwrite:
            shutil.rmtree(folder.data, ignore_errors=True)
        folder.data.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.data)
        recorded = _recorded_checksums(folder, fingerprint)
        names = [shard_name(index, config.data.shards) for index in range(config.data.shards)]
        checksums = {name: _finished(folder.data / name, fingerprint, recorded) for name in names}
        strangers = {path.name for path in folder.data.glob("train-*.h5")} - set(names)
        if strangers:
            raise stale(folder.data / min(strangers))
        missing = [index for index, name in enumerate(names) if checksums[name] is None]
        if not missing and recorded and all((folder.data / name).exists() for name in _TASK_FILES):
            return False
        write_config(config, folder)
        started = time.perf_counter()
        steps = num_histories * history_steps(config, distribution)
        with tqdm(total=steps, unit=" steps", unit_scale=True, desc="generate", dynamic_ncols=True) as bar:
            bar.update(steps * (len(names) - len(missing)) // len(names))
            for index, checksum in _make_shards(config, folder, missing, bar.update):
                checksums[names[index]] = checksum
        for name in names:
            if recorded.get(name, checksums[name]) != checksums[name]:
                raise UserError(
                    f"{folder.data / name}: made again, it differs from {folder.data_info}: use --overwrite"
                )
        for name, tasks in zip(_TASK_FILES, (train, test), strict=True):
            tasks.save(folder.data / name)
        info = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": fingerprint,
            "observation_space": to_json(distribution.observation_space),
            "action_space": to_json(distribution.action_space),
            "episode_length": distribution.episode_length,
            "num_histories": num_histories,
            "num_steps": history_steps(config, distribution),
            "seed": config.seed,
            "tasks": config.tasks.model_dump(mode="json"),
            "num_train_tasks": len(train),
            "num_test_tasks": len(test),
            "sources": [source.model_dump(mode="json") for source in config.data.sources],
            "shards": [{"file": name, "sha256": checksums[name]} for name in names],
            "seconds": time.perf_counter() - started,
            "made_with": origin(),
        }
        write_file(folder.data / "README.md", dataset_card(config.name, info))
        write_json(folder.data_info, info)
    return True


def check_spaces(distribution: TaskDistribution) -> None:
    """Raises UserError if what happens on these tasks cannot be recorded."""
    to_json(distribution.observation_space)
    if isinstance(distribution.action_space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        raise UserError(
            f"actions of {distribution.action_space} cannot be recorded: Discrete, MultiDiscrete or Box can"
        )
    to_json(distribution.action_space)


def check_agent(key: str, component: AgentComponent, envs: VectorEnv[Any, Any, Any], num_steps: int) -> None:
    """Raises ConfigError, naming its `key` of the config, if an agent cannot live in `envs`, which has one slot."""
    try:
        component.build().reset(spec_of(envs, num_steps, component.sees), 1, make_seeds(1, 0))
    except UserError as error:
        raise ConfigError(f"{key}: {error}") from error


def load_info(folder: RunFolder) -> dict[str, Any]:
    """What `info.json` says about complete data. Raises UserError if there is none."""
    if not folder.data_info.exists():
        state = "is not complete" if folder.data.is_dir() else "has not been generated"
        raise UserError(f"{folder.data}: the data {state}; run `icrl generate` with this config first")
    return read_record(folder.data_info, SCHEMA_VERSION, (*_INFO_KEYS, "tasks", "sources", "shards", "seconds"))


def checked_shards(folder: RunFolder, info: dict[str, Any]) -> Iterator[Path]:
    """The paths of the shards, each after its checksum was found right. Raises UserError at the first that is not."""
    for shard in info["shards"]:
        path = folder.data / shard["file"]
        if not path.exists():
            raise UserError(f"{path}: the shard is missing; run `icrl generate` to make it again")
        if sha256(path) != shard["sha256"]:
            raise damaged(path, f"its checksum differs from {folder.data_info.name}")
        yield path


def make_shard(
    config: ExperimentConfig, folder: Path, index: int, progress: Callable[[int], object] = lambda steps: None
) -> str:
    """Makes shard `index` in `folder` and returns its SHA-256. A pure function of (config, index)."""
    distribution, train, _ = split_tasks(config)
    steps = history_steps(config, distribution)
    count = len(train) * config.data.histories_per_task
    seeds = make_seeds(count, config.seed, _SEED_PURPOSE)
    mine = np.array_split(np.arange(count), config.data.shards)[index]
    task = mine % len(train)
    source = _source_of_replica(config)[mine // len(train)]
    columns: dict[str, NDArray[Any]] = {}
    for number, chosen in enumerate(config.data.sources):
        rows = np.flatnonzero(source == number)
        if not len(rows):
            continue
        envs = distribution.make_vec(train.take(task[rows]))
        lived = interact(chosen.build(), envs, steps, seeds[mine[rows]], sees=chosen.sees, progress=progress).columns()
        envs.close()
        for name, values in lived.items():
            if len(rows) == len(mine):
                columns[name] = values
            else:
                columns.setdefault(name, np.empty((len(mine), *values.shape[1:]), values.dtype))[rows] = values
    said_once = {
        "history": mine,
        "task": task,
        "source": source,
        "seed": seeds[mine],
        **{f"task_{name}": train[name][task] for name in train},
    }
    return write_shard(
        folder / shard_name(index, config.data.shards),
        columns | said_once,
        {"fingerprint": data_fingerprint(config), "schema_version": SCHEMA_VERSION},
    )


def _source_of_replica(config: ExperimentConfig) -> NDArray[np.int64]:
    """The source's number for each of a task's histories, (histories_per_task,): by weight, the same on every task."""
    weights = np.array([source.weight for source in config.data.sources])
    share = weights / weights.sum()
    counts, chosen = np.zeros(len(share)), []
    for replica in range(config.data.histories_per_task):
        chosen.append(int(np.argmax(share * (replica + 1) - counts)))
        counts[chosen[-1]] += 1
    return np.array(chosen)


def _recorded_checksums(folder: RunFolder, fingerprint: str) -> dict[str, str]:
    """Checksums by file from `info.json`, or nothing if there is none yet. Raises UserError for another config's."""
    if not folder.data_info.exists():
        return {}
    info = load_info(folder)
    if info["fingerprint"] != fingerprint:
        raise stale(folder.data)
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
    config: ExperimentConfig, folder: RunFolder, missing: list[int], progress: Callable[[int], object]
) -> Iterator[tuple[int, str]]:
    """Makes the `missing` shards on the config's executor; gives (index, checksum) as they are finished."""
    workers = min(config.runtime.workers, len(missing))
    if workers == 0:  # killed between the last shard and info.json
        return
    if config.runtime.executor == "processes" and workers == 1:
        for index in missing:
            yield index, make_shard(config, folder.data, index, progress)
        return
    distribution, train, _ = split_tasks(config)
    count = len(train) * config.data.histories_per_task
    sizes = [len(part) for part in np.array_split(np.arange(count), config.data.shards)]
    with _executor(config, workers) as executor:
        futures = {executor.submit(make_shard, config, folder.data.resolve(), index): index for index in missing}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                progress(sizes[futures[future]] * history_steps(config, distribution))
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
            with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent) as processes:
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


def _die_with_parent() -> None:
    """Ends this worker when the process that started it is gone, however it went; else it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
