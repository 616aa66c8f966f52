"""Given data: linked, checked, and used for training and evaluation like generated data."""

import json
import shutil
import sys

import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ad_model.train import train
from data_gen.generation.generate import generate
from data_gen.scoring.report import data_report
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard, write_shard
from data_gen.storage.writing import Recorded, write_histories
from eval.evaluate import evaluate
from eval.summary import load_summary
from icrl.config.loader import validate
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import folder_of_data, run_folder
from icrl.run.records import record_text
from icrl.support.errors import ConfigError, UserError
from tests.conftest import TINY, merged

BOX = {"type": "Box", "dtype": "float32", "low": None, "high": None}


@pytest.fixture
def given(tiny, tmp_path):
    """A function that makes the config of an experiment on the data of another run, `made`, or of a folder."""
    made = tiny(name="made")

    def make(folder=None, name="given", **changes) -> ExperimentConfig:
        if not run_folder(made).data_info.exists():
            generate(made)
        data = {"folder": str(folder or run_folder(made).data)}
        plain = {**TINY, "output": str(tmp_path / "runs"), "name": name, "data": data}
        return validate(merged(plain, changes))

    return make


def test_given_data_is_used_for_training_and_evaluation_like_generated_data(given, tiny):
    config = given()
    assert generate(config)
    assert not generate(config)
    folder, made = run_folder(config), run_folder(tiny(name="made"))
    info = load_info(folder)
    assert [shard.sha256 for shard in info.shards] == [shard.sha256 for shard in load_info(made).shards]
    np.testing.assert_equal(data_report(folder, info).curve, data_report(made, load_info(made)).curve)
    assert train(config)
    assert evaluate(config)
    summary = load_summary(folder)
    assert set(summary.agents) == {"transformer", "random", "optimal"}
    assert summary.training_steps["transformer"] == info.num_histories * info.history_steps


def test_given_and_generated_data_do_not_mix(given, tiny):
    generate(given())
    with pytest.raises(UserError, match="belongs to another config"):
        generate(tiny(name="given"))
    with pytest.raises(UserError, match="belongs to another config"):
        generate(given(name="made"))
    with pytest.raises(ConfigError, match="this run's own"):
        generate(given(name="made"), overwrite=True)
    assert len(read_shard(run_folder(tiny(name="made")).data / "train-00000-of-00003.h5"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1, "tasks": {"reward": "once"}}, "of the 3 held-out tasks are among the data's training tasks"),
        (
            {"seeds": {"split": 1}},
            r"held-out tasks are among the data's training tasks: .* \(seed 0, 12 and 3 tasks\); without split and",
        ),
        ({"tasks": {"size": 5}}, "the observation space of 'dark_room' is"),
        ({"tasks": {"episode_length": 7}}, "have 7 steps, but the data's have 6"),
    ],
)
def test_data_of_other_tasks_and_of_held_out_tasks_is_refused(given, changes, message):
    with pytest.raises(ConfigError, match=message):
        generate(given(**changes))
    assert not run_folder(given(**changes)).data.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "give exactly one of sources, repo and folder"),
        ({"folder": "a", "repo": "b/c"}, "give exactly one of"),
        ({"folder": "a", "episodes": 3}, "is decided by a; leave it out"),
        ({"folder": "a", "streaming": True}, "needs data.repo"),
        ({"folder": "a", "resident_shards": 2}, "needs data.streaming: true"),
        ({"repo": "one-word"}, "repo"),
    ],
)
def test_contradictory_configs_of_given_data_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        validate({**TINY, "data": data})


def test_the_description_of_a_data_set_is_not_trusted(given, tiny, tmp_path):
    hostile = tmp_path / "hostile"
    generate(tiny(name="made"))
    shutil.copytree(run_folder(tiny(name="made")).data, hostile)
    info = json.loads((hostile / "info.json").read_text())

    def with_info(**changes):
        (hostile / "info.json").write_text(record_text({**info, **changes}))
        return given(folder=hostile)

    for name in ("../../made/data/train-00000-of-00003.h5", "/etc/passwd", "a\\b"):
        with pytest.raises(UserError, match="outside of its folder"):
            generate(with_info(shards=[{"file": name, "sha256": "0"}]))
    for changes, message in (
        ({"shards": ["train-00000-of-00003.h5"]}, r"shards\.0: "),
        ({"shards": []}, "shards: "),
        ({"num_steps": 2.5}, "num_steps: "),
        ({"num_histories": "many"}, "num_histories: "),
        ({"sources": [1]}, r"sources\.0: "),
        ({"tasks": {"size": 4}}, "tasks: has no name"),
        ({"action_space": {"type": "Discrete", "n": 10**30, "start": 0}}, "info.json"),
        ({"observation_space": {**BOX, "shape": [10**7, 10**7]}}, "observation_space is implausibly large"),
        ({"observation_space": {"type": "Dict"}}, "info.json"),
        ({"statistics": {"attn_implementation": "evil/kernel"}}, "statistics"),
        ({"statistics": {"reward_scale": 0, "observation_statistics": {}}}, r"statistics\.reward_scale"),
        (
            {"statistics": {"reward_scale": 1, "observation_statistics": {"x": {"mean": [], "std": []}}}},
            "do not match the obs",
        ),
    ):
        with pytest.raises(UserError, match=message):
            generate(with_info(**changes))
    with pytest.raises(UserError, match=r"has no train-9\.h5"):
        generate(with_info(shards=[{"file": "train-9.h5", "sha256": "0"}]))
    assert not run_folder(given(folder=hostile)).data.exists()
    # A family that the config does not name is not imported, even if the data names it.
    assert generate(with_info(tasks={"name": "antigravity:Tasks"}))
    folder = run_folder(given(folder=hostile))
    assert load_info(folder).tasks is None
    assert not data_report(folder, load_info(folder)).normalised
    assert "antigravity" not in sys.modules


