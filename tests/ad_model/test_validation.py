"""Validation during training: it changes nothing, finds the best checkpoint, stops early, and never sees test tasks."""

import json
import signal

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT, run_python
from killing import killed_at
from safetensors.torch import load_file

from ad_model.in_context import TransformerAgent
from ad_model.load import load_model
from ad_model.train import train
from ad_model.training_log import TrainingLog, read_log
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.validation import Validated, Validation, parted
from eval.evaluate import evaluate, model_path
from eval.report import write_report
from icrl import cli
from icrl.config.loader import dump
from icrl.run.checkpoints import (
    TrainingRecord,
    best_checkpoint,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    last_checkpoint,
)
from icrl.run.fingerprints import training_fingerprint
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError

SHORT = {"every": 2, "tasks": 2, "seeds": 2, "episodes": 2}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(make, **changes):
    config = make(**{"validation": SHORT, **changes})
    generate(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    return config


def weights(config) -> dict[str, torch.Tensor]:
    return load_file(last_checkpoint(run_folder(config).checkpoints) / "model" / "model.safetensors")


def record_of(config, step: int | None = None) -> TrainingRecord:
    folder = run_folder(config).checkpoints
    return checkpoint_record(last_checkpoint(folder) if step is None else checkpoint_path(folder, step), TrainingRecord)


def best_step(config) -> int:
    path = best_checkpoint(run_folder(config).checkpoints)
    return checkpoint_record(path, TrainingRecord).step


def curve(config) -> list[tuple]:
    """The results of all validations in the log, without their times."""
    lines = [line for line in read_log(run_folder(config).training_log) if "memorises" in line]
    keys = sorted(key for key in lines[0] if key.startswith(("validation_", "train_")) and "seconds" not in key)
    return [(line["step"], *(line[key] for key in keys)) for line in lines]


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture
def scored(monkeypatch):
    """A function that gives the validations of a training these scores, one after another."""

    def give(*scores: float) -> None:
        left = iter(scores)

        def validated(self, agent, sees="observation"):
            figures = {
                f"{split}_{which}_return": 0.0 for split in ("validation", "train") for which in ("first", "last")
            }
            return Validated({**figures, "validation_last_return": next(left), "memorises": 0.0}, "return")

        monkeypatch.setattr(Validation, "__call__", validated)

    return give


@pytest.mark.parametrize("runtime", [{}, {"mixed_precision": "bf16"}], ids=["plain", "bf16"])
def test_training_is_the_same_with_and_without_validation(tiny, runtime):
    changes = {"model": {"backbone": "gpt2", "dropout": 0.2}, "training": {"steps": 5}, "runtime": runtime}
    watched = trained(tiny, name="watched", **changes)
    alone = trained(tiny, name="alone", validation={"every": 0}, **changes)
    assert_equal_weights(weights(watched), weights(alone))
    lines = [read_log(run_folder(config).training_log) for config in (watched, alone)]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert [step for step, *_ in curve(watched)] == [2, 4, 5] and not any("memorises" in line for line in lines[1])


def test_the_figures_are_those_of_the_checkpoints_weights(tiny):
    config = trained(tiny)
    validate = Validation(Experiment(config))
    model = load_model(checkpoint_path(run_folder(config).checkpoints, 6), "cpu")
    again = validate(TransformerAgent(model)).figures
    line = read_log(run_folder(config).training_log)[-1]
    for key, value in again.items():
        assert key == "validation_seconds" or line[key] == value, key
    assert record_of(config).validation.score == again["validation_last_normalised_return"]


def test_the_figures_are_returns_of_first_and_last_episodes_on_both_kinds_of_tasks(tiny):
    """Of an agent whose returns are known: the optimal one earns 1 on the normalised scale, from the first episode."""
    config = tiny(validation={"every": 2, "tasks": 3, "seeds": 2, "episodes": 8}, split={"validation": 2})
    experiment = Experiment(config)
    validation = Validation(experiment)
    assert validation.sizes == [2, 2]  # as many training tasks as there are validation tasks
    from icrl.config.loader import make_agent

    best = validation(make_agent("optimal")).figures
    optimum = experiment.family.optimal_return(experiment.validation_tasks)
    assert best["validation_last_return"] == pytest.approx(optimum.mean())
    for split in ("validation", "train"):
        for which in ("first", "last"):
            assert best[f"{split}_{which}_normalised_return"] == pytest.approx(1)
    random = [validation(make_agent("random")).figures for _ in range(2)]
    assert random[0]["validation_last_return"] == random[1]["validation_last_return"]  # the same seeds every time
    assert random[0]["validation_last_normalised_return"] < 0.6


def test_interrupted_training_has_the_same_validations_and_the_same_best_checkpoint(tiny, monkeypatch):
    changes = {"training": {"steps": 9, "learning_rate": 0.05}}
    changes |= {"runtime": {"checkpoint_every": 4, "keep_checkpoints": 1}}
    whole = trained(tiny, name="whole", **changes)
    cut = tiny(name="cut", validation=SHORT, **changes)
    generate(cut)
    real, made = TrainingLog.add, []

    def add(self, loss):
        made.append(1)
        if len(made) in (4, 9):
            raise KeyboardInterrupt
        real(self, loss)

    monkeypatch.setattr(TrainingLog, "add", add)
    for _ in range(2):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(cut)
    assert_equal_weights(weights(whole), weights(cut))
    assert curve(whole) == curve(cut)
    assert len({line[1:] for line in curve(whole)}) > 1  # results differ from one validation to the next
    assert checkpoint_steps(run_folder(whole).checkpoints) == checkpoint_steps(run_folder(cut).checkpoints)
    assert best_step(whole) == best_step(cut)


def test_a_killed_training_keeps_its_best_checkpoint_and_its_curve(tiny, tmp_path):
    changes = {"training": {"steps": 24, "learning_rate": 0.05}, "runtime": {"checkpoint_every": 8, "log_every": 2}}
    changes |= {"validation": SHORT}
    whole = trained(tiny, name="whole", **changes)
    cut = tiny(name="cut", **changes)
    generate(cut)
    path = tmp_path / "cut.yaml"
    path.write_text(dump(cut))
    words = ["-m", "ad_model.train", "--config", str(path)]
    for number in (17, 25):  # within a checkpoint of a best result, and later
        killed = killed_at(number, words, tmp_path, [ROOT])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    AcceleratorState._reset_state(reset_partial_state=True)
    train(cut)
    assert_equal_weights(weights(whole), weights(cut))
    assert curve(whole) == curve(cut)
    assert best_step(whole) == best_step(cut)


def test_two_processes_validate_alike(tiny, tmp_path):
    one = trained(tiny, name="one")
    two = tiny(name="two", validation=SHORT)
    generate(two)
    path = tmp_path / "two.yaml"
    path.write_text(dump(two))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/multi_cpu.yaml")]
    done = run_python([*launcher, "--main_process_port", "0", "-m", "ad_model.train", "--config", str(path)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation after update 2") == 1
    assert [step for step, *_ in curve(two)] == [step for step, *_ in curve(one)] == [2, 4, 6]
    assert np.isfinite(np.array(curve(two))).all()


def test_the_best_checkpoint_stays_and_can_be_evaluated(tiny, scored, capsys):
    scored(0.1, 0.5, 0.3)
    config = trained(tiny, runtime={"checkpoint_every": 1, "keep_checkpoints": 1})
    folder = run_folder(config).checkpoints
    assert checkpoint_steps(folder) == [4, 6]
    assert record_of(config, 4).validation.score == 0.5
    assert model_path(config, run_folder(config)).parent == checkpoint_path(folder, 6)
    best = tiny(validation=SHORT, evaluation={"checkpoint": "best"})
    assert model_path(best, run_folder(config)).parent == checkpoint_path(folder, 4)
    assert evaluate(best) and not evaluate(best)
    assert json.loads(run_folder(config).summary.read_text())["checkpoint"].endswith("step-000004/model")
    assert Experiment(best).model_folder.parent == checkpoint_path(folder, 4)
    cli.info(run_folder(config).path)
    assert "best on validation tasks: 0.50 in the last episodes, after update 4" in capsys.readouterr().out


def test_a_best_result_between_two_checkpoints_has_a_checkpoint(tiny, scored):
    scored(0.1, 0.5, 0.3)
    config = trained(tiny, runtime={"checkpoint_every": 100, "keep_checkpoints": 1})
    assert checkpoint_steps(run_folder(config).checkpoints) == [4, 6]


def test_scores_of_other_validations_are_not_compared(tiny, scored):
    scored(0.9, 0.5, 0.3)
    trained(tiny, training={"schedule": "constant"})
    scored(0.1, 0.2)
    config = trained(tiny, training={"schedule": "constant", "steps": 10}, validation={**SHORT, "seeds": 3})
    assert best_step(config) == 10


def test_the_best_checkpoint_needs_a_validation(tiny):
    config = trained(tiny, validation={"every": 0})
    with pytest.raises(UserError, match="no checkpoint was validated, so none is known to be the best"):
        model_path(tiny(evaluation={"checkpoint": "best"}), run_folder(config))


def test_training_stops_when_the_validation_return_does_not_rise(tiny, scored, capsys):
    scored(0.2, 0.5, 0.4, 0.5)
    changes = {"validation": {**SHORT, "patience": 2}, "training": {"steps": 40}}
    config = trained(tiny, **changes)
    record = record_of(config)
    assert record.step == 8
    assert record.stopped == "no validation return above that of update 4 in 2 validations"
    assert checkpoint_steps(run_folder(config).checkpoints)[0] == 4
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not train(config)
    assert evaluate(config)
    write_report(config)
    assert "Training stopped early: no validation return" in run_folder(config).report.read_text()
    cli.info(run_folder(config).path)
    out = capsys.readouterr().out
    assert "training: 8 of 40 updates" in out and "stopped early: no validation return above" in out


def test_a_training_that_is_killed_before_it_stops_early_stops_at_the_same_update(tiny, scored, monkeypatch):
    changes = {"validation": {**SHORT, "patience": 2}, "training": {"steps": 40}, "runtime": {"checkpoint_every": 3}}
    config = tiny(**changes)
    generate(config)
    scored(0.2, 0.5, 0.4, 0.3)
    with monkeypatch.context() as patch:
        patch.setattr("ad_model.train.TrainingLog.record", failing_at(7))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    scored(0.3)  # after update 8; update 6 has its checkpoint
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    assert record_of(config).step == 8 and record_of(config).stopped


def failing_at(step):
    real = TrainingLog.record

    def record(self, done, *rest):
        if done >= step:
            raise KeyboardInterrupt
        return real(self, done, *rest)

    return record


def test_watching_is_no_part_of_the_trainings_fingerprint_but_patience_is(tiny):
    plain = training_fingerprint(tiny())
    assert training_fingerprint(tiny(validation={"every": 7, "tasks": 3, "seeds": 1, "episodes": 9})) == plain
    stopping = training_fingerprint(tiny(validation={"patience": 3}))
    assert stopping != plain
    assert training_fingerprint(tiny(validation={"patience": 3, "every": 50})) != stopping
    assert training_fingerprint(tiny(validation={"patience": 3, "seeds": 2})) != stopping


def test_training_never_looks_at_held_out_tasks(tiny, monkeypatch):
    config = tiny(validation=SHORT)
    held_out = Experiment(config).test_tasks.keys()
    assert len(held_out)
    generate(config)
    acted_on = []
    make_vec = DarkRoom.make_vec

    def watched(self, tasks):
        acted_on.append(tasks.keys())
        return make_vec(self, tasks)

    def hidden(self):
        raise AssertionError("training asked for the held-out tasks")

    monkeypatch.setattr(DarkRoom, "make_vec", watched)
    monkeypatch.setattr(Experiment, "test_tasks", property(hidden))
    experiment = Experiment(config)
    train(experiment)
    assert acted_on and not np.isin(held_out, np.concatenate(acted_on)).any()


def test_a_run_without_validation_tasks_says_so_and_refuses_what_needs_them(tiny, capsys):
    trained(tiny, split={"validation": 0})
    assert "there are no validation tasks" in capsys.readouterr().out
    for changes, key in (
        ({"validation": {"patience": 2}}, "validation.patience"),
        ({"evaluation": {"checkpoint": "best"}}, "evaluation.checkpoint: best"),
    ):
        config = tiny(name="other", split={"validation": 0}, **changes)
        generate(config)
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(ConfigError, match=f"{key}: there are no validation tasks"):
            train(config)
    with pytest.raises(ConfigError, match=r"validation.patience: .*needs validation.every above 0"):
        tiny(validation={"every": 0, "patience": 3})


def test_returns_part_when_a_good_part_of_the_gain_is_missing_on_validation_tasks():
    rng = np.random.default_rng(0)
    first, last = np.zeros(16), np.full(16, 0.9) + 0.02 * rng.standard_normal(16)
    assert parted(first, last, last - 0.4)
    assert not parted(first, last, last - 0.1)  # a small part
    wide = 0.9 + 0.8 * rng.standard_normal(16)
    assert not parted(first, wide, wide[:6] - 0.4)  # chance
    assert not parted(first[:1], last[:1], last[:1] - 0.9)  # nothing is known about the spread
    assert not parted(np.zeros(4), np.full(4, 0.1), np.full(4, 0.9))  # the other way round


def test_the_user_is_warned_once_when_training_tasks_are_memorised(tiny, monkeypatch, capsys):
    monkeypatch.setattr("data_gen.validation.parted", lambda *_: True)
    config = trained(tiny)
    assert capsys.readouterr().out.count("are being memorised") == 1
    assert all(line["memorises"] == 1 for line in read_log(run_folder(config).training_log) if "memorises" in line)
    evaluate(config)
    write_report(config)
    report = run_folder(config).report.read_text()
    assert "are being memorised" in report and "Emergence of learning in context" in report
    assert (run_folder(config).report_pictures / "emergence.png").exists()


def test_the_curve_goes_to_the_trackers(tiny, monkeypatch):
    points = {}
    monkeypatch.setattr("icrl.run.trackers.Trackers.log", lambda self, figures, step: points.update({step: figures}))
    trained(tiny)
    assert "validation_last_normalised_return" in points[2] and "validation_last_normalised_return" not in points[1]
    assert all(isinstance(value, int | float) for value in points[2].values())
