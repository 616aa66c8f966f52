"""A training that goes on against one of the same length from scratch, on one data set, with several training seeds.

python -m benchmarks.going_on
python -m benchmarks.going_on --schedules cosine --seeds 0 1 --steps 600 1000

Each line has the normalised return of the last 10 episodes on held-out tasks (interquartile mean, mean) after `last`
updates from scratch, after `first` updates, and after the same training has gone on to `last`. Runs that are complete
are not made again, so the same command continues an interrupted benchmark. With `--exact`, schedules whose longer
training has the very weights of one from scratch are trained from scratch only: that they are the same is tested.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from accelerate.state import AcceleratorState

from ad_model.train import train
from benchmarks.common import DEMO, report
from data_gen.generation.generate import generate
from eval.evaluate import evaluate
from eval.summary import TRANSFORMER, Estimate, load_summary
from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import checkpoint_steps
from icrl.run.folder import run_folder

EXACT = ("constant", "warmup_stable_decay")
QUIET = ["--runtime.trackers", "[]", "--runtime.workers", "1", "--validation.every", "0"]
FEW = ["--evaluation.baselines", "[]", "--evaluation.train_tasks", "0"]


def experiment_of(data: Path, name: str, schedule: str, seed: int, steps: int, *more: str) -> ExperimentConfig:
    """The config of one training on the data of the benchmark."""
    words = [f"--output={data.parent.parent}", f"--name={name}", f"--seeds.training={seed}", *QUIET, *FEW, *more]
    words += [f"--training.schedule={schedule}", f"--training.steps={steps}"]
    demo = load_config(DEMO, words).model_dump(mode="json")
    return load_config(demo | {"data": {"folder": str(data)}, "split": None})


def final_return(config: ExperimentConfig) -> list[float]:
    """Trains and evaluates; the interquartile mean and the mean of the last episodes on held-out tasks."""
    AcceleratorState._reset_state(reset_partial_state=True)
    generate(config)  # links the data
    train(config)
    evaluate(config)
    value = load_summary(run_folder(config)).agents[TRANSFORMER]["test"].normalised_return["final_episodes"]
    assert isinstance(value, Estimate) and value.iqm is not None and value.mean is not None
    return [round(value.iqm, 4), round(value.mean, 4)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedules", nargs="+", default=["cosine", *EXACT])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", nargs=2, type=int, default=[600, 1000], metavar=("first", "last"))
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--output", default="runs/going_on")
    arguments, more = parser.parse_known_args()
    torch.set_num_threads(1)
    first, last = arguments.steps
    source = load_config(DEMO, ["--output", arguments.output, "--name", "source", *QUIET])
    generate(source)
    data = run_folder(source).data.resolve()
    differences: dict[str, list[list[float]]] = {}
    for seed in arguments.seeds:
        for schedule in arguments.schedules:
            runs = {
                "from_scratch": [(f"{schedule}-{last}-{seed}", last)],
                "gone_on": [(f"{schedule}-{first}-to-{last}-{seed}", steps) for steps in (first, last)],
            }
            figures: dict[str, list[float]] = {}
            for kind, stages in runs.items():
                if kind == "gone_on" and schedule in EXACT and arguments.exact:
                    continue
                for name, steps in stages:
                    config = experiment_of(data, name, schedule, seed, steps, *more)
                    if steps == first and max(checkpoint_steps(run_folder(config).checkpoints), default=0) > first:
                        continue  # it has gone on already
                    figures[kind if steps == last else "before"] = final_return(config)
            if "gone_on" in figures:
                difference = np.subtract(figures["gone_on"], figures["from_scratch"])
                differences.setdefault(schedule, []).append(difference.tolist())
            report("going_on", schedule=schedule, seed=seed, first=first, last=last, **figures)
    for schedule, values in differences.items():
        report(
            "going_on",
            schedule=schedule,
            seeds=len(values),
            difference_iqm_mean=np.mean(values, axis=0).round(4).tolist(),
            largest=np.abs(values).max(axis=0).round(4).tolist(),
        )