def test_the_tasks_of_a_pulled_folder_import_nothing(tiny, tmp_path):
    generate(tiny(name="made"))
    pulled = tmp_path / "pulled"
    shutil.copytree(run_folder(tiny(name="made")).data, pulled)
    info = json.loads((pulled / "info.json").read_text())
    (pulled / "info.json").write_text(record_text({**info, "tasks": {"name": "antigravity:Tasks"}}))
    folder = folder_of_data(pulled)
    assert not data_report(folder, load_info(folder)).normalised
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"observation": np.zeros((24, 144, 1), np.uint8)},
            "observation has 3,456 values, but 6,912 follow from info.json",
        ),
        ({"action": None}, "column 'action' is missing"),
        ({"observation": None}, "column 'observation' is missing"),
        ({"action": np.full((24, 144), 99)}, "action: has values that are not in Discrete"),
        ({"task": np.full(24, 99)}, "task 99: must be 0 or more and below 12"),
        ({"reward": np.full((24, 144), b"one")}, "reward: has values that are not numbers"),
        ({"reward": np.zeros((24, 143))}, r"has 143 steps, but info\.json states 144"),
    ],
)
def test_shards_that_contradict_the_info_are_refused(given, tiny, tmp_path, change, message):
    made = tiny(name="made", data={"shards": 1})
    generate(made)
    lying = tmp_path / "lying"
    shutil.copytree(run_folder(made).data, lying)
    path = lying / "train-00000-of-00001.h5"
    columns = {name: values for name, values in {**read_shard(path), **change}.items() if values is not None}
    checksum = write_shard(path, columns, {"fingerprint": "lying"})
    info = json.loads((lying / "info.json").read_text())
    info["shards"][0]["sha256"] = checksum
    (lying / "info.json").write_text(record_text(info))
    config = given(folder=lying)
    generate(config)
    with pytest.raises(UserError, match=message):
        train(config)


def test_parquet_shards_are_read_as_arrays_or_refused(tmp_path):
    rows = {"reward": [[1.0, 2.0], [3.0, 4.0]], "cell": [[[1, 2]], [[3, 4]]], "task": [0, 1]}
    path = tmp_path / "train-0.parquet"
    parquet.write_table(pyarrow.table(rows), path)
    found = read_shard(path)
    for name, values in rows.items():
        np.testing.assert_array_equal(found[name], values)
    assert [*read_shard(path, ["task"])] == ["task"]
    for ragged, message in (
        ([[1, 2], [3, 4, 5, 6], [7, 8, 9]], "the rows of a column differ in length"),
        ([[1, 2], None, [3, 4, 5, 6]], "empty cells"),
        (["a", "b"], "not numbers"),
        ([{"a": 1}], "not numbers"),
    ):
        parquet.write_table(pyarrow.table({"reward": ragged}), path)
        with pytest.raises(UserError, match=message):
            read_shard(path)
    with pytest.raises(UserError, match="damaged"):
        read_shard(path, ["none"])


def test_shards_that_refer_to_other_files_are_refused(tmp_path):
    secret, path = tmp_path / "secret", tmp_path / "train-0.h5"
    secret.write_bytes(bytes(8))
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["reward"] = np.zeros(4)

    def external(file):
        file.create_dataset("reward", (8,), "u1", external=[(str(secret), 0, 8)])

    def virtual(file):
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "reward", (4,))
        file.create_virtual_dataset("reward", layout)

    def link(file):
        file["reward"] = h5py.ExternalLink(str(other), "reward")

    def group(file):
        file.create_group("reward")

    for make in (external, virtual, link, group):
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(UserError, match="is not an array stored in this file"):
            read_shard(path)


def test_missing_data_is_linked_again_and_changed_data_is_noticed(given, tiny, tmp_path):
    made = tiny(name="made")
    generate(made)
    moved = tmp_path / "moved"
    shutil.copytree(run_folder(made).data, moved)
    config = given(folder=moved)
    generate(config)
    (run_folder(config).data / "train-00001-of-00003.h5").unlink()
    assert generate(config)
    assert not generate(config)
    other = tiny(name="made", seed=3)
    generate(other, overwrite=True)
    shutil.rmtree(moved)
    shutil.copytree(run_folder(other).data, moved)
    with pytest.raises(
        UserError, match=r"has changed since it was linked; take the new data with `icrl generate --overwrite`"
    ):
        generate(config)


