"""The executors that make shards: this process, local processes, or a Dask cluster.

Any `concurrent.futures.Executor` can do the work, since a shard is a pure function of (config, shard index).
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, InvalidStateError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from data_gen.experiment import Experiment
from data_gen.generation.shard import make_shard
from icrl.config.runtime import RuntimeConfig
from icrl.support.errors import UserError
from icrl.support.processes import can_start, end_with_parent, started
from icrl.support.threads import quiet_threads


def make_shards(
    experiment: Experiment, missing: list[int], lengths: list[int], progress: Callable[[int], object]
) -> Generator[tuple[int, str]]:
    """Makes the `missing` shards on the config's executor.

    Args:
        experiment: the experiment.
        missing: indices of the shards to make.
        lengths: (shards,) environment steps that each shard takes.
        progress: called with the number of environment steps since its last call.

    Yields (index, checksum) as shards are finished. Raises UserError if a worker dies or the cluster cannot be reached.
    """
    runtime, folder = experiment.config.runtime, experiment.folder
    workers = min(runtime.workers, len(missing))
    if workers == 0:  # an earlier run was killed between the last shard and info.json
        return
    if runtime.executor == "processes" and (workers == 1 or not can_start(experiment.config)):
        for index in missing:
            yield index, make_shard(experiment, folder.data, index, progress)
        return
    with _executor(runtime, workers) as executor:
        data, config = folder.data.resolve(), experiment.config
        with started(config):  # submitting starts the workers
            futures = {executor.submit(make_shard, config, data, index): index for index in missing}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                progress(lengths[futures[future]])
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def check_scheduler(runtime: RuntimeConfig) -> None:
    """Raises UserError if the Dask cluster that the config names cannot be reached."""
    if runtime.executor == "dask":
        with _executor(runtime, 1):
            pass


@contextmanager
def _executor(runtime: RuntimeConfig, workers: int) -> Iterator[Executor]:
    """Local processes, or the Dask cluster that `runtime.scheduler` names. Raises UserError if it cannot be reached."""
    if runtime.executor == "processes":
        context = multiprocessing.get_context("spawn")
        try:
            # The pool's own thread gives every pending future an error, and one that is cancelled meanwhile refuses it.
            quiet = quiet_threads(lambda args: isinstance(args.exc_value, InvalidStateError))
            with quiet, ProcessPoolExecutor(workers, context, _start_worker, (workers,)) as processes:
                others = multiprocessing.active_children()
                try:
                    yield processes
                except BaseException:  # an error of one worker, or an interruption: the others' shards are not awaited
                    for worker in set(multiprocessing.active_children()) - set(others):
                        worker.kill()
                    raise
        except BrokenProcessPool as error:
            raise UserError(
                "a worker was killed; if it ran out of memory, use fewer --workers or more data.shards"
            ) from error
        return
    with dask_cluster(str(runtime.scheduler), "runtime.scheduler") as cluster:
        yield cluster


@contextmanager
def dask_cluster(address: str, key: str) -> Iterator[Executor]:
    """The Dask cluster whose scheduler has this address. Raises UserError, naming `key`, if it cannot be reached."""
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("the dask executor needs Dask: pip install 'in-context-rl[dask]'") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"{key}: no Dask scheduler answers at {address}: {error}") from error
    with client, client.get_executor() as cluster:
        yield cluster


def _start_worker(workers: int) -> None:
    """Gives this worker its share of the cores, and ends it when its parent process has ended.

    Without limits, every worker's tensor programs use all cores, and their threads wait for each other. The limits must
    be set before torch is imported. With them, two workers on two cores run at full speed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for limit in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(limit, str(max(1, cores // workers)))
    end_with_parent()
