"""Deletion: renamed first, so that a kill leaves all or nothing; links are never followed."""

import os
import shutil

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ad_model.train import train
from data_gen.generation.generate import generate
from icrl import cli
from icrl.run.checkpoints import checkpoint_path, checkpoint_steps
from icrl.run.command import Invocation
from icrl.run.folder import RunFolder, locked, run_folder
from icrl.support.files import new_folder, remove, remove_leftovers


class Killed(BaseException):
    """Stands for the end of the process: no handler of the code under test catches it."""


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def killed_at(monkeypatch):
    """A function that makes the k-th deletion of a file kill the process."""

    def arrange(last):
        deleted, unlink = [], os.unlink

        def counted(*words, **options):
            deleted.append(words)
            if len(deleted) == last:
                raise Killed
            unlink(*words, **options)

        monkeypatch.setattr(os, "unlink", counted)

    return arrange


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished training, to be copied."""
    from conftest import TINY, merged

    from icrl.config.loader import validate

    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("trained")
    config = validate(merged(TINY, {"output": str(folder), "training": {"steps": 4}}))
    generate(config)
    train(config)
    return folder / "tiny"


@pytest.fixture
def config(trained, tmp_path, tiny):
    shutil.copytree(trained, tmp_path / "runs" / "tiny")
    return tiny(training={"steps": 4})


def weights(config):
    return load_file(checkpoint_path(run_folder(config).checkpoints, 4) / "model/model.safetensors")


@pytest.mark.parametrize("last", [1, 4, 9])
def test_an_overwrite_that_is_killed_is_continued_to_the_same_weights(config, killed_at, monkeypatch, last):
    before = weights(config)
    with monkeypatch.context():
        killed_at(last)
        with pytest.raises(Killed):
            train(config, overwrite=True)
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    after = weights(config)
    assert all(bool((after[name] == before[name]).all()) for name in before)
    assert not [path for path in run_folder(config).path.rglob(".*") if path.name != ".lock"]


def test_a_folder_is_deleted_whole_or_not_at_all(tmp_path, killed_at, monkeypatch):
    for number in range(3):
        (tmp_path / "folder/inner").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"folder/inner/{number}").write_text("kept")
    killed_at(2)
    with pytest.raises(Killed):
        remove(tmp_path / "folder")
    monkeypatch.undo()
    assert not (tmp_path / "folder").exists()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["checkpoints", "data"])
def test_overwriting_a_linked_folder_leaves_what_the_link_points_to(config, tmp_path, name):
    folder, elsewhere = run_folder(config), tmp_path / "elsewhere"
    (folder.path / name).rename(elsewhere)
    (folder.path / name).symlink_to(elsewhere)
    content = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    if name == "data":
        generate(config, overwrite=True)
    train(config, overwrite=True)
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == content
    assert not (folder.path / name).is_symlink()
    assert checkpoint_steps(folder.checkpoints) == [2, 4]


def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/file").write_text("kept")
    for name, target in (("link", "target"), ("dangling", "nothing"), (".left.1.tmp", "target")):
        (tmp_path / name).symlink_to(tmp_path / target)
    remove(tmp_path / "link")
    remove(tmp_path / "dangling")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target/file").read_text() == "kept"


@pytest.mark.parametrize("target", ["target", "nothing"])
def test_a_new_folder_takes_the_place_of_a_link(tmp_path, target):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / target)
    with new_folder(tmp_path / "link") as folder:
        (folder / "new").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target/file").read_text() == "kept"


def test_leftovers_anywhere_in_a_run_folder_are_removed_when_nobody_is_at_work(tmp_path):
    left = [".config.yaml.1.tmp", "report/.curves.png.1.tmp", "checkpoints/.step-000002.1.deleted.tmp/model/weights"]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/.mine.tmp").write_text("kept")
    for name in left:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("left")
    (tmp_path / "run/linked").symlink_to(tmp_path / "outside")
    with locked(RunFolder(tmp_path / "run")):
        names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert names == {
        *("run", "run/.lock", "run/checkpoints", "run/report", "run/linked", "outside", "outside/.mine.tmp")
    }


def test_a_run_that_replaces_another_and_is_killed_continues_without_overwrite(config, tiny, monkeypatch):
    other = tiny(training={"steps": 4}, seed=1)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_gen.__main__.generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cli.run(Invocation(other, "tiny.yaml", overwrite=True))
    AcceleratorState._reset_state(reset_partial_state=True)
    cli.run(Invocation(other, "tiny.yaml"))
    assert run_folder(other).report.exists()
