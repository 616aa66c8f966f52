"""Logs, unfinished shards, reports and records have checksums, and a writing thread that fails prints no traceback."""

import contextlib
import json

import pytest

from data_gen.generation import generate as stage
from eval.report import ReportRecord, report_exists
from icrl.cli import main
from icrl.run.folder import CHECKSUMS, RunFolder, config_text, keep_config, locked, run_folder, write_config
from icrl.run.records import Record, read_record, write_record
from icrl.run.trackers import TensorBoard, TrackedRun
from icrl.support.errors import UserError
from icrl.support.files import log_line, read_json_lines, sha256


def flips(content: bytes, places):
    for at in places:
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            yield bytes(changed)


class Figures(Record):
    value: int


def test_a_flip_in_the_name_of_a_records_checksum_is_noticed(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, Figures(value=1))
    content = path.read_bytes()
    first = content.index(b"checksum")
    for changed in flips(content, range(first, first + 8)):
        path.write_bytes(changed)
        with pytest.raises(UserError):
            read_record(path, Figures)


def test_a_flip_in_the_first_line_of_a_config_is_noticed(tmp_path, tiny):
    config = tiny()
    write_config(config, run_folder(config))
    path = run_folder(config).config
    content = path.read_bytes()
    for changed in flips(content, range(content.index(b"\n") + 1)):
        path.write_bytes(changed)
        with pytest.raises(UserError):
            config_text(path)


def test_a_damaged_line_of_a_log_is_left_out_and_told(tmp_path, capsys):
    path, lines = tmp_path / "log.jsonl", [{"step": step, "loss": 0.1 * step} for step in (1, 2)]
    content = "".join(map(log_line, lines)).encode()
    for changed in flips(content, range(len(content))):
        path.write_bytes(changed)
        read = read_json_lines(path, {"step", "loss"})
        told = "damaged are left out" in capsys.readouterr().out
        assert told or all({**line, **right} == line for line, right in zip(read, lines, strict=True)), changed


def test_a_line_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n")
    assert read_json_lines(path, {"step"}) == [{"step": 1}]


def test_shards_of_unfinished_data_that_changed_places_are_refused(tiny, monkeypatch):
    config = tiny()
    data = run_folder(config).data

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "finish_data_folder", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.generate(config)
    one, other = data / "train-00000-of-00003.h5", data / "train-00001-of-00003.h5"
    one.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=f"{one.name}.*checksum"):
        stage.generate(config)
    one.unlink()
    assert stage.generate(config)
    assert not [path for path in data.iterdir() if path.name.startswith(".")]


def test_a_damaged_report_counts_as_missing(tmp_path):
    folder = RunFolder(tmp_path)
    folder.report_pictures.mkdir()
    folder.report.write_text("a report")
    write_record(folder.report_pictures / CHECKSUMS, ReportRecord(files={"report.html": sha256(folder.report)}))
    assert report_exists(folder)
    folder.report.write_text("a repost")
    assert not report_exists(folder)


def test_a_tracker_on_a_full_disk_raises_once_and_its_thread_prints_nothing(tiny, monkeypatch, capsys):
    from tensorboard.summary.writer.record_writer import RecordWriter

    config = tiny()
    write_config(config, run_folder(config))
    tracker = TensorBoard(TrackedRun(config, "tiny", "train", run_folder(config).logs), 0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(OSError, match="No space"):
        for step in range(100):
            tracker.log({"loss": 1.0}, step)
    with contextlib.suppress(OSError):
        tracker.close()
    assert "Traceback" not in capsys.readouterr().err


def test_the_lock_is_not_taken_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="delete it"), locked(RunFolder(tmp_path / "run")):
        pass
    assert (tmp_path / "theirs").read_text() == "kept"


def test_text_in_place_of_a_config_is_not_taken_for_one_of_an_earlier_version(tiny):
    config = tiny()
    write_config(config, run_folder(config))
    written = run_folder(config).config.read_text()
    run_folder(config).config.write_text("something else\n")
    keep_config(config, run_folder(config))
    assert run_folder(config).config.read_text() == written


def test_info_tells_of_a_config_that_the_data_was_not_made_with(tiny, capsys):
    config = tiny(runtime={"trackers": []})
    stage.generate(config)
    other = tiny(name="other", seed=3)
    stage.generate(other)
    run_folder(config).config.write_bytes(run_folder(other).config.read_bytes())
    assert main(["info", str(run_folder(config).path)]) == 0
    assert "config.yaml: is not the config that" in capsys.readouterr().out
