"""Trackers: the records of TensorBoard, Weights & Biases and trackio after a kill, a resume and an evaluation."""

import importlib.util
import io
import json
import sqlite3
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import yaml
from accelerate.state import AcceleratorState
from conftest import TINY, merged
from PIL import Image

from ad_model.train import train
from ad_model.training_log import TrainingLog
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.meta.store import learner_folder
from data_gen.meta.training import meta_train
from eval.__main__ import main as evaluate_and_report
from eval.before import check_run
from eval.summary import load_summary
from icrl.config.loader import validate
from icrl.run import trackers
from icrl.run.checkpoints import last_checkpoint
from icrl.run.command import Invocation
from icrl.run.folder import run_folder
from icrl.run.trackers import PROJECT, Report, TrackedRun, Tracker, attach_report
from icrl.support.errors import UserError

NAMES = [name for name in ("tensorboard", "wandb", "trackio") if importlib.util.find_spec(name)]
FINAL_EPISODES = "evaluation/test/transformer/return/final_episodes"


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def tracker_folder(tmp_path_factory):
    """A folder for all files of the trackers. Nothing is sent over the network."""
    tracker_folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_API_KEY", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            patch.delenv(variable, raising=False)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_CONFIG_DIR", str(tracker_folder / "wandb"))
        patch.setenv("TRACKIO_DIR", str(tracker_folder / "trackio"))  # trackio reads it at its first import
        yield tracker_folder
        if "wandb" in NAMES:
            import wandb

            wandb.teardown()  # ends wandb's process


@pytest.fixture(scope="module")
def tracked(tracker_folder):
    """A run with every tracker: killed after three of six updates, resumed from the second, evaluated."""
    config = validate(merged(TINY, {"output": str(tracker_folder / "runs"), "runtime": {"trackers": NAMES}}))
    generate(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLog, "add", failing_after(3))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    evaluate_and_report(Invocation(config, "tiny.yaml"))
    return config


def failing_after(calls):
    real, made = TrainingLog.add, []

    def add(self, loss):
        made.append(1)
        if len(made) > calls:
            raise KeyboardInterrupt
        real(self, loss)

    return add


def run_id(config, logs: Path) -> str:
    return TrackedRun(config, "", "", logs).id


def events(logs: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(logs), size_guidance={"images": 0, "tensors": 0}).Reload()


def text(log, name: str) -> str:
    return log.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_tensorboard_has_curves_config_and_evaluation_in_one_folder(tracked):
    folder = run_folder(tracked)
    log = events(folder.logs)
    assert [event.step for event in log.Scalars("loss")] == [1, 2, 3, 4, 5, 6]  # the killed run's third update is gone
    assert folder.config.read_text() in text(log, "config")
    assert "_hparams_/session_start_info" in log.PluginTagToContent("hparams")
    figures = load_summary(folder).agents["transformer"]["test"].returns
    (last,) = log.Scalars(FINAL_EPISODES)
    assert last.value == pytest.approx(figures["final_episodes"].iqm)
    assert last.step == 6
    assert "-> transformer" in text(log, "evaluation")
    assert folder.summary.read_text() in text(log, "summary.json")
    for path in folder.report_pictures.glob("*.png"):
        (shown,) = log.Images(f"report/{path.stem}")
        pixels = (
            np.asarray(Image.open(file).convert("RGB")) for file in (path, io.BytesIO(shown.encoded_image_string))
        )
        np.testing.assert_array_equal(*pixels)


