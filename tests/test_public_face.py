"""The public face `import icrl`: its names, its light import, and the old paths that lead to it."""

import ast
import json
import re
import sys

import pytest
from conftest import ROOT, run_python

import icrl
from icrl.config.shipped import shipped_names

PUSHED_CARD = """
import json

from configs.schema import TasksComponent
from data_gen.history import episode_returns
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from eval.evaluate import load_model
from ad_model.in_context import TransformerAgent

family = TasksComponent.model_validate(json.loads('{"name": "dark_room", "size": 4, "episode_length": 6}')).build()
_, held_out = family.split(0.8, 0.2, seed=0)
held_out = held_out.take(range(min(8, len(held_out))))
agent = TransformerAgent(load_model("MODEL"))
episodes = 3
life = interact(agent, family.make_vec(held_out), episodes * family.episode_length, make_seeds(len(held_out), 0))
print(episode_returns(life.reward, life.ended, episodes).mean(axis=0).shape)
"""
"""The code of a model card that version 0.1 pushed."""

EXPORTED_SPEC = {"entry_point": "data_gen.tasks.gym_envs:make_env", "kwargs": {"family": "dark_room", "size": 4}}
"""The environment's spec in a Minari data set that version 0.1 exported."""


def test_every_public_name_exists_and_has_a_docstring():
    for name in icrl.__all__:
        assert getattr(icrl, name) is not None
        assert name == "__version__" or getattr(icrl, name).__doc__, name
    assert set(icrl.__all__) <= set(dir(icrl))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = icrl.nothing


def test_the_stub_file_declares_the_same_names():
    stub = ast.parse((ROOT / "icrl/__init__.pyi").read_text())
    declared = {name.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert declared == icrl._FACE


def test_importing_icrl_and_loading_a_config_stay_light(tmp_path):
    """Even for a config that names an objective, although objectives are part of a package that needs torch."""
    code = (
        "import sys, icrl; assert not {'numpy', 'pydantic'} & set(sys.modules), 'import icrl'\n"
        "config = icrl.load_config('dark_room/dpt'); config.model_dump()\n"
        "assert config.training.objective.name == 'optimal_action'\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules), 'load_config'"
    )
    done = run_python(["-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_code_of_cards_from_earlier_versions_still_runs(tmp_path, tiny_file):
    done = run_python(["-m", "icrl", "run", "--config", str(tiny_file)], tmp_path)
    assert done.returncode == 0, done.stderr
    code = PUSHED_CARD.replace("MODEL", "runs/tiny/checkpoints/step-000006")
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'icrl/old_paths'}"}  # as in both kinds of installation
    done = run_python(["-c", code], tmp_path, paths)
    assert done.stdout.strip() == "(3,)", done.stderr


def test_environments_of_data_sets_from_earlier_versions_can_still_be_made():
    import gymnasium

    env = gymnasium.make(gymnasium.envs.registration.EnvSpec("icrl/dark_room", **EXPORTED_SPEC))
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_the_docs_import_only_the_public_face(page):
    """The only exception is `import data_gen`, which registers environments."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    for text in blocks:
        for module in re.findall(
            r"^\s*(?:from|import) (configs|data_gen|ad_model|eval|publish|icrl)\b(.*)", text, re.M
        ):
            assert (
                (module[0] == "icrl" and not module[1].startswith("."))
                or module == ("data_gen", "")
                or (module[0] == "data_gen" and module[1].strip().startswith("#"))
            ), f"{page}: {module}"


def test_a_users_own_packages_come_before_packages_of_the_same_names(tmp_path):
    """This project's packages are no longer called `configs` and `hub`, and a user's own packages come first."""
    for name in ("configs", "hub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    paths = {"PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT / 'icrl/old_paths'}"}
    small = "--data.histories_per_task 2 --data.episodes 20 --training.steps 2 --training.subsample 2".split()
    small += "--runtime.workers 1 --runtime.trackers []".split()
    code = "import configs, hub, icrl, data_gen; assert configs.mine and hub.mine; print(icrl.load_config('demo').name)"
    calls = [
        ["-c", code],
        ["-m", "data_gen", "--config", "demo", *small],
        ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/cpu.yaml"),
         "-m", "ad_model.train", "--config", "demo", *small],
    ]  # fmt: skip
    for words in calls:
        done = run_python(words, tmp_path, paths)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/demo/checkpoints/step-000002").is_dir()


def test_shipped_configs_are_found_by_name_and_files_come_first(icrl, tmp_path):
    assert {"demo", "dark_room/ppo", "bandit/rl2"} <= set(shipped_names())
    assert not any(name.startswith("accelerate") for name in shipped_names())
    done = icrl("generate", "dark_room/pppo")
    assert done.returncode == 2 and "did you mean 'dark_room/ppo'" in done.stderr
    assert done.stderr.count("\n") == 1
    (tmp_path / "demo").write_text("name: mine\ntasks: {name: bandit}\ndata: {sources: [{name: nothing}]}\n")
    done = icrl("generate", "demo")
    assert "demo: data.sources.0.name: unknown name 'nothing'" in done.stderr


def test_the_command_shows_its_help_and_version(icrl):
    assert "usage: icrl" in icrl().stdout
    assert icrl("--version").stdout.strip() == f"icrl {sys.modules['icrl'].__version__}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--training.target", "action"], "training.target: is now training.objective: write {name: imitation}"),
        (["--data.sources.0.weight", "2"], "data.sources.0.weight: is now called share"),
        (["--training.selection.weight", "uniform"], "is now training.selection.likelihood"),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_replacement(icrl, words, expected):
    done = icrl("generate", "demo", *words)
    assert done.returncode == 2
    assert expected in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_moved_run_folder_can_be_opened(tmp_path, tiny_file):
    done = run_python(["-m", "icrl", "generate", "--config", str(tiny_file)], tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "runs/tiny").rename(tmp_path / "moved")
    run = icrl.open_run(tmp_path / "moved")
    assert run.folder.path == tmp_path / "moved" and run.config.name == "moved"
    train, validation, test = run.splits
    assert (len(train), len(validation), len(test)) == (12, 1, 3) and run.splits is run.splits
    assert json.loads(run.folder.data_info.read_text())["num_train_tasks"] == 12
    with pytest.raises(icrl.UserError, match="is not a run folder"):
        icrl.open_run(tmp_path)


def test_a_config_is_a_mapping_too(tiny):
    content = tiny().model_dump(mode="json")
    assert icrl.load_config(content, ["--seed", "3"]).seed == 3 and content["seed"] == 0
    with pytest.raises(icrl.ConfigError, match="config: name: is required but missing"):
        icrl.load_config({key: value for key, value in content.items() if key != "name"})
