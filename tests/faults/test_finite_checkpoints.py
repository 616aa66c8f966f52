"""Checkpoints are finite whatever the log's clock says; a training that ends with useless weights is not complete."""

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ad_model.train import train
from data_gen.generation.generate import generate
from data_gen.meta.store import learner_folder
from data_gen.meta.training import meta_train
from icrl.run.checkpoints import checkpoint_path, checkpoint_steps
from icrl.run.folder import run_folder
from icrl.support.errors import UserError


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
)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner["name"])
def test_meta_training_that_diverges_is_not_complete(tiny, learner):
    config = tiny(data={"sources": [learner]})
    with pytest.raises(UserError, match=r"meta-training of \w+ diverged in iteration 1: .* lower its learning rates"):
        meta_train(config)
    assert checkpoint_steps(learner_folder(config, run_folder(config), config.data.sources[0])) == []
