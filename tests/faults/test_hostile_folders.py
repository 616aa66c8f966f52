"""Data and model folders of others: a handful of the long harness's cases, and the smallest input of what it found."""

import io
import json
import os
import shutil

import h5py
import numpy as np
import pytest

from data_gen.exchange.xland_file import find_task, open_xland, task_names
from data_gen.experiment import open_run
from data_gen.generation.generate import generate
from data_gen.scoring.report import data_report
from data_gen.spaces import space_from_json
from data_gen.storage.folder import checked_shards, load_info, load_tasks
from data_gen.storage.shards import read_shard
from icrl.config.loader import validate
from icrl.run.folder import config_text, folder_of_data, run_folder
from icrl.run.records import record_text
from icrl.support.arrays import read_npz
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import check_files, read_json, sha256
from icrl.support.hub import Repository
from icrl.support.terminal import reported, say
from publish.data import data_parcel
from tests.conftest import ROOT, TINY, run_python


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = validate({**TINY, "name": "made", "output": str(tmp_path_factory.mktemp("runs"))})
    generate(config)
    return run_folder(config).data


@pytest.fixture
def theirs(made, tmp_path):
    """A copy of a data folder."""
    (tmp_path / "secret").mkdir()
    shutil.copytree(made, tmp_path / "theirs")
    return tmp_path / "theirs"


def change(folder, **changes):
    record = {**json.loads((folder / "info.json").read_text()), **changes}
    (folder / "info.json").write_text(record_text(record))


FEW = """
import sys, tempfile
from pathlib import Path
from tests.faults.harness import hostile_data, hostile_models

for kind in (hostile_data, hostile_models):
    home = Path(sys.argv[1], kind.__name__)
    home.mkdir()
    kind.prepare(home)
    for case in kind.cases(home, 200)[30:120:30]:
        with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
            outcome = kind.attempt(home, case, Path(folder))
        assert not outcome.broken, outcome
"""


def test_a_few_cases_of_the_long_harness_hold(tmp_path):
    done = run_python(["-c", FEW, str(tmp_path)], ROOT)  # which forks, so it must not have used torch
    assert done.returncode == 0, done.stdout + done.stderr


# the terminal


@pytest.mark.parametrize("hidden", ["\x1b]0;owned\x07", "\u202eevil", "\x9b2J", "\ud800"])
def test_control_characters_of_a_file_do_not_reach_the_terminal(capsys, hidden):
    say(f"name {hidden} ▁█ ü")

    def fail():
        raise UserError(f"the name {hidden}\nerror: all is well {'x' * 10**6}")

    assert reported(fail) == 1
    seen = capsys.readouterr()
    assert hidden not in seen.out + seen.err
    assert "▁█ ü" in seen.out
    assert len(seen.err.splitlines()) == 1
    assert len(seen.err) < 3000


def test_several_problems_of_a_config_still_have_a_line_each(capsys):
    def fail():
        raise ConfigError("a\nb")

    assert reported(fail) == 2
    assert capsys.readouterr().err == "error: a\nerror: b\n"


# files that are not files


@pytest.mark.parametrize("name", ["info.json", "train-00000-of-00003.h5", "tasks-train.npz"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_refused_at_once(theirs, name):
    for replace in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (theirs / name).unlink()
        replace(theirs / name)
        for read in (sha256, read_json, read_shard, read_npz, config_text):
            with pytest.raises((UserError, OSError), match="regular file"):
                read(theirs / name)
        with pytest.raises(UserError):
            data_report(folder_of_data(theirs), load_info(folder_of_data(theirs)))


def test_json_is_bounded_and_plain(tmp_path):
    path = tmp_path / "x.json"
    for text in ("[" + "[]," * 2**22 + "0]", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 10**5):
        path.write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            read_json(path)
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="more than"):
        read_json(path)


def test_a_shard_far_larger_than_its_record_is_refused_before_its_checksum(theirs):
    with open(theirs / "train-00000-of-00003.h5", "r+b") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="larger than the histories"):
        list(checked_shards(folder_of_data(theirs), load_info(folder_of_data(theirs))))


def test_a_large_npz_that_is_packed_far_more_than_tasks_are_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", goal=np.zeros((2**24, 1), np.int64))
    with pytest.raises(ValueError, match="more than its bytes can hold"):
        read_npz(tmp_path / "x.npz")


# links and names


