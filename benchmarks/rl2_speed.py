"""Speed of RL2's meta-training: steps/s of a small network, and the share of the matrix peak of a large one.

    python -m benchmarks.rl2_speed                  # both, one thread per core
    python -m benchmarks.rl2_speed small --threads 1
    python -m benchmarks.rl2_speed --device cuda

The tasks are Bernoulli bandits with 5 arms and 100 pulls. The figure of `small`, a GRU of 32, is environment steps/s of
whole iterations: collection with the environments, targets, and both epochs of updates. The figure of `large`, a GRU of
256, is the share of the matrix peak in the updates: the floating-point operations of all their matrix products, over
those of `torch.mm` with square matrices in the same time on the same threads. Figures are medians over iterations.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.common import report
from data_gen.interaction import spec_of
from data_gen.meta.base import TrainingTasks
from data_gen.meta.rl2.rl2 import RL2
from data_gen.tasks.tabular.bandit import Bandit

PULLS, ARMS = 100, 5
CASES: dict[str, dict[str, Any]] = {
    "small": {"units": 32, "trials": 2000, "minibatches": 4},
    "large": {"units": 256, "trials": 2000, "minibatches": 4},
}
TARGETS = {"small": 200_000, "large": 0.4}
_SIZE = 2048  # of the square matrices that measure the peak


def matrix_peak(device: str, rounds: int = 5) -> float:
    """Floating-point operations per second of `torch.mm`, the best of several rounds."""
    left, right = (torch.randn(_SIZE, _SIZE, device=device) for _ in range(2))
    return 2 * _SIZE**3 / min(seconds(lambda: left @ right, device) for _ in range(rounds))


def seconds(work: Callable[[], Any], device: str) -> float:
    """Seconds that `work` takes, until the device has finished."""
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def product_operations(agent: RL2) -> int:
    """Floating-point operations of the matrix products in an iteration's updates.

    A layer makes one product forward, and one per gradient backward.
    """
    units, network = agent.units, agent.networks.policy
    gates, outputs = network.core.weights[0].shape[0], network.head.weight.shape[0]
    of_inputs = 2 * gates * agent.features.size * 2  # one gradient: the inputs need none
    of_memory = (2 * gates * units + 2 * outputs * units) * 3
    return (of_inputs + of_memory) * agent.epochs * agent.trials * agent.trial_steps


def measure(name: str, device: str, iterations: int) -> None:
    """Times the iterations of one case, after one to warm up, and reports the medians."""
    bandit = Bandit(arms=ARMS)
    tasks = bandit.sample(10_000, seed=0)
    agent = RL2(trial_episodes=PULLS, **CASES[name])
    agent.start(TrainingTasks(bandit, tasks, spec_of(bandit.make_vec(tasks.take([0])), 1, device=device), seed=0))
    peak, rounds = matrix_peak(device), []
    for iteration in range(iterations + 1):
        rows, found = agent.training.rows(agent.trials, iteration), {}

        def collect() -> None:
            found["batch"] = agent.collect(rows, iteration)  # noqa: B023 - called at once

        def target() -> None:
            found["targets"] = agent.targets(found["batch"], rows, iteration)  # noqa: B023

        def update() -> None:
            agent.update(found["batch"], found["targets"], iteration)  # noqa: B023

        rounds.append([seconds(work, device) for work in (collect, target, update)])
    collecting, targets, updates = np.median(rounds[1:], axis=0)  # the first iteration warms up
    steps, operations = agent.trials * agent.trial_steps, product_operations(agent)
    figures = {
        "steps_per_second": round(steps / (collecting + targets + updates)),
        "share_of_peak": round(operations / (updates * peak), 3),
        "seconds": {"collect": round(collecting, 3), "targets": round(targets, 3), "update": round(updates, 3)},
        "matrix_peak_gflops": round(peak / 1e9, 1),
    }
    report("rl2_speed", case=name, device=device, threads=torch.get_num_threads(), **figures, target=TARGETS[name])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--iterations", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for chosen in arguments.cases:
        if chosen not in CASES:
            parser.error(f"{chosen!r} is not a case: choose from {', '.join(CASES)}")
        measure(chosen, arguments.device, arguments.iterations)
