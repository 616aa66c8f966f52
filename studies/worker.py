"""One run of a study, from its config to its report, in a process of its own or on a worker of a cluster."""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icrl.config.schema import ExperimentConfig
from icrl.run.command import Invocation
from icrl.run.fingerprints import evaluation_fingerprint
from icrl.run.folder import run_folder
from icrl.support.errors import UserError
from icrl.support.interruption import exit_code, signals_raise
from icrl.support.processes import end_with_parent
from studies.folder import OUTPUT, RunRecord, StudyFolder, read_run_record, turn, write_run_record

_one_at_a_time = threading.Lock()
"""A worker of a cluster may have several threads, but random numbers of torch are those of the whole process."""

FAILED = 1
"""Exit code of a process whose run failed; its record says why."""


@dataclass(frozen=True)
class Job:
    """The part of a run that a worker needs."""

    config: ExperimentConfig
    study: Path
    record: RunRecord
    """The run's record as it begins."""
    threads: int


def run_job(job: Job) -> RunRecord:
    """Runs all stages of a run, links what other runs have made, and returns the run's record.

    A problem of the run does not raise: the record has it. Raises KeyboardInterrupt.
    """
    with _one_at_a_time:
        return _run_job(job)


def _run_job(job: Job) -> RunRecord:
    import torch

    from eval.stages import run_stages
    from studies.sharing import Sharing

    torch.set_num_threads(job.threads)
    forget_accelerator()
    study, folder = StudyFolder(job.study), run_folder(job.config)
    with turn(study, f"run-{job.config.name}"):  # another part, or another call of this one, may be at work on it
        before = read_run_record(folder)
        same = before is not None and before.fingerprint == job.record.fingerprint
        if before is not None and same and before.state == "complete" and folder.summary.exists():
            return before
        seconds, linked = (before.seconds, before.linked) if before is not None and same else (0.0, [])
        write_run_record(folder, job.record.model_copy(update={"seconds": seconds, "linked": linked}))
        sharing, started, problem = Sharing(study), time.perf_counter(), ""
        try:
            run_stages(Invocation(job.config, job.config.name), sharing.around)
        except (UserError, MemoryError, OSError) as error:
            problem = one_line(error)
        except Exception as error:  # a bug of this project, or of a component of the user's: other runs go on
            traceback.print_exc()
            problem = f"{type(error).__name__}: {one_line(error)} (its traceback is in {folder.path / OUTPUT})"
        record = job.record.model_copy(
            update={
                "state": "failed" if problem else "complete",
                "seconds": seconds + time.perf_counter() - started,
                "problem": problem,
                "linked": sorted({*linked, *sharing.linked}),
                "fingerprint": evaluation_fingerprint(job.config),
            }
        )
        write_run_record(folder, record)
    if problem:
        print(f"error: {problem}", file=sys.stderr)
    return record


def forget_accelerator() -> None:
    """Lets the next accelerator of this process have other settings, such as another precision."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def one_line(error: BaseException) -> str:
    """The first line of an error's message; its kind if it has none."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__


def process_main(job: Job, run: Callable[[Job], Any] = run_job) -> None:
    """The main function of a process for one run, which ends with its parent. Its output goes to a file of the run."""
    end_with_parent()
    sys.path.append(str(Path.cwd()))  # for the user's own components, named as module:Class
    output = run_folder(job.config).path / OUTPUT
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "ab", buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    with signals_raise():
        try:
            record = run(job)
        except KeyboardInterrupt as error:
            sys.exit(exit_code(error))
    sys.exit(FAILED if record.state == "failed" else 0)


@contextlib.contextmanager
def environment(threads: int, device: int | None = None) -> Iterator[None]:
    """Within the block, new processes get so many threads, and the accelerator of this number, if there is one.

    Libraries read these variables when they are imported.
    """
    values = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    values |= {"TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    if device is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        values["CUDA_VISIBLE_DEVICES"] = visible[device % len(visible)].strip() or str(device)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
