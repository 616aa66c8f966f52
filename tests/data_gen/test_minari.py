"""Import of data sets that Minari wrote as learning histories, and export of learning histories to Minari."""

import json
import os
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from conftest import TINY, merged
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

import data_gen  # noqa: F401 - registers environments
from ad_model.train import train
from data_gen.exchange import minari_export, minari_reading
from data_gen.exchange.minari_data import import_minari
from data_gen.exchange.minari_export import export_minari
from data_gen.exchange.minari_tasks import Home, locate
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.spaces import leaves, map_leaves, to_json
from data_gen.storage.folder import load_info
from data_gen.storage.shards import STEP_COLUMNS, read_shard, write_shard
from data_gen.tasks.base import Tasks
from eval.evaluate import evaluate
from eval.summary import load_summary
from icrl import cli
from icrl.config.loader import validate
from icrl.run.folder import RunFolder, run_folder
from icrl.support.errors import ConfigError, UserError

minari = pytest.importorskip("minari")
EpisodeBuffer = minari.data_collector.EpisodeBuffer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PENDULUM = {"name": "gymnasium", "env_id": "Pendulum-v1", "vary": {"g": {"low": 5.0, "high": 15.0}}}


@pytest.fixture(autouse=True)
def minari_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def random_episodes(env, episodes, seed=0, stop=None):
    """Episodes of random actions, as from Minari's collector. The last one stops after `stop` steps."""
    env.action_space.seed(seed)
    buffers = []
    for episode in range(episodes):
        seen, actions, rest = [env.reset(seed=seed + episode)[0]], [], []
        while not rest or not (rest[-1][1] or rest[-1][2] or (episode == episodes - 1 and len(rest) == stop)):
            actions.append(env.action_space.sample())
            observation, *outcome, _ = env.step(actions[-1])
            seen.append(observation)
            rest.append(outcome)
        rewards, terminations, truncations = (list(column) for column in zip(*rest, strict=True))
        buffers.append(
            EpisodeBuffer(
                observations=np.stack(seen),
                actions=np.stack(actions),
                rewards=rewards,
                terminations=terminations,
                truncations=truncations,
            )
        )
    return buffers


def written(dataset_id, buffers, env, **more):
    return minari.create_dataset_from_buffers(dataset_id, buffers, env=env, **more)


def cart_pole(dataset_id, episodes=5, seed=0, stop=None, **more):
    env = gymnasium.make("CartPole-v1")
    buffers = random_episodes(env, episodes, seed, stop)
    written(dataset_id, buffers, env, **more)
    return buffers


def pendulum(dataset_id, g, episodes=2, steps=20):
    env = gymnasium.make("Pendulum-v1", g=g, max_episode_steps=steps)
    return written(dataset_id, random_episodes(env, episodes), env)


def columns(folder):
    """All columns of the histories in the data folder of a run."""
    info = load_info(RunFolder(folder.parent))
    shards = [read_shard(folder / shard.file) for shard in info.shards]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def joined(buffers, name):
    return np.concatenate([np.asarray(getattr(buffer, name)) for buffer in buffers])


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_the_episodes_of_a_data_set_become_one_history(tmp_path, data_format):
    buffers = cart_pole("cart/first-v0", algorithm_name="PPO", data_format=data_format)
    made = import_minari(["cart/first-v0"], tmp_path / "data")
    found = columns(tmp_path / "data")
    seen = np.concatenate([buffer.observations[:-1] for buffer in buffers])
    np.testing.assert_array_equal(found["observation"], seen[None])
    np.testing.assert_array_equal(found["action"], joined(buffers, "actions")[None])
    np.testing.assert_array_equal(found["reward"], joined(buffers, "rewards")[None])
    np.testing.assert_array_equal(found["terminated"], joined(buffers, "terminations")[None])
    assert not found["truncated"].any()
    assert made.left_out == {"cart/first-v0": 0} and made.truncated == {"cart/first-v0": 0}
    assert made.info.episode_length == 500
    assert made.info.tasks is None
    assert made.info.sources == [{"name": "PPO", "dataset": "cart/first-v0"}]
    assert made.info == load_info(RunFolder(tmp_path))


