"""Whole runs, one per seed: in-context return of the transformer and of its source on held-out tasks, and wall time.

python -m benchmarks.learning demo 0 1 2
"""

import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.common import report
from eval.summary import TRANSFORMER, Estimate, Summary, load_summary
from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import run_folder


def shown(summary: Summary, config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """Every figure of the transformer and of its first source on held-out tasks; estimates as IQM and mean."""
    figures: dict[str, dict[str, Any]] = {}
    for agent in (TRANSFORMER, config.data.sources[0].name):
        values = summary.agents[agent][summary.main_split].on(summary.scale)
        figures[agent] = {}
        for figure in summary.shown():
            value = values[figure.key]
            if isinstance(value, Estimate):
                figures[agent][figure.key] = [None if x is None else round(x, 3) for x in (value.iqm, value.mean)]
            else:
                figures[agent][figure.key] = value
    return figures


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
        report("learning", config=path, seed=int(seed), seconds=round(seconds, 1), **shown(summary, config))
