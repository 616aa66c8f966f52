"""Small files that are empty, truncated or something else, in folders of earlier versions too, which have no checksums.

One line each, never a traceback, and nothing is unpickled.
"""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from conftest import TINY, merged

from ad_model.train import train
from ad_model.training_log import read_log
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from data_gen.tasks.base import Tasks
from eval.evaluate import evaluate
from eval.report import report_exists, write_report
from icrl.config.loader import validate
from icrl.run.folder import run_folder
from icrl.run.records import record_text
from icrl.support.errors import UserError
from icrl.support.files import read_json, sha256


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("finished")
    config = validate(merged(TINY, {"output": str(folder), "training": {"steps": 4}}))
    generate(config)
    train(config)
    evaluate(config)
    return folder / "tiny"


@pytest.fixture
def config(finished, tmp_path, tiny):
    AcceleratorState._reset_state(reset_partial_state=True)
    shutil.copytree(finished, tmp_path / "runs" / "tiny")
    return tiny(training={"steps": 4})


def as_before_checksums(config) -> None:
    """Removes all checksums that earlier versions did not write."""
    folder = run_folder(config).path
    for path in [*folder.glob("checkpoints/*/training.json"), folder / "eval/summary.json", folder / "data/info.json"]:
        record = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in record.items() if key not in ("files", "checksum")}))
    for path in folder.glob("checkpoints/*/model/checksums.json"):
        path.unlink()
    text = run_folder(config).config.read_text()
    run_folder(config).config.write_text(text.split("\n", 1)[1])


def test_folders_of_earlier_versions_are_complete_as_they_are(config):
    as_before_checksums(config)
    before = {path: path.read_bytes() for path in run_folder(config).path.rglob("*") if path.is_file()}
    assert not generate(config) and not train(config) and not evaluate(config)
    write_report(config)
    assert {path: path.read_bytes() for path in before} == before


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("file", ["optimizer.bin", "random_states_0.pkl", "pytorch_model.bin"])
def test_a_pickle_in_place_of_a_state_is_not_unpickled(config, tmp_path, file, checksums):
    if not checksums:
        as_before_checksums(config)
    checkpoint = run_folder(config).checkpoints / "step-000002"
    shutil.rmtree(checkpoint.with_name("step-000004"))
    if file == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    (checkpoint / file).write_bytes(pickle.dumps(Bomb(tmp_path / "unpickled")))
    if file == "random_states_0.pkl" and not checksums:
        train(config)  # as always, dropout is seeded by the update and needs no saved state
    else:
        with pytest.raises(UserError, match=str(checkpoint)) as caught:
            train(config)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "content", [b"", b"half", b"PK\x03\x04", pickle.dumps([1])], ids=["empty", "text", "zip", "pickle"]
)
def test_a_file_of_tasks_that_is_something_else_is_named(tmp_path, content):
    (tmp_path / "tasks.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"tasks.npz: is not a file of tasks"):
        Tasks.load(tmp_path / "tasks.npz")


@pytest.mark.parametrize(
    "content", [b"", b"half", b"PK\x03\x04", pickle.dumps([1])], ids=["empty", "text", "zip", "pickle"]
)
@pytest.mark.parametrize("file", ["paths.npz", "returns.parquet"])
def test_a_result_of_an_earlier_version_that_is_something_else_is_named(config, file, content):
    as_before_checksums(config)
    (run_folder(config).eval / file).write_bytes(content)
    with pytest.raises(UserError, match="run `icrl evaluate --overwrite`"):
        write_report(config)


def test_truncated_weights_of_an_earlier_version_are_not_called_another_config(config):
    as_before_checksums(config)
    weights = run_folder(config).checkpoints / "step-000004/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot load the model"):
        evaluate(config)


def test_a_deleted_result_is_made_again_with_the_same_values(config):
    folder = run_folder(config)
    before = sha256(folder.returns)
    for path in (folder.returns, folder.paths):
        path.unlink()
        assert evaluate(config)
        assert sha256(folder.returns) == before
        assert not evaluate(config)


def test_a_report_is_not_written_through_a_link(config, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("curves.png", ".draft.tmp"):
        (theirs / name).write_text("kept")
    run_folder(config).report_pictures.symlink_to(theirs)
    write_report(config)
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {"curves.png": "kept", ".draft.tmp": "kept"}
    assert report_exists(run_folder(config))


def test_a_deleted_config_is_written_again(config):
    folder = run_folder(config)
    folder.config.unlink()
    assert not train(config)
    assert folder.config.exists()


@pytest.mark.parametrize(
    "line", [b"\x80\xff", b"[1]", b'{"step": "x", "loss": null, "seconds": []}', b"[" * 100_000, b'{"step": 1']
)
def test_damaged_lines_of_a_log_are_dropped(tmp_path, line):
    good = {"step": 1, "loss": 0.5, "seconds": 1.0}
    (tmp_path / "log").write_bytes(line + b"\n" + json.dumps(good).encode() + b"\n" + line)
    assert read_log(tmp_path / "log") == [good]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"{"])
def test_a_record_that_is_not_json_is_one_line(tmp_path, content):
    (tmp_path / "info.json").write_bytes(content)
    with pytest.raises(UserError, match=r"info\.json cannot be read") as caught:
        read_json(tmp_path / "info.json")
    assert "\n" not in str(caught.value)


def test_no_flipped_bit_of_a_record_changes_what_is_read(config):
    """Every bit of `info.json`: refused, or the record is the same."""
    folder = run_folder(config)
    whole, right = folder.data_info.read_bytes(), load_info(folder).plain()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(whole), 300, replace=False):
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        folder.data_info.write_bytes(bytes(changed))
        try:
            read = load_info(folder).plain()
        except UserError as error:
            assert "\n" not in str(error), changed[at - 20 : at + 20]
        else:
            # A flip in the name of the checksum leaves an unknown key beside the right values.
            assert {key: value for key, value in read.items() if key in right} == right


def test_an_edited_record_is_refused_and_one_without_a_checksum_is_not(config):
    path = run_folder(config).data_info
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "episode_length": 7}))
    with pytest.raises(UserError, match="is damaged, or was edited"):
        load_info(run_folder(config))
    path.write_text(record_text({**record, "episode_length": 7}))
    assert load_info(run_folder(config)).episode_length == 7
