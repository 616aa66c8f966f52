"""Every shipped config, at a small size, from generation to a report."""

from pathlib import Path

import pytest
from conftest import ROOT

from ad_model.train import train
from configs import load_config
from configs.run_folder import run_folder
from data_gen.generate import generate
from eval.evaluate import evaluate
from eval.report import write_report
from eval.results import TRANSFORMER, load_summary

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NEEDS = {"meta_world": "metaworld", "minigrid": "minigrid", "highway": "highway_env"}
"""Packages that a config, by how its name begins, has to have beyond what this project asks for."""

LONGEST_EPISODE = 25

SMALL = """
    --data.histories_per_task 1 --data.episodes 4 --data.shards 1
    --model.context_episodes 2 --model.hidden_size 16 --model.intermediate_size 16
    --training.steps 2 --training.batch_size 4 --training.subsample 1
    --evaluation.episodes 2 --evaluation.seeds 1 --evaluation.test_tasks 2 --evaluation.train_tasks 1
    --runtime.workers 1 --runtime.trackers []
""".split()


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_shipped_config_says_its_purpose_and_goes_through_the_whole_pipeline(path: Path, tmp_path):
    for beginning, package in NEEDS.items():
        if path.stem.startswith(beginning):
            pytest.importorskip(package)
    assert path.read_text().startswith("# ")
    config = load_config(path, SMALL)
    split = {"train": min(4, config.split.train), "test": min(2, config.split.test)}
    sizes = [f"split.{name}={size}" for name, size in split.items()]
    if hasattr(config.tasks.build(), "episode_length") and "pixels" not in config.tasks.name:
        sizes.append(f"tasks.episode_length={min(LONGEST_EPISODE, config.tasks.build().episode_length)}")
    config = load_config(path, [*SMALL, *sizes, "--output", str(tmp_path)])
    assert generate(config) and train(config) and evaluate(config)
    folder = run_folder(config)
    write_report(config)
    assert folder.report.stat().st_size > 10_000
    figures = load_summary(folder)["agents"][TRANSFORMER]["test"]["return"]
    assert figures["last_ten"]["mean"] is not None
