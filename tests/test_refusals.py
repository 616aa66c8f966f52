"""Bad input: one line that names file and key, an exit code, and no valid file destroyed."""

import json
import shutil

import pytest
from accelerate.state import AcceleratorState
from conftest import ROOT, TINY, merged, seal
from safetensors.torch import load_file, save_file

from ad_model.build import build_model, check_model
from ad_model.load import load_model
from ad_model.train import train
from data_gen.generation.generate import generate
from eval.__main__ import main as evaluate_command
from eval.evaluate import check_agents, evaluate, evaluated_weights
from eval.report import write_report
from icrl.config.components import component
from icrl.config.loader import load_config, validate
from icrl.config.schema import ModelConfig
from icrl.run.checkpoints import checkpoint_steps, last_checkpoint
from icrl.run.command import Invocation
from icrl.run.folder import run_folder
from icrl.run.records import record_text
from icrl.support.errors import ConfigError, UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run, for tests to copy and break."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("finished")
    config = validate(merged(TINY, {"output": str(folder)}))
    generate(config)
    train(config)
    evaluate(config)
    write_report(config)
    return folder / "tiny"


@pytest.fixture
def broken(finished, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    shutil.copytree(finished, tmp_path / "runs" / "tiny")
    return validate(merged(TINY, {"output": str(tmp_path / "runs")}))


def with_changes(config, **changes):
    return validate(merged(merged(TINY, {"output": config.output}), changes))


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"schema_version": 2}', '{"schema_version": 1}', "not json"])
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("data/info.json", generate),
        ("data/info.json", train),
        ("checkpoints/step-000006/training.json", train),
        ("checkpoints/step-000006/training.json", evaluate),
        ("eval/summary.json", evaluate),
        ("eval/summary.json", write_report),
    ],
)
def test_an_invalid_record_is_named(broken, file, stage, content):
    path = run_folder(broken).path / file
    path.write_text(content)
    with pytest.raises(UserError, match=str(path)):
        stage(broken)


@pytest.mark.parametrize("file", ["returns.parquet", "values.parquet", "paths.npz"])
def test_a_damaged_or_missing_result_is_named(broken, file):
    path = run_folder(broken).eval / file
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="run `icrl evaluate --overwrite`"):
        write_report(broken)
    path.unlink()
    with pytest.raises(UserError, match="run `icrl evaluate --overwrite`"):
        write_report(broken)


def test_foreign_files_in_a_run_folder_are_ignored(broken):
    folder = run_folder(broken)
    shutil.copytree(folder.checkpoints / "step-000006", folder.checkpoints / "step-000006.bak")
    folder.training_log.write_text(folder.training_log.read_text() + "3\n{\n")
    assert checkpoint_steps(folder.checkpoints) == [4, 6]
    assert not train(broken)
    write_report(broken)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"backbone": "lama"}},
        {"model": {"hidden_size": 18}},
        {"model": {"backbone_options": {"hidden_act": "reluu"}}},
        {"runtime": {"trackers": ["nothing"]}},
    ],
)
def test_overwriting_deletes_nothing_before_the_new_training_can_begin(broken, changes):
    with pytest.raises(UserError):
        train(with_changes(broken, **changes), overwrite=True)
    assert checkpoint_steps(run_folder(broken).checkpoints) == [4, 6]


def test_skipped_stages_leave_the_config_file_unchanged(broken):
    before = run_folder(broken).config.read_text()
    assert not generate(with_changes(broken, training={"steps": 9}))
    assert run_folder(broken).config.read_text() == before


def test_changed_data_makes_later_stages_stale(broken):
    """The config is the same, but a source's code has changed. The config's fingerprint alone would miss that."""
    info = run_folder(broken).data_info
    record = json.loads(info.read_text())
    record["shards"][0]["sha256"] = "0" * 64
    info.write_text(record_text(record))
    for stage in (train, evaluate):
        with pytest.raises(UserError, match="step-000006 belongs to another config"):
            stage(broken)


