"""Studies as they run: one process or several parts, killed or not, with things shared and runs that fail."""

import json
import os
import shutil

import pandas as pd
import pytest
from conftest import ROOT, TINY, merged, run_python
from killing import killed_at

import studies.run
from data_gen.experiment import open_run
from data_gen.storage.folder import load_info
from icrl.cli import main
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError
from icrl.support.yaml12 import write_yaml
from studies import runner
from studies.cells import runs_of
from studies.folder import StudyFolder, read_run_record
from studies.keys import is_trained, training_key
from studies.plan import Part, is_complete, jobs_of
from studies.reading import Words, checked_study, read_study
from studies.run import run_study
from studies.runner import Executor
from studies.worker import run_job

FILE = """\
base: tiny.yaml
axes: {training.learning_rate: [1e-3, 3e-3]}
seeds: {training: [3]}
overrides: {runtime.trackers: []}
"""


def write_files(folder):
    few = {"evaluation": {"baselines": ["random"], "train_tasks": 0, "test_tasks": 2}}
    (folder / "tiny.yaml").write_text(write_yaml(merged(TINY, few)))
    (folder / "lr.yaml").write_text(FILE)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a tiny config and a study, whose runs are done in this process, one after another.

    The runs' own reports are left out, since their pictures take longer than the runs.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies.run, "run_jobs", in_this_process)
    monkeypatch.setattr("eval.__main__.write_report", lambda experiment: experiment.folder.report.write_text("report"))
    monkeypatch.setattr("eval.__main__.report_exists", lambda folder: folder.report.exists())
    write_files(tmp_path)
    return tmp_path


def in_this_process(jobs, executor, tell):
    for job in jobs:
        tell(job, run_job(job))


def planned(folder, **values):
    """A study of the tiny config, and its folder."""
    asked = checked_study({"base": str(folder / "tiny.yaml"), "name": "s", **values})
    place = StudyFolder(folder / "out" / "s")
    return runs_of(asked, place.runs), place


def data_files(folder, pattern="data/*.h5"):
    return {path.name: path.stat().st_ino for path in folder.path.glob(pattern)}


