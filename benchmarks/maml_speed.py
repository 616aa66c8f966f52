"""Environment steps/s of MAML's meta-training, and how its time is split.

    python -m benchmarks.maml_speed                                      # 2-D navigation and HalfCheetah
    python -m benchmarks.maml_speed point_navigation --iterations 20 --threads 2

Everything counts, from the choice of tasks to the new parameters: collection, baselines and advantages, adaptation,
meta-gradient, and TRPO's conjugate gradients and line search. `simulator_share` is the share of all time that is spent
in the vector environment's `step`; on HalfCheetah, this is the simulator and little else. The settings are those of the
`*_maml.yaml` configs, with the paper's 40 tasks per iteration. The first iteration does not count.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import report
from data_gen.agents.base import Spec
from data_gen.meta.base import TrainingTasks
from data_gen.meta.maml.maml import MAML
from icrl.config.components import TASKS, find_component

PROBLEMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "point_navigation": (
        {"name": "point_navigation"},
        {"meta_batch": 40, "trajectories": 20, "inner_rate": 0.5, "kl_limit": 0.02},
    ),
    "half_cheetah_direction": (
        {"name": "half_cheetah", "goal": "direction", "vary": ("dof_damping",), "log_scale_limit": 0.01},
        {"meta_batch": 40, "trajectories": 20, "inner_rate": 0.1, "kl_limit": 0.1, "fisher_share": 0.05},
    ),
    "half_cheetah_velocity": (
        {"name": "half_cheetah", "goal": "velocity"},
        {"meta_batch": 40, "trajectories": 20, "inner_rate": 0.1, "kl_limit": 0.1, "fisher_share": 0.05},
    ),
}
"""Parameters of the tasks and of the learner, by problem."""

PARTS = {
    "collect": "rollouts",
    "process": "processing",
    "adapt": "adaptation",
    "meta_gradient": "gradient",
    "natural_direction": "conjugate_gradients",
    "search": "line_search",
}
"""Methods of MAML, and the names that their times are reported under."""

_ITERATIONS = {"point_navigation": 10, "half_cheetah_direction": 2, "half_cheetah_velocity": 2}
_TASKS, _SEED = 1000, 0


class Stopwatch:
    """Seconds by name. Only the outermost of nested calls counts, except for `environments`, which is a part of one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running = False

    def timed(self, name: str, function: Callable[..., Any], inside: bool = False) -> Callable[..., Any]:
        """Wraps `function` so that its time is added under `name`; with `inside`, also within another timed call."""

        def call(*arguments: Any, **named: Any) -> Any:
            if self._running and not inside:
                return function(*arguments, **named)
            outermost, started = not self._running, time.perf_counter()
            self._running = True
            try:
                return function(*arguments, **named)
            finally:
                self._running = not outermost
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

        return call


def measure(name: str, iterations: int, changes: dict[str, Any]) -> None:
    """Times `iterations` iterations on one problem, after one to warm up, and reports the figures."""
    tasks, settings = PROBLEMS[name]
    family = find_component(tasks["name"], TASKS)(**{key: value for key, value in tasks.items() if key != "name"})
    training = family.sample(_TASKS, _SEED)
    stopwatch, make_vec = Stopwatch(), family.make_vec

    def watched_vec(slots: Any) -> Any:
        envs = make_vec(slots)
        envs.step = stopwatch.timed("environments", envs.step, inside=True)
        return envs

    family.make_vec = watched_vec
    spec = Spec(family.observation_space, family.action_space, 1, episode_length=family.episode_length)
    agent = MAML(**settings | changes)
    for method, part in PARTS.items():
        setattr(agent, method, stopwatch.timed(part, getattr(agent, method)))
    agent.start(TrainingTasks(family, training, spec, _SEED))
    agent.improve(0)  # warm-up
    stopwatch.seconds.clear()
    started, steps = time.perf_counter(), 0.0
    for iteration in range(1, 1 + iterations):
        steps += agent.improve(iteration)["environment_steps"]
    total = time.perf_counter() - started
    shares = {part: round(seconds / total, 3) for part, seconds in stopwatch.seconds.items()}
    environments = shares.pop("environments")
    report(
        "maml_speed",
        problem=name,
        **{key: settings.get(key) for key in ("meta_batch", "trajectories")} | changes,
        steps_per_second=round(steps / total),
        seconds_per_iteration=round(total / iterations, 2),
        simulator_share=environments,
        shares={**shares, "rest": round(1 - sum(shares.values()), 3)},
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM", help=", ".join(PROBLEMS))
    parser.add_argument("--iterations", type=int, help="timed iterations; by default 10, or 2 on HalfCheetah")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of PyTorch")
    parser.add_argument("--meta-batch", type=int, help="tasks per iteration, instead of the paper's 40")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for chosen in arguments.problems:
        if chosen not in PROBLEMS:
            parser.error(f"{chosen!r} is not a problem of this benchmark: choose from {', '.join(PROBLEMS)}")
        changed = {} if arguments.meta_batch is None else {"meta_batch": arguments.meta_batch}
        measure(chosen, arguments.iterations or _ITERATIONS[chosen], changed)