def test_an_unmarked_end_becomes_a_truncation_and_is_counted(tmp_path):
    cart_pole("cart/open-v0", episodes=3, stop=4)
    made = import_minari(["cart/open-v0"], tmp_path / "data")
    found = columns(tmp_path / "data")
    assert made.truncated == {"cart/open-v0": 1}
    assert found["truncated"].sum() == 1 and found["truncated"][0, -1]
    assert found["terminated"].sum() == 2


def test_data_sets_become_tasks_or_histories_of_one_task_as_long_as_the_shortest(tmp_path):
    lengths = [sum(map(len, cart_pole(f"cart/{n}-v0", episodes=3 + n, seed=10 * n))) for n in range(3)]
    ids = [f"cart/{n}-v0" for n in range(3)]
    made = import_minari(ids, tmp_path / "data")
    found = columns(tmp_path / "data")
    assert found["reward"].shape == (3, min(lengths))
    for name in ("task", "source", "seed"):
        np.testing.assert_array_equal(found[name], [0, 1, 2])
    assert list(made.left_out.values()) == [length - min(lengths) for length in lengths]
    with pytest.raises(UserError, match="already exists"):
        import_minari(ids, tmp_path / "data")
    import_minari(ids, tmp_path / "data", same_task=True, overwrite=True)
    again = columns(tmp_path / "data")
    np.testing.assert_array_equal(again["task"], [0, 0, 0])
    np.testing.assert_array_equal(again["seed"], [0, 1, 2])
    np.testing.assert_array_equal(again["observation"], found["observation"])


def test_a_long_data_set_is_cut_into_histories_that_start_with_an_episode(tmp_path):
    buffers = cart_pole("cart/long-v0", episodes=9)
    lengths = [len(buffer) for buffer in buffers]
    made = import_minari(["cart/long-v0"], tmp_path / "data", steps=50, cut=True)
    found = columns(tmp_path / "data")
    first, starts = 0, []
    while sum(lengths[first:]) >= 50:
        starts.append(first)
        first += int(np.searchsorted(np.cumsum(lengths[first:]), 50)) + 1
    assert len(starts) > 1
    np.testing.assert_array_equal(found["observation"][:, 0], [buffers[n].observations[0] for n in starts])
    for row, n in enumerate(starts):
        np.testing.assert_array_equal(found["action"][row], joined(buffers[n:], "actions")[:50])
    assert made.left_out == {"cart/long-v0": sum(lengths) - 50 * len(starts)}


def test_a_shard_holds_no_more_bytes_of_histories_than_the_limit(tmp_path, monkeypatch):
    for number in range(3):
        cart_pole(f"cart/{number}-v0", seed=9 * number)
    ids = [f"cart/{number}-v0" for number in range(3)]
    together = import_minari(ids, tmp_path / "data")
    before = columns(tmp_path / "data")
    monkeypatch.setattr(minari_reading, "_PART_BYTES", 1)
    apart = import_minari(ids, tmp_path / "data", overwrite=True)
    assert (len(together.info.shards), len(apart.info.shards)) == (1, 3)
    np.testing.assert_equal(columns(tmp_path / "data"), before)


def tree_episode(steps, rng):
    seen = {
        "cells": (rng.integers(0, 4, steps + 1), rng.integers(0, 2, (steps + 1, 3)).astype(np.int8)),
        "view": rng.integers(0, 256, (steps + 1, 32, 32, 3)).astype(np.uint8),
        "words": ["go to the door"] * (steps + 1),
    }
    return EpisodeBuffer(
        observations=seen,
        actions=rng.integers(0, 3, (steps, 2)) + 1,
        rewards=[0.5] * steps,
        terminations=[False] * (steps - 1) + [True],
        truncations=[False] * steps,
    )


