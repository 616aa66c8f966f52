"""Config text: YAML 1.2's scalars, every key once, letters of names, and refusals of strange text in one line."""

import tracemalloc

import pytest
import yaml
from conftest import TINY, merged

from icrl.config.loader import dump, load_config, load_tasks, make_tasks, validate
from icrl.support.errors import ConfigError, UserError
from icrl.support.yaml12 import read_yaml, write_yaml


def refused(text, tmp_path, *overrides):
    path = tmp_path / "strange.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    lines = str(caught.value).splitlines()
    assert all(len(line) < 700 for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def loaded(tmp_path, *overrides, **changes):
    path = tmp_path / "config.yaml"
    path.write_text(write_yaml(merged(TINY, changes)))
    return load_config(path, overrides)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), (".5", 0.5), ("010", 10), ("0o17", 15), ("0x1F", 31), ("-.inf", float("-inf"))],
)
def test_numbers_are_those_of_yaml_1_2(text, value):
    assert read_yaml(f"scale: {text}") == {"scale": value}


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "1:20", "0x_", "2020-13-01", "2020-01-01", "1_000", "0b1"])
def test_what_is_a_value_only_to_yaml_1_1_is_text(text):
    assert read_yaml(f"scale: {text}") == {"scale": text}


def test_text_that_is_a_value_to_yaml_1_1_is_used_with_a_warning(tmp_path, capsys):
    path = tmp_path / "own.yaml"
    plain = {"data": TINY["data"], "runtime": TINY["runtime"]}
    path.write_text(
        write_yaml(plain)
        + "tasks:\n  name: gymnasium\n  env_id: CartPole-v1\n  episode_length: 6\n  layouts: 4\n"
        + "  kwargs: {continuous: no, scale: 1_000, quoted: 'no', y: false}\n"
    )
    with pytest.raises(ConfigError):
        load_config(path, ["--tasks.kwargs.sutton", "off", "--tasks.unheard_of", "1"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("warning: ") for line in lines)
    assert "'no' (line" in lines[0] and "'1_000' (line" in lines[1] and "'off'" in lines[2]


def test_a_number_reaches_the_environment_as_a_number(tmp_path):
    tasks = {"name": "gymnasium", "env_id": "CartPole-v1", "layouts": 3}
    config = loaded(tmp_path, "--tasks", "{name: gymnasium, env_id: CartPole-v1, layouts: 3, kwargs: {scale: 1e-4}}")
    assert config.tasks.build().kwargs == {"scale": 1e-4}
    text = write_yaml({**TINY, "tasks": tasks}).replace("layouts: 3", "layouts: 3\n  kwargs: {scale: 1e-4}")
    (tmp_path / "file.yaml").write_text(text)
    assert load_config(tmp_path / "file.yaml").tasks.build().kwargs == {"scale": 1e-4}


def test_a_section_that_is_given_twice_is_refused(tmp_path):
    text = write_yaml(TINY) + "training: {steps: 3}\n"
    assert refused(text, tmp_path) == [
        f"is not valid YAML: has the key 'training' twice in one mapping (line {text.count(chr(10))}); merge the two"
    ]
    (line,) = refused(write_yaml(TINY), tmp_path, "--training", "{steps: 1, steps: 2}")
    assert "argument '--training': its value has the key 'steps' twice" in line


def test_keys_that_are_equal_numbers_are_one_key():
    with pytest.raises(UserError, match="twice"):
        read_yaml("{1: a, 0x1: b}")


def test_a_merge_may_repeat_a_key():
    assert read_yaml("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nsame: *b")["own"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("letters", ["1.10", "007", "1e5", "0x10", "true", "1.0"])
def test_a_name_keeps_its_letters(letters, tmp_path):
    assert loaded(tmp_path, "--name", letters).name == letters
    assert loaded(tmp_path, f"name={letters}").name == letters
    path = tmp_path / "unquoted.yaml"
    path.write_text(write_yaml({key: value for key, value in TINY.items() if key != "name"}) + f"name: {letters}\n")
    assert load_config(path).name == letters


def test_letters_are_kept_wherever_a_key_is_text(tmp_path):
    config = loaded(
        tmp_path,
        *("--data.sources", "[{name: q_learning, label: 1.10}]"),
        *("--evaluation.baselines.0", "random", "--evaluation.baselines.0.label", "0010"),
        *("--evaluation.checkpoint", "2024", "--runtime.mixed_precision", "no", "--runtime.device", "null"),
        evaluation={"baselines": ["optimal"]},
    )
    assert config.data.sources[0].label == "1.10"
    assert config.evaluation.baselines[0].label == "0010"
    assert config.evaluation.checkpoint == "2024"
    assert (config.runtime.mixed_precision, config.runtime.device) == ("no", None)
    with pytest.raises(ConfigError, match=r"'1\.10'"):  # text of a component
        load_tasks("gymnasium", ["--env_id", "1.10", "--layouts", "3"])


@pytest.mark.parametrize("word", ["true", "yes"])
@pytest.mark.parametrize("key", ["episode_length", "size"])
def test_true_is_not_a_number(word, key, tmp_path):
    (line,) = refused(write_yaml(TINY), tmp_path, f"tasks.{key}={word}")
    assert line.startswith(f"tasks.{key}: ")


def test_a_parameter_that_is_true_or_false_still_is(tmp_path):
    assert loaded(tmp_path, "--runtime.compile", "true").runtime.compile


LOOK_LIKE_OTHERS = [
    "1e-4",
    "1.10",
    "yes",
    "null",
    "~",
    "",
    "2020-01-01",
    "0x_",
    "0o17",
    "1_000",
    "=",
    "<<",
    "a: b",
    "é",
    "\x85",
]


@pytest.mark.parametrize("value", [*LOOK_LIKE_OTHERS, 1e-4, 1e20, 2**62, True, None, [], {}])
def test_what_is_written_reads_back_equal(value, tmp_path):
    assert read_yaml(write_yaml({"key": value})) == {"key": value}
    tasks = {"name": "gymnasium", "env_id": "CartPole-v1", "kwargs": {"key": value}, "layouts": 3}
    config = validate({**TINY, "tasks": tasks})
    path = tmp_path / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load_config(path).model_dump() == config.model_dump()


def test_labels_that_look_like_numbers_read_back_equal(tmp_path):
    labels = [label for label in LOOK_LIKE_OTHERS if label and label.isprintable()]
    sources = [{"name": "q_learning", "label": label} for label in labels]
    config = validate(merged(TINY, {"data": {"sources": sources, "histories_per_task": 32}}))
    path = tmp_path / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load_config(path).model_dump() == config.model_dump()
    assert [source["label"] for source in yaml.safe_load(dump(config))["data"]["sources"]] == labels


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 2000, "{a: " * 2000, "- " * 2000, "9" * 5000, "!!bool abc", "!!int x", "!!float x", "!!null x"),
        *("!!int [1]", "!!python/object:os.system {}", '"\\UFFFFFFFF"', "&a [*a]", "&a {<<: *a}", "? [1]\n: 2"),
        *(
            "!!timestamp 2020-13-01",
            "--- 1\n--- 2",
            "%YAML 9.9\n---\n1",
            "\x00",
            "<<: 3",
            "{",
            "*missing",
            "@",
            "!!set {a}",
        ),
        *("a: !!binary x", "[1, 2]", "", "3", "x" * 1_000_001),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_strange_text_is_one_line(text, tmp_path):
    (line,) = refused(text, tmp_path)
    assert len(line) < 400


def test_nested_aliases_are_refused_before_they_are_expanded(tmp_path):
    levels = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        levels.append(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]")
    tracemalloc.start()
    (line,) = refused("\n".join(levels), tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert line == "is not valid YAML: stands for more than 1,000,000 characters, by aliases of aliases"
    merges = ["a: &a {x: 1}"] + [
        f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 20)}]}}" for old, new in zip("abcdef", "bcdefg", strict=True)
    ]
    (line,) = refused("\n".join(merges), tmp_path)
    assert "aliases" in line


