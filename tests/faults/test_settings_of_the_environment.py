"""Variables of the environment that accelerate reads: none of them decides a result without a word."""

import pytest
from accelerate.state import AcceleratorState, GradientState

from ad_model.launched import check_accelerator, make_accelerator
from ad_model.train import train
from data_gen.generation.generate import generate
from icrl.run.checkpoints import TrainingRecord, last_checkpoint
from icrl.run.folder import RECORD, run_folder
from icrl.run.records import read_record
from icrl.support.errors import UserError


@pytest.fixture(autouse=True)
def fresh_state():
    """Accelerate's state is one per process, and its constructor also writes variables."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def made(tiny, monkeypatch, variables, **changes):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = tiny(**changes)
    accelerator = make_accelerator(config)
    check_accelerator(accelerator, config)
    return accelerator


@pytest.mark.parametrize(
    ("name", "value", "changes"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", {}),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1", {"training": {"accumulation_steps": 2}}),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "0", {}),
        ("ACCELERATE_MIXED_PRECISION", "fp8", {}),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER", {}),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", {}),
        ("ACCELERATE_TORCH_DEVICE", "meta", {}),
    ],
)
def test_a_variable_that_overrides_the_config_is_refused_by_name(tiny, monkeypatch, name, value, changes):
    with pytest.raises(UserError) as caught:
        made(tiny, monkeypatch, {name: value}, **changes)
    (line,) = str(caught.value).splitlines()
    assert name in line or "accelerate refuses" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many"),
        ("ACCELERATE_MIXED_PRECISION", "fp7"),
        ("ACCELERATE_DYNAMO_BACKEND", "none-such"),
        ("ACCELERATE_DYNAMO_USE_DYNAMIC", "banana"),
        ("ACCELERATE_USE_CPU", "banana"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_FSDP", "banana"),
    ],
)
def test_a_variable_that_cannot_be_read_is_one_line_or_harmless(tiny, monkeypatch, name, value):
    try:
        accelerator = made(tiny, monkeypatch, {name: value})
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert accelerator.mixed_precision == "no" and accelerator.gradient_accumulation_steps == 1


def test_the_config_decides_the_precision_and_equal_variables_pass(tiny, monkeypatch):
    accelerator = made(tiny, monkeypatch, {"ACCELERATE_MIXED_PRECISION": "bf16"}, runtime={"mixed_precision": "no"})
    assert accelerator.mixed_precision == "no"
    accelerator = made(tiny, monkeypatch, {"ACCELERATE_MIXED_PRECISION": "bf16"})  # as documented: that of the launch
    assert accelerator.mixed_precision == "bf16"
    same = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2", "ACCELERATE_DYNAMO_BACKEND": "NO"}
    changes = {"training": {"accumulation_steps": 2}, "runtime": {"mixed_precision": "no"}}
    assert made(tiny, monkeypatch, same, **changes).gradient_accumulation_steps == 2


def test_a_precision_that_the_config_does_not_name_is_said_and_recorded(tiny, monkeypatch, capsys):
    config = tiny()
    generate(config)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train(config)
    assert "train: in bf16, as ACCELERATE_MIXED_PRECISION says" in capsys.readouterr().out
    record = read_record(last_checkpoint(run_folder(config).checkpoints) / RECORD, TrainingRecord)
    assert record.made_with["precision"] == "bf16"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["train", "demo"], "ACCELERATE_LOG_LEVEL", "chatty"),
        (["train", "demo"], "HF_HUB_DOWNLOAD_TIMEOUT", "a while"),
        (["tasks", "dark_room"], "MPLBACKEND", "banana"),
    ],
)
def test_a_variable_that_ends_the_import_of_a_library_is_named(icrl, words, name, value):
    done = icrl(*words, environment={name: value})
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"error: {name}: cannot be read by a library (")
