"""Training: exact resume, kills, processes and accumulation, learning rate, logs, and changes of every parameter."""

import json
import signal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from conftest import ROOT, run_python
from killing import killed_at
from safetensors.torch import load_file

from ad_model import ADModel
from ad_model.build import build_model
from ad_model.schedule import learning_rate
from ad_model.throughput import flops_per_token, matmul_peak
from ad_model.train import train
from ad_model.training_log import read_log
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from icrl.config.loader import dump
from icrl.config.schema import TrainingConfig
from icrl.run.checkpoints import checkpoint_steps, last_checkpoint
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import run_folder
from icrl.run.records import record_text
from icrl.support.errors import UserError


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Removes Accelerate's settings before each test; they would last for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def weights(config) -> dict[str, torch.Tensor]:
    return load_file(last_checkpoint(run_folder(config).checkpoints) / "model" / "model.safetensors")


def losses(config) -> list[float]:
    return [line["loss"] for line in read_log(run_folder(config).training_log)]


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def generated(make, **changes):
    config = make(**changes)
    generate(config)
    return config


def test_a_compiled_models_checkpoint_loads_like_any_other(tiny, monkeypatch):
    def eager(dynamo_backend, **settings):  # wraps the model as inductor does, and takes seconds instead of a minute
        return Accelerator(dynamo_backend=dynamo_backend and "eager", **settings)

    monkeypatch.setattr("ad_model.launched.Accelerator", eager)
    plain, compiled = generated(tiny, name="plain"), generated(tiny, name="compiled", runtime={"compile": True})
    for config in (plain, compiled):
        AcceleratorState._reset_state(reset_partial_state=True)
        train(config)
    assert weights(plain).keys() == weights(compiled).keys()
    assert isinstance(ADModel.from_pretrained(last_checkpoint(run_folder(compiled).checkpoints) / "model"), ADModel)


def spaces_of(config):
    info = load_info(run_folder(config))
    return info.observation_space, info.action_space, info.episode_length


def test_every_parameter_changes_and_the_loss_falls(tiny):
    config = generated(tiny, training={"steps": 40}, runtime={"checkpoint_every": 40})
    model = build_model(config, *spaces_of(config))
    before, buffers = model.state_dict(), dict(model.named_buffers())
    assert train(config)
    for name, value in weights(config).items():
        assert torch.equal(value, before[name]) == (name in buffers), name
    log = losses(config)
    assert len(log) == 40
    assert np.mean(log[-5:]) < np.mean(log[:5]) - 0.1


def test_the_checkpoint_is_a_loadable_model_and_old_ones_are_deleted(tiny):
    config = generated(tiny, training={"steps": 7})
    train(config)
    folder = run_folder(config).checkpoints
    assert checkpoint_steps(folder) == [6, 7]
    assert isinstance(ADModel.from_pretrained(last_checkpoint(folder) / "model"), ADModel)
    assert not train(config)  # complete: nothing to do


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resumed_training_equals_uninterrupted_training(tiny, dropout, monkeypatch):
    changes = {"model": {"backbone": "gpt2", "dropout": dropout}, "training": {"steps": 6, "accumulation_steps": 2}}
    whole, cut = generated(tiny, name="whole", **changes), generated(tiny, name="cut", **changes)
    train(whole)
    with monkeypatch.context() as patch:  # interrupts it between checkpoints 2 and 4
        patch.setattr("ad_model.train.TrainingLog.add", failing_after(3))
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    assert checkpoint_steps(run_folder(cut).checkpoints) == [2]
    AcceleratorState._reset_state(reset_partial_state=True)
    train(cut)
    assert_equal_weights(weights(whole), weights(cut))
    assert losses(whole) == losses(cut)


def failing_after(calls):
    from ad_model.train import TrainingLog

    real, made = TrainingLog.add, []

    def add(self, loss):
        made.append(1)
        if len(made) > calls:
            raise KeyboardInterrupt
        real(self, loss)

    return add