TREE = spaces.Dict(
    {
        "cells": spaces.Tuple([spaces.Discrete(4), spaces.MultiBinary(3)]),
        "view": spaces.Box(0, 255, (32, 32, 3), np.uint8),
        "words": spaces.Text(32),
    }
)


def test_trees_of_observations_become_leaves_and_texts_can_be_left_out(tmp_path):
    buffers = [tree_episode(steps, np.random.default_rng(steps)) for steps in (3, 5)]
    actions = spaces.MultiDiscrete([3, 3], start=[1, 1])
    minari.create_dataset_from_buffers(
        "tree-v0", buffers, observation_space=TREE, action_space=actions, jpeg_encoding=False
    )
    refusal = r"tree-v0: observations: the space Text.*; use --keys to keep only the other keys"
    with pytest.raises(UserError, match=refusal):
        import_minari(["tree-v0"], tmp_path / "data")
    with pytest.raises(UserError, match="have no 'veiw'; did you mean 'view'"):
        import_minari(["tree-v0"], tmp_path / "data", keys=["veiw"])
    made = import_minari(["tree-v0"], tmp_path / "data", keys=["cells", "view"])
    found = columns(tmp_path / "data")
    for path in ("cells.0", "cells.1", "view"):
        seen = np.concatenate([leaves(buffer.observations)[path][:-1] for buffer in buffers])
        np.testing.assert_array_equal(found[f"observation.{path}"][0], seen)
    np.testing.assert_array_equal(found["action"][0], joined(buffers, "actions"))
    assert made.info.episode_length == 5  # the longest episode


def test_a_data_sets_task_is_found_in_the_family_by_its_environment(tmp_path):
    for g in (6.0, 12.5):
        pendulum(f"pendulum/g{int(g)}-v0", g)
    ids = ["pendulum/g12-v0", "pendulum/g6-v0"]
    family = {**PENDULUM, "episode_length": 20}
    made = import_minari(ids, tmp_path / "data", tasks=family)
    assert made.info.tasks["vary"] == family["vary"] and made.info.episode_length == 20
    np.testing.assert_array_equal(Tasks.load(tmp_path / "data/tasks-train.npz")["g"], [12.5, 6.0])
    listed = {**family, "vary": {"g": [1.0, 6, 12.5]}}
    import_minari(ids, tmp_path / "data", tasks=listed, overwrite=True)
    np.testing.assert_array_equal(Tasks.load(tmp_path / "data/tasks-train.npz")["g"], [2, 1])
    with pytest.raises(UserError, match=r"its g is 12\.5, which is not in tasks\.vary"):
        import_minari(ids, tmp_path / "other", tasks={**family, "vary": {"g": {"low": 5.0, "high": 11}}})
    with pytest.raises(UserError, match="same_task: the environments of the data sets have different tasks"):
        import_minari(ids, tmp_path / "other", tasks=family, same_task=True)
    with pytest.raises(UserError, match=r"episode_length 19: an episode has 20 steps"):
        import_minari(ids, tmp_path / "other", tasks={**family, "episode_length": 19})
    env = gymnasium.make("Pendulum-v1", max_episode_steps=20)
    written("pendulum/default-v0", random_episodes(env, 1), env)
    with pytest.raises(UserError, match=r"its environment does not set g, which is in tasks\.vary"):
        import_minari(["pendulum/default-v0"], tmp_path / "other", tasks=family)