def test_an_evaluation_of_other_weights_is_stale(broken):
    weights = last_checkpoint(run_folder(broken).checkpoints) / "model" / "model.safetensors"
    values = load_file(weights)
    values["head.linear.bias"] += 1
    save_file(values, weights, metadata={"format": "pt"})
    seal(weights.parent.parent)
    with pytest.raises(UserError, match="eval belongs to another config"):
        evaluate(broken)


def test_an_evaluation_of_a_model_with_other_settings_is_stale(broken, tmp_path):
    shutil.copytree(last_checkpoint(run_folder(broken).checkpoints) / "model", tmp_path / "model")
    (tmp_path / "model/checksums.json").unlink()  # as of a model that was edited by hand
    given = with_changes(broken, name="given", evaluation={"checkpoint": str(tmp_path / "model")})
    assert evaluate(given) and not evaluate(given)
    settings = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps({**settings, "context_length": 12}))
    with pytest.raises(UserError, match="eval belongs to another config"):
        evaluate(given)


def test_code_beside_the_weights_of_a_given_model_counts_if_it_runs(broken, tmp_path):
    shutil.copytree(last_checkpoint(run_folder(broken).checkpoints) / "model", tmp_path / "model")

    def weights(trusted):
        given = {"checkpoint": str(tmp_path / "model"), "trust_remote_code": trusted}
        config = with_changes(broken, name="given", evaluation=given)
        return evaluated_weights(config, run_folder(config), tmp_path / "model")

    before = weights(False), weights(True)
    (tmp_path / "model/modeling_ad.py").write_text("other = 1")
    assert weights(False) == before[0]
    assert weights(True) != before[1]


def test_a_checkpoint_that_lacks_weights_is_refused(broken):
    model = last_checkpoint(run_folder(broken).checkpoints) / "model"
    values = {name: value for name, value in load_file(model / "model.safetensors").items() if "head" not in name}
    save_file(values, model / "model.safetensors", metadata={"format": "pt"})
    seal(model.parent)
    with pytest.raises(UserError, match=r"the weights do not match the config, see head\."):
        load_model(model)


def test_an_interrupted_evaluation_leaves_no_outdated_report(broken, monkeypatch):
    other = with_changes(broken, evaluation={"seeds": 1})

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("eval.__main__.write_report", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate_command(Invocation(other, "tiny.yaml", overwrite=True))
    assert not run_folder(other).report.exists()
    evaluate_command(Invocation(other, "tiny.yaml"))
    assert run_folder(other).report.exists()


def test_a_checkpoint_is_evaluated_and_reported_without_its_data(broken, tmp_path):
    checkpoint = last_checkpoint(run_folder(broken).checkpoints)
    elsewhere = with_changes(broken, name="elsewhere", evaluation={"checkpoint": str(checkpoint)})
    evaluate_command(Invocation(elsewhere, "tiny.yaml"))
    assert "Training data" not in run_folder(elsewhere).report.read_text()


def test_diverged_training_is_reported_in_one_line(tiny):
    config = tiny(training={"learning_rate": 1e30, "warmup_steps": 0})
    generate(config)
    with pytest.raises(UserError, match=r"training diverged: .* lower training\.learning_rate"):
        train(config)


@pytest.mark.parametrize("backbone", ["bert", "roberta", "t5", "vit", "distilbert"])
def test_a_backbone_that_is_not_a_causal_decoder_is_refused(backbone):
    with pytest.raises(ConfigError, match="model"):
        check_model(ModelConfig(backbone=backbone))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 18}, "does not work with these settings"),
        ({"backbone_options": {"hidden_act": "reluu"}}, "does not work with these settings"),
        ({"backbone_options": {"num_key_value_heads": 3}}, "does not work with these settings"),
        ({"backbone_options": {"num_hidden_layers": 3}}, "is set by another key of model, or by the data"),
        ({"dropout": 0.1}, "model.dropout: llama has no residual dropout"),
    ],
)
def test_incompatible_model_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_model(ModelConfig(**changes))


def test_checking_a_model_does_not_change_the_weights_built_next(tiny):
    import torch

    info = {"type": "Discrete", "n": 4, "start": 0}, {"type": "Discrete", "n": 2, "start": 0}, 6
    first = build_model(tiny(), *info).head.linear.weight
    check_model(tiny().model)
    assert torch.equal(first, build_model(tiny(), *info).head.linear.weight)


