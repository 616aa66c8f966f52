"""The cost of validation during training: the demo with and without it, one after the other, on one thread.

python -m benchmarks.validation
python -m benchmarks.validation --steps 300 --pairs 3 --config dark_room/ppo

Processor time is compared, which other programs on the machine hardly change; the first pair also warms up.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from accelerate.state import AcceleratorState

from ad_model.train import train
from ad_model.training_log import read_log
from benchmarks.common import DEMO, report
from data_gen.generation.generate import generate
from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import run_folder


def seconds_of(config: ExperimentConfig) -> float:
    """Processor seconds of a training from scratch."""
    AcceleratorState._reset_state(reset_partial_state=True)
    started = time.process_time()
    train(config, overwrite=True)
    return time.process_time() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default=str(DEMO))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--output", default="runs/validation_cost", help="the data is made here once")
    arguments, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    words = ["--output", arguments.output, "--runtime.trackers", "[]", "--runtime.workers", "1", *overrides]
    config = load_config(arguments.config, [*words, "--training.steps", str(arguments.steps)])
    without = config.model_copy(update={"validation": config.validation.model_copy(update={"every": 0})})
    generate(config)
    pairs = []
    for _ in range(arguments.pairs):
        plain = seconds_of(without)
        validated = seconds_of(config)
        lines = [line for line in read_log(run_folder(config).training_log) if "validation_seconds" in line]
        pairs.append([round(plain, 2), round(validated, 2), round(validated / plain - 1, 4)])
    report(
        "validation",
        config=config.name,
        steps=arguments.steps,
        validations=len(lines),
        without_with_more=pairs,
        wall_seconds_of_validations=round(sum(line["validation_seconds"] for line in lines), 2),
    )
