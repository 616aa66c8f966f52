"""Updates/s of PEARL and its rate of collection, at the paper's sizes and at small ones.

    python -m benchmarks.pearl_speed                         # on the CPU, with one thread per core
    python -m benchmarks.pearl_speed paper --device cuda
    python -m benchmarks.pearl_speed small --threads 1 --rounds 5

An update is one step of the encoder and the critics, of the policy, and of the targets, sampling included. `paper` is
HalfCheetah at a velocity with networks of 3 x 300 and 16 x 256 transitions. `small` is the sparse point robot with
2 x 64 and 16 x 32, as in `configs/points/sparse_robot_pearl.yaml`. `dark_room` has these sizes with discrete actions.
`gflops` is the floating-point operations of an update's matrix products, forward and backward, over the update's time.
Rates are medians over rounds.
"""

import argparse
import itertools
import os
import time
from typing import Any

import numpy as np
import torch

from benchmarks.common import report
from data_gen.interaction import spec_of
from data_gen.meta.base import TrainingTasks
from data_gen.meta.pearl.pearl import PEARL
from icrl.config.components import TASKS, find_component

_SMALL = {"hidden_sizes": (64, 64), "encoder_sizes": (64, 64), "batch_size": 32, "prior_episodes": 5}
PROBLEMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({"name": "half_cheetah", "goal": "velocity", "velocity_range": (0, 3)}, {"initial_episodes": 1}),
    "small": ({"name": "sparse_point_robot"}, _SMALL | {"posterior_episodes": 5}),
    "dark_room": ({"name": "dark_room"}, _SMALL | {"posterior_episodes": 5}),
}
UPDATES = {
    "cpu": {"paper": 20, "small": 400, "dark_room": 400},
    "cuda": {"paper": 1000, "small": 1000, "dark_room": 1000},
}
"""Updates per round, by device and problem."""
_TASKS = 40


def gigaflop(agent: PEARL) -> float:
    """Floating-point operations of an update's matrix products, in 1e9.

    A weight and a row make two operations: once forward, and twice backward where everything is learned.
    """

    def weights(sizes: tuple[int, ...]) -> float:
        return sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))

    networks, tasks = agent.nets, min(agent.meta_batch, agent.replay.residents)
    rows = tasks * agent.batch_size
    # Two critics: forward for the targets; forward and backward to learn; forward and half of backward for the policy.
    critics = 2 * weights(networks.critics.layers.sizes) * (1 + 3 + 2) * rows
    policy = weights(networks.policy.layers.sizes) * (1 + 3) * rows
    encoder = weights(networks.encoder.layers.sizes) * 3 * tasks * agent.context_size
    return 2 * (critics + policy + encoder) / 1e9


def measure(problem: str, device: str, rounds: int) -> None:
    """Times the updates and the collection of one problem over `rounds` rounds, and reports the medians."""
    named, parameters = PROBLEMS[problem]
    arguments = dict(named)
    family = find_component(arguments.pop("name"), TASKS)(**arguments)
    tasks = family.split(_TASKS, 1, seed=0)[0]
    envs = family.make_vec(tasks.take([0]))
    spec = spec_of(envs, family.episode_length, device=device)
    envs.close()
    agent = PEARL(updates=UPDATES[device][problem], **parameters)
    agent.start(TrainingTasks(family, tasks, spec, seed=0))
    agent.improve(0)  # fills the replay memories, and warms up
    rates, shares = [], []
    for iteration in range(1, rounds + 1):
        started = time.perf_counter()
        figures = agent.collect(iteration)
        collected = time.perf_counter()
        agent.learn(iteration)  # reads its figures from the device, so the device has finished
        learned = time.perf_counter()
        rates.append(agent.updates / (learned - collected))
        shares.append((collected - started) / figures["environment_steps"])
    rate = float(np.median(rates))
    report(
        "pearl_speed",
        problem=problem,
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        updates_per_second=round(rate, 1),
        gflops=round(rate * gigaflop(agent), 1),
        collected_steps_per_second=round(1 / float(np.median(shares))),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM", help=", ".join(PROBLEMS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for name in chosen.problems:
        if name not in PROBLEMS:
            parser.error(f"{name!r} is not a problem of this benchmark: choose from {', '.join(PROBLEMS)}")
        measure(name, chosen.device, chosen.rounds)