def test_training_that_is_killed_and_restarted_equals_uninterrupted_training(tiny, tmp_path):
    changes = {"training": {"steps": 40}, "runtime": {"checkpoint_every": 8, "log_every": 2}}
    whole, cut = generated(tiny, name="whole", **changes), generated(tiny, name="cut", **changes)
    train(whole)
    path = tmp_path / "cut.yaml"
    path.write_text(dump(cut))
    words, folder, reached = ["-m", "ad_model.train", "--config", str(path)], run_folder(cut).checkpoints, []
    for number in (2, 14, 23, 32):  # among the first files, within a checkpoint, between two, within the next
        killed = killed_at(number, words, tmp_path, [ROOT])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        reached.append(max(checkpoint_steps(folder), default=0))
        for step in checkpoint_steps(folder):  # every checkpoint is complete
            ADModel.from_pretrained(folder / f"step-{step:06d}" / "model")
    assert 0 < reached[-1] < 40  # the kills came in the middle
    done = run_python(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal_weights(weights(whole), weights(cut))
    assert losses(whole) == losses(cut)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_gloo_processes_equal_one_with_the_same_global_batch(tiny, tmp_path, accumulation):
    settings = {"steps": 6, "accumulation_steps": accumulation}
    one, two = (generated(tiny, name=name, training=settings) for name in ("one", "two"))
    train(one)
    path = tmp_path / "two.yaml"
    path.write_text(dump(two))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/multi_cpu.yaml")]
    done = run_python([*launcher, "--main_process_port", "0", "-m", "ad_model.train", "--config", str(path)], tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((last_checkpoint(run_folder(two).checkpoints) / "training.json").read_text())
    assert record["processes"] == 2
    np.testing.assert_allclose(losses(one), losses(two), rtol=0, atol=1e-5)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(two)[name], rtol=1e-3, atol=2e-4, msg=name)


def test_accumulation_does_not_change_the_losses(tiny):
    one, four = (generated(tiny, name=f"parts{parts}", training={"accumulation_steps": parts}) for parts in (1, 4))
    train(one)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(four)
    np.testing.assert_allclose(losses(one), losses(four), rtol=0, atol=1e-5)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    settings = TrainingConfig(steps=110, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.2)
    rates = [learning_rate(settings, step) for step in range(111)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.6)
    assert rates[110] == pytest.approx(0.2)
    assert learning_rate(TrainingConfig(steps=5, warmup_steps=100, learning_rate=1.0), 4) == 1.0


def test_checkpoints_of_another_config_are_kept_unless_overwriting_is_requested(tiny):
    first = generated(tiny)
    train(first)
    before = weights(first)
    other = tiny(training={"learning_rate": 0.1})
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match=r"step-000006 belongs to another config"):
        train(other)
    assert_equal_weights(before, weights(first))
    assert train(other, overwrite=True)
    assert not torch.equal(before["head.linear.weight"], weights(other)["head.linear.weight"])


def test_training_on_data_of_another_config_is_refused(tiny):
    generated(tiny)
    with pytest.raises(UserError, match="data belongs to another config"):
        train(tiny(seed=9))


def test_a_damaged_checkpoint_is_named(tiny):
    config = generated(tiny, training={"steps": 4})
    train(config)
    checkpoint = last_checkpoint(run_folder(config).checkpoints)
    record = json.loads((checkpoint / "training.json").read_text())
    (checkpoint / "training.json").write_text(record_text({**record, "step": 3}))
    checkpoint.rename(checkpoint.with_name("step-000003"))
    (checkpoint.with_name("step-000003") / "model.safetensors").write_bytes(b"half")
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match=r"step-000003/model.safetensors: is damaged .* delete .*step-000003"):
        train(config)


def test_a_full_disk_keeps_the_earlier_checkpoint(tiny, monkeypatch):
    config = generated(tiny, training={"steps": 4})

    def full(self, path, **_):
        if "000004" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("ad_model.modeling_ad.ADModel.save_pretrained", full)
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*step-000004: .*No space left on device"):
        train(config)
    folder = run_folder(config).checkpoints
    assert [path.name for path in folder.iterdir()] == ["step-000002"]


def test_the_peak_is_measured_and_flops_per_token_are_counted():
    assert matmul_peak(torch.device("cpu"), torch.float32) > 1e9
    # 6 operations per weight and token. Causal attention: 2 products, once forward, twice backward, half of it masked.
    assert flops_per_token(1000, num_layers=2, hidden_size=8, context_length=10) == 6000 + 2 * 6 * 8 * 10


def test_the_model_learns_its_objectives_labels_and_not_a_random_sources_actions(tiny):
    """The loss on random actions cannot fall below log 5; the loss on the optimal actions can."""
    data = {"sources": [{"name": "random"}], "optimal_actions": True}
    final = {}
    for objective in ("imitation", "optimal_action"):
        settings = {"steps": 60, "objective": objective, "learning_rate": 0.01}
        config = generated(tiny, name=objective, data=data, training=settings, runtime={"checkpoint_every": 60})
        AcceleratorState._reset_state(reset_partial_state=True)
        train(config)
        final[objective] = np.mean(losses(config)[-10:])
    assert final["imitation"] > np.log(5) - 0.05
    assert final["optimal_action"] < np.log(5) - 0.25


def test_a_model_of_another_selection_or_objective_is_stale(tiny):
    first = generated(tiny, data={"optimal_actions": True})
    train(first)
    for changes in ({"selection": {"best_share": 0.5}}, {"objective": "optimal_action"}):
        other = tiny(data={"optimal_actions": True}, training=changes)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert data_fingerprint(other) == data_fingerprint(first)  # the data is the same
        with pytest.raises(UserError, match="step-000006 belongs to another config"):
            train(other)


def test_training_on_selected_histories_is_reproducible_and_differs_from_training_on_all(tiny):
    changes = {"selection": {"best_share": 0.5, "likelihood": "improvement"}}
    kept, again, whole = (
        generated(tiny, name=name, data={"histories_per_task": 4}, training=training)
        for name, training in (("kept", changes), ("again", changes), ("whole", {}))
    )
    for config in (kept, again, whole):
        AcceleratorState._reset_state(reset_partial_state=True)
        train(config)
    assert_equal_weights(weights(kept), weights(again))
    assert losses(kept) != losses(whole)