def wandb_records(folder: Path) -> list:
    """The records of an offline run of Weights & Biases: LevelDB's log format after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, at, parts, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:  # a header does not cross a block's end
            at += room
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(parts))
            parts = b""
    return records


def values(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_runs(logs: Path) -> list[tuple[Path, list]]:
    folders = sorted((logs / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_ctime_ns)
    return [(path, wandb_records(path)) for path in folders]


def test_weights_and_biases_offline_has_one_run_with_config_curves_and_report(tracked):
    pytest.importorskip("wandb")
    folder = run_folder(tracked)
    logs = folder.logs
    runs = wandb_runs(logs)
    assert len(runs) == 3  # killed, resumed, evaluated
    for path, records in runs:
        (run,) = [record.run for record in records if record.HasField("run")]
        assert (run.run_id, run.project) == (run_id(tracked, logs), PROJECT)
        assert (run.display_name, run.run_group, run.job_type) == ("tiny", "tiny", "train")
        config = values(item for record in records for item in record.config.update)
        assert config["training"]["steps"] == 6
        assert (path / "files/tiny/config.yaml").read_text() == folder.config.read_text()
        assert not (path / "files/tiny/config.yaml").is_symlink()
    history = [[values(record.history.item) for record in records if record.HasField("history")] for _, records in runs]
    assert [[line["_step"] for line in lines] for lines in history] == [[1, 2, 3], [3, 4, 5, 6], [7]]
    assert all(line["loss"] > 0 for lines in history[:2] for line in lines)
    exits = [record.exit.exit_code for _, records in runs for record in records if record.HasField("exit")]
    assert exits == [1, 0, 0]  # interrupted, finished, finished
    path, records = runs[-1]
    summary = values(item for record in records for item in record.summary.update)
    assert summary[FINAL_EPISODES] == load_summary(folder).agents["transformer"]["test"].returns["final_episodes"].iqm
    sent = {file.path for record in records for file in record.files.files}
    assert {"tiny/config.yaml", "tiny/report.html", "tiny/eval/summary.json", "tiny/report/curves.png"} <= sent
    for file in (folder.report, folder.summary, *folder.report_pictures.glob("*.png")):
        assert (path / "files" / file.relative_to(folder.path.parent)).read_bytes() == file.read_bytes()
    (page,) = (path / "files/media/html").glob("*.html")
    assert page.read_bytes() == folder.report.read_bytes()


def test_trackio_has_one_run_with_config_curves_and_report(tracked, tracker_folder):
    trackio = pytest.importorskip("trackio")
    folder = run_folder(tracked)
    name = f"tiny-{run_id(tracked, folder.logs)}"
    runs = {run.name: run for run in trackio.Api().runs(PROJECT)}
    config = runs[name].config
    assert (config["training.steps"], config["data.sources.0.name"], config["_Group"]) == (6, "q_learning", "tiny")
    with sqlite3.connect(tracker_folder / "trackio" / f"{PROJECT}.db") as database:
        query = "select step, metrics from metrics where run_id = ? order by id"
        lines = [(step, json.loads(line)) for step, line in database.execute(query, [runs[name].id])]
    assert [step for step, line in lines if "loss" in line] == [1, 2, 3, 3, 4, 5, 6]
    (evaluation,) = [line for step, line in lines if step == 6 and "report" in line]
    figures = load_summary(folder).agents["transformer"]["test"].returns
    assert evaluation[FINAL_EPISODES] == pytest.approx(figures["final_episodes"].iqm)
    page = tracker_folder / "trackio/media" / evaluation["report"]["file_path"]
    assert page.read_bytes() == folder.report.read_bytes()
    assert (tracker_folder / "trackio/media" / evaluation["report/curves"]["file_path"]).exists()
    trackio.init(project=PROJECT, name="reader", embed=False)
    kept = Path(trackio.use_artifact(f"{name}-evaluation").download(str(tracker_folder / "evaluation")))
    configs = Path(trackio.use_artifact(f"{name}-config").download(str(tracker_folder / "config")))
    trackio.finish()
    assert (kept / "report.html").read_bytes() == folder.report.read_bytes()
    assert (kept / "summary.json").read_bytes() == folder.summary.read_bytes()
    assert (kept / "curves.png").exists()
    assert yaml.safe_load((configs / "config.yaml").read_text()) == tracked.model_dump(mode="json")


def test_an_evaluation_is_attached_once(tracked):
    logs = run_folder(tracked).logs
    before = sorted(logs.rglob("*"))
    evaluate_and_report(Invocation(tracked, "tiny.yaml"))  # skipped: complete
    assert sorted(logs.rglob("*")) == before


def test_a_tracker_that_failed_gets_the_evaluation_at_the_next_attempt(tiny, monkeypatch):
    config = tiny(runtime={"trackers": ["tensorboard", "wandb"]})
    summary = run_folder(config).summary
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    begun, broken = [], ["wandb"]

    def kind(name):
        class Recorder(Tracker):
            def __init__(self, run, step):
                if name in broken:
                    raise ConnectionError("no\nnetwork")
                begun.append((name, run.name, run.id, step))

            def log(self, figures, step): ...

            def report(self, report, step): ...

            def close(self): ...

        return Recorder

    for name in config.runtime.trackers:
        monkeypatch.setitem(trackers.TRACKERS, name, kind(name))
    report = Report({}, "", summary, summary, [])
    with pytest.raises(UserError, match=r"runtime\.trackers: 'wandb' cannot start: ConnectionError: no network"):
        attach_report(config, report)
    broken.clear()
    attach_report(config, report)
    attach_report(config, report)
    identity = run_id(config, run_folder(config).logs)
    assert begun == [(name, "tiny", identity, 6) for name in ("tensorboard", "wandb")]
    summary.write_text('{"another": 1}')
    attach_report(config, report)
    assert len(begun) == 4


def test_a_tracker_that_fails_midway_stops_neither_the_training_nor_other_trackers(tiny, monkeypatch, capsys):
    config = tiny(runtime={"trackers": ["tensorboard", "wandb"]})
    points, closed = [], []

    def kind(name):
        class Failing(Tracker):
            def __init__(self, run, step): ...

            def log(self, figures, step):
                if name == "tensorboard" and step > 2:
                    raise ConnectionResetError("Connection lost")
                points.append((name, step))

            def report(self, report, step):
                if name == "tensorboard":
                    raise ConnectionResetError("Connection lost")
                points.append((name, "report"))

            def close(self):
                closed.append(name)
                raise OSError("gone")

        return Failing

    for name in config.runtime.trackers:
        monkeypatch.setitem(trackers.TRACKERS, name, kind(name))
    generate(config)
    assert train(config)
    assert last_checkpoint(run_folder(config).checkpoints).name == "step-000006"
    assert [step for name, step in points if name == "wandb"] == [1, 2, 3, 4, 5, 6]
    assert [step for name, step in points if name == "tensorboard"] == [1, 2]
    assert closed == ["wandb"]
    errors = capsys.readouterr().err
    assert "warning: runtime.trackers: 'tensorboard' failed and is dropped: ConnectionResetError" in errors
    summary = run_folder(config).summary
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    with pytest.raises(UserError, match="'tensorboard' did not receive the report"):
        attach_report(config, Report({}, "", summary, summary, []))


def test_meta_training_has_its_own_run_which_continues_until_it_is_overwritten(tiny, tracker_folder):
    rl2 = {"name": "rl2", "iterations": 3, "units": 8, "trials": 4, "minibatches": 2}
    changes = {"data": {"sources": [rl2]}, "runtime": {"trackers": NAMES, "meta_checkpoint_every": 1}}
    config = tiny(**changes, output=str(tracker_folder / "runs"), name="meta")
    meta_train(config, until=1)
    meta_train(config)
    folder = learner_folder(config, run_folder(config), config.data.sources[0])
    first = run_id(config, folder / "logs")
    log = events(folder / "logs")
    assert [event.step for event in log.Scalars("environment_steps")] == [1, 2, 3]
    assert "name: rl2" in text(log, "config")
    if "wandb" in NAMES:
        for _, records in wandb_runs(folder / "logs"):
            (run,) = [record.run for record in records if record.HasField("run")]
            assert (run.run_id, run.display_name, run.run_group) == (first, f"meta-{folder.name}", "meta")
            assert run.job_type == "meta-train"
    if "trackio" in NAMES:
        import trackio

        assert f"meta-{folder.name}-{first}" in {run.name for run in trackio.Api().runs(PROJECT)}
    meta_train(config, overwrite=True)
    assert run_id(config, folder / "logs") != first


def test_overwriting_a_training_starts_another_run(tiny):
    config = tiny(runtime={"trackers": ["tensorboard"]}, training={"steps": 2})
    generate(config)
    train(config)
    logs = run_folder(config).logs
    first = run_id(config, logs)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config, overwrite=True)
    assert run_id(config, logs) != first
    assert [event.step for event in events(logs).Scalars("loss")] == [1, 2]


def test_no_log_folder_is_made_without_a_tracker(tiny):
    config = tiny(training={"steps": 2})
    generate(config)
    train(config)
    evaluate_and_report(Invocation(config, "tiny.yaml"))
    assert not run_folder(config).logs.exists()


def test_weights_and_biases_without_a_login_is_reported_in_one_line(tiny, tracker_folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # wandb reads its settings only once
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    config = tiny(runtime={"trackers": ["wandb"]}, training={"steps": 2})
    generate(config)
    with pytest.raises(UserError, match=r"^runtime\.trackers: 'wandb' cannot start: .*API key.*$"):
        train(config)
    wandb.teardown()


def test_weights_and_biases_without_a_login_is_refused_before_the_first_stage(tiny, tracker_folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    experiment = Experiment(tiny(runtime={"trackers": ["wandb"]}))
    check_run(experiment)  # offline, no login is needed
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tracker_folder / "no-netrc"))
    with pytest.raises(UserError, match=r"^runtime\.trackers: 'wandb' cannot start: .*API key.*$"):
        check_run(experiment)
    wandb.teardown()


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("tensorbord", "'tensorbord' is not a tracker; did you mean 'tensorboard'"),
        ("wandb", "'wandb' is not installed"),
    ],
)
def test_an_unknown_or_missing_tracker_is_refused_before_any_work(tiny, tracker, message, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("icrl.run.trackers.metadata.version", absent)
    config = tiny(runtime={"trackers": [tracker]}, data={"sources": [{"name": "rl2"}]})
    for stage in (train, meta_train, lambda config: evaluate_and_report(Invocation(config, "tiny.yaml"))):
        with pytest.raises(UserError, match=message):
            stage(config)
    assert not run_folder(config).path.exists()
