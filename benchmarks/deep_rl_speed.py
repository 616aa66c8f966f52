"""Recorded environment steps/s of many deep learners in one batch, beside one learner of Stable-Baselines3.

    python -m benchmarks.deep_rl_speed                       # all
    python -m benchmarks.deep_rl_speed dark_room_ppo --rounds 5

The problems and hyper-parameters are those of `benchmarks.deep_rl`. Rates are summed over learners and count everything
from the first step to the last: acting, environments and learning, and on our side also making the networks and
recording the histories. The two sides run in turn in one process. In every round, each side runs with one thread of
PyTorch and with one thread per core, and its faster run counts. Stable-Baselines3 uses a DummyVecEnv, without logging
or evaluation. The ratio is the median over rounds: machines differ and are noisy, but less so within a round.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.common import report
from benchmarks.deep_rl_problems import PROBLEMS, SEED, Problem
from benchmarks.stable_baselines import make_algorithm
from data_gen.interaction import interact
from data_gen.streams import make_seeds

SPEED_PROBLEMS = PROBLEMS | {
    "dark_room_ppo_defaults": replace(  # Stable-Baselines3's own hyper-parameters, one environment per learner
        PROBLEMS["dark_room_ppo"], agent={"name": "ppo", "actors": 1, "rollout_steps": 2048}, steps=4096
    )
}
LEARNERS = {
    "dark_room_ppo": 256,
    "dark_room_ppo_defaults": 256,
    "dark_room_a2c": 256,
    "dark_room_dqn": 256,
    "pendulum_sac": 64,
}
TARGETS = {
    "dark_room_ppo": 20,
    "dark_room_ppo_defaults": 20,
    "dark_room_a2c": 20,
    "dark_room_dqn": 20,
    "pendulum_sac": 10,
}
STEPS = {
    "dark_room_ppo": 2560,
    "dark_room_ppo_defaults": 4096,
    "dark_room_a2c": 2560,
    "dark_room_dqn": 2000,
    "pendulum_sac": 1000,
}
"""Environment steps per learner in a measurement; so many that the random steps before learning hardly count."""


def our_rate(problem: Problem, learners: int, steps: int) -> float:
    """Environment steps per second, summed over `learners` learners."""
    agent, tasks = problem.learner(), problem.drawn(learners)
    envs = problem.distribution().make_vec(tasks.take(np.repeat(np.arange(learners), agent.actors)))
    started = time.perf_counter()
    interact(
        agent, envs, steps // agent.actors, make_seeds(learners, SEED), planned_steps=problem.steps // agent.actors
    )
    return learners * steps / (time.perf_counter() - started)


def their_rate(problem: Problem, steps: int) -> float:
    """Environment steps per second of one learner of Stable-Baselines3."""
    algorithm = make_algorithm(problem, problem.drawn(1), SEED, DummyVecEnv)
    started = time.perf_counter()
    algorithm.learn(steps, log_interval=None)
    return algorithm.num_timesteps / (time.perf_counter() - started)


def fastest(rate: Callable[[], float], cores: int) -> tuple[float, int]:
    """The higher of the rates with one thread and with one thread per core, and its number of threads."""
    rates = []
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        rates.append((rate(), threads))
    return max(rates)


def compare(name: str, learners: int, rounds: int) -> None:
    """Measures both sides of one problem in turn, and reports the figures."""
    problem, steps, cores = SPEED_PROBLEMS[name], STEPS[name], len(os.sched_getaffinity(0))
    our_rate(problem, learners, steps // 8)  # warm-up
    their_rate(problem, steps // 8)
    pairs, threads = [], []
    for _ in range(rounds):
        theirs, their_threads = fastest(lambda: their_rate(problem, steps), cores)
        ours, our_threads = fastest(lambda: our_rate(problem, learners, steps), cores)
        pairs.append((ours, theirs))
        threads.append((our_threads, their_threads))
    ours, theirs = np.median(pairs, axis=0)
    report(
        "deep_rl_speed",
        problem=name,
        learners=learners,
        steps_per_second=round(float(ours)),
        stable_baselines_steps_per_second=round(float(theirs)),
        ratio=round(float(np.median([a / b for a, b in pairs])), 1),
        ratios=[round(a / b, 1) for a, b in pairs],
        threads=threads,
        target=TARGETS[name],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(LEARNERS), metavar="PROBLEM", help=", ".join(LEARNERS))
    parser.add_argument("--learners", type=int, help="instead of the number that the target refers to")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for chosen in arguments.problems:
        if chosen not in LEARNERS:
            parser.error(f"{chosen!r} is not a problem of this benchmark: choose from {', '.join(LEARNERS)}")
        compare(chosen, arguments.learners or LEARNERS[chosen], arguments.rounds)
