"""Generation: pure shards, any number of workers, restarts, damage, Dask, and no held-out task in the data."""

import hashlib
import json
import signal
from typing import Annotated

import numpy as np
import pytest
from conftest import ROOT, run_python
from killing import killed_at
from pydantic import Field

from data_gen.agents import Agent
from data_gen.agents.sweep import PerLearner
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.interaction import agent_seeds, interact
from data_gen.scoring.report import data_report, describe
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard
from data_gen.streams import SlotStreams, make_seeds
from icrl.config.components import component
from icrl.run.folder import run_folder
from icrl.support.errors import UserError


def shard_hashes(config) -> dict[str, str]:
    folder = run_folder(config).data
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.h5"))}


def shards(config):
    return [read_shard(path) for path in sorted(run_folder(config).data.glob("*.h5"))]


def test_two_workers_and_one_write_identical_data(tiny):
    one, two = tiny(name="one"), tiny(name="two", runtime={"workers": 2})
    generate(one)
    generate(two)
    assert len(shard_hashes(one)) == 3
    assert shard_hashes(one) == shard_hashes(two)


def test_the_number_of_shards_changes_no_history(tiny):
    three, one = tiny(name="three"), tiny(name="one", data={"shards": 1})
    generate(three)
    generate(one)
    together = {name: np.concatenate([shard[name] for shard in shards(three)]) for name in shards(three)[0]}
    for name, values in shards(one)[0].items():
        np.testing.assert_array_equal(values, together[name])


def test_no_history_is_on_a_held_out_task(tiny):
    config = tiny()
    generate(config)
    experiment = Experiment(config)
    train, test = experiment.train_tasks, experiment.test_tasks
    goals = np.concatenate([shard["task_goal"] for shard in shards(config)])
    task = np.concatenate([shard["task"] for shard in shards(config)])
    np.testing.assert_array_equal(goals, train["goal"][task])
    assert not set(map(tuple, goals)) & set(map(tuple, test["goal"]))
    assert set(task) == set(range(len(train)))


def test_another_seed_gives_other_splits_and_other_histories(tiny):
    first, second = tiny(name="first"), tiny(name="second", seed=1)
    generate(first)
    generate(second)
    assert not np.array_equal(shards(first)[0]["action"], shards(second)[0]["action"])
    assert not np.array_equal(Experiment(first).train_tasks["goal"], Experiment(second).train_tasks["goal"])


def test_sources_are_mixed_by_share_on_every_task(tiny):
    sources = [{"name": "q_learning", "share": 3}, {"name": "random", "share": 1}]
    config = tiny(data={"sources": sources, "histories_per_task": 4})
    generate(config)
    task = np.concatenate([shard["task"] for shard in shards(config)])
    source = np.concatenate([shard["source"] for shard in shards(config)])
    for number in np.unique(task):
        assert sorted(source[task == number]) == [0, 0, 0, 1]


def test_complete_data_is_kept_and_a_missing_shard_is_made_again(tiny):
    config = tiny()
    assert generate(config)
    before = shard_hashes(config)
    assert not generate(config)
    (run_folder(config).data / "train-00001-of-00003.h5").unlink()
    assert generate(config)
    assert shard_hashes(config) == before


def test_a_missing_info_file_is_made_again_without_a_change_of_shards(tiny):
    config = tiny(runtime={"workers": 2})
    generate(config)
    before = shard_hashes(config)
    run_folder(config).data_info.unlink()
    assert generate(config)
    assert shard_hashes(config) == before
    assert load_info(run_folder(config)).num_histories == 24


def test_a_damaged_shard_is_named_and_nothing_is_overwritten(tiny):
    config = tiny()
    generate(config)
    path = run_folder(config).data / "train-00002-of-00003.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    for use in (lambda: generate(config), lambda: data_report(run_folder(config), load_info(run_folder(config)))):
        with pytest.raises(UserError, match=r"train-00002-of-00003\.h5: the shard is damaged"):
            use()
    assert path.read_bytes() == content
    run_folder(config).data_info.unlink()  # without info.json, HDF5's own checksums detect the damage
    with pytest.raises(UserError, match=r"train-00002-of-00003\.h5: the shard is damaged"):
        generate(config)


