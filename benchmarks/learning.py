"""Whole runs, one per seed: in-context return of the transformer and of its source on held-out tasks, and wall time.

python -m benchmarks.learning configs/demo.yaml 0 1 2
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import report
from eval.summary import TRANSFORMER, load_summary
from icrl.config.loader import load_config
from icrl.run.folder import run_folder

if __name__ == "__main__":
    path, seeds = sys.argv[1], sys.argv[2:] or ["0"]
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--config", path, "--seed", seed, "--output", folder]
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "icrl", "run", *words], check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            config = load_config(path, words[2:])
            summary = load_summary(run_folder(config))
        figures = {}
        for agent in (TRANSFORMER, config.data.sources[0].name):
            test = summary["agents"][agent]["test"]
            scores = test["normalised_return"]
            figures[agent] = {
                "first_episode": round(scores["first_episode"]["iqm"], 3),
                "final_episodes": round(scores["final_episodes"]["iqm"], 3),
                "last_ten_mean": round(scores["final_episodes"]["mean"], 3),
                "episodes_to_0.8": test["episodes_to_0.8"],
            }
        report("learning", config=Path(path).name, seed=int(seed), seconds=round(seconds, 1), **figures)
