"""Locks: in use, no locks on this file system, and damage are told apart."""

import errno
import fcntl
import os

import datasets
import h5py
import numpy as np
import pytest

from data_gen.exchange.minari_store import minari_library
from data_gen.storage.shards import read_shard, write_shard
from icrl.run.folder import RunFolder, locked
from icrl.support.errors import UserError
from icrl.support.hub import Repository, hub_errors


def shard(path):
    write_shard(path, {"reward": np.zeros((2, 3), np.float32)}, {"fingerprint": "x"})
    return path


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_warned_of_and_used(tmp_path, monkeypatch, capsys, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.eval.1.tmp").mkdir()  # perhaps of another process that is at work
    with locked(RunFolder(tmp_path / "run")):
        pass
    assert "has no locks" in capsys.readouterr().err
    assert (tmp_path / "run/.eval.1.tmp").exists()


def test_another_error_of_the_lock_is_one_line(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(UserError, match="cannot be locked"), locked(RunFolder(tmp_path)):
        pass


def test_a_folder_in_use_is_named_as_such(tmp_path):
    folder = RunFolder(tmp_path)
    with locked(folder), pytest.raises(UserError, match="is in use by another process"), locked(folder):
        pass


@pytest.mark.parametrize("target", ["mine.txt", "nothing"])
def test_a_lock_that_is_a_link_is_refused_and_never_followed(tmp_path, target):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match="is a symbolic link; delete it"), locked(RunFolder(tmp_path / "run")):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine" and not (tmp_path / "nothing").exists()


def test_a_shard_that_another_program_has_locked_is_read(tmp_path):
    path = shard(tmp_path / "train-00000-of-00001.h5")
    with open(path, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert read_shard(path)["reward"].shape == (2, 3)


def test_a_shard_is_read_where_there_are_no_locks(tmp_path, monkeypatch):
    path, opened = shard(tmp_path / "train-00000-of-00001.h5"), []
    real = h5py.File

    def recorded(*words, **options):
        opened.append(options)
        return real(*words, **options)

    monkeypatch.setattr(h5py, "File", recorded)
    read_shard(path)
    assert [options.get("locking") for options in opened] == [False]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EAGAIN])
def test_a_shard_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch, number):
    path = shard(tmp_path / "train-00000-of-00001.h5")

    def refused(*_, **__):
        raise OSError(number, "Unable to synchronously open file")

    monkeypatch.setattr(h5py, "File", refused)
    with pytest.raises(UserError) as caught:
        read_shard(path)
    assert "delete" not in str(caught.value) and "damaged" not in str(caught.value)


def test_minari_opens_files_without_locks(tmp_path):
    pytest.importorskip("minari")
    minari_library()
    from minari.dataset._storages import hdf5_storage

    path = shard(tmp_path / "main_data.hdf5")
    with open(path, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with hdf5_storage.h5py.File(path, "a") as file:
            assert isinstance(file, h5py.Group)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_library_that_needs_locks_where_there_are_none_is_one_line(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(UserError, match=r"has no locks; .* push as hdf5"),
        hub_errors(Repository("a/b", "dataset"), "write"),
    ):
        datasets.Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "x.parquet")
        datasets.load_dataset("parquet", data_files=[str(tmp_path / "x.parquet")], cache_dir=str(tmp_path / "cache"))