def test_more_shards_than_histories_are_refused_before_anything_is_written(tiny):
    config = tiny(data={"shards": 100})
    with pytest.raises(ConfigError, match=r"data\.shards: 100 is more than the 24 learners"):
        generate(config)
    assert not run_folder(config).path.exists()


@component
class Duck:
    """An agent's methods without its base class."""

    def reset(self, spec, num_envs, seeds): ...
    def act(self, observation): ...
    def observe(self, transition): ...


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"sources": [{"name": "q_learning"}, {"name": "random", "share": 0.01}]}},
            r"data\.sources\.1\.share: 0\.01 gives this source none of the 2 learners per task",
        ),
        ({"runtime": {"device": "nonsense"}}, r"runtime\.device: cannot use 'nonsense'"),
        ({"runtime": {"device": "meta"}}, r"runtime\.device: cannot use 'meta'"),
        (
            {"data": {"sources": [{"name": "ppo", "rollout_steps": 1000}]}},
            r"data\.sources\.0: ppo makes its first update after 1000 steps, but a lifetime has 144",
        ),
        ({"data": {"sources": [{"name": "sac"}]}}, r"data\.sources\.0: sac needs Box actions with finite bounds"),
    ],
)
def test_sources_that_cannot_run_are_refused_by_key_before_anything_is_written(tiny, changes, message):
    config = tiny(**changes)
    with pytest.raises(UserError, match=message):
        generate(config)
    assert not run_folder(config).path.exists()


def test_a_class_that_is_not_an_agent_is_refused_by_key(tiny):
    with pytest.raises(ConfigError, match=r"data\.sources\.0\.name: .*Duck.* derive it from icrl\.Agent"):
        tiny(data={"sources": [{"name": "test_refusals:Duck"}]})


def test_an_oracle_on_a_family_without_a_known_optimum_is_refused_by_key(tiny, monkeypatch):
    monkeypatch.delattr("data_gen.tasks.grids.dark_room.DarkRoomVectorEnv.optimal_action")
    with pytest.raises(ConfigError, match=r"evaluation\.baselines\.1: agent 'optimal': .* remove the agent"):
        check_agents(tiny())


def test_an_unavailable_device_is_refused_by_key(broken):
    model = last_checkpoint(run_folder(broken).checkpoints) / "model"
    for device in ("nonsense", "meta:x", "mps"):
        with pytest.raises(UserError, match=r"runtime\.device: cannot use"):
            load_model(model, device)


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("mine:Agent", "x = ("),
        ("mine:Agent", "raise RuntimeError('boom')"),
        ("mine:Absent", ""),
        ("mine:Plain", "import dataclasses\n@dataclasses.dataclass\nclass Plain: pass"),
        (":Agent", ""),
        ("..x:y", ""),
        ("data_gen.tasks.grids.dark_room:DarkRoom", ""),
        (
            "mine:Angry",
            "from icrl import component\n@component\nclass Angry:\n    reset = act = observe = None\n"
            "    def __post_init__(self):\n        raise KeyError('boom')",
        ),
    ],
)
def test_a_users_component_that_fails_is_reported_in_one_line(icrl, tmp_path, source, content):
    (tmp_path / "mine.py").write_text(content)
    config = str(ROOT / "configs/demo.yaml")
    done = icrl("generate", "--config", config, "--data.sources", f"[{{name: '{source}'}}]")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {config}: data.sources.0.name: ")
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--data.sources.0.share", ".inf"],
        ["--data.sources.0.initial_value", ".nan"],
        ["--training.learning_rate", ".inf"],
        ["--split.train", "1.0"],
        ["--training.steps", "true"],
        ["--tasks.start", "[a, b]"],
        ["--data.sources", "[{step_size: 1}]"],
    ],
)
def test_an_invalid_value_is_reported_in_one_line(words):
    with pytest.raises(ConfigError) as caught:
        load_config(ROOT / "configs/demo.yaml", words)
    assert str(caught.value).count("\n") == 0, caught.value


def test_a_name_may_be_a_number():
    assert load_config(ROOT / "configs/demo.yaml", ["--name", "7"]).name == "7"