@pytest.mark.parametrize("name", ["tasks-train.npz", "config.yaml", "train-00000-of-00003.h5"])
def test_a_link_out_of_a_data_folder_is_not_followed(theirs, tmp_path, name):
    (tmp_path / "secret" / name).write_bytes((theirs / name).read_bytes() if (theirs / name).exists() else b"password")
    (theirs / name).unlink(missing_ok=True)
    (theirs / name).symlink_to(tmp_path / "secret" / name)
    with pytest.raises(UserError, match="link to another folder"):
        load_info(folder_of_data(theirs))


def test_a_file_beside_the_data_that_is_not_a_config_is_not_pushed(theirs):
    (theirs / "config.yaml").write_text("password: hunter2\n")
    with pytest.raises(UserError, match="is not a config"):
        data_parcel(folder_of_data(theirs), "x", Repository("me/x", "dataset"))


def test_a_file_of_tasks_without_a_checksum_is_pushed_only_if_it_holds_tasks(theirs):
    change(theirs, files={}, tasks=None)
    (theirs / "tasks-train.npz").write_bytes(b"password")
    with pytest.raises(UserError, match="is not a file of tasks"):
        data_parcel(folder_of_data(theirs), "x", Repository("me/x", "dataset"))


def test_checksums_do_not_name_files_outside_of_their_folder(tmp_path):
    for name in ("../secret", "/etc/passwd", "\x1b[2J", "x" * 10**4):
        with pytest.raises(UserError, match="nothing is loaded"):
            check_files(tmp_path, {name: ""}, "")


@pytest.mark.parametrize("name", ["\x1b[2J.h5", "README.md", "info.json", "x" * 1000 + ".h5", "a\nb.h5"])
def test_a_shard_has_the_name_of_a_shard(theirs, name):
    change(theirs, shards=[{"file": name, "sha256": ""}])
    with pytest.raises(UserError):
        load_info(folder_of_data(theirs))


def test_the_config_beside_pulled_data_is_not_built(theirs):
    (theirs / "config.yaml").write_text("name: x\ntasks: {name: 'trap_module:Family'}\ndata: {sources: [q_learning]}\n")
    with pytest.raises(UserError, match="is a data folder"):
        open_run(theirs)


# the record and the shards


@pytest.mark.parametrize("key", ["num_histories", "num_steps", "episode_length"])
def test_gigantic_counts_are_refused(theirs, key):
    change(theirs, **{key: 10**4000})
    with pytest.raises(UserError, match="less than or equal"):
        load_info(folder_of_data(theirs))


def test_a_box_whose_type_is_itself_an_array_is_refused():
    with pytest.raises(ValueError, match="not a space of numbers"):
        space_from_json({"type": "Box", "shape": [1], "dtype": "100000f8", "low": 0.0, "high": 1.0})


@pytest.mark.parametrize("kind", [h5py.h5t.UNIX_D32LE])
def test_a_column_of_a_type_that_numpy_lacks_is_damage(tmp_path, kind):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        h5py.h5d.create(file.id, b"reward", kind, h5py.h5s.create_simple((2, 3)))
    with pytest.raises(UserError, match="the shard is damaged"):
        read_shard(tmp_path / "x.h5")


def test_a_column_longer_than_the_record_states_is_refused_before_it_is_read(theirs, monkeypatch):
    with h5py.File(theirs / "train-00000-of-00003.h5", "r+") as file:
        del file["reward"]
        file.create_dataset("reward", (1, 10**6), np.float32, compression="gzip")[...] = 0
    record = json.loads((theirs / "info.json").read_text())
    record["shards"][0]["sha256"] = sha256(theirs / "train-00000-of-00003.h5")
    change(theirs, shards=record["shards"])
    monkeypatch.setattr("data_gen.storage.folder.read_shard", None)
    with pytest.raises(UserError, match="is damaged"):
        data_report(folder_of_data(theirs), load_info(folder_of_data(theirs)))


def test_an_xland_file_with_strange_numbers_or_declared_sizes_is_refused(tmp_path):
    def refused(**changes):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            group = file.create_group("9" * 5000 if "name" in changes else "0")
            size = "9" * 5000 if "size" in changes else "9"
            group.attrs.update({"env-id": f"XLand-MiniGrid-R1-{size}x9", "benchmark-id": "x", "ruleset-id": 1})
            for name, dtype in {"states": "u1", "actions": "u1", "rewards": "f2", "dones": "?"}.items():
                rest = (5, 5) if name == "states" else ()
                group.create_dataset(name, (1, 10**9, *rest), dtype, chunks=(1, 4096, *rest))
            group.create_dataset("expert_actions", (1, 10**9), "u1", chunks=(1, 4096))
        with open_xland(tmp_path / "x.h5") as opened:
            task = find_task(opened, task_names(opened)[0])
            assert task.time_limit

    for changes in ({"name": 1}, {"size": 1}, {}):
        with pytest.raises(UserError):
            refused(**changes)


