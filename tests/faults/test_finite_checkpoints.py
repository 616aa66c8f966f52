"""Checkpoints are finite whatever the log's clock says; a training that ends with useless weights is not complete."""

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ad_model.train import train
from data_gen.generation.generate import generate
from data_gen.meta.store import learner_folder
from data_gen.meta.training import meta_train
from icrl.config.loader import validate
from icrl.run.checkpoints import checkpoint_path, checkpoint_steps
from icrl.run.folder import run_folder
from icrl.support.errors import UserError
from tests.conftest import TINY, merged


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("steps", "rate", "every"),
    [(6, 1e30, {"log_every": 1000, "checkpoint_every": 1}), (1, 1e38, {"log_every": 1000, "checkpoint_every": 1000})],
)
def test_a_training_that_diverges_leaves_no_checkpoint_that_is_not_finite(tiny, steps, rate, every):
    config = tiny(training={"steps": steps, "learning_rate": rate, "warmup_steps": 0}, runtime=every)
    generate(config)
    with pytest.raises(UserError, match=r"training diverged: .* lower training\.learning_rate"):
        train(config)
    folder = run_folder(config).checkpoints
    for step in checkpoint_steps(folder):
        for tensor in load_file(checkpoint_path(folder, step) / "model/model.safetensors").values():
            assert torch.isfinite(tensor).all()
    assert steps not in checkpoint_steps(folder)


LEARNERS = (
    {
        "name": "rl2",
        "trials": 2,
        "minibatches": 1,
        "units": 4,
        "trial_episodes": 1,
        "iterations": 1,
        "learning_rate": 1e38,
    },
    {"name": "maml", "meta_batch": 2, "trajectories": 2, "iterations": 1, "outer": "ppo", "outer_rate": 1e38},
    {
        "name": "pearl",
        "iterations": 1,
        "initial_episodes": 1,
        "prior_episodes": 1,
        "posterior_episodes": 1,
        "updates": 2,
        "batch_size": 4,
        "context_size": 4,
        "hidden_sizes": [4],
        "encoder_sizes": [4],
        "learning_rate": 1e38,
    },
)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner["name"])
def test_meta_training_that_diverges_is_not_complete(tiny, learner):
    config = tiny(data={"sources": [learner]})
    with pytest.raises(UserError, match=r"meta-training of \w+ diverged in iteration 1: .* lower its learning rates"):
        meta_train(config)
    assert checkpoint_steps(learner_folder(config, run_folder(config), config.data.sources[0])) == []


PENDULUM = {"name": "pendulum", "episode_length": 20}


@pytest.mark.parametrize(
    ("source", "tasks", "message"),
    [
        ("dqn", None, "the networks of DQN are NaN or infinite at the end"),
        ("ppo", None, "the networks of PPO are NaN or infinite at the end"),
        ("sac", PENDULUM, "action nan is not finite in float32; lower the agent's learning rate"),
        ("a2c", PENDULUM, "action nan is not finite in float32; lower the agent's learning rate"),
    ],
)
def test_a_source_that_diverges_leaves_no_histories_of_useless_actions(tmp_path, source, tasks, message):
    data = {"sources": [{"name": source, "learning_rate": 1e30}], "episodes": 60 if tasks is None else 12}
    plain = merged(TINY, {"output": str(tmp_path), "data": data, "split": {"train": 4, "test": 2}})
    config = validate({**plain, "tasks": tasks or TINY["tasks"], "training": {"subsample": 1}})
    with pytest.raises(UserError, match=rf"training task \d.*{message}"):
        generate(config)
    assert not run_folder(config).data_info.exists()


def test_one_learner_of_many_that_diverges_is_said(tiny, capsys):
    config = tiny(
        data={"sources": [{"name": "dqn", "learning_rate": [1e-3, 1e30]}], "episodes": 60, "histories_per_task": 4},
        split={"train": 4, "test": 2},
    )
    generate(config)
    assert "diverged; lower its learning rate" in capsys.readouterr().err
