"""Configs: accepted values, refused values, and the wording of refusals."""

import pytest
from conftest import ROOT, TINY, merged

from icrl.config.loader import dump, load_config, parse_overrides, validate
from icrl.config.shipped import shipped_names
from icrl.run.fingerprints import data_fingerprint, training_fingerprint
from icrl.support.errors import ConfigError

DEMO = ROOT / "configs" / "demo.yaml"


def problems(*overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(DEMO, overrides)
    return [line.removeprefix(f"{DEMO}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("path", shipped_names())
def test_every_shipped_config_loads_and_begins_with_its_purpose(path):
    assert load_config(path).name == path.replace("/", "_")  # so no two configs share a run folder
    assert (ROOT / "configs" / f"{path}.yaml").read_text().startswith("# ")


def test_a_dumped_config_loads_back_equal(tmp_path):
    config = load_config(DEMO, ["--tasks.size", "7", "--evaluation.baselines", "[random]"])
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    again = load_config(path)
    assert dump(again) == dump(config)
    assert data_fingerprint(again) == data_fingerprint(config)


@pytest.mark.parametrize(
    "words", [["--tasks.size", "7"], ["--tasks.size=7"], ["tasks.size=7"]], ids=["space", "equals", "bare"]
)
def test_an_override_has_three_spellings(words):
    assert parse_overrides(words) == [("tasks.size", 7)]


def test_overrides_reach_list_items_and_components():
    config = load_config(DEMO, ["--data.sources.0.step_size", "0.25", "--tasks.start", "[1, 2]"])
    assert config.data.sources[0].build().step_size == 0.25
    assert config.tasks.build().start == (1, 2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--training.stepz", "3"], "training.stepz: unknown key (value 3); did you mean 'steps'?"),
        (["--tasks.sise", "3"], "tasks.sise: unknown key (value 3); did you mean 'size'?"),
        (["--tasks.name", "dark_rom"], "tasks.name: unknown name 'dark_rom'; did you mean 'dark_room'?"),
        (["--tasks.reward", "onse"], "tasks.reward: 'onse' is not a choice; did you mean 'once'?"),
        (["--tasks.size", "1"], "tasks.size: input should be greater than or equal to 2 (got 1)"),
        (["--training.steps", "many"], "training.steps: input should be a valid integer"),
        (["--tasks.start", "[9, 9]"], "tasks: start [9, 9] lies outside the 9x9 room"),
        (["--model.num_heads", "3"], "model.num_heads: must divide model.hidden_size, which is 64 (got 3)"),
        (["--model.context_episodes", "11"], "model.context_episodes: is longer than a history"),
        (["--split.train", "nine"], "split.train: input should be a valid"),
        (["--runtime.executor", "dask"], "runtime.scheduler: the dask executor needs its address"),
        (["--data.sources.3.name", "x"], "data.sources.3.name: data.sources is a list of 1"),
        (["--evaluation.baselines", "[optimla]"], "evaluation.baselines.0.name: unknown name 'optimla'"),
        (["stray"], "argument 'stray': expected an override"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_problem_is_one_line_with_path_value_and_nearest_name(words, expected):
    (line,) = problems(*words)
    assert line.startswith(expected)


def test_all_problems_are_reported_at_once():
    lines = problems("--tasks.sise", "3", "--trainning.steps", "3", "--data.sources.0.alpha", "1")
    assert len(lines) == 3


def test_a_missing_config_file_is_named_with_the_nearest_file():
    with pytest.raises(ConfigError, match=r"dmo\.yaml: .*did you mean '.*demo\.yaml'"):
        load_config(ROOT / "configs" / "dmo.yaml")


def test_a_config_is_immutable():
    with pytest.raises(Exception, match="frozen"):
        load_config(DEMO).training.steps = 3


def test_changing_any_setting_outside_runtime_makes_finished_work_stale():
    base = validate(TINY)
    assert training_fingerprint(base) == training_fingerprint(validate(merged(TINY, {"runtime": {"workers": 7}})))
    for change in ({"seed": 1}, {"tasks": {"size": 5}}, {"split": {"test": 0.3}}, {"data": {"episodes": 30}}):
        assert data_fingerprint(base) != data_fingerprint(validate(merged(TINY, change)))
    changed = validate(merged(TINY, {"training": {"steps": 7}}))
    assert data_fingerprint(base) == data_fingerprint(changed)
    assert training_fingerprint(base) != training_fingerprint(changed)


def test_the_command_reports_a_config_error_with_code_2_and_no_traceback(icrl):
    done = icrl("generate", "--config", str(DEMO), "--tasks.sise", "3")
    assert done.returncode == 2
    assert done.stderr == f"error: {DEMO}: tasks.sise: unknown key (value 3); did you mean 'size'?\n"
    assert done.stdout == ""


def test_shorthands_stand_for_the_long_keys(icrl):
    done = icrl("generate", "--config", str(DEMO), "--executor", "dusk")
    assert done.returncode == 2
    assert "runtime.executor: 'dusk' is not a choice; did you mean 'dask'?" in done.stderr