def test_tasks_with_a_pickle_are_not_loaded(theirs):
    buffer = io.BytesIO()
    np.savez(buffer, goal=np.array([{}] * 12, object))
    (theirs / "tasks-train.npz").write_bytes(buffer.getvalue())
    change(theirs, files={})
    with pytest.raises(UserError, match="is not a file of tasks"):
        load_tasks(theirs, load_info(folder_of_data(theirs)), "tasks-train.npz")


# models


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a model with fresh weights."""
    from ad_model.build import build_model
    from ad_model.load import write_checksums
    from data_gen.spaces import to_json

    config = validate({**TINY, "name": "made", "output": str(tmp_path_factory.mktemp("runs"))})
    family = config.tasks.build()
    path = tmp_path_factory.mktemp("model")
    build_model(config, to_json(family.observation_space), to_json(family.action_space), 6).save_pretrained(path)
    write_checksums(path)
    return path


@pytest.fixture
def model(trained, tmp_path):
    """A function that copies the model's folder without checksums and changes keys of config.json."""

    def make(backbone=(), **changes):
        path = tmp_path / "model"
        shutil.copytree(trained, path)
        (path / "checksums.json").unlink()
        content = json.loads((path / "config.json").read_text()) | changes
        content["backbone"] |= dict(backbone)
        (path / "config.json").write_text(json.dumps(content))
        return path

    return make


def test_a_model_is_loaded_with_the_weights_and_the_settings_that_were_saved(trained):
    from safetensors.torch import load_file

    from ad_model.load import load_model
    from ad_model.modeling_ad import ADModel

    loaded, theirs = load_model(trained, "cpu"), ADModel.from_pretrained(trained)
    stored = load_file(trained / "model.safetensors")
    assert all(value.equal(loaded.state_dict()[name]) for name, value in stored.items())
    assert loaded.config.backbone == theirs.config.backbone
    for (name, value), (other, expected) in zip(loaded.named_buffers(), theirs.named_buffers(), strict=True):
        assert name == other
        assert value.equal(expected)


@pytest.mark.parametrize(
    ("changes", "backbone"),
    [
        ({}, {"num_hidden_layers": 10**9}),
        ({}, {"hidden_size": 10**9}),
        ({}, {"vocab_size": 10**9}),
        ({}, {"hidden_size": "big"}),
        ({}, {"model_type": "gpt2", "n_positions": 10**9}),
        ({}, {"model_type": "mixtral", "num_local_experts": 10**7}),
        ({}, {"model_type": "trap_module"}),
        ({}, {"hidden_act": "trap_module:load"}),
        ({"reward_scale": 0}, {}),
        ({"heads": {"forward": 1}}, {}),
        ({"observation_space": {"type": "Box", "shape": [10**9], "dtype": "float32", "low": 0.0, "high": 1.0}}, {}),
        ({"quantization_config": {"quant_method": "gptq"}}, {}),
        ({"model_type": "llama"}, {}),
    ],
)
def test_a_config_that_describes_another_or_a_gigantic_model_is_refused(model, changes, backbone):
    from ad_model.load import load_model

    with pytest.raises(UserError) as caught:
        load_model(model(backbone, **changes), "cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(model):
    from safetensors.torch import load_file, save_file

    from ad_model.load import load_model

    path = model()
    weights = load_file(path / "model.safetensors")
    weights["embed_reward.weight"][0] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        load_model(path, "cpu")


@pytest.mark.parametrize("where", ["../../secret", "/dev/zero", "pytorch_model.bin", ""])
def test_an_index_of_weights_does_not_name_other_files(model, where):
    from ad_model.load import load_model

    path = model()
    (path / "model.safetensors").rename(path / "x.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": where}}))
    with pytest.raises(UserError):
        load_model(path, "cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_or_a_link_in_a_model_folder_is_refused_at_once(model, tmp_path, name):
    from ad_model.load import load_model

    path = model()
    (path / name).rename(tmp_path / name)
    (path / name).symlink_to(tmp_path / name)
    with pytest.raises(UserError, match="link to another folder"):
        load_model(path, "cpu")
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(UserError, match="regular file"):
        load_model(path, "cpu")


def test_a_model_that_names_code_from_elsewhere_is_not_pushed(model):
    from ad_model.model_files import check_own_code

    path = model(auto_map={"AutoModel": "me/elsewhere--modeling.Model"})
    with pytest.raises(UserError, match="code from elsewhere"):
        check_own_code(path)
    (path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="code from elsewhere"):
        check_own_code(path)
