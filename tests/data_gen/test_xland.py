"""Import of XLand-100B's layout: every column, the expert's labels, refusals, and training on the data."""

import json
import shutil

import h5py
import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

from ad_model.train import train
from data_gen.agents.epsilon_annealed import EpsilonAnnealed
from data_gen.exchange import xland
from data_gen.exchange.xland import import_xland
from data_gen.generation.generate import generate
from data_gen.interaction import interact
from data_gen.storage.folder import checked_shards, load_info
from data_gen.storage.shards import read_shard
from data_gen.streams import make_seeds
from data_gen.tasks import TaskDistribution, Tasks, TaskVectorEnv
from eval.evaluate import evaluate
from eval.summary import load_summary
from icrl import cli
from icrl.config.components import component
from icrl.config.loader import validate
from icrl.run.folder import RunFolder, run_folder
from icrl.support.errors import UserError
from tests.conftest import TINY, merged

LIMIT = 27  # time limit of a room of 3 x 3 cells


@component
class Levers(TaskDistribution):
    """Six actions, one of which opens the door: an environment with XLand-MiniGrid's spaces, rewards and episode ends.

    The cells show the time.
    """

    episode_length: int = LIMIT
    observation_space = property(lambda self: MultiDiscrete(np.broadcast_to([13, 12], (5, 5, 2))))
    action_space = property(lambda self: Discrete(6))

    def all_tasks(self):
        return Tasks({"ruleset": np.arange(12)})

    def make_vec(self, tasks):
        return LeversVectorEnv(self, tasks)


class LeversVectorEnv(TaskVectorEnv):
    def __init__(self, family, tasks):
        super().__init__(len(tasks), family.observation_space, family.action_space, family.episode_length)
        self.lever = tasks["ruleset"] % 6

    def _restart(self, slots):
        pass

    def _advance(self, actions):
        opened = actions == self.lever
        return (opened * (1 - 0.9 * (self.elapsed + 1) / LIMIT)).astype(np.float32), opened

    def _observe(self):
        cells = np.arange(25).reshape(5, 5) + self.elapsed[:, None, None]
        return np.stack([cells % 13, cells % 12], axis=-1)

    def optimal_action(self):
        return self.lever.copy()


def write_xland(file, tasks, environment="XLand-MiniGrid-R1-3x3", benchmark="trivial-1m"):
    """Writes a file like the authors' collection code: one group per task, from {ruleset: columns}."""
    with h5py.File(file, "w") as opened:
        for number, (ruleset, columns) in enumerate(tasks.items()):
            group = opened.create_group(str(number))
            group.attrs.update({"env-id": environment, "benchmark-id": benchmark, "ruleset-id": ruleset})
            for name, values in columns.items():
                chunks = (1, min(4096, values.shape[1]), *values.shape[2:])
                group.create_dataset(name, data=values, chunks=chunks, compression="gzip", compression_opts=6)
    return file


def random_columns(seed, histories=2, steps=100):
    """Random content for XLand-MiniGrid: half of the episodes reach the goal, the others the time limit."""
    rng = np.random.default_rng(seed)
    dones, rewards = np.zeros((histories, steps), np.bool_), np.zeros((histories, steps), np.float16)
    for history in range(histories):
        end = -1
        while end < steps:
            reached = rng.random() < 0.5
            length = int(rng.integers(1, LIMIT + 1)) if reached else LIMIT
            end += length
            if end < steps:
                dones[history, end], rewards[history, end] = True, (1 - 0.9 * length / LIMIT) * reached
    return {
        "states": rng.integers(13 * 12, size=(histories, steps, 5, 5)).astype(np.uint8),
        "actions": rng.integers(6, size=(histories, steps)).astype(np.uint8),
        "rewards": rewards,
        "dones": dones,
        "expert_actions": rng.integers(6, size=(histories, steps)).astype(np.uint8),
    }


@pytest.fixture
def rooms(tmp_path):
    """A file of eleven tasks with random content, and the content of each task."""
    tasks = {100 + seed: random_columns(seed) for seed in range(11)}
    return write_xland(tmp_path / "rooms.hdf5", tasks), list(tasks.values())


def imported(file, path, **selection):
    """The columns of an import, all shards concatenated, and its info."""
    import_xland(file, path / "data", **selection)
    folder = RunFolder(path)
    info = load_info(folder)
    shards = [read_shard(shard) for shard in checked_shards(folder, info)]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}, info


