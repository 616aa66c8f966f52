"""Schedules of the learning rate, and finished trainings that are given more updates."""

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ad_model.going_on import plan_training
from ad_model.schedule import decay_start, learning_rate
from ad_model.train import train
from ad_model.training_log import TrainingLog, read_log
from data_gen.generation.generate import generate
from eval.evaluate import evaluate
from icrl import cli
from icrl.config.schema import TrainingConfig
from icrl.run.checkpoints import TrainingRecord, checkpoint_record, checkpoint_steps, last_checkpoint
from icrl.run.command import Invocation
from icrl.run.fingerprints import training_fingerprint
from icrl.run.folder import run_folder
from icrl.run.records import record_text
from icrl.support.errors import ConfigError, UserError

QUIET = {"validation": {"every": 0}}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(config):
    generate(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    return config


def weights(config) -> dict[str, torch.Tensor]:
    return load_file(last_checkpoint(run_folder(config).checkpoints) / "model" / "model.safetensors")


def losses(config) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_log(run_folder(config).training_log)]


def record_of(config) -> TrainingRecord:
    return checkpoint_record(last_checkpoint(run_folder(config).checkpoints), TrainingRecord)


def equal(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def rates(steps: int, updates: range, first: int = 0, **settings) -> np.ndarray:
    config = TrainingConfig(steps=steps, warmup_steps=10, learning_rate=1.0, **settings)
    return np.array([learning_rate(config, step, first) for step in updates])


def test_a_constant_rate_stays_at_its_peak_after_the_warm_up():
    np.testing.assert_allclose(rates(50, range(10), schedule="constant"), np.arange(1, 11) / 10)
    assert (rates(50, range(10, 50), schedule="constant") == 1).all()


def test_a_stable_rate_falls_in_a_straight_line_at_the_end():
    settings = {"schedule": "warmup_stable_decay", "decay_share": 0.25, "final_learning_rate": 0.2}
    assert decay_start(TrainingConfig(steps=100, **settings)) == 75
    assert (rates(100, range(10, 76), **settings) == 1).all()
    falling = rates(100, range(75, 101), **settings)
    np.testing.assert_allclose(np.diff(falling), -0.8 / 25)
    assert falling[-1] == pytest.approx(0.2)


def test_before_it_falls_a_stable_rate_does_not_know_the_number_of_updates():
    settings = {"schedule": "warmup_stable_decay"}
    assert (rates(100, range(81), **settings) == rates(400, range(81), **settings)).all()


def test_a_cosine_that_goes_on_is_warmed_up_again_from_where_it_ended():
    again = rates(100, range(60, 101), first=60, final_learning_rate=0.1)
    np.testing.assert_allclose(again[:10], 0.1 + 0.9 * np.arange(1, 11) / 10)
    assert again[10] == 1 and again[25] == pytest.approx(0.55) and again[40] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "settings",
    [{"schedule": "constant"}, {"schedule": "warmup_stable_decay", "decay_share": 0.4}],
    ids=["constant", "warmup_stable_decay"],
)
def test_a_longer_training_ends_with_the_weights_of_one_from_scratch(tiny, settings):
    runtime = {"checkpoint_every": 4, "keep_checkpoints": 1}
    scratch = trained(tiny(name="scratch", training={**settings, "steps": 10}, runtime=runtime))
    trained(tiny(name="longer", training={**settings, "steps": 5}, runtime=runtime))
    longer = trained(tiny(name="longer", training={**settings, "steps": 10}, runtime=runtime))
    assert equal(weights(scratch), weights(longer)) and losses(scratch) == losses(longer)
    assert [stretch.steps for stretch in record_of(longer).stretches] == [5, 10]
    assert record_of(longer).fingerprint == record_of(scratch).fingerprint == training_fingerprint(longer)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not train(longer)


def test_a_longer_training_along_a_cosine_goes_on_from_its_end(tiny):
    trained(tiny(training={"steps": 6}))
    before = losses(tiny())
    longer = trained(tiny(training={"steps": 11}))
    assert losses(longer)[:6] == before and [step for step, _ in losses(longer)] == [*range(1, 12)]
    logged = [line["learning_rate"] for line in read_log(run_folder(longer).training_log)]
    settings = longer.training
    np.testing.assert_allclose(logged[6:], [learning_rate(settings, step, 6) for step in range(6, 11)])
    assert logged[7] == pytest.approx(settings.learning_rate) and logged[5] < 0.4 * settings.learning_rate