def test_a_task_of_this_project_is_found_and_a_task_of_another_family_is_refused(tmp_path):
    for number, goal in enumerate([(3, 2), (0, 1)]):
        env = gymnasium.make("icrl/DarkRoom-v0", size=4, episode_length=6, task={"goal": goal})
        written(f"room/{number}-v0", random_episodes(env, 2), env)
    ids = ["room/0-v0", "room/1-v0"]
    import_minari(ids, tmp_path / "data", tasks={"name": "dark_room", "size": 4, "episode_length": 6})
    train = Tasks.load(tmp_path / "data/tasks-train.npz")
    np.testing.assert_array_equal(train["goal"], [[3, 2], [0, 1]])
    with pytest.raises(UserError, match=r"its tasks are .*, not "):
        import_minari(ids, tmp_path / "other", tasks={"name": "dark_room", "size": 5, "episode_length": 6})
    assert not (tmp_path / "other").exists()
    for goal in ([0.5, 1], [1], None):
        home = Home("data set room/2-v0", None, {"name": "dark_room"}, {"goal": goal})
        with pytest.raises(UserError, match="tasks: goal: the value in a data set does not fit the family"):
            locate({"name": "dark_room"}, [home])


def test_a_failed_import_is_reported_in_one_line(tmp_path):
    cart_pole("cart/there-v0", episodes=2)
    pendulum("pendulum/there-v0", 6.0)
    to = tmp_path / "data"
    for ids, words, more in [
        (["cart/their-v0"], "not found in .*; did you mean 'cart/there-v0'.; download it with --download", {}),
        (["cart/there"], "is not a Minari id", {}),
        (["../cart-v0"], "is not a Minari id", {}),
        ([], "none: give one or more", {}),
        (["cart/there-v0", "cart/there-v0"], "without repeats", {}),
        (["cart/there-v0", "pendulum/there-v0"], "observations have the space .*, but those of cart/there-v0 have", {}),
        (["cart/there-v0"], "steps 9999: has to be from 1 to", {"steps": 9999}),
        (["cart/there-v0"], "keys: observations of cart/there-v0 .* no keys", {"keys": ["a"]}),
        (["remote/other-v0"], "remote/other-v0: cannot be downloaded", {"download": True}),
    ]:
        with pytest.raises(UserError, match=words) as raised:
            import_minari(ids, to, **more)
        assert "\n" not in str(raised.value)
    assert not to.exists()


def test_no_code_that_a_data_set_names_is_run(tmp_path, minari_root):
    """Without spaces in the metadata, Minari would make the environment, and its entry point may be any code."""
    cart_pole("cart/evil-v0", episodes=2)
    path = minari_root / "cart/evil-v0/data/metadata.json"
    metadata = json.loads(path.read_text())
    for name in ("observation_space", "action_space"):
        del metadata[name]
    mark = tmp_path / "mark"
    metadata["env_spec"] = EnvSpec("evil-v0", entry_point="os:mkdir", kwargs={"path": str(mark)}).to_json()
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"cart/evil-v0: cannot be read .*does not state its spaces"):
        import_minari(["cart/evil-v0"], tmp_path / "data")
    assert not mark.exists()


def test_a_damaged_data_set_is_reported_in_one_line(tmp_path, minari_root):
    cart_pole("cart/cut-v0", episodes=4)
    path = minari_root / "cart/cut-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cart/cut-v0: cannot be read"):
        import_minari(["cart/cut-v0"], tmp_path / "data")


def test_an_imported_data_set_is_used_for_training_and_evaluation(tmp_path):
    """The import is given the tasks, so a config that holds out one of them is refused."""
    for number, g in enumerate((6.0, 9.0, 12.5)):
        pendulum(f"pendulum/{number}-v0", g, episodes=6, steps=8)
    family = {**PENDULUM, "episode_length": 8}
    folder = tmp_path / "imported"
    import_minari([f"pendulum/{number}-v0" for number in range(3)], folder, tasks=family)
    plain = {**TINY, "tasks": family, "split": {"train": 4, "test": 2}, "data": {"folder": str(folder)}}
    changes = {"output": str(tmp_path / "runs"), "training": {"subsample": 2, "steps": 3}}
    config = validate(merged(plain, {**changes, "evaluation": {"train_tasks": 1, "baselines": [{"name": "random"}]}}))
    generate(config)
    assert train(config)
    assert evaluate(config)
    assert set(load_summary(run_folder(config)).agents) == {"transformer", "random"}
    experiment = Experiment(config)
    held_out = experiment.test_tasks
    pendulum("pendulum/leak-v0", float(held_out["g"][0]), episodes=6, steps=8)
    import_minari(["pendulum/0-v0", "pendulum/leak-v0"], folder, tasks=family, overwrite=True)
    with pytest.raises(ConfigError, match="1 of the 2 held-out tasks are among the data's training tasks"):
        generate(validate({**config.model_dump(mode="json"), "name": "leak"}))