def test_every_column_equals_the_files_own(rooms, tmp_path):
    file, tasks = rooms
    columns, info = imported(file, tmp_path / "run")
    stored = {name: np.concatenate([task[name] for task in tasks]) for name in tasks[0]}
    reached = stored["rewards"] > 0
    assert stored["dones"].sum() > reached.sum() > 0
    np.testing.assert_array_equal(columns["observation"] @ [12, 1], stored["states"])
    np.testing.assert_array_equal(columns["observation"].max(axis=(0, 1, 2, 3)), [12, 11])
    np.testing.assert_array_equal(columns["action"], stored["actions"])
    np.testing.assert_array_equal(columns["optimal_action"], stored["expert_actions"])
    np.testing.assert_array_equal(columns["reward"], stored["rewards"].astype(np.float32))
    np.testing.assert_array_equal(columns["terminated"], stored["dones"] & reached)
    np.testing.assert_array_equal(columns["truncated"], stored["dones"] & ~reached)
    np.testing.assert_array_equal(columns["task"], np.repeat(np.arange(11), 2))
    np.testing.assert_array_equal(columns["actor"], np.tile([0, 1], 11))
    np.testing.assert_array_equal(Tasks.load(tmp_path / "run/data/tasks-train.npz")["ruleset"], 100 + np.arange(11))
    assert info.episode_length == LIMIT
    assert info.optimal_actions
    assert info.observation_space["nvec"] == [[[13, 12]] * 5] * 5
    assert info.action_space == {"type": "Discrete", "n": 6, "start": 0}
    assert info.sources == [
        {"name": "recurrent_ppo", "environment": "XLand-MiniGrid-R1-3x3", "benchmark": "trivial-1m"}
    ]


def test_tasks_histories_and_steps_can_be_chosen(rooms, tmp_path):
    file, tasks = rooms
    columns, info = imported(file, tmp_path / "run", tasks=[10, 2], histories=1, steps=40)
    chosen = [
        tasks[10]["actions"][:1, :40],
        tasks[2]["actions"][:1, :40],
    ]  # groups are sorted by number: 10 comes after 9, not after 1
    np.testing.assert_array_equal(columns["action"], np.concatenate(chosen))
    np.testing.assert_array_equal(columns["task"], [0, 1])
    np.testing.assert_array_equal(Tasks.load(tmp_path / "run/data/tasks-train.npz")["ruleset"], [110, 102])
    assert (info.num_histories, info.history_steps, info.num_train_tasks) == (2, 40, 2)


def test_shards_are_bounded_and_hold_the_same_histories(rooms, tmp_path, monkeypatch):
    file, _ = rooms
    whole, info = imported(file, tmp_path / "whole")
    assert len(info.shards) == 1
    monkeypatch.setattr(xland, "_SHARD_BYTES", 3 * 100 * 58)  # three histories per shard, two per task
    parts, info = imported(file, tmp_path / "parts")
    sizes = [len(read_shard(tmp_path / "parts/data" / shard.file)["task"]) for shard in info.shards]
    assert sizes == [3] * 6 + [2] * 2
    np.testing.assert_equal(parts, whole)


def without(name):
    def change(group):
        del group[name]

    return change


def replaced(name, values, **storage):
    """Replaces a dataset by a function of its values."""

    def change(group):
        found = values(group[name][()])
        del group[name]
        group.create_dataset(name, data=found, **storage)

    return change


def at(name, index, value):
    def change(group):
        group[name][index] = value

    return change


def linked(name, link):
    def change(group):
        del group[name]
        group[name] = link

    return change


def attribute(name, value):
    def change(group):
        group.attrs[name] = value

    return change


def stored_in_another_file(group):
    del group["actions"]
    group.create_dataset("actions", shape=(2, 100), dtype=np.uint8, external=[("/etc/hostname", 0, 200)])


def virtual(group):
    del group["actions"]
    layout = h5py.VirtualLayout(shape=(2, 100), dtype=np.uint8)
    layout[:] = h5py.VirtualSource("other.hdf5", "actions", shape=(2, 100))
    group.create_virtual_dataset("actions", layout)


