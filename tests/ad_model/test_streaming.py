"""Windows of data that stays on the hub. The hub is a folder here; test_hub.py uses real clients."""

import json
import shutil

import numpy as np
import pytest
import torch

from ad_model import streaming
from ad_model.statistics import DataStatistics
from ad_model.streaming import StreamedWindows
from ad_model.token_cache import strand_order
from ad_model.train import train
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard
from icrl.config.loader import validate
from icrl.run.checkpoints import last_checkpoint
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError
from tests.conftest import TINY, merged

LENGTH = 18


@pytest.fixture
def streamed(tiny, tmp_path, monkeypatch):
    """A function that makes the config of an experiment that streams the 6 shards of another run."""
    made = tiny(name="made", data={"shards": 6})
    generate(made)
    fetched = []

    def fetch(of, patterns, folder):
        fetched.extend(patterns)
        shutil.copy(run_folder(made).data / patterns[0], folder)
        return folder

    monkeypatch.setattr(streaming, "fetch", fetch)
    info = load_info(run_folder(made))
    statistics = DataStatistics(info.observation_space)
    for shard in info.shards:
        statistics.add(read_shard(run_folder(made).data / shard.file))

    def make(name="streamed", resident=2, record=None, **changes):
        data = {"repo": "a/b", "streaming": True, "resident_shards": resident}
        plain = {**TINY, "output": str(tmp_path / "runs"), "name": name, "data": data}
        config = validate(merged(plain, {"training": {"batch_size": 4}, **changes}))
        own = {
            "given": {"repo": "a/b", "commit": "c" * 40, "streaming": True},
            "statistics": statistics.record().model_dump(),
            "fingerprint": data_fingerprint(config),
        }
        folder = run_folder(config)
        folder.data.mkdir(parents=True, exist_ok=True)
        folder.data_info.write_text(json.dumps({**info.plain(), **own, **(record or {})}))
        return config

    make.fetched = fetched
    return make


def windows(config, process=0, processes=1):
    return StreamedWindows(config, load_info(run_folder(config)), ("action",), LENGTH, process, processes)


def equal(one, other):
    assert {part: set(values) for part, values in one.items()} == {part: set(values) for part, values in other.items()}
    return all(torch.equal(one[part][name], other[part][name]) for part in one for name in one[part])


def test_every_pass_visits_each_shard_once_in_its_own_order(streamed):
    found = windows(streamed())
    passes = [[found.shard_at(6 * number + position) for position in range(6)] for number in range(4)]
    assert all(sorted(order) == [*range(6)] for order in passes)
    assert len({*map(tuple, passes)}) > 1
    # 24 histories of 144 steps in 6 shards are 32 windows of 18 steps per shard: 8 updates with 4 windows each.
    assert found.updates_per_shard == 8
    found.close()


def test_windows_come_only_from_resident_shards(streamed, tiny):
    found = windows(streamed())
    item = found[8 * 2]  # the first update with the shards at positions 2 and 3
    assert sorted(found.resident) == [2, 3]
    possible = set()
    for position in (2, 3):
        shard = read_shard(run_folder(tiny(name="made")).data / f"train-0000{found.shard_at(position)}-of-00006.h5")
        columns, lengths = strand_order(shard, 4, load_info(run_folder(tiny(name="made"))).action_space)
        for strand in np.split(columns["observation"], np.cumsum(lengths)[:-1]):
            possible |= {strand[first : first + LENGTH].tobytes() for first in range(len(strand) - LENGTH + 1)}
    assert {window.tobytes() for window in item["tokens"]["observation"].numpy()} <= possible
    found.close()


def test_a_resumed_run_sees_the_same_windows_as_an_uninterrupted_one(streamed):
    for resident in (1, 2, 6, 9):
        config = streamed(resident=resident)
        whole, late = windows(config), windows(config)
        items = [whole[index] for index in range(60)]
        assert all(equal(items[index], late[index]) for index in range(31, 60))
        whole.close()
        late.close()


def test_two_processes_share_the_batch_of_a_single_process(streamed):
    config = streamed()
    whole = windows(config)
    shares = [windows(config, process, 2) for process in range(2)]
    for index in (0, 17, 40):
        parts = [share[index]["columns"]["action"] for share in shares]
        assert torch.equal(torch.cat(parts), whole[index]["columns"]["action"])
    for each in (whole, *shares):
        each.close()


def test_a_shard_is_fetched_once_while_it_is_resident(streamed):
    found = windows(streamed())
    for index in range(9 * 4):
        found[index]
    found.close()
    expected = [f"train-0000{found.shard_at(position)}-of-00006.h5" for position in range(6)]
    assert streamed.fetched in (expected[:5], expected)  # the next shard may already be fetched


def test_resumed_streamed_training_equals_uninterrupted_streamed_training(streamed):
    settings = {"training": {"steps": 6, "batch_size": 64}}
    assert train(streamed("whole", **settings))
    cut = streamed("cut", **settings)
    assert train(cut)
    shutil.rmtree(run_folder(cut).checkpoints / "step-000006")
    torch.manual_seed(5)
    assert train(cut)
    ends = [last_checkpoint(run_folder(streamed(name, **settings)).checkpoints) for name in ("whole", "cut")]
    one, other = ((end / "model" / "model.safetensors").read_bytes() for end in ends)
    assert one == other


def test_data_and_settings_that_cannot_be_streamed_are_refused(streamed):
    with pytest.raises(ConfigError, match=r"has no statistics in its info\.json"):
        windows(streamed(record={"statistics": None}))
    with pytest.raises(ConfigError, match="optimal_action is not in a/b"):
        config = streamed(training={"objective": "optimal_action"})
        StreamedWindows(config, load_info(run_folder(config)), ("optimal_action",), LENGTH, 0, 1)
    with pytest.raises(ConfigError, match="reads all histories first"):
        streamed(training={"selection": {"best_share": 0.5}})
    with pytest.raises(ConfigError, match="leaves fewer steps of every history"):
        StreamedWindows(streamed(), load_info(run_folder(streamed())), ("action",), 145, 0, 1)[0]
    shards = [{"file": f"train-0000{number}-of-00006.h5", "sha256": "0" * 64} for number in range(6)]
    with pytest.raises(UserError, match=r"does not match its checksum in info\.json"):
        windows(streamed(record={"shards": shards}))[0]