SWEPT = [{"name": "mdp_epsilon_greedy", "epsilon": [0.05, 0.5]}, {"name": "random"}]
RUNS = {
    "rooms": {
        "tasks": {"name": "dark_room", "size": 3, "episode_length": 6},
        "data": {"sources": SWEPT, "optimal_actions": True, "episodes": 4},
    },
    "pixels": {
        "tasks": {
            "name": "pixels",
            "of": {"name": "dark_room", "size": 3, "episode_length": 7},
            "keep": True,
            "tile": 12,
        },
        "data": {"sources": [{"name": "random"}], "episodes": 3},
    },
    "physics": {
        "tasks": {"name": "pendulum", "episode_length": 6},
        "split": {"train": 5, "test": 2},
        "data": {"sources": [{"name": "random"}], "episodes": 3},
    },
}


def run(tiny, kind):
    """A run folder with generated data."""
    changes = {"model": {"context_episodes": 1}, "training": {"subsample": 1}, **RUNS[kind]}
    plain = {
        **TINY,
        "output": tiny().output,
        "tasks": changes["tasks"],
    }  # the tasks of the tiny experiment are not merged in
    config = validate(merged(plain, changes))
    generate(config)
    return run_folder(config)


def cut_open(folder):
    """Makes every history of a run end in the middle of an episode."""
    info = load_info(folder)
    steps = info.history_steps - 2
    shards = []
    for shard in info.shards:
        path = folder.data / shard.file
        held = read_shard(path)
        kept = {n: v[:, :steps] if n.partition(".")[0] in STEP_COLUMNS else v for n, v in held.items()}
        checksum = write_shard(path, kept, {"fingerprint": "cut", "schema_version": 2})
        shards.append({"file": shard.file, "sha256": checksum})
    folder.data_info.write_text(json.dumps({**info.plain(), "num_steps": steps, "shards": shards}))


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("by_task", [False, True])
def test_exported_histories_are_imported_again_bit_for_bit(tmp_path, tiny, kind, by_task):
    folder = run(tiny, kind)
    cut_open(folder)
    before, info = columns(folder.data), load_info(folder)
    ids = export_minari(folder, "ours/run-v0", by_task=by_task, author="me")
    assert len(ids) == (len(np.unique(before["task"])) if by_task else 1)
    made = import_minari(ids, tmp_path / "back/data", tasks=info.tasks)
    after = columns(tmp_path / "back/data")
    order = np.lexsort((before["history"], before["task"])) if by_task else before["history"]
    kept = [name for name in before if name != "history" and not name.startswith("hyper_")]
    assert set(kept) == set(after) - {"history"}
    for name in kept:
        assert after[name].dtype == before[name].dtype, name
        np.testing.assert_array_equal(after[name], before[name][order], err_msg=name)
    same = ("observation_space", "action_space", "episode_length", "num_histories", "history_steps", "tasks", "sources")
    assert {name: getattr(made.info, name) for name in same} == {name: getattr(info, name) for name in same}
    train, again = (Tasks.load(path / "tasks-train.npz") for path in (folder.data, tmp_path / "back/data"))
    np.testing.assert_array_equal(train.keys(), again.keys())
    assert not any(made.left_out.values()) and not any(made.truncated.values())


