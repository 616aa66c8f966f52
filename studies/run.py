"""Runs a study: all of its runs that are not complete, and then its tables and its report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.run.records import Record, read_record, write_record
from icrl.support.errors import UserError
from icrl.support.files import check_files, sha256
from icrl.support.terminal import say
from studies.cells import Run, Study
from studies.folder import RunRecord, StudyFolder, turn, write_study
from studies.plan import Part, counted, is_complete, jobs_of, shared
from studies.report import describe, write_report
from studies.runner import Executor, run_jobs
from studies.table import cell_pools, figure_rows, run_rows, write_table
from studies.worker import Job


class TablesRecord(Record):
    """`tables.json`, written last: what the tables are of, and their checksums."""

    inputs: str
    """Fingerprint of the study and of the evaluations in its tables."""
    files: dict[str, str]


def run_study(study: Study, part: Part, folder: StudyFolder, executor: Executor) -> None:
    """Does the runs of a part that are not complete; writes the tables if all runs of the study are, or may be.

    Raises UserError at the end if a run failed.
    """
    write_study(folder, study.asked)
    mine = part.runs(study.runs)
    jobs = jobs_of(study, mine, folder)
    if executor.kind == "dask":  # its workers may have another working folder
        jobs = [replace(job, config=_absolute(job.config)) for job in jobs]
    say(f"study: {_sizes(study, mine, jobs, part)}: {folder.path}")
    _tell_strangers(study, folder)
    failed: list[str] = []
    done = len(mine) - len(jobs)

    def tell(job: Job, record: RunRecord) -> None:
        nonlocal done
        if record.state == "complete":
            done += 1
            linked = f", linked: {', '.join(record.linked)}" if record.linked else ""
            say(f"  {done} of {len(mine)}  {job.config.name}: {record.seconds:.0f} s{linked}")
        else:
            failed.append(job.config.name)
            say(f"  failed  {job.config.name}: {record.problem}")

    if jobs and executor.kind == "processes":
        width = min(executor.width(study.spec.threads), len(jobs))
        say(f"  {width} at once, each in a process of {counted(study.spec.threads, 'thread')}")
    run_jobs(jobs, executor, tell)
    complete = [run for run in study.runs if is_complete(run, folder)]
    if len(complete) == len(study.runs) or (part.whole and complete):
        write_tables(study, folder, complete)
    elif not part.whole:
        left = len(study.runs) - len(complete)
        say(f"study: {counted(left, 'run')} of other parts left; the call that ends last writes the tables")
    if failed:
        raise UserError(
            f"{len(failed)} of {counted(len(mine), 'run')} failed; run the same command again to try them again"
        )


def _absolute(config: ExperimentConfig) -> ExperimentConfig:
    """The config with its run folder's whole path."""
    return config.model_copy(update={"output": str(Path(config.output).resolve())})


def write_tables(study: Study, folder: StudyFolder, complete: Sequence[Run]) -> None:
    """Writes the tables and the report of the runs that are complete, unless they are there already."""
    with turn(folder, "tables"):
        pools = cell_pools(study, folder, complete)
        evaluations = [
            [run.name, member.summary.fingerprint, member.summary.weights, member.summary.files]
            for runs, pool in pools.values()
            for run, member in zip(runs, pool.members, strict=True)
        ]
        inputs = fingerprint(study.spec.show, [row.model_dump() for row in study.spec.published], evaluations)
        if not _is_written(folder, inputs):
            write_table(folder.figure_table, figure_rows(study, pools))
            write_report(study, folder, pools, pd.read_parquet(folder.figure_table))
        write_table(folder.run_table, run_rows(study, folder))
        files = [folder.run_table, folder.figure_table, folder.report]
        record = TablesRecord(inputs=inputs, files={path.name: sha256(path) for path in files})
        write_record(folder.tables_record, record)
        figures = pd.read_parquet(folder.figure_table)
    say(describe(study, pools, figures))
    say(f"figures: {folder.figure_table}")
    say(f"report: {folder.report}")


def _is_written(folder: StudyFolder, inputs: str) -> bool:
    """True if the tables of these evaluations are written, and undamaged."""
    try:
        record = read_record(folder.tables_record, TablesRecord)
        lasting = {name: each for name, each in record.files.items() if name != folder.run_table.name}
        check_files(folder.path, lasting, "")
    except UserError:
        return False
    return record.inputs == inputs


def _sizes(study: Study, mine: Sequence[Run], jobs: Sequence[Job], part: Part) -> str:
    """The number of runs, and what they need, in a few words."""
    of_part = "" if part.whole else f", of which part {part.index}/{part.count} has {len(mine)}"
    seeds = len(study.runs) // len(study.cells)
    sizes = f"{counted(len(study.cells), 'cell')} x {counted(seeds, 'seed')} = {counted(len(study.runs), 'run')}"
    return f"{sizes}{of_part}, {len(mine) - len(jobs)} complete; they need {shared(mine)}"


def _tell_strangers(study: Study, folder: StudyFolder) -> None:
    """Tells the user of run folders that are not of this study any more; they are kept, and in no table."""
    names = {run.name for run in study.runs}
    others = [path.name for path in sorted(folder.runs.glob("*/")) if path.name not in names]
    if others:
        say(f"note: {counted(len(others), 'run folder')} of an earlier version of this study, such as {others[0]}")