def test_a_changed_shard_is_noticed(given, tmp_path, tiny):
    generate(tiny(name="made"))
    changed = tmp_path / "changed"
    shutil.copytree(run_folder(tiny(name="made")).data, changed)
    generate(given(folder=changed))
    path = changed / "train-00001-of-00003.h5"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="its checksum differs"):
        train(given(folder=changed))


def histories(rng, shape=(3, 12)):
    ended = np.zeros(shape, bool)
    ended[:, 5::6] = True
    return {
        "observation": rng.integers(4, size=(*shape, 2)),
        "action": rng.integers(5, size=shape),
        "reward": rng.random(shape),
        "terminated": np.zeros(shape, bool),
        "truncated": ended,
        "seed": np.arange(shape[0]),
    }


def recorded(**changes):
    room = validate(TINY).tasks.build()
    spaces = {"observation_space": room.observation_space, "action_space": room.action_space}
    return Recorded(**{**spaces, "episode_length": 6, "sources": [{"name": "mine", "rate": 0.1}], **changes})


def test_histories_from_elsewhere_become_a_data_folder(given, tmp_path):
    parts = [histories(np.random.default_rng(number)) for number in range(2)]
    info = write_histories(tmp_path / "mine", iter(parts), recorded())
    assert (info.num_histories, info.history_steps, len(info.shards)) == (6, 12, 2)
    for number, part in enumerate(parts):
        shard = read_shard(tmp_path / "mine" / f"train-0000{number}-of-00002.h5")
        for name, values in part.items():
            np.testing.assert_array_equal(shard[name], values.astype(shard[name].dtype), err_msg=name)
        np.testing.assert_array_equal(shard["history"], np.arange(3) + 3 * number)
    config = given(folder=tmp_path / "mine", model={"context_episodes": 2}, training={"subsample": 1})
    generate(config)
    assert train(config)
    with pytest.raises(UserError, match="already exists"):
        write_histories(tmp_path / "mine", parts, recorded())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": None}, r"reward: must have shape"),
        ({"action": None}, "'action' is missing"),
        ({"colour": np.zeros((3, 12))}, "'colour' is unknown; choose from action, actor"),
        ({"observation": np.full((3, 12, 2), 4)}, r"observation: has values that are not in MultiDiscrete"),
        ({"action": np.zeros((3, 12))}, "action: has values that are not in"),
        ({"action": np.zeros((3, 11), int)}, r"has shape \(3, 11\), expected \(3, 12\)"),
        ({"reward": np.full((3, 12), np.nan)}, "reward: has values that are not finite"),
        ({"source": np.array([0, 0, 1])}, "source 1: must be 0 or more and below 1"),
        ({"task": np.array([0, -1, 0])}, "task -1: must be 0 or more"),
    ],
)
def test_columns_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, change, message):
    columns = {**histories(np.random.default_rng(0)), **change}
    columns = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(UserError, match=message):
        write_histories(tmp_path / "mine", [columns], recorded())
    assert not [*tmp_path.iterdir()]


def test_only_a_data_folder_is_overwritten(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match="is not a data folder and is not replaced"):
        write_histories(precious, [histories(np.random.default_rng(0))], recorded(), overwrite=True)
    assert (precious / "thesis.tex").read_text() == "all of it"


def test_the_leftovers_of_a_killed_import_are_removed_and_replaced_data_is_restored(tmp_path):
    part = [histories(np.random.default_rng(0))]
    (tmp_path / ".mine.123.tmp").mkdir()
    write_histories(tmp_path / "mine", part, recorded())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "mine").rename(tmp_path / ".mine.123.replaced.tmp")  # killed between two renames
    with pytest.raises(UserError, match="no histories"):
        write_histories(tmp_path / "mine", [], recorded(), overwrite=True)
    assert (tmp_path / "mine" / "info.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"nam": "dark_room"}}, "tasks: has no name"),
        ({"sources": [{"rate": 1}]}, r"sources\.0: has no name"),
        ({"sources": []}, "sources"),
        ({"episode_length": 0}, "episode_length"),
    ],
)
def test_the_description_of_histories_is_checked_before_any_is_read(tmp_path, changes, message):
    def parts():
        raise AssertionError("parts must not be read")
        yield

    with pytest.raises(UserError, match=message):
        write_histories(tmp_path / "mine", parts(), recorded(**changes))


def test_parts_must_fit_together(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="histories of 6 steps, but earlier parts have 12"):
        write_histories(tmp_path / "mine", [histories(rng), histories(rng, (3, 6))], recorded())
    labelled = {**histories(rng), "optimal_action": np.zeros((3, 12), int)}
    with pytest.raises(UserError, match="some parts have optimal_action"):
        write_histories(tmp_path / "mine", [histories(rng), labelled], recorded())
    with pytest.raises(UserError, match="no histories"):
        write_histories(tmp_path / "mine", [], recorded())
