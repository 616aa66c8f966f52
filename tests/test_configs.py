"""Every shipped config at a small size, from generation to a report; and the families that `icrl tasks` shows."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from ad_model.train import train
from data_gen.generation.generate import generate
from data_gen.meta.store import is_meta_learner, meta_learners
from data_gen.meta.training import meta_train
from eval.evaluate import evaluate
from eval.report import write_report
from eval.summary import TRANSFORMER, load_summary
from icrl.config.components import TASKS
from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import TasksComponent
from icrl.config.shipped import shipped_names
from icrl.run.folder import run_folder

CONFIGS = [ROOT / "configs" / f"{name}.yaml" for name in shipped_names()]
NEEDS = {"meta_world/": "metaworld", "gymnasium/minigrid": "minigrid", "gymnasium/highway": "highway_env"}
"""Packages beyond this project's dependencies that configs need, by the beginning of the config's name."""

LONGEST_EPISODE = 25

SMALL = """
    --data.histories_per_task 2 --data.episodes 4 --data.shards 1
    --model.context_episodes 2 --model.hidden_size 16 --model.intermediate_size 16
    --training.steps 2 --training.batch_size 4 --training.subsample 1
    --evaluation.episodes 2 --evaluation.seeds 1 --evaluation.test_tasks 2 --evaluation.train_tasks 1
    --runtime.workers 1 --runtime.trackers []
""".split()

SMALL_META = {
    "rl2": "iterations 1 trials 4 minibatches 2 trial_episodes 2 first_trial_episodes 2 units 8",
    "maml": "iterations 1 meta_batch 2 trajectories 2 actors 1 test_trajectories 1 hidden_sizes [8,8]",
    "pearl": "iterations 1 updates 2 tasks_per_iteration 2 initial_episodes 1 meta_batch 2 batch_size 8 context_size 8",
}


def small_meta_learners(config: ExperimentConfig) -> list[str]:
    """Overrides that make the meta-learners of a config quick to meta-train."""
    named = {f"data.sources.{index}": source for index, source in enumerate(config.data.sources)}
    named |= {f"evaluation.baselines.{index}": agent for index, agent in enumerate(config.evaluation.baselines)}
    words = []
    for key, component in named.items():
        if is_meta_learner(component):
            pairs = SMALL_META[component.name].split()
            words += [f"{key}.{name}={value}" for name, value in zip(pairs[::2], pairs[1::2], strict=True)]
    return words


@pytest.mark.parametrize("path", CONFIGS, ids=shipped_names())
def test_a_shipped_config_states_its_purpose_and_runs_through_the_whole_pipeline(path: Path, tmp_path):
    for beginning, package in NEEDS.items():
        if path.relative_to(ROOT / "configs").as_posix().startswith(beginning):
            pytest.importorskip(package)
    header = re.match(r"(?:#.*\n)+", path.read_text())
    assert header and re.search(r"^# (?:Held-out tasks|Purpose): \S", header.group(), re.M)
    if "# Held-out tasks:" in header.group():
        assert re.search(r"\d", header.group().partition("Held-out tasks:")[2])
    config = load_config(path)
    small = [*SMALL, *small_meta_learners(config)]
    config = load_config(path, small)
    split = {"train": min(4, config.split.train), "test": min(2, config.split.test)}
    sizes = [f"split.{name}={size}" for name, size in split.items()]
    if hasattr(config.tasks.build(), "episode_length") and "pixels" not in config.tasks.name:
        sizes.append(f"tasks.episode_length={min(LONGEST_EPISODE, config.tasks.build().episode_length)}")
    config = load_config(path, [*small, *sizes, "--output", str(tmp_path)])
    assert bool(meta_train(config)) == bool(meta_learners(config))
    assert generate(config) and train(config) and evaluate(config)
    folder = run_folder(config)
    write_report(config)
    assert folder.report.stat().st_size > 10_000
    figures = load_summary(folder).agents[TRANSFORMER]["test"].returns
    assert figures["final_episodes"].mean is not None


def test_the_task_sections_of_the_docs_are_valid():
    sections = re.findall(r"```yaml\n(tasks:.*?)```", (ROOT / "docs" / "tasks.md").read_text(), flags=re.S)
    assert sections
    for section in sections:
        family = TasksComponent.model_validate(yaml.safe_load(section)["tasks"]).build()
        train, test = family.split(0.5, 0.5, seed=0)
        assert len(train) and len(test)
        envs = family.make_vec(test.take([0, 1]))
        assert envs.observation_space.contains(envs.reset(seed=0)[0])
        envs.close()


def test_families_are_listed_and_a_family_is_shown_with_a_picture(icrl, tmp_path):
    listed = icrl("tasks")
    assert listed.returncode == 0, listed.stderr
    for name in TASKS:
        assert re.search(rf"^{name} ", listed.stdout, flags=re.M), name
    shown = icrl("tasks", "windy_room", "--size", "4", "--picture", "pictures")
    assert shown.returncode == 0, shown.stderr
    assert "MultiDiscrete([4 4])" in shown.stdout and "rewards and dynamics" in shown.stdout
    assert (tmp_path / "pictures" / "windy_room.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words, expected",
    [
        (["windy_rom"], "did you mean 'windy_room'"),
        (["bandit", "--arms", "1"], "tasks.arms: "),
        (["dark_room", "--start", "[9, 9]"], r"start \[9, 9\] lies outside the 9x9 room"),
        (["dark_room", "--sise", "4"], "tasks.sise: unknown key"),
        (["cart_pole", "--low", "2", "--high", "1"], "low"),
        (["gymnasium", "--env_id", "CartPol-v1", "--vary", "{a: [1, 2]}"], "CartPole"),
        (["--size=4"], "need the NAME of a family"),
    ],
)
def test_a_problem_with_a_family_is_reported_in_one_line(icrl, words, expected):
    done = icrl("tasks", *words)
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and re.search(expected, lines[0]), done.stderr
