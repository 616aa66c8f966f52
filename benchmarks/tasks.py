"""Environment steps per second of every task family, and seconds to sample and split 100,000 tasks.

    python -m benchmarks.tasks                 # all families
    python -m benchmarks.tasks bandit ant      # some
    python -m benchmarks.tasks --slots 1024

Prints one line of JSON per family. Natively vectorised families step `--slots` slots in each of two processes, one
process per core, with random actions that were drawn before. SlotStreams, autoreset and final observations are part of
the figure. MuJoCo families step fewer slots in one process with MuJoCo's own threads, in turn with one environment of
`gymnasium.make`. The adapter steps its slots in processes, in turn with Gymnasium's AsyncVectorEnv. Ratios are medians
of paired rounds.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from benchmarks.common import report
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.base import TaskDistribution, sample_actions
from icrl.config.components import TASKS, find_component

SECONDS = 1.0
"""Length of one measurement."""

ROUNDS = 3
WAYS = 16
"""Different batches of random actions, used in turn."""

PHYSICS = {"half_cheetah": "HalfCheetah-v5", "ant": "Ant-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}
PHYSICS_SLOTS = 512
ADAPTED = {
    "CartPole-v1": {"sutton_barto_reward": [False, True]},
    "minigrid:MiniGrid-Empty-8x8-v0": {"agent_start_dir": [0, 1]},
}
ADAPTED_SLOTS = 64
PARAMETERS: dict[str, dict[str, Any]] = {
    "half_cheetah": {"goal": "velocity"},
    "ant": {"goal": "velocity"},
    "pixels": {"of": {"name": "dark_room"}},
}


def made(name: str) -> TaskDistribution:
    """Builds the family with its defaults and the parameters that it requires."""
    family: TaskDistribution = find_component(name, TASKS)(**PARAMETERS.get(name, {}))
    return family


def rate(envs: VectorEnv[Any, Any, Any], seconds: float = SECONDS) -> float:
    """Environment steps per second with random actions."""
    count = envs.num_envs
    streams = SlotStreams(make_seeds(count, 1))
    actions = [sample_actions(envs.single_action_space, streams) for _ in range(WAYS)]
    envs.reset(seed=list(range(count)))
    for action in actions:  # warm-up
        envs.step(action)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for action in actions:
            envs.step(action)
        steps += WAYS * count
    return steps / (time.perf_counter() - started)


def family_rate(name: str, slots: int) -> float:
    """Environment steps per second of a family in one process."""
    family = made(name)
    return rate(family.make_vec(family.sample(slots, seed=0)))


def scalar_rate(env_id: str, seconds: float = SECONDS) -> float:
    """Steps per second of one environment of `gymnasium.make`."""
    env = gymnasium.make(env_id)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(WAYS)]
    env.reset(seed=0)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for action in actions:
            *_, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        steps += WAYS
    return steps / (time.perf_counter() - started)


def native(name: str, slots: int, processes: ProcessPoolExecutor) -> None:
    """Measures a natively vectorised family in two processes, and reports its fastest round."""
    rounds = []
    for _ in range(ROUNDS):
        running = [processes.submit(family_rate, name, slots) for _ in range(2)]
        rounds.append(sum(future.result() for future in running))
    report("tasks", family=name, slots=slots, processes=2, steps_per_second=round(max(rounds)), **split_seconds(name))


def physics(name: str) -> None:
    """Measures a MuJoCo family beside Gymnasium's own environment."""
    family = made(name)
    envs = family.make_vec(family.sample(PHYSICS_SLOTS, seed=0))
    pairs = [(rate(envs), scalar_rate(PHYSICS[name])) for _ in range(3 * ROUNDS)]
    ours, theirs = np.median(pairs, axis=0)
    report(
        "tasks",
        family=name,
        slots=PHYSICS_SLOTS,
        steps_per_second=round(ours),
        gymnasium_make_steps_per_second=round(theirs),
        ratio=round(float(np.median([a / b for a, b in pairs])), 2),
        **split_seconds(name),
    )


def adapter(env_id: str) -> None:
    """Measures the adapter beside Gymnasium's AsyncVectorEnv, which has one process per slot."""
    wrappers = [{"name": "minigrid.wrappers:ImgObsWrapper"}] if env_id.startswith("minigrid") else []
    family: TaskDistribution = find_component("gymnasium", TASKS)(
        env_id=env_id, vary=ADAPTED[env_id], wrappers=wrappers, varies="rewards", episode_length=200
    )
    pairs = []
    with _closed(family.make_vec(family.sample(ADAPTED_SLOTS, seed=0))) as ours, _closed(_async(env_id)) as theirs:
        for _ in range(ROUNDS):
            pairs.append((rate(ours, 3 * SECONDS), rate(theirs, 3 * SECONDS)))
    medians = np.median(pairs, axis=0)
    report(
        "tasks",
        family="gymnasium",
        env_id=env_id,
        slots=ADAPTED_SLOTS,
        steps_per_second=round(medians[0]),
        async_vector_env_steps_per_second=round(medians[1]),
        ratio=round(float(np.median([a / b for a, b in pairs])), 2),
    )


def _async(env_id: str) -> AsyncVectorEnv:
    def make() -> gymnasium.Env[Any, Any]:
        env = gymnasium.make(env_id)
        if env_id.startswith("minigrid"):
            from minigrid.wrappers import ImgObsWrapper

            return ImgObsWrapper(env)
        return env

    return AsyncVectorEnv([make] * ADAPTED_SLOTS, autoreset_mode=AutoresetMode.SAME_STEP)


@contextmanager
def _closed(envs: Any) -> Iterator[Any]:
    try:
        yield envs
    finally:
        envs.close()


def split_seconds(name: str) -> dict[str, float]:
    """Seconds to draw and split 100,000 tasks, by name of the figure; empty for a finite family."""
    family = made(name)
    if family.all_tasks() is not None:
        return {}
    times = []
    for seed in range(ROUNDS):
        started = time.perf_counter()
        family.split(90_000, 10_000, seed)
        times.append(time.perf_counter() - started)
    return {"split_100k_seconds": round(min(times), 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=sorted(set(TASKS) - {"meta_world"}))
    parser.add_argument("--slots", type=int, default=4096)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        for chosen in arguments.families:
            if chosen == "gymnasium":
                for adapted in ADAPTED:
                    adapter(adapted)
            elif chosen in PHYSICS:
                physics(chosen)
            else:
                native(chosen, arguments.slots, processes)
