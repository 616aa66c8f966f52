"""Sizes that a file only declares are checked before anything of that size is allocated."""

import io
import json
import resource
import shutil
import zipfile

import gymnasium
import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ad_model.token_cache import token_cache
from data_gen.exchange.minari_data import import_minari
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard, write_shard
from data_gen.tasks.base import Tasks
from icrl.run.folder import RunFolder, folder_of_data, run_folder
from icrl.run.records import record_text
from icrl.support.errors import UserError


@pytest.fixture(autouse=True)
def bounded():
    """No test may grow this process by a gigabyte."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def unwritten(file):
    file.create_dataset("reward", (20, 2**30), "u1", chunks=(1, 2**20), compression="gzip")


def huge_chunk(file):
    file.create_dataset("reward", (1, 10), "f8", chunks=(1, 10), maxshape=(None, None))
    file.create_dataset("action", (1, 2), "u1", chunks=(1, 2**31), maxshape=(None, None), compression="gzip")


def twice_compressed(file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 2**25))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((1, 2**25))
    made = h5py.h5d.create(file.id, b"reward", h5py.h5t.NATIVE_UINT8, space, properties)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((1, 2**25), np.uint8))


def contiguous(file):
    file.create_dataset("reward", (2**35,), "u1")


def wide_numbers(file):
    file.create_dataset("reward", (1, 1), np.dtype(("u1", (2**30,))))


def variable(file):
    file.create_dataset("reward", (2, 2), h5py.string_dtype())


@pytest.mark.parametrize("make", [unwritten, huge_chunk, twice_compressed, contiguous, wide_numbers, variable])
def test_a_shard_that_declares_more_than_it_holds_is_refused(tmp_path, make):
    path = tmp_path / "train-0.h5"
    with h5py.File(path, "w") as file:
        make(file)
    assert path.stat().st_size < 2**20
    with pytest.raises(UserError, match=r"bytes can hold|does not hold numbers"):
        read_shard(path)


def test_shards_of_constant_columns_are_read(tmp_path):
    columns = {"reward": np.zeros((2, 10**6), np.float32), "task": np.zeros(4, np.int64)}
    write_shard(tmp_path / "train-0.h5", columns, {})
    np.testing.assert_array_equal(read_shard(tmp_path / "train-0.h5")["reward"], columns["reward"])
    rows = pyarrow.table({"reward": [[0.0] * 10**4] * 8, "action": [list(range(10**4))] * 8})
    parquet.write_table(rows, tmp_path / "train-0.parquet")
    assert read_shard(tmp_path / "train-0.parquet")["reward"].shape == (8, 10**4)


def test_a_parquet_shard_that_declares_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data_gen.storage.shards._MOST_ENCODED", 2**8)  # a large file takes seconds to write
    column = pyarrow.nulls(2**21, pyarrow.float64())
    parquet.write_table(pyarrow.table({"reward": column}), tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match="bytes can hold"):
        read_shard(tmp_path / "train-0.parquet")


def npy(shape, content=b"", dtype="<f8"):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue() + content


@pytest.mark.parametrize(
    "members",
    [
        {"goal.npy": npy((2**32, 2))},
        {"goal.npy": npy((4, 2), bytes(8))},
        {"goal.npy": npy((-1, 2), bytes(8))},
        {"goal.npy": b""},
        {"goal.npy": b"text"},
        {"goal.npy": npy((2,), bytes(16), "|O")},
        {"goal.npy": npy((2, 1), bytes(16)), "other.npy": npy((1, 1), bytes(8))},
        {"goal.npy": npy((), bytes(8))},
        {},
    ],
)
def test_tasks_that_declare_more_than_they_hold_are_refused(tmp_path, members):
    with zipfile.ZipFile(tmp_path / "tasks.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is not a file of tasks"):
        Tasks.load(tmp_path / "tasks.npz")


def test_a_record_of_more_histories_than_its_shards_hold_is_refused_before_any_array_is_made(tiny, tmp_path):
    config = tiny()
    generate(config)
    shutil.copytree(run_folder(config).data, tmp_path / "other" / "data")
    path = tmp_path / "other" / "data" / "info.json"
    record = json.loads(path.read_text())
    for change in ({"num_histories": 10**12}, {"num_histories": 25}, {"num_steps": 10**12}):
        path.write_text(record_text({**record, **change}))
        folder = RunFolder(tmp_path / "other")
        with pytest.raises(UserError, match=r"histories, but the shards hold 24|has 144 steps, but info\.json states"):
            token_cache(folder, 4, 18)
    space = {"type": "Box", "shape": [2**13, 2**13], "dtype": "float32", "low": None, "high": None}
    path.write_text(record_text({**record, "observation_space": space}))
    with pytest.raises(UserError, match="implausibly large"):
        load_info(folder_of_data(path.parent))


def unwritten_texts(infos):
    infos.create_dataset("s", (2**31,), dtype=h5py.string_dtype(), chunks=(2**16,))


def one_text_many_times(infos):
    made = infos.create_dataset("s", (2048,), dtype=h5py.string_dtype(), chunks=(2048,))
    made[0] = "x" * 2**20
    reference = made.id.read_direct_chunk((0,))[1][:16]
    made.id.write_direct_chunk((0,), reference * 2048)


def other_objects(infos):
    infos.create_dataset("s", (2,), dtype=h5py.ref_dtype)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [unwritten_texts, one_text_many_times, other_objects, None])
def test_a_minari_data_set_whose_texts_are_more_than_its_bytes_is_refused(tmp_path, monkeypatch, make):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    steps = 20
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.zeros((steps + 1, 4), np.float32),
        actions=np.zeros(steps, np.int64),
        rewards=np.ones(steps),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
        infos={"words": np.array(["a word"] * (steps + 1), dtype=h5py.string_dtype())},
    )
    minari.create_dataset_from_buffers("some/words-v0", [buffer], env=gymnasium.make("CartPole-v1"))
    with h5py.File(tmp_path / "minari/some/words-v0/data/main_data.hdf5", "r+") as file:
        if make is not None:
            make(file["episode_0/infos"])
    if make is None:
        assert import_minari(["some/words-v0"], tmp_path / "data").info.num_histories == 1
        return
    with pytest.raises(UserError, match=r"some/words-v0: cannot be read \(ValueError: /episode_0/infos/s "):
        import_minari(["some/words-v0"], tmp_path / "data")