def compressed_by_an_unknown_filter(group):
    del group["actions"]
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((1, 100))
    created.set_filter(32123, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((2, 100))
    h5py.h5d.create(group.id, b"actions", h5py.h5t.NATIVE_UINT8, space, created)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("expert_actions"), "group 1: does not have XLand-100B's layout: dataset 'expert_actions' is missing"),
        (without("states"), "dataset 'states' is missing"),
        (lambda group: group.parent.create_group("meta"), r"layout of groups 0, 1, 2 \.\.\.: found 'meta'"),
        (lambda group: group.attrs.__delitem__("ruleset-id"), "attribute 'ruleset-id' is not a whole number"),
        (attribute("env-id", 3), "attribute 'env-id' is not a string"),
        (
            attribute("benchmark-id", "small-1m"),
            "has XLand-MiniGrid-R1-3x3, benchmark small-1m.*; import the tasks separately",
        ),
        (
            replaced("dones", lambda dones: dones[:, :99]),
            r"dones has shape \(2, 99\), but states has \(2, 100, 5, 5\)",
        ),
        (replaced("rewards", lambda rewards: rewards[:1]), r"rewards has shape \(1, 100\)"),
        (replaced("states", lambda states: states[..., 0]), r"states has shape \(2, 100, 5\), expected"),
        (replaced("dones", lambda dones: dones.astype(np.uint8)), "dones has type uint8"),
        (replaced("actions", lambda actions: actions.astype(np.float32)), "actions has type float32"),
        (linked("actions", h5py.SoftLink("/0/actions")), "'actions' is a link, and links are not followed"),
        (linked("actions", h5py.ExternalLink("other.hdf5", "/actions")), "'actions' is a link"),
        (stored_in_another_file, "actions is stored in other files"),
        (virtual, "actions is stored in other files"),
        (compressed_by_an_unknown_filter, r"actions is compressed by HDF5 filter 32123 .* h5repack -f GZIP=6"),
        (at("states", (0, 0, 0, 0), 156), "states has 156, but XLand-MiniGrid's values are below 156"),
        (at("actions", (0, 0), 6), "actions has 6, but XLand-MiniGrid's values are below 6"),
        (at("expert_actions", (1, 99), 255), "expert_actions has 255"),
        (at("rewards", (0, slice(None)), 0.5), "the rewards do not tell how episodes ended"),
        (at("rewards", (0, 99), np.nan), "the rewards do not tell how episodes ended"),
        (at("rewards", (0, 99), -1), "the rewards do not tell how episodes ended"),
        (lambda group: group["dones"].__setitem__(..., False) or group["rewards"].__setitem__(..., 0), "has 100 steps"),
    ],
)
def test_a_file_of_another_layout_is_refused_in_one_line_and_leaves_nothing(rooms, tmp_path, change, message):
    file, _ = rooms
    with h5py.File(file, "r+") as opened:
        change(opened["1"])
    with pytest.raises(UserError, match=message) as caught:
        import_xland(file, tmp_path / "data", tasks=[0, 1])
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.iterdir() if path != file] == []


def test_groups_that_are_links_or_differ_in_length_are_refused(rooms, tmp_path):
    file, _ = rooms
    longer = write_xland(tmp_path / "longer.hdf5", {7: random_columns(0), 8: random_columns(1, steps=120)})
    with pytest.raises(UserError, match="group 1: has histories of 120 steps, but the first task has 100"):
        import_xland(longer, tmp_path / "data")
    assert import_xland(longer, tmp_path / "cut", steps=90).history_steps == 90
    with h5py.File(file, "r+") as opened:
        del opened["1"]
        opened["1"] = h5py.ExternalLink("longer.hdf5", "/0")
    with pytest.raises(UserError, match="'1' is a link"):
        import_xland(file, tmp_path / "data")


def test_a_damaged_or_missing_file_is_reported_in_one_line(rooms, tmp_path):
    file, _ = rooms
    with h5py.File(file) as opened:
        chunk = opened["3/states"].id.get_chunk_info(0)
    content = bytearray(file.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    file.write_bytes(content)
    for broken, message in (
        (file, "group 3: states cannot be read .* the file is damaged"),
        (tmp_path / "nothing.hdf5", "nothing.hdf5: file not found"),
        (shutil.copy(__file__, tmp_path / "text.hdf5"), "text.hdf5: is not an HDF5 file, or is damaged"),
        (write_xland(tmp_path / "empty.hdf5", {}), "the file is empty"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            import_xland(broken, tmp_path / "data")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"tasks": [4, 11]}, "task 11 does not exist; the file has tasks 0 to 10"),
        ({"tasks": [-1]}, "task -1 does not exist"),
        ({"tasks": []}, "no task is chosen"),
        ({"histories": 3}, "group 0: has 2 histories of 100 steps, not 3 of 100"),
        ({"histories": 0}, "has 2 histories of 100 steps, not 0 of 100"),
        ({"steps": 101}, "has 2 histories of 100 steps, not 2 of 101"),
        ({"steps": 0}, "has 2 histories of 100 steps, not 2 of 0"),
        ({"episode_length": 26}, "an episode has 27 steps, but the time limit is 26"),
    ],
)
def test_a_selection_that_the_file_lacks_is_refused(rooms, tmp_path, selection, message):
    with pytest.raises(UserError, match=message):
        import_xland(rooms[0], tmp_path / "data", **selection)