@pytest.mark.parametrize("value", ["[" + "9" * 300 + "]", "x" * 10_000, "[" + ",".join(["7"] * 10_000) + "]"])
def test_a_long_value_is_cut_in_the_message(value, tmp_path):
    (line,) = refused(write_yaml(TINY), tmp_path, "--training.steps", value)
    assert len(line) < 400


@pytest.mark.parametrize("key", ["training.steps", "tasks.size", "data.sources.0.step_size", "seed", "tasks.horizon"])
def test_an_integer_beyond_64_bits_is_refused_with_the_limit(key, tmp_path):
    (line,) = refused(write_yaml(TINY), tmp_path, f"--{key}", str(10**30))
    assert line.startswith(f"{key}: is beyond the largest integer, 9223372036854775807")
    with pytest.raises(ConfigError, match="size: is beyond the largest integer"):
        make_tasks("dark_room", size=-(10**30))


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(value, tmp_path):
    """The records of a run are JSON, which would turn it into null."""
    (line,) = refused(write_yaml(TINY), tmp_path, "--tasks.kwargs", f"{{scale: [1, {value}]}}")
    assert line.startswith("tasks.kwargs.scale.1: is not a finite number")


def test_a_key_is_named_as_it_is_written(tmp_path):
    assert refused(write_yaml(merged(TINY, {"data": {"so-urces": 1}})), tmp_path)[0].startswith(
        "data.so-urces: unknown"
    )
    assert refused(write_yaml(merged(TINY, {"tasks": {"si.ze": 1}})), tmp_path)[0].startswith("tasks.'si.ze': unknown")
    assert refused(write_yaml(merged(TINY, {"a/b": 1})), tmp_path)[0].startswith("a/b: unknown key")


@pytest.mark.parametrize("keys", ["1: a", "1: a, '1': b", "null: a", "1.5: a", "true: a"])
def test_a_key_that_the_records_of_a_run_would_turn_into_text_is_refused(keys, tmp_path):
    """`config.yaml` and `info.json` would name another environment than the one that made the data."""
    (line, *_) = refused(write_yaml(TINY), tmp_path, "--tasks.kwargs", f"{{config: {{{keys}}}}}")
    assert line.startswith("tasks.kwargs.config.") and "is a key that is not text" in line


def test_a_folder_in_the_place_of_a_config_is_named_as_such(tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"mine\.yaml: is a folder"):
        load_config(tmp_path / "mine.yaml")


def test_a_dash_stands_for_an_underscore_only_in_keys_of_the_schema(tmp_path):
    config = loaded(tmp_path, "--training.batch-size", "16", "--tasks.episode-length", "9")
    assert (config.training.batch_size, config.tasks.build().episode_length) == (16, 9)
    tasks = load_tasks("gymnasium", ["--env-id", "CartPole-v1", "--layouts", "3", "--kwargs.some-key", "3"])
    assert tasks.kwargs == {"some-key": 3}


def test_a_key_of_too_many_levels_is_refused(tmp_path):
    (line,) = refused(write_yaml(TINY), tmp_path, f"--{'a.' * 3000}b", "1")
    assert "levels" in line
