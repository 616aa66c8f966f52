"""Trained tokens per second at width 64, end to end: windows, forward, backward, clipping, optimiser, log.

python -m benchmarks.training                # one thread
python -m benchmarks.training --threads 2
"""

import argparse

import numpy as np
import torch

from ad_model.train import train
from ad_model.training_log import read_log
from benchmarks.common import experiment, report
from data_gen.generation.generate import generate
from icrl.run.folder import run_folder

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backbone", default="llama")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = ["--training.steps", "160", "--data.histories_per_task", "8", "--model.backbone", arguments.backbone]
    with experiment(*settings) as config:
        generate(config)
        train(config)
        lines = read_log(run_folder(config).training_log)[1:]  # the first line includes the warm-up
    speeds = [line["tokens_per_second"] for line in lines]
    report(
        "training",
        backbone=arguments.backbone,
        threads=arguments.threads,
        width=config.model.hidden_size,
        layers=config.model.num_layers,
        tokens_per_second=round(float(np.median(speeds))),
        tokens_per_second_per_core=round(float(np.median(speeds)) / arguments.threads),
        slowest=min(speeds),
        fastest=max(speeds),
        share_of_matmul_peak=float(np.median([line["share_of_peak"] for line in lines])),
    )