def test_an_imported_folder_is_exported_like_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffers = cart_pole("cart/first-v0", episodes=3)
    import_minari(["cart/first-v0"], tmp_path / "imported")
    monkeypatch.setenv("MINARI_DATASETS_PATH", "minari")  # Minari itself cannot write to a relative path
    assert export_minari(RunFolder(tmp_path, tmp_path / "imported"), "cart/again-v0") == ["cart/again-v0"]
    again = minari.load_dataset("cart/again-v0")
    assert again.env_spec is None
    for episode, buffer in zip(again, buffers, strict=True):
        np.testing.assert_array_equal(episode.observations[:-1], buffer.observations[:-1])
        np.testing.assert_array_equal(episode.actions, buffer.actions)


@pytest.mark.parametrize("kind", RUNS)
def test_minari_reads_an_export_with_equal_arrays(tiny, kind):
    folder = run(tiny, kind)
    cut_open(folder)
    before = columns(folder.data)
    export_minari(folder, "ours/run-v0", author="me", code_permalink="somewhere")
    dataset = minari.load_dataset("ours/run-v0")
    info = load_info(folder)
    assert to_json(dataset.observation_space) == info.observation_space
    assert to_json(dataset.action_space) == info.action_space
    assert dataset.total_steps == before["reward"].size
    at, row = 0, 0
    for episode, details in zip(dataset, dataset.storage.get_episode_metadata(dataset.episode_indices), strict=True):
        here = np.s_[row, at : at + len(episode)]
        for path, seen in leaves(episode.observations).items():
            recorded = before[f"observation.{path}" if path else "observation"][here]
            np.testing.assert_array_equal(seen[:-1], recorded)
            np.testing.assert_array_equal(seen[-1], recorded[-1])
            assert seen.dtype == leaves(dataset.observation_space)[path].dtype
        first = map_leaves(lambda values: values[0], episode.observations)
        assert dataset.observation_space.contains(first), first
        np.testing.assert_array_equal(episode.actions, before["action"][here])
        assert episode.actions.dtype == dataset.action_space.dtype
        np.testing.assert_array_equal(episode.rewards, before["reward"][here])
        np.testing.assert_array_equal(episode.terminations, before["terminated"][here])
        at += len(episode)
        is_last = at == info.history_steps
        assert details["cut_off"] == is_last
        np.testing.assert_array_equal(episode.truncations[:-1], before["truncated"][here][:-1])
        assert episode.truncations[-1] == (is_last or before["truncated"][row, at - 1])
        for name in ("history", "task", "source", "actor"):
            assert details[name] == before[name][row]
        assert details["learner_seed"] == before["seed"][row]
        if kind == "rooms":
            np.testing.assert_array_equal(details["hyper_epsilon"], before["hyper_epsilon"][row])
            np.testing.assert_array_equal(episode.infos["optimal_action"][:-1], before["optimal_action"][here])
        row, at = (row + 1, 0) if is_last else (row, at)
    assert row == info.num_histories
    metadata = dataset.storage.metadata
    assert metadata["author"] == {"me"} and metadata["code_permalink"] == "somewhere"
    assert "the observation before that step is repeated" in metadata["description"]
    assert metadata["algorithm_name"] == ", ".join(source["name"] for source in info.sources)


def test_a_data_set_of_one_task_names_its_environment(tiny):
    folder = run(tiny, "rooms")
    held = columns(folder.data)
    export_minari(folder, "ours/run-v0", by_task=True, histories=[3, 5])
    ids = sorted(minari.list_local_datasets())
    assert ids == [f"ours/run-task-{held['task'][number]:05d}-v0" for number in (3, 5)]
    dataset = minari.load_dataset(ids[0])
    env = dataset.recover_environment()
    episode = dataset[0]
    assert env.spec.max_episode_steps == 6
    env.reset(seed=0)
    for step, action in enumerate(episode.actions):
        observation, reward, *_ = env.step(action)
        assert reward == episode.rewards[step]
        if step + 1 < len(episode):
            np.testing.assert_array_equal(observation, episode.observations[step + 1])