@pytest.mark.parametrize("schedule", ["cosine", "warmup_stable_decay"])
def test_a_longer_training_that_is_interrupted_resumes_to_the_same_weights(tiny, schedule, monkeypatch):
    for name in ("whole", "cut"):
        trained(tiny(name=name, training={"schedule": schedule, "steps": 6}, **QUIET))
    whole, cut = (tiny(name=name, training={"schedule": schedule, "steps": 12}, **QUIET) for name in ("whole", "cut"))
    trained(whole)
    real, made = TrainingLog.add, []

    def add(self, loss):
        made.append(1)
        if len(made) in (1, 5):  # before the first new checkpoint, and later
            raise KeyboardInterrupt
        real(self, loss)

    monkeypatch.setattr(TrainingLog, "add", add)
    for _ in range(2):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(cut)
    assert equal(weights(whole), weights(cut)) and losses(whole) == losses(cut)
    assert record_of(cut).stretches == record_of(whole).stretches


def test_a_training_is_not_made_shorter_and_an_unfinished_cosine_is_finished_first(tiny, monkeypatch):
    config = trained(tiny(training={"steps": 6}))
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match=r"its training has 6 updates, and training.steps 5 is fewer"):
        train(tiny(training={"steps": 5}))
    with pytest.raises(UserError, match="step-000006 belongs to another config"):
        train(tiny(training={"steps": 9, "learning_rate": 0.1}))
    last_checkpoint(run_folder(config).checkpoints).rename(run_folder(config).path / "elsewhere")
    with pytest.raises(UserError, match="stopped at update 4 of 6, to which its cosine leads: finish it with"):
        train(tiny(training={"steps": 9}))
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    assert record_of(config).step == 6


def test_a_stable_rate_that_has_fallen_needs_the_checkpoint_from_before(tiny):
    settings = {"schedule": "warmup_stable_decay", "decay_share": 0.5}
    config = trained(tiny(training={**settings, "steps": 8}, runtime={"keep_checkpoints": 1}, **QUIET))
    folder = run_folder(config).checkpoints
    assert checkpoint_steps(folder) == [4, 8]
    (folder / "step-000004").rename(run_folder(config).path / "elsewhere")
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match="no checkpoint from before update 4, where the learning rate began to fall"):
        train(tiny(training={**settings, "steps": 12}, runtime={"keep_checkpoints": 1}, **QUIET))
    assert checkpoint_steps(folder) == [8]


def test_a_checkpoint_of_an_earlier_version_goes_on(tiny):
    """Its record has no stretches, only the fingerprint of its number of updates."""
    config = trained(tiny(training={"steps": 6}))
    path = last_checkpoint(run_folder(config).checkpoints) / "training.json"
    record = json.loads(path.read_text())
    old = {key: value for key, value in record.items() if key not in ("stretches", "initial", "stopped", "validation")}
    path.write_text(record_text(old))
    plan = plan_training(tiny(training={"steps": 9}), run_folder(config).checkpoints, record["data"])
    assert plan.start == 6 and [stretch.steps for stretch in plan.stretches] == [6, 9]
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not train(config)


def test_the_evaluation_of_a_shorter_training_is_replaced_without_overwrite(tiny, capsys):
    short, more = tiny(training={"steps": 4}), tiny(training={"steps": 6})
    cli.run(Invocation(short, "config.yaml"))
    summary = json.loads(run_folder(short).summary.read_text())
    with pytest.raises(UserError, match="training stopped at update 4 of 6; run `icrl train`"):
        evaluate(more)
    AcceleratorState._reset_state(reset_partial_state=True)
    cli.run(Invocation(more, "config.yaml"))
    assert json.loads(run_folder(more).summary.read_text())["weights"] != summary["weights"]
    cli.info(run_folder(more).path)
    assert "planned updates: 4 from update 0 on, 6 from update 4 on" in capsys.readouterr().out


def test_keys_that_a_schedule_does_not_read_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"training.decay_share: .*has no meaning with training.schedule cosine"):
        tiny(training={"decay_share": 0.3})
    with pytest.raises(ConfigError, match=r"training.final_learning_rate: .*has no meaning with .* constant"):
        tiny(training={"schedule": "constant", "final_learning_rate": 0.5})


def test_the_new_keys_at_their_defaults_leave_earlier_fingerprints_alone(tiny):
    plain = training_fingerprint(tiny())
    assert training_fingerprint(tiny(training={"schedule": "cosine", "decay_share": 0.2, "initial": None})) == plain
    assert training_fingerprint(tiny(training={"schedule": "constant"})) != plain
