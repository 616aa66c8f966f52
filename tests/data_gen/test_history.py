"""Shards on disk, and returns computed from steps."""

import h5py
import numpy as np
import pytest

from data_gen.returns import episode_returns, final_returns
from data_gen.storage.shards import STEP_COLUMNS, read_shard, write_shard
from icrl.support.errors import UserError


def test_episode_returns_equal_returns_computed_by_hand():
    reward = np.array([[1, 0, 2, 3, 1, 5], [1, 1, 1, 1, 1, 1]])
    ended = np.array([[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(episode_returns(reward, ended, 3), [[1, 6, np.nan], [4, np.nan, np.nan]])
    np.testing.assert_array_equal(episode_returns(reward, ended, 1), [[1], [4]])


@pytest.fixture
def shard(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "observation": rng.integers(9, size=(5, 2500, 2), dtype=np.uint8),
        "action": rng.integers(5, size=(5, 2500), dtype=np.uint8),
        "reward": rng.standard_normal((5, 2500)).astype(np.float32),
        "terminated": np.zeros((5, 2500), dtype=bool),
        "truncated": np.zeros((5, 2500), dtype=bool),
        "task": np.arange(5),
    }
    path = tmp_path / "train-00000-of-00001.h5"
    write_shard(path, columns, {"fingerprint": "f"})
    return path, columns


def test_a_shard_reads_back_as_it_was_written(shard):
    path, columns = shard
    for name, values in read_shard(path).items():
        np.testing.assert_array_equal(values, columns[name])
        assert values.dtype == columns[name].dtype


def test_a_chunk_holds_steps_of_one_history(shard):
    path, _ = shard
    with h5py.File(path) as file:
        for name in set(STEP_COLUMNS) - {"optimal_action"}:
            assert file[name].chunks[:2] == (1, 834)  # three chunks per history, with two steps of padding


def test_equal_content_gives_equal_bytes(shard, tmp_path):
    path, columns = shard
    write_shard(tmp_path / "again.h5", columns, {"fingerprint": "f"})
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


def test_a_flipped_bit_or_a_truncated_file_is_noticed(shard):
    path, _ = shard
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for bad in (bytes(damaged), content[: len(content) // 2]):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="the shard is damaged"):
            read_shard(path)


def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing_behind(shard, tmp_path, monkeypatch):
    path, columns = shard
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*train-00000-of-00001\.h5: No space left on device"):
        write_shard(path, columns, {"fingerprint": "other"})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_final_returns_are_of_episodes_that_end_in_the_last_part():
    reward = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10.0]] * 3)
    ended = np.zeros((3, 10), bool)
    ended[0, [1, 5, 7, 8]] = True  # the last 3 steps hold the ends of (7 + 8) and (9); the last step ends nothing
    ended[1, [9]] = True  # one episode, all of it
    assert final_returns(reward, ended, 0.3)[:2].tolist() == [12.0, 55.0]
    assert np.isnan(final_returns(reward, ended, 0.3)[2])
