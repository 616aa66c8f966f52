"""Validation in meta-training: it changes nothing, finds the best weights, and never sees test tasks."""

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from test_meta_train import LEANER

from data_gen.experiment import Experiment
from data_gen.meta.store import (
    evaluated_checkpoint,
    learner_folder,
    meta_learner_lines,
    ready_agent,
    trained_checkpoint,
)
from data_gen.meta.training import meta_train
from data_gen.meta.training_log import read_meta_log
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.validation import Validated, Validation
from eval.before import check_run
from icrl import cli
from icrl.run.checkpoints import checkpoint_steps
from icrl.run.command import Invocation
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError

SHORT = {"meta_every": 2, "tasks": 2, "seeds": 2, "episodes": 2}


@pytest.fixture
def leaning(tiny):
    """A function that makes a tiny experiment with a meta-learner as its source."""

    def make(source=LEANER, **changes):
        validation = SHORT | changes.pop("validation", {})
        return tiny(data={"sources": [source]}, runtime={"meta_checkpoint_every": 4}, validation=validation, **changes)

    return make


@pytest.fixture
def scored(monkeypatch):
    """A function that gives the validations of a meta-training these scores, one after another."""

    def give(*scores: float) -> None:
        left = iter(scores)

        def validated(self, agent, sees="observation"):
            names = [f"{split}_{which}_return" for split in ("validation", "train") for which in ("first", "last")]
            figures = dict.fromkeys(names, 0.0) | {"validation_last_return": next(left), "memorises": 0.0}
            return Validated(figures, "return")

        monkeypatch.setattr(Validation, "__call__", validated)

    return give


def home_of(config):
    return learner_folder(config, run_folder(config), config.data.sources[0])


def weights(config):
    return load_file(trained_checkpoint(config, run_folder(config), config.data.sources[0]) / "weights.safetensors")


def curve(config):
    lines = [line for line in read_meta_log(home_of(config) / "training_log.jsonl") if "memorises" in line]
    return [(line["step"], line["validation_first_return"], line["validation_last_return"]) for line in lines]


@pytest.mark.parametrize(
    "source",
    [
        LEANER,
        {"name": "rl2", "iterations": 3, "trials": 4, "minibatches": 2, "units": 8},
        {"name": "maml", "iterations": 3, "meta_batch": 2, "trajectories": 2, "test_trajectories": 2, "actors": 2},
        {"name": "pearl", "iterations": 3, "updates": 1, "meta_batch": 2, "batch_size": 4, "initial_episodes": 1},
    ],
    ids=lambda source: source["name"],
)
def test_meta_training_is_the_same_with_and_without_validation(leaning, source):
    watched, alone = leaning(source, name="watched"), leaning(source, name="alone", validation={"meta_every": 0})
    for config in (watched, alone):
        meta_train(config)
    for name, tensor in weights(watched).items():
        assert torch.equal(tensor, weights(alone)[name]), name
    assert curve(watched) and not curve(alone)


def test_resumed_meta_training_has_the_same_curve_and_the_same_best_checkpoint(leaning):
    whole, cut = leaning(name="whole"), leaning(name="cut")
    meta_train(whole)
    for until in (1, 3, 6):
        meta_train(cut, until=until)
    assert [step for step, *_ in curve(whole)] == [2, 4, 6]
    assert curve(whole) == curve(cut)
    best = []
    for name in ("whole", "cut"):
        config = leaning(name=name, evaluation={"checkpoint": "best"})
        best.append(evaluated_checkpoint(config, run_folder(config), config.data.sources[0]).name)
    assert best[0] == best[1]


def test_the_best_weights_are_kept_and_act_in_the_evaluation_if_asked_for(leaning, scored):
    scored(0.1, 0.7, 0.3)
    config = leaning()
    meta_train(config)
    folder, source = run_folder(config), config.data.sources[0]
    assert checkpoint_steps(home_of(config))[-2:] == [4, 6]
    assert evaluated_checkpoint(config, folder, source).name == "step-000006"
    best = leaning(evaluation={"checkpoint": "best"}, seeds={"training": 3})  # another training of the transformer
    path = evaluated_checkpoint(best, folder, source)
    assert path.name == "step-000004"
    agent = ready_agent(best, folder, source, path)
    assert all(
        torch.equal(value, agent.weights[name]) for name, value in load_file(path / "weights.safetensors").items()
    )
    assert (
        "best on validation tasks: 0.70 in the last episodes, after iteration 4"
        in meta_learner_lines(config, folder)[1]
    )


def test_an_evaluation_of_the_best_checkpoint_takes_the_best_weights_of_all(leaning):
    changes = {"evaluation": {"checkpoint": "best", "baselines": ["random"]}, "validation": {"every": 2}}
    config = leaning(**changes)
    AcceleratorState._reset_state(reset_partial_state=True)
    cli.run(Invocation(config, "config.yaml"))
    steps = json.loads(run_folder(config).summary.read_text())["training_steps"]
    chosen = evaluated_checkpoint(config, run_folder(config), config.data.sources[0])
    assert steps["test_meta_train:Leaner"] == 40 * int(chosen.name.removeprefix("step-"))


def test_meta_training_never_looks_at_held_out_tasks(leaning, monkeypatch):
    config = leaning()
    held_out = Experiment(config).test_tasks.keys()
    acted_on = []
    make_vec = DarkRoom.make_vec

    def watched(self, tasks):
        acted_on.append(tasks.keys())
        return make_vec(self, tasks)

    def hidden(self):
        raise AssertionError("meta-training asked for the held-out tasks")

    monkeypatch.setattr(DarkRoom, "make_vec", watched)
    monkeypatch.setattr(Experiment, "test_tasks", property(hidden))
    meta_train(config)
    assert not np.isin(held_out, np.concatenate(acted_on)).any()


def test_best_needs_validation_in_meta_training(leaning):
    config = leaning(validation={"meta_every": 0, "every": 2}, evaluation={"checkpoint": "best"})
    with pytest.raises(ConfigError, match=r"evaluation.checkpoint: best: needs validation.meta_every above 0"):
        check_run(Experiment(config))
    meta_train(config)
    with pytest.raises(UserError, match="no checkpoint was validated"):
        evaluated_checkpoint(config, run_folder(config), config.data.sources[0])