def test_an_export_is_complete_or_absent(tiny, minari_root, monkeypatch):
    folder = run(tiny, "rooms")
    finish = minari_export._Writer.finish

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(minari_export._Writer, "finish", full)
    with pytest.raises(UserError, match=r"ours/run-v0: cannot be written \(No space left on device\)"):
        export_minari(folder, "ours/run-v0")
    assert not [path for path in minari_root.rglob("*") if path.is_file()]
    assert os.environ["MINARI_DATASETS_PATH"] == str(minari_root)
    monkeypatch.setattr(minari_export._Writer, "finish", finish)
    (minari_root / ".ours.run-v0.1.tmp").mkdir()  # left by a killed export
    export_minari(folder, "ours/run-v0")
    assert not list(minari_root.glob(".*"))
    assert list(minari.list_local_datasets()) == ["ours/run-v0"]
    with pytest.raises(UserError, match="already exists; choose another id"):
        export_minari(folder, "ours/run-v0")
    with pytest.raises(UserError, match="has no history 999; the data has"):
        export_minari(folder, "ours/other-v0", histories=[0, 999])
    with pytest.raises(UserError, match="is not a Minari id"):
        export_minari(folder, "ours/other")


def test_the_console_command_imports_and_exports(tmp_path, capsys):
    cart_pole("cart/first-v0", episodes=6)
    cart_pole("cart/second-v0", episodes=4, seed=1)
    folder = str(tmp_path / "data")
    assert cli.main(["import", "minari", "cart/first-v0", "cart/second-v0", "--to", folder, "--same-task"]) == 0
    output = capsys.readouterr().out
    assert "import: 2 histories of" in output
    assert "cart/first-v0: " in output and "steps are left out" in output
    assert f"next: a config with data: {{folder: {folder}}}" in output
    assert cli.main(["export", "minari", folder, "--id", "cart/again-v0", "--histories", "1"]) == 0
    assert "export: 1 Minari data sets, cart/again-v0" in capsys.readouterr().out
    assert minari.load_dataset("cart/again-v0").total_steps == len(columns(tmp_path / "data")["reward"][1])
    for words, message in (
        (["import", "minari", "cart/none-v0", "--to", str(tmp_path / "none")], "cart/none-v0"),
        (["import", "minari", "cart/first-v0", "--to", folder], "already exists"),
        (["import", "minari", "cart/first-v0", "--to", folder, "--tasks", "{"], "--tasks: not valid YAML"),
        (["export", "minari", folder, "--id", "cart/again-v0", "--histories", "one"], "expected numbers such as"),
    ):
        assert cli.main(words) == 1
        _, line = capsys.readouterr().err.split("error: ")
        assert message in line


def test_columns_with_an_axis_of_one_are_read(tmp_path):
    """As recorders of vector environments write them: rewards and Discrete actions of shape (T, 1)."""
    env = gymnasium.make("CartPole-v1")
    buffers = [replace(buffer, rewards=np.asarray(buffer.rewards)[:, None]) for buffer in random_episodes(env, 2)]
    minari.create_dataset_from_buffers("cart/wide-v0", buffer=buffers, env=env)
    import_minari(["cart/wide-v0"], tmp_path / "data")
    assert columns(tmp_path / "data")["reward"].ndim == 2


def test_a_column_of_another_shape_is_named_with_its_data_set_and_episode(tmp_path):
    env = gymnasium.make("CartPole-v1")
    buffers = [replace(buffer, rewards=np.zeros((len(buffer.rewards), 2))) for buffer in random_episodes(env, 2)]
    minari.create_dataset_from_buffers("cart/wider-v0", buffer=buffers, env=env)
    with pytest.raises(UserError, match=r"data set cart/wider-v0: episode 0: reward has values of shape \(2,\)"):
        import_minari(["cart/wider-v0"], tmp_path / "data")