def test_data_of_another_config_is_kept_unless_overwriting_is_requested(tiny):
    first, second = tiny(), tiny(tasks={"size": 5})
    generate(first)
    before = shard_hashes(first)
    with pytest.raises(UserError, match="belongs to another config: choose another --name, or --overwrite"):
        generate(second)
    assert shard_hashes(first) == before
    assert generate(second, overwrite=True)
    assert shard_hashes(second) != before


def test_info_states_the_spaces_steps_and_checksums(tiny):
    config = tiny()
    generate(config)
    info = load_info(run_folder(config))
    assert info.observation_space == {"type": "MultiDiscrete", "nvec": [4, 4], "start": [0, 0]}
    assert info.history_steps == 24 * 6
    assert {shard.file: shard.sha256 for shard in info.shards} == shard_hashes(config)


def test_a_second_process_on_the_same_folder_is_refused(tiny):
    from icrl.run.folder import locked

    config = tiny()
    with locked(run_folder(config)), pytest.raises(UserError, match="in use by another process"):
        generate(config)


def test_generation_that_is_killed_and_restarted_equals_uninterrupted_generation(tmp_path, tiny):
    from icrl.config.loader import dump

    changes = {"data": {"shards": 12}, "runtime": {"workers": 2}}
    whole, cut = tiny(name="whole", **changes), tiny(name="cut", **changes)
    generate(whole)
    path = tmp_path / "cut.yaml"
    path.write_text(dump(cut))
    words, finished = ["-m", "data_gen", "--config", str(path)], []
    for number in (1, 3, 4, 5):  # 1: within the config; each shard takes two
        killed = killed_at(number, words, tmp_path, [ROOT])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        finished.append(len(list(run_folder(cut).data.glob("*.h5"))))
        for shard in run_folder(cut).data.glob("*.h5"):
            read_shard(shard)  # every shard is complete
    assert 0 < finished[-1] < 12 and not run_folder(cut).data_info.exists()  # the kills came in the middle
    done = run_python(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert shard_hashes(cut) == shard_hashes(whole)
    assert not list(run_folder(cut).data.glob(".*"))


def test_a_dask_cluster_writes_the_same_data(tiny):
    distributed = pytest.importorskip("distributed")
    local, remote = tiny(name="local"), {"name": "remote"}
    generate(local)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        config = tiny(**remote, runtime={"executor": "dask", "scheduler": cluster.scheduler_address, "workers": 2})
        generate(config)
    assert shard_hashes(config) == shard_hashes(local)


def test_a_missing_dask_scheduler_is_reported_in_one_line(tiny):
    pytest.importorskip("distributed")
    config = tiny(runtime={"executor": "dask", "scheduler": "tcp://127.0.0.1:9"})
    with pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        generate(config)


def test_the_data_report_distinguishes_good_data_from_useless_data(tiny):
    good = tiny(name="good", data={"episodes": 120, "histories_per_task": 8})
    useless = tiny(name="useless", data={"sources": [{"name": "random"}]})
    reports = {}
    for config in (good, useless):
        generate(config)
        reports[config.name] = data_report(run_folder(config), load_info(run_folder(config)))
    assert reports["good"].share_improving > 0.9
    assert reports["good"].final > 0.85
    assert not reports["good"].warnings()
    assert 1 < reports["good"].suggested_subsample < 40
    assert reports["useless"].share_improving < 0.5
    assert len(reports["useless"].warnings()) == 2
    assert "warning: " in describe(reports["useless"])
    assert "warning: " not in describe(reports["useless"], imitated=False)  # the source's quality does not matter


def test_info_has_a_schema_version_and_the_card_names_the_shards(tiny):
    config = tiny()
    generate(config)
    folder = run_folder(config).data
    assert json.loads((folder / "info.json").read_text())["schema_version"] == 2
    assert "path: train-*.h5" in (folder / "README.md").read_text()


@component
class Leaning(Agent):
    """Acts at random with the learner's own probability, otherwise like the learner's first actor in the last step.

    `boldness` is drawn but has no effect.
    """

    actors: int = 1
    noise: PerLearner[Annotated[float, Field(ge=0, le=1)]] = 0.5
    boldness: PerLearner[Annotated[float, Field(ge=0)]] = 1.0

    def reset(self, spec, num_envs, seeds):
        self.noisy, self.streams = self.drawn("noise", seeds), SlotStreams(seeds)
        self.last, self.n = np.zeros(len(seeds), dtype=np.int64), spec.action_space.n

    def act(self, observation):
        chance, choice = np.moveaxis(self.streams.uniform(self.actors, 2), 2, 0)
        random = (choice * self.n).astype(np.int64)
        actions = np.where(chance < self.noisy[:, None], random, self.last[:, None])
        self.last = actions[:, 0]
        return actions.reshape(-1)


MIXED = [
    {"name": "q_learning", "share": 2},
    {"name": "test_generate:Leaning", "actors": 3, "noise": 0.3},
    {
        "name": "test_generate:Leaning",
        "actors": 2,
        "record": "all",
        "noise": [0.1, 0.9],
        "boldness": {"low": 1, "high": 100, "log": True},
    },
]
"""Two learners of the first source and one of each other source per task: two, one and two histories."""


def mixed(tiny, **changes):
    config = tiny(data={"sources": MIXED, "histories_per_task": 4, "optimal_actions": True}, **changes)
    generate(config)
    return config, {name: np.concatenate([shard[name] for shard in shards(config)]) for name in shards(config)[0]}


def test_mixed_sources_record_histories_by_share_with_their_actors_and_seeds(tiny):
    config, columns = mixed(tiny)
    np.testing.assert_array_equal(columns["history"], np.arange(12 * (2 + 1 + 2)))
    for task in range(12):
        own = columns["task"] == task
        made_by = sorted(zip(columns["source"][own], columns["actor"][own], strict=True))
        assert made_by == [(0, 0), (0, 0), (1, 0), (2, 0), (2, 1)]
    seeds = make_seeds(12 * 4, config.seed, 1)
    _, first = np.unique(columns["seed"], return_index=True)
    np.testing.assert_array_equal(columns["seed"][np.sort(first)], seeds)  # one learner after another
    assert load_info(run_folder(config)).swept == ["hyper_boldness", "hyper_noise"]


def test_swept_hyper_parameters_are_recorded_and_are_nan_for_other_sources(tiny):
    _, columns = mixed(tiny)
    swept = columns["source"] == 2
    agent = Leaning(actors=2, **{name: MIXED[2][name] for name in ("noise", "boldness")})
    for name in ("noise", "boldness"):
        assert np.isnan(columns[f"hyper_{name}"][~swept]).all()
        drawn = agent.drawn(name, agent_seeds(columns["seed"][swept]))
        np.testing.assert_array_equal(columns[f"hyper_{name}"][swept], drawn)
    assert set(columns["hyper_noise"][swept]) == {0.1, 0.9}
    assert len(set(columns["hyper_boldness"][swept])) == 12
    # The recorded noise is the one in effect: a timid learner mostly repeats itself.
    first = swept & (columns["actor"] == 0)
    repeats = (columns["action"][first, 1:] == columns["action"][first, :-1]).mean(axis=1)
    timid = columns["hyper_noise"][first] == 0.1
    assert repeats[timid].min() > 0.8 > 0.5 > repeats[~timid].max()


def test_every_history_of_a_mix_equals_that_of_its_learner_alone(tiny):
    config, columns = mixed(tiny)
    experiment = Experiment(config)
    distribution, train = experiment.family, experiment.train_tasks
    for learner in np.unique(columns["seed"]):
        rows = np.flatnonzero(columns["seed"] == learner)
        source = config.data.sources[columns["source"][rows[0]]]
        agent, task = source.build(), columns["task"][rows[:1]]
        envs = distribution.make_vec(train.take(np.repeat(task, agent.actors)))
        alone = interact(agent, envs, 24 * 6, np.array([learner]), optimal_actions=True).columns()
        for name, values in alone.items():
            np.testing.assert_array_equal(columns[name][rows], values[columns["actor"][rows]], err_msg=name)


def test_bytes_of_a_mix_do_not_depend_on_the_number_of_workers(tiny):
    one, _ = mixed(tiny, name="one")
    two, _ = mixed(tiny, name="two", runtime={"workers": 2})
    assert shard_hashes(one) == shard_hashes(two)