def test_the_time_limit_of_another_environment_must_be_given(tmp_path):
    file = write_xland(tmp_path / "own.hdf5", {7: random_columns(0)}, environment="Own-Room-v0")
    with pytest.raises(UserError, match="the time limit of 'Own-Room-v0' is unknown; give --episode-length"):
        import_xland(file, tmp_path / "data")
    assert import_xland(file, tmp_path / "data", episode_length=30).episode_length == 30


def test_an_existing_folder_is_replaced_only_if_requested(rooms, tmp_path):
    import_xland(rooms[0], tmp_path / "data", tasks=[0])
    with pytest.raises(UserError, match="already exists"):
        import_xland(rooms[0], tmp_path / "data")
    assert import_xland(rooms[0], tmp_path / "data", overwrite=True).num_train_tasks == 11


def test_imported_data_is_used_for_training_on_the_experts_labels_and_for_evaluation(tmp_path):
    """Histories of falling noise, on an environment like XLand-MiniGrid, go through a file of that layout."""
    family, steps = Levers(), 20 * LIMIT
    tasks, _ = family.split(8, 4, seed=0)
    content = {}
    for row in range(len(tasks)):
        envs = family.make_vec(tasks.take([row, row]))
        history = interact(EpsilonAnnealed(), envs, steps, make_seeds(2, row), optimal_actions=True)
        content[int(tasks["ruleset"][row])] = {
            "states": (history.observation @ [12, 1]).astype(np.uint8),
            "actions": history.action,
            "rewards": history.reward.astype(np.float16),
            "dones": history.ended,
            "expert_actions": history.optimal_action,
        }
    columns, _ = imported(write_xland(tmp_path / "levers.hdf5", content), tmp_path / "imported")
    levers = tasks["ruleset"][columns["task"]] % 6
    np.testing.assert_array_equal(columns["optimal_action"], np.broadcast_to(levers[:, None], (16, steps)))
    assert (columns["action"] != columns["optimal_action"]).mean() > 0.2
    changes = {
        "output": str(tmp_path / "runs"),
        "tasks": {"name": "test_xland:Levers"},
        "split": {"train": 8, "test": 4},
        "data": {"folder": str(tmp_path / "imported/data")},
        "model": {"context_episodes": 1, "num_layers": 1},
        "training": {
            "objective": "optimal_action",
            "steps": 80,
            "batch_size": 64,
            "subsample": 1,
            "learning_rate": 0.02,
            "warmup_steps": 5,
        },
        "evaluation": {"baselines": [{"name": "random"}]},
        "runtime": {"checkpoint_every": 80},
    }
    config = validate(merged({**TINY, "tasks": {}, "data": {}}, changes))
    assert generate(config)
    assert train(config)
    losses = [json.loads(line)["loss"] for line in run_folder(config).training_log.read_text().splitlines()]
    assert losses[0] > 1.7  # log 6
    assert losses[-1] < 1.2  # the first open door reveals the expert's action
    assert evaluate(config)
    agents = load_summary(run_folder(config)).agents
    assert set(agents) == {"transformer", "random"}
    for split in ("train", "test"):
        end = {agent: agents[agent][split].returns["final_steps"].mean for agent in agents}
        assert end["transformer"] > end["random"] + 0.05, split


def test_the_console_command_imports(rooms, tmp_path, capsys):
    folder = tmp_path / "commanded"
    words = ["import", "xland", str(rooms[0]), "--to", str(folder), "--tasks", "1", "--histories", "1", "--steps", "30"]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert "import: 1 histories of 30 steps, on 1 tasks" in output
    assert cli.main(words) == 1
    assert "already exists" in capsys.readouterr().err
