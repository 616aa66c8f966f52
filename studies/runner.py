"""Does the runs of a study: in local processes, or on a Dask cluster.

Every run has a process of its own, so that one that is killed, or that fills its memory, ends alone, and that no run
can depend on what its process did before. The processes read and write run folders; nothing else passes between them.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from data_gen.generation.executors import dask_cluster
from icrl.run.folder import run_folder
from icrl.support.errors import UserError
from icrl.support.processes import started
from studies.folder import RunRecord, read_run_record, write_run_record
from studies.worker import Job, environment, one_line, process_main, run_job

_PATIENCE = 10.0  # seconds for an interrupted run to save a checkpoint; training takes up to 4


@dataclass(frozen=True)
class Executor:
    """The processes or the cluster that do a study's runs."""

    kind: Literal["processes", "dask"] = "processes"
    workers: int | None = None
    """Number of runs at once, in local processes. By default, all cores are used."""
    scheduler: str | None = None
    """Address of the Dask scheduler."""

    def width(self, threads: int) -> int:
        """Number of local processes at once, if every run has so many threads: one per accelerator if there is one."""
        if self.workers is not None:
            return self.workers
        return accelerators() or max(1, cores() // threads)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerators() -> int:
    """Number of accelerators of this machine."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def run_jobs(jobs: Sequence[Job], executor: Executor, tell: Callable[[Job, RunRecord], object]) -> None:
    """Does all jobs, in any order. A run that fails does not stop the others.

    Args:
        jobs: the runs. Those that make what others need should come early.
        executor: where they are done.
        tell: called with every job that has ended, and its record.

    Raises KeyboardInterrupt, after the runs under way have saved what they can.
    """
    if not jobs:
        return
    if executor.kind == "dask":
        with dask_cluster(str(executor.scheduler), "--scheduler") as cluster:
            futures = {cluster.submit(run_job, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    job = futures[future]
                    error = future.exception()
                    tell(job, future.result() if error is None else _lost(job, one_line(error)))
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        return
    for job, code in _processes(jobs, executor.width(jobs[0].threads)):
        record = read_run_record(run_folder(job.config))
        if record is None or record.state == "running":
            record = _lost(job, _death(code))
        tell(job, record)


def _processes(jobs: Sequence[Job], width: int) -> Iterator[tuple[Job, int]]:
    """Runs every job in a process of its own, `width` at once; yields (job, exit code) as they end."""
    context = multiprocessing.get_context("spawn")
    waiting, running = [*reversed(jobs)], dict[Any, tuple[BaseProcess, Job, int]]()
    devices = accelerators()
    try:
        while waiting or running:
            while waiting and len(running) < width:
                job = waiting.pop()
                slot = min(set(range(width)) - {slot for _, _, slot in running.values()})
                process: BaseProcess = context.Process(target=process_main, args=(job,), name=job.config.name)
                with environment(job.threads, slot % devices if devices else None), started(job):
                    process.start()
                running[process.sentinel] = process, job, slot
            for sentinel in wait([*running]):
                ended, job, _ = running.pop(sentinel)
                ended.join()
                yield job, ended.exitcode or 0
    except BaseException:
        _end([process for process, _, _ in running.values()])
        raise


def _end(processes: Sequence[BaseProcess]) -> None:
    """Asks processes to end, which lets a training save a checkpoint, and ends those that do not."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_PATIENCE)
        with contextlib.suppress(ValueError, OSError):
            process.kill()


def _lost(job: Job, problem: str) -> RunRecord:
    """The record of a run whose process ended without one."""
    record = job.record.model_copy(update={"state": "failed", "problem": problem})
    with contextlib.suppress(UserError):  # the disk may be full
        write_run_record(run_folder(job.config), record)
    return record


def _death(code: int) -> str:
    """The end of a process, in a few words."""
    if code == -9:
        return "its process was killed; if it ran out of memory, use fewer --workers"
    return f"its process ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
