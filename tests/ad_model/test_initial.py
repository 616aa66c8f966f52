"""A warm start: training from another model's weights, what is refused, and what stays on record."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import TINY, merged
from safetensors.torch import load_file

from ad_model.load import load_model
from ad_model.objectives.imitation import Imitation
from ad_model.train import train
from ad_model.training_log import TrainingLog
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.tasks.same import joined_records, seen_in_record, training_tasks_record
from eval.before import check_run
from eval.evaluate import evaluate
from icrl.config.components import component
from icrl.config.loader import validate
from icrl.run.checkpoints import TrainingRecord, checkpoint_record, last_checkpoint
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError


@component
class WithHead(Imitation):
    """Imitation with a head beside the policy head."""

    def heads(self):
        return {"value": 1}

    def loss(self, model, tokens, columns):
        output = model(**tokens, action=columns["action"])
        return output.loss + 0 * output.heads["value"].mean()


POINTS = {
    "tasks": {"name": "point_navigation", "episode_length": 6},
    "data": {**TINY["data"], "sources": [{"name": "random"}]},
    "split": {"train": 8, "test": 4},
}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(config):
    generate(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    return config


@pytest.fixture
def base(tiny):
    return trained(tiny(name="base", training={"steps": 4}))


def model_of(config):
    return last_checkpoint(run_folder(config).checkpoints) / "model"


def weights(config) -> dict[str, torch.Tensor]:
    return load_file(model_of(config) / "model.safetensors")


def warm(make, base, **changes):
    training = {"steps": 3, "initial": str(run_folder(base).path)} | changes.pop("training", {})
    return make(**{"name": "warm", "seed": 5, "training": training, **changes})


def test_training_begins_with_the_weights_of_the_other_model(tiny, base):
    """With a learning rate of almost 0, it also ends with them."""
    config = trained(warm(tiny, base, training={"learning_rate": 1e-12}))
    for name, value in weights(config).items():
        torch.testing.assert_close(value, weights(base)[name], rtol=0, atol=1e-6)
    moved = trained(warm(tiny, base, name="moved"))
    assert any(not torch.equal(value, weights(base)[name]) for name, value in weights(moved).items())
    assert checkpoint_record(model_of(config).parent, TrainingRecord).initial is not None


def test_a_run_a_checkpoint_and_a_model_folder_are_the_same_start(tiny, base):
    places = (run_folder(base).path, model_of(base).parent, model_of(base))
    configs = [
        trained(warm(tiny, base, name=f"warm{number}", training={"initial": str(place)}))
        for number, place in enumerate(places)
    ]
    for config in configs[1:]:
        for name, value in weights(configs[0]).items():
            assert torch.equal(value, weights(config)[name]), name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tasks": {"size": 5}}, "its observation space is"),
        ({"model": {"hidden_size": 32}}, "its hidden_size is 16, but this experiment's is 32"),
        ({"model": {"backbone": "gpt2"}}, "its .* is"),
        ({"model": {"context_episodes": 2}}, "its context_length is 18, but this experiment's is 12"),
        ({"model": {"action_bins": 8}}, "its action_bins is 32, but this experiment's is 8"),
        ({"training": {"objective": "test_initial:WithHead"}}, "its heads is {}, but this experiment's is"),
        ({"training": {"initial": "nowhere/at/all"}}, "training.initial: nowhere/at/all: this folder does not exist"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_another_kind_of_model_is_refused_in_one_line(tiny, base, changes, expected):
    with pytest.raises(UserError, match=expected) as caught:
        check_run(Experiment(warm(tiny, base, **changes)))
    assert str(caught.value).startswith("training.initial: ") and "\n" not in str(caught.value)


def test_dropout_may_differ(tiny):
    base = trained(tiny(name="base", model={"backbone": "gpt2"}))
    check_run(Experiment(warm(tiny, base, model={"backbone": "gpt2", "dropout": 0.2})))


def test_inputs_keep_the_scale_that_the_weights_were_trained_with(tmp_path):
    def points(**changes):
        return validate(merged({**TINY, **POINTS, "output": str(tmp_path / "runs")}, changes))

    base = trained(points(name="base"))
    config = trained(warm(points, base))
    theirs, own = load_model(model_of(base)).config, load_model(model_of(config)).config
    assert own.observation_statistics == theirs.observation_statistics and own.reward_scale == theirs.reward_scale
    alone = trained(points(name="alone", seed=5))
    assert load_model(model_of(alone)).config.reward_scale != theirs.reward_scale


def test_an_interrupted_warm_start_resumes_to_the_same_weights(tiny, base, monkeypatch):
    whole, cut = (warm(tiny, base, name=name, training={"steps": 5}) for name in ("whole", "cut"))
    trained(whole)
    generate(cut)
    real, made = TrainingLog.add, []

    def add(self, loss):
        made.append(1)
        if len(made) == 4:
            raise KeyboardInterrupt
        real(self, loss)

    monkeypatch.setattr(TrainingLog, "add", add)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(KeyboardInterrupt):
        train(cut)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(cut)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(cut)[name]), name


def test_other_weights_at_the_same_place_are_noticed(tiny, base):
    config = trained(warm(tiny, base))
    trained(base.model_copy(update={"training": base.training.model_copy(update={"steps": 6})}))
    for more in (config, warm(tiny, base, training={"steps": 5})):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(UserError, match=r"training.initial: .*has other weights than when"):
            train(more)
    run_folder(base).path.rename(run_folder(base).path.with_name("moved"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not train(config)  # complete


def test_a_later_evaluation_refuses_tasks_of_both_trainings(tiny, base):
    config = trained(warm(tiny, base))  # another split: some of its held-out tasks are the base's training tasks
    with pytest.raises(ConfigError, match=r"the model was trained on \d of the 3 held-out tasks"):
        evaluate(config)
    same = trained(warm(tiny, base, name="same", seed=0))
    assert evaluate(same)


def test_records_of_two_trainings_are_joined(tiny, monkeypatch):
    family, tasks = Experiment(tiny()).family, Experiment(tiny()).train_tasks
    first, second = (training_tasks_record(family, tasks.take(rows)) for rows in ([0, 1, 2], [2, 3]))
    both = joined_records(first, second)
    assert seen_in_record(family, tasks.take([0, 2, 3, 5]), both) == 3 and "before" not in both
    other = {**first, "family": "Elsewhere", "bases": []}
    nested = joined_records(other, second)
    assert seen_in_record(family, tasks.take([0, 3]), nested) == 1
    nested = joined_records(nested, other)
    assert seen_in_record(family, tasks.take([0, 3]), nested) == 1
    assert joined_records(None, None) is None
    with monkeypatch.context() as patch:  # a record has no room for both
        patch.setattr("data_gen.tasks.same.MOST_RECORDED", 3)
        for record in (first, other):
            small = joined_records(record, second)
            assert small["keys"] == second["keys"] and small["incomplete"] and "before" not in small
    unknown = joined_records("junk", second)
    assert seen_in_record(family, tasks.take([0, 3]), unknown) == 1
    assert seen_in_record(family, tasks.take([0]), unknown) is None  # it may have seen it
    assert seen_in_record(family, tasks.take([0]), {**second, "before": "junk"}) is None


def test_validation_tasks_that_the_other_model_has_seen_are_told(tiny, base, capsys):
    learned = Experiment(base).train_tasks.keys()
    split = next(
        seed for seed in range(1, 20) if np.isin(Experiment(tiny(seed=seed)).validation_tasks.keys(), learned).any()
    )
    capsys.readouterr()
    trained(warm(tiny, base, seed=split))
    assert "validation tasks: validation will promise too much" in capsys.readouterr().out