def test_a_study_from_the_command_line_writes_runs_that_stand_alone_one_table_and_one_report(
    tmp_path, monkeypatch, capsys
):
    """In processes of their own, of which one makes the data."""
    write_files(tmp_path)
    done = run_python(["-m", "icrl", "study", "lr.yaml", "--workers", "2"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 cells x 1 seed = 2 runs" in done.stdout and "they need 1 data set, 2 trainings" in done.stdout
    assert done.stderr == ""
    study = StudyFolder(tmp_path / "runs/studies/lr")
    figures, runs = pd.read_parquet(study.figure_table), pd.read_parquet(study.run_table)
    assert set(runs["state"]) == {"complete"} and (runs["seconds"] > 0).all() and list(runs["seed_training"]) == [3, 3]
    assert sorted(runs["linked"] == "") == [False, True]
    assert set(figures[figures["run"].isna()]["training.learning_rate"]) == {0.001, 0.003}
    page = study.report.read_text()
    assert page.count("data:image/png;base64,") == 2 and "learning_rate 0.003" in page
    monkeypatch.chdir(tmp_path)
    assert main(["info", str(study.path / runs["folder"][0])]) == 0
    assert "6 of 6 updates" in capsys.readouterr().out
    before = study.figure_table.stat().st_mtime_ns
    study.path.rename(tmp_path / "moved")
    assert main(["study", "moved"]) == 0  # by its own folder
    assert "2 complete" in capsys.readouterr().out
    assert (tmp_path / "moved/figures.parquet").stat().st_mtime_ns == before


def test_two_parts_write_the_same_figures_as_one_call_and_the_last_one_writes_them(here):
    study, folder = planned(here, seeds={"training": 2})
    run_study(study, Part(), folder, Executor())
    whole = folder.figure_table.read_bytes()
    study, folder = planned(here, seeds={"training": 2}, name="parts")
    folder = StudyFolder(here / "out" / "parts")
    study = runs_of(study.asked, folder.runs)
    run_study(study, Part(1, 2), folder, Executor())
    assert not folder.figure_table.exists()
    run_study(study, Part(2, 2), folder, Executor())
    assert folder.figure_table.read_bytes() == whole


_KILLED = """
import sys
import studies.run
from studies.worker import run_job

studies.run.run_jobs = lambda jobs, executor, tell: [tell(job, run_job(job)) for job in jobs]
from data_gen.storage.folder import load_info
from icrl.cli import main
sys.exit(main(["study", "lr.yaml"]))
"""


def test_a_study_that_is_killed_at_any_moment_ends_with_the_same_figures(here):
    study = runs_of(read_study("lr.yaml", Words()), here / "out/lr/runs")
    run_study(study, Part(), StudyFolder(here / "out/lr"), Executor())
    expected = (here / "out/lr/figures.parquet").read_bytes()
    place = StudyFolder(here / "runs/studies/lr")
    for number in (45, 100):  # in the data of the first run; in a later run
        done = killed_at(number, ["-c", _KILLED], here, [ROOT])
        assert done.returncode == -9, done.stderr
        assert not place.figure_table.exists()
    done = run_python(["-c", _KILLED], here)
    assert done.returncode == 0, done.stderr
    assert place.figure_table.read_bytes() == expected


def test_data_and_caches_are_made_once_and_survive_the_deletion_of_the_run_that_made_them(here):
    study, folder = planned(here, axes={"training.steps": [6, 7]})
    run_study(study, Part(), folder, Executor())
    first, second = [folder.run(run.name) for run in study.runs]
    for pattern in ("data/*.h5", "cache/*/*.npy"):
        assert data_files(first, pattern) and data_files(first, pattern) == data_files(second, pattern)
    shutil.rmtree(first.path)
    assert open_run(second.path).config.data.shards == 3
    shutil.rmtree(second.eval)
    figures = folder.figure_table.read_bytes()
    run_study(study, Part(), folder, Executor())
    assert folder.figure_table.read_bytes() == figures
    assert data_files(first) == data_files(second)


def test_runs_that_differ_in_their_evaluation_share_the_trained_model(here):
    study, folder = planned(here, seeds={"evaluation": 2})
    run_study(study, Part(), folder, Executor())
    names = [run.name for run in study.runs]
    weights = [data_files(folder.run(name), "checkpoints/*/model/model.safetensors") for name in names]
    assert weights[0] and all(each == weights[0] for each in weights)
    records = [read_run_record(folder.run(name)) for name in names]
    assert records[0].linked == [] and all("training" in record.linked for record in records[1:])
    assert folder.run(names[1]).training_log.read_bytes() == folder.run(names[0]).training_log.read_bytes()
    # Two evaluations of the same weights are more lifetimes, and no second training.
    figures = pd.read_parquet(folder.figure_table)
    pooled = figures[figures["run"].isna() & (figures["agent"] == "transformer")]
    assert set(pooled["seeds"]) == {1}


def test_a_training_is_shared_where_the_best_checkpoint_is_the_same_one(here):
    """Validation is no part of a training's fingerprint, but it decides which checkpoint is the best."""
    study, folder = planned(here, axes={"evaluation.checkpoint": ["last", "best"]}, overrides={"validation.every": 2})
    run_study(study, Part(), folder, Executor())
    last, best = study.runs
    assert read_run_record(folder.run(best.name)).linked == ["data", "training"]
    checkpoints, data = folder.run(last.name).checkpoints, load_info(folder.run(last.name)).identity
    assert is_trained(checkpoints, best.config, data)
    other = planned(here, axes={"evaluation.checkpoint": ["last", "best"]}, overrides={"validation.seeds": 2})[0]
    assert [is_trained(checkpoints, run.config, data) for run in other.runs] == [True, False]
    assert training_key(other.runs[1].config) != training_key(best.config)
    assert not is_trained(checkpoints, last.config, "other data")


def test_meta_learners_are_trained_once(here):
    rl2 = {"name": "rl2", "iterations": 1, "trials": 4, "minibatches": 2, "trial_episodes": 2, "units": 8}
    baselines = [rl2 | {"first_trial_episodes": 2}]
    study, folder = planned(here, overrides={"evaluation.baselines": baselines}, seeds={"training": 2})
    run_study(study, Part(), folder, Executor())
    one, two = (data_files(folder.run(run.name), "meta/*/*/weights.safetensors") for run in study.runs)
    assert one and one == two


def test_a_damaged_copy_is_not_linked(here):
    study, folder = planned(here, seeds={"training": 2})
    run_job_of(study, folder, 0)
    shard = next(folder.run(study.runs[0].name).data.glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    run_job_of(study, folder, 1)
    assert "data" not in read_run_record(folder.run(study.runs[1].name)).linked
    assert data_files(folder.run(study.runs[0].name)) != data_files(folder.run(study.runs[1].name))


def run_job_of(study, folder, number):
    return run_job(jobs_of(study, [study.runs[number]], folder)[0])


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(here):
    study, folder = planned(here, seeds={"training": 2})
    place = folder.run(study.runs[1].name)
    place.path.mkdir(parents=True)
    (place.path / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match="1 of 2 runs failed; run the same command again"):
        run_study(study, Part(), folder, Executor())
    table = pd.read_parquet(folder.run_table)
    assert list(table["state"]) == ["complete", "failed"]
    assert "checkpoints is not a folder" in table["problem"][1]
    assert "1 of 2 runs are missing" in folder.report.read_text()
    (place.path / "checkpoints").unlink()
    run_study(study, Part(), folder, Executor())
    assert set(pd.read_parquet(folder.run_table)["state"]) == {"complete"}
    assert "are missing" not in folder.report.read_text()


def test_a_run_of_another_config_is_refused_before_anything_runs_and_overwrite_replaces_it(here, capsys):
    """The records of a study are sealed, too."""
    words = ["study", "--base", "tiny.yaml", "--seeds", "training=1", "--name", "s", "--output", "out"]
    assert main(words) == 0
    study, folder = planned(here, seeds={"training": 1})
    assert is_complete(study.runs[0], folder)
    capsys.readouterr()
    assert main([*words, "--model.hidden_size", "8"]) == 1
    error = capsys.readouterr().err
    assert "belongs to another config" in error and len(error.splitlines()) == 1
    assert is_complete(study.runs[0], folder)
    folder.study.write_text(folder.study.read_text().replace("training: 1", "training: 2"))
    with pytest.raises(UserError, match="differs from its checksum"):
        read_study(str(folder.path), Words())
    record = folder.run(study.runs[0].name).path / "study.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"cell": "other"}))
    with pytest.raises(UserError, match="differs from its checksum"):
        read_run_record(RunFolder(record.parent))
    assert main([*words, "--model.hidden_size", "8", "--overwrite"]) == 0
    (run,) = runs_of(read_study(str(folder.path), Words()), folder.runs).runs
    assert run.config.model.hidden_size == 8 and is_complete(run, folder)


def test_a_process_that_dies_is_a_failed_run(here, monkeypatch):
    """Memory that runs out ends in SIGKILL, and leaves no record."""
    study, folder = planned(here, seeds={"training": 1})
    monkeypatch.setattr(runner, "process_main", die)
    monkeypatch.setattr(studies.run, "run_jobs", runner.run_jobs)
    with pytest.raises(UserError, match="1 of 1 run failed"):
        run_study(study, Part(), folder, Executor(workers=1))
    record = read_run_record(folder.run(study.runs[0].name))
    assert record.state == "failed" and "use fewer --workers" in record.problem


def die(job):
    os.kill(os.getpid(), 9)


def test_what_needs_dask_is_done_on_the_cluster(here):
    distributed = pytest.importorskip("distributed")
    study, folder = planned(here, seeds={"training": 2})
    ended = []
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        executor = Executor("dask", scheduler=cluster.scheduler_address)
        runner.run_jobs(jobs_of(study, study.runs, folder), executor, lambda job, record: ended.append(record.state))
    assert ended == ["complete", "complete"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--part", "3/2"], "--part 3/2: there are the parts 1/2 to 2/2"),
        (["--part", "1/2", "--overwrite"], "--overwrite: "),
        (["--executor", "dask"], "--executor dask: needs the address"),
        (["--scheduler", "tcp://a:1"], "--scheduler: is the address of a Dask cluster"),
        (["--axis", "training.learning_rate=1"], "is given twice"),
        (["--show", "nothing"], "show: unknown figure 'nothing'"),
        (["--training.steps", "0"], "training.steps: "),
    ],
)
def test_a_bad_call_is_refused_with_exit_code_2_before_anything_runs(tmp_path, capsys, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    assert main(["study", "lr.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error and len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_the_dry_run_tells_numbers_and_costs_and_writes_nothing(here, capsys):
    assert main(["study", "lr.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "2 cells, 2 runs" in told and "1 data set, 2 trainings, 2 evaluations" in told
    assert "estimate" in told and "in all about" in told and "not measured" not in told
    assert not (here / "runs").exists()
