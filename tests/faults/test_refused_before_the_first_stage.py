"""`icrl run` refuses whatever can be known before it generates data, and names the key."""

import json
import socket

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from conftest import TINY, merged

from ad_model.build import build_model
from ad_model.modeling_ad import ADModel
from data_gen.experiment import Experiment
from data_gen.spaces import to_json
from eval.before import check_run
from icrl import cli
from icrl.config.loader import validate
from icrl.config.schema import ExperimentConfig
from icrl.run.command import Invocation
from icrl.run.fingerprints import training_fingerprint
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError
from icrl.support.terminal import reported


@pytest.fixture(autouse=True)
def fresh_state():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def refusal(config: ExperimentConfig) -> str:
    with pytest.raises(UserError) as caught:
        cli.run(Invocation(config, "config.yaml"))
    assert not run_folder(config).data.exists()
    (line,) = str(caught.value).splitlines()
    return line


def saved_model(config, folder):
    family = Experiment(config).family
    spaces = to_json(family.observation_space), to_json(family.action_space)
    build_model(config, *spaces, family.episode_length).save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtime": {"trackers": ["tensorbord"]}}, "runtime.trackers: 'tensorbord' is not a tracker"),
        ({"evaluation": {"checkpoint": "nowhere/at/all"}}, "evaluation.checkpoint: nowhere/at/all"),
        ({"data": {"shards": 99}}, "data.shards: 99 is more than"),
        ({"runtime": {"device": "warp"}}, "runtime.device: cannot use 'warp'"),
        ({"model": {"backbone": "lama"}}, "model.backbone: unknown backbone 'lama'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_work(tiny, changes, expected):
    assert refusal(tiny(**changes)).startswith(expected)


def test_a_scheduler_that_is_not_there(tiny, monkeypatch):
    distributed = pytest.importorskip("distributed")
    wait = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: wait(address, timeout=0.2))
    address = f"tcp://127.0.0.1:{free_port()}"
    line = refusal(tiny(runtime={"executor": "dask", "scheduler": address}))
    assert line.startswith(f"runtime.scheduler: no Dask scheduler answers at {address}")


def test_a_machine_without_a_compiler(tiny, monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 for the trace")

    monkeypatch.setattr(torch, "compile", missing)
    line = refusal(tiny(runtime={"compile": True}))
    assert line.startswith("runtime.compile: PyTorch cannot compile on this machine (No working C++ compiler found): ")


def test_a_variable_of_the_environment_that_decides_the_training(tiny, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert refusal(tiny()).startswith("ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4: ")


def test_a_model_for_other_spaces_or_damaged(tiny, tmp_path):
    folder = saved_model(tiny(tasks={"size": 5}), tmp_path / "model")
    config = tiny(evaluation={"checkpoint": str(folder)})
    assert refusal(config).startswith(f"evaluation.checkpoint: {folder}: the checkpoint's observation space is ")
    saved_model(tiny(), folder)
    check_run(Experiment(config))
    assert isinstance(ADModel.from_pretrained(folder), ADModel)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert str(folder) in refusal(config)


def test_a_checkpoint_that_this_run_will_write_is_not_missing(tiny):
    own = tiny()
    path = run_folder(own).checkpoints / "step-000004"
    check_run(Experiment(validate(merged(TINY, {"output": own.output, "evaluation": {"checkpoint": str(path)}}))))


def test_finished_work_of_another_config(tiny):
    config = tiny()
    step = run_folder(config).checkpoints / "step-000006"
    step.mkdir(parents=True)
    record = {"fingerprint": "0" * 16}
    (step / "training.json").write_text(json.dumps(record))
    assert refusal(config).startswith(str(step))
    assert training_fingerprint(config) != record["fingerprint"]


@pytest.mark.parametrize("name", ["checkpoints", "eval", "cache", "meta", "report"])
def test_a_file_in_the_place_of_a_folder(tiny, name):
    config = tiny()
    place = run_folder(config).path / name
    place.parent.mkdir(parents=True)
    place.touch()
    assert refusal(config).startswith(f"{place} is not a folder")


@pytest.mark.parametrize("name", ["report.html", "training_log.jsonl", "config.yaml"])
def test_a_folder_in_the_place_of_a_file(tiny, name):
    config = tiny()
    place = run_folder(config).path / name
    place.mkdir(parents=True)
    assert refusal(config).startswith(f"{place} is a folder")


def test_an_output_that_is_a_file_or_not_writable(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert refusal(tiny(output=str(tmp_path / "file/below"))).startswith(f"{tmp_path / 'file'} is not a folder")
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    assert refusal(tiny(output=str(tmp_path / "runs/below"))).startswith(f"{tmp_path} is not writable")


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"trackers": ["tensorbord"]}, 2), ({"device": "warp"}, 2), ({"device": "cuda:99"}, 1)],
    ids=str,
)
def test_a_wrong_name_is_an_error_of_the_config_and_a_missing_device_one_of_the_machine(tiny, changes, code):
    with pytest.raises(UserError) as caught:
        cli.run(Invocation(tiny(runtime=changes), "config.yaml"))
    assert caught.value.exit_code == code


def test_a_name_or_a_path_that_is_too_long_for_a_file_is_one_short_line(tiny, capsys):
    with pytest.raises(ConfigError, match=r"^config: name: "):
        tiny(name="x" * 201)
    config = tiny(output="x/" * 3000)
    assert reported(lambda: cli.run(Invocation(config, "config.yaml"))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(": File name too long") and len(line) < 300
