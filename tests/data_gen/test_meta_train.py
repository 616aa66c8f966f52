"""Meta-training: checkpoints, resumption, kills, stale weights, and meta-trained agents in the pipeline."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from conftest import ROOT, seal
from killing import killed_at
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data_gen.agents.sweep import Positive
from data_gen.experiment import Experiment
from data_gen.generation.generate import environment_steps, generate
from data_gen.interaction import spec_of
from data_gen.meta.base import MetaLearner, TrainingTasks, load_optimiser_state, optimiser_state
from data_gen.meta.store import learner_folder, ready_agent, trained_checkpoint, trained_figures
from data_gen.meta.training import meta_train
from data_gen.storage.folder import load_info
from data_gen.streams import SlotStreams
from data_gen.tasks.tabular.bandit import Bandit
from eval.evaluate import check_agents
from icrl.config.components import component
from icrl.config.loader import dump
from icrl.run.checkpoints import checkpoint_steps
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError


@component
class Leaner(MetaLearner):
    """One distribution of actions for all tasks, learned by policy gradients."""

    iterations: int = 6
    learning_rate: Positive = 0.1
    greedy: bool = False

    acting_only = frozenset({"greedy"})

    def build(self, spec):
        if not hasattr(spec.action_space, "n"):
            raise UserError("leaner chooses among finitely many actions")
        return torch.nn.Linear(1, int(spec.action_space.n))

    def begin(self, spec, num_envs, seeds):
        self.streams, self.taken, self.earned = SlotStreams(seeds), [], []

    def act(self, observation):
        shares = self.networks(torch.ones(1)).softmax(0).detach().numpy().cumsum()
        self.taken.append((self.streams.uniform()[:, None] > shares[:-1]).sum(axis=1))
        return self.taken[-1]

    def observe(self, transition):
        self.earned.append(transition.reward)

    def begin_training(self, training):
        self.training = training
        self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=self.learning_rate)

    def improve(self, iteration):
        rows = self.training.rows(8, iteration)
        self.training.live(self, rows, 5, self.training.seeds(8, iteration))
        actions, rewards = (torch.from_numpy(np.stack(values)) for values in (self.taken, self.earned))
        logs = self.networks(torch.ones(1)).log_softmax(0)
        self.optimiser.zero_grad()
        (-(logs[actions] * (rewards - rewards.mean())).mean()).backward()
        self.optimiser.step()
        return {"environment_steps": actions.numel(), "return": float(rewards.sum(0).mean())}

    def training_state(self):
        return optimiser_state(self.optimiser)

    def load_training_state(self, state):
        load_optimiser_state(self.optimiser, state)


@component
class Picky(Leaner):
    """A learner that check every space."""

    def build(self, spec):
        raise UserError("picky chooses nothing")


LEANER = {"name": "test_meta_train:Leaner"}


@pytest.fixture
def leaning(tiny):
    """A function that makes a tiny experiment with `Leaner` as its source."""

    def make(source=None, **changes):
        runtime = {"meta_checkpoint_every": 2} | changes.pop("runtime", {})
        data = {"sources": [LEANER | (source or {})]} | changes.pop("data", {})
        return tiny(data=data, runtime=runtime, **changes)

    return make


def weights(config, source=0):
    chosen = config.data.sources[source]
    return load_file(trained_checkpoint(config, run_folder(config), chosen) / "weights.safetensors")


def test_resumed_meta_training_equals_uninterrupted_meta_training(leaning):
    whole, cut = leaning(name="whole"), leaning(name="cut")
    meta_train(whole)
    for until in (1, 3, 6):
        meta_train(cut, until=until)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name])
    log = learner_folder(cut, run_folder(cut), cut.data.sources[0]) / "training_log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["environment_steps"] for line in lines] == [40 * iteration for iteration in range(1, 7)]


def test_every_weight_is_trained_and_follows_from_the_seed(leaning):
    configs = [leaning(name=str(seed), seed=seed) for seed in (0, 1)] + [
        leaning(name="short", source={"iterations": 2})
    ]
    for config in configs:
        meta_train(config)
    first, other, short = (weights(config) for config in configs)
    for name in first:
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name], short[name])


def test_finished_meta_training_is_skipped_unless_overwriting_is_requested(leaning):
    config = leaning()
    folder = learner_folder(config, run_folder(config), config.data.sources[0])
    assert meta_train(config) == [folder]
    assert meta_train(config) == []
    assert meta_train(config, overwrite=True) == [folder]


def test_only_settings_that_meta_training_depends_on_make_it_stale(leaning):
    config = leaning()
    meta_train(config)
    for source in ({"greedy": True}, {"share": 2.0}, {"label": "leans"}):
        assert meta_train(leaning(source=source)) == []
    assert meta_train(leaning(data={"episodes": 12})) == []
    for changed in (leaning(source={"learning_rate": 0.2}), leaning(seed=1), leaning(tasks={"size": 5})):
        assert len(meta_train(changed)) == 1
    assert meta_train(config) == []  # the first weights are still there


def test_a_learner_named_twice_is_trained_once(leaning):
    config = leaning(evaluation={"baselines": [LEANER, LEANER | {"greedy": True}, LEANER | {"iterations": 2}]})
    assert len(meta_train(config)) == 2


def test_a_killed_run_resumes_to_the_same_weights(leaning, tmp_path):
    whole, config = leaning(name="whole", source={"iterations": 40}), leaning(name="killed", source={"iterations": 40})
    meta_train(whole)
    path = tmp_path / "runs" / "killed.yaml"
    path.write_text(dump(config))
    folder, reached = learner_folder(config, run_folder(config), config.data.sources[0]), []
    for number in (3, 20, 33):
        words = ["-m", "data_gen.meta", "--config", str(path)]
        killed = killed_at(number, words, tmp_path, [ROOT, ROOT / "tests" / "data_gen", ROOT / "tests"])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        reached.append(max(checkpoint_steps(folder), default=0))
    assert 0 < reached[-1] < 40  # the kills came in the middle
    meta_train(config)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(config)[name])


def test_generate_refuses_a_source_that_has_not_been_meta_trained(leaning):
    config = leaning()
    with pytest.raises(UserError, match="meta-training of test_meta_train:Leaner has not been done; run `icrl meta-tr"):
        generate(config)
    meta_train(config, until=2)
    with pytest.raises(UserError, match="stopped after 2 iterations"):
        generate(config)


def test_data_records_the_weights_that_made_it(leaning):
    config = leaning()
    meta_train(config)
    assert generate(config)
    assert not generate(config)
    info = load_info(run_folder(config)).meta_learners["data.sources.0"]
    assert info.iterations == 6 and info.environment_steps == 240
    path = trained_checkpoint(config, run_folder(config), config.data.sources[0]) / "weights.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(UserError, match="is damaged"):
        generate(config)
    seal(path.parent)
    with pytest.raises(UserError, match="meta-trained again since"):
        generate(config)


def test_a_damaged_checkpoint_is_refused_in_one_line(leaning):
    config = leaning()
    meta_train(config, until=4)
    path = learner_folder(config, run_folder(config), config.data.sources[0]) / "step-000004"
    (path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"weights.safetensors: is damaged"):
        meta_train(config)


def test_spaces_that_a_meta_learner_does_not_support_are_refused_by_key(leaning):
    config = leaning(evaluation={"baselines": ["random", {"name": "test_meta_train:Picky"}]})
    for check in (meta_train, check_agents):
        with pytest.raises(ConfigError, match=r"^evaluation\.baselines\.1: picky chooses nothing$"):
            check(config)
    assert not run_folder(config).meta.exists()


def test_an_agent_without_weights_does_not_act():
    bandit = Bandit(arms=3)
    envs = bandit.make_vec(bandit.sample(2, seed=0))
    with pytest.raises(UserError, match="has not been meta-trained"):
        Leaner().reset(spec_of(envs, 4), 2, np.arange(2, dtype=np.uint64))


def test_training_tasks_are_all_different_if_there_are_enough():
    bandit = Bandit(arms=3)
    envs = bandit.make_vec(bandit.sample(1, seed=0))
    training = TrainingTasks(bandit, bandit.sample(10, seed=0), spec_of(envs, 4), seed=3)
    for iteration in range(5):
        assert sorted(training.rows(10, iteration)) == list(range(10))
        assert len(set(training.rows(7, iteration).tolist())) == 7
        assert np.bincount(training.rows(25, iteration)).min() >= 2
    assert not np.array_equal(training.rows(10, 0), training.rows(10, 1))


def test_meta_learners_can_be_checked_before_meta_training(leaning):
    check_agents(leaning(evaluation={"baselines": [LEANER, "random"]}))


def test_ready_agents_act_with_their_weights(leaning):
    config = leaning()
    meta_train(config)
    agent = ready_agent(config, run_folder(config), config.data.sources[0])
    distribution = config.tasks.build()
    envs = distribution.make_vec(distribution.all_tasks().take([0, 1]))
    agent.reset(spec_of(envs, 6), 2, np.arange(2, dtype=np.uint64))
    for name, tensor in agent.networks.state_dict().items():
        assert torch.equal(tensor, weights(config)[name])


def test_a_new_label_makes_nothing_stale(leaning):
    config = leaning()
    meta_train(config)
    generate(config)
    assert not generate(leaning(source={"label": "leans"}))


def test_complete_data_needs_no_weights(leaning):
    config = leaning()
    meta_train(config)
    generate(config)
    shutil.rmtree(run_folder(config).meta)
    assert not generate(config)
    with pytest.raises(UserError, match="has not been done"):
        generate(config, overwrite=True)


def test_meta_training_of_another_config_is_refused_in_a_run_with_data(leaning):
    config, other = leaning(), leaning(tasks={"size": 5})
    meta_train(config)
    generate(config)
    before = run_folder(config).config.read_text()
    with pytest.raises(UserError, match="belongs to another config: choose another --name"):
        meta_train(other)
    assert run_folder(config).config.read_text() == before


def test_the_cost_is_read_from_the_checkpoint_and_not_from_the_log(leaning):
    config = leaning()
    meta_train(config, until=4)
    (learner_folder(config, run_folder(config), config.data.sources[0]) / "training_log.jsonl").unlink()
    meta_train(config)
    assert trained_figures(config, run_folder(config), config.data.sources[0]).environment_steps == 240


def test_a_learner_that_two_sources_share_is_counted_once(leaning):
    config = leaning(data={"sources": [LEANER, LEANER | {"greedy": True}]})
    meta_train(config)
    generated = 2 * 12 * 24 * 6  # learners per task, tasks, episodes, steps
    assert environment_steps(Experiment(config)) == generated + 240


def test_a_full_disk_is_reported_in_one_line_and_loses_nothing(leaning, monkeypatch):
    config = leaning()
    meta_train(config, until=2)

    def full(tensors, path):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("data_gen.meta.training.save_file", full)
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*step-000004: I/O error: No space left"):
        meta_train(config)
    assert checkpoint_steps(learner_folder(config, run_folder(config), config.data.sources[0])) == [2]


def test_setting_up_networks_does_not_touch_the_global_generator(leaning):
    before = torch.random.get_rng_state()
    check_agents(leaning())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["rl2", "maml", "pearl"])
def test_a_meta_learner_sees_the_state_in_meta_training_if_the_config_says_so(tiny, name):
    """Key-to-Door's observation is the cell; its state also tells whether the key is held."""
    small = {
        "rl2": {"trials": 4, "minibatches": 2},
        "maml": {"meta_batch": 2, "trajectories": 2, "test_trajectories": 1},
        "pearl": {"updates": 1, "meta_batch": 2, "batch_size": 4, "initial_episodes": 1},
    }
    source = {"name": name, "sees": "state", "iterations": 1, **small[name]}
    tasks = {"name": "dark_key_to_door", "size": 3, "episode_length": 5}
    config = tiny(tasks=tasks, data={"sources": [source]}, split={"train": 6, "test": 2})
    meta_train(config)
    assert generate(config)


def test_pearl_can_be_meta_trained_with_an_entropy_coefficient_of_zero(tiny):
    source = {"name": "pearl", "iterations": 1, "updates": 1, "batch_size": 4, "initial_episodes": 1}
    config = tiny(data={"sources": [source | {"entropy_coefficient": 0}]})
    meta_train(config)
    assert trained_checkpoint(config, run_folder(config), config.data.sources[0])


def test_a_problem_with_a_later_meta_learner_is_reported_before_the_first_is_trained(tiny):
    config = tiny(
        data={"sources": [{"name": "rl2", "trials": 4, "minibatches": 2, "task_coefficient": 1.0}]},
        evaluation={"baselines": [{"name": "rl2", "task_coefficient": 1.0, "task_arrays": ["goals"]}]},
    )
    with pytest.raises(
        ConfigError, match=r"evaluation.baselines.0: rl2: task_arrays: 'goals' is not a task array: choose from goal"
    ):
        meta_train(config)
    assert not run_folder(config).meta.exists()
