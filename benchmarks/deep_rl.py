"""Learning curves of deep learners beside Stable-Baselines3, with equal hyper-parameters, tasks and environment steps.

    python -m benchmarks.deep_rl cart_pole_ppo                            # both sides, one after the other
    python -m benchmarks.deep_rl cart_pole_ppo --side ours --learners 64
    python -m benchmarks.deep_rl --record                                 # every problem; writes benchmarks/results
    python -m benchmarks.deep_rl --plot                                   # draws the recorded curves

Prints one line of JSON per problem and side. A learner's score is the mean return of its last episodes
(`num_final_episodes`, counted over all its actors) under the policy that it learns with, exploration included. This is
the return that a learning history holds. The score of a problem is the median over learners. Our learners of a problem
are one batch. Stable-Baselines3's learners are trained one after the other, on the same tasks, each in a `DummyVecEnv`
with as many environments as our learner has actors.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import report
from benchmarks.deep_rl_problems import PROBLEMS, SEED, Problem
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks
from icrl.config.components import parameters

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "deep_rl.png"
SIDES = ("ours", "stable_baselines")
POINTS = 20
"""Points of a learning curve. Each is the mean return of the episodes that ended in its twentieth of the lifetime."""


def live_ours(problem: Problem, learners: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rewards and episode ends of our learners' histories, each of shape (learners, actors, steps)."""
    agent, tasks = problem.learner(), problem.drawn(learners)
    envs = problem.distribution().make_vec(tasks.take(np.repeat(np.arange(learners), agent.actors)))
    steps = problem.steps // agent.actors
    histories = interact(agent, envs, steps, make_seeds(learners, SEED))
    envs.close()
    shape = (learners, agent.actors, steps)
    return histories.reward.reshape(shape), histories.ended.reshape(shape)


def live_stable_baselines(problem: Problem, learners: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rewards and episode ends of Stable-Baselines3's learners, as `live_ours`; trained one after the other."""
    from benchmarks.stable_baselines import train  # a development extra

    tasks = problem.drawn(learners)
    lives = [train(problem, tasks.take([learner]), seed=1000 * (learner + 1)) for learner in range(learners)]
    return np.stack([rewards for rewards, _ in lives]), np.stack([ended for _, ended in lives])


def episodes(rewards: NDArray[Any], ended: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Last step and return of every episode of one learner, in the order in which the episodes ended.

    Args:
        rewards: (actors, steps).
        ended: (actors, steps) True where a step was the last of its episode.
    """
    earned = np.cumsum(rewards, axis=1, dtype=np.float64)
    actor, step = np.nonzero(ended)  # sorted by actor, then by step
    until = earned[actor, step]
    before = np.where(np.diff(actor, prepend=-1) > 0, 0, np.roll(until, 1))
    order = np.argsort(step, kind="stable")
    return step[order], (until - before)[order]


def curve(step: NDArray[np.intp], returns: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Mean return of the episodes that end in each of the `POINTS` parts of a lifetime; NaN for a part without one."""
    part = step * POINTS // steps
    count = np.bincount(part, minlength=POINTS)
    total = np.bincount(part, weights=returns, minlength=POINTS)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def measure(problem: Problem, side: str, learners: int) -> dict[str, Any]:
    """Runs `learners` learners of one side and returns their figures."""
    started = time.perf_counter()
    rewards, ended = (live_ours if side == "ours" else live_stable_baselines)(problem, learners)
    seconds = time.perf_counter() - started
    lives = [episodes(*learner) for learner in zip(rewards, ended, strict=True)]
    steps = rewards.shape[2]
    scores = np.array(
        [returns[-problem.num_final_episodes :].mean() if len(returns) else np.nan for _, returns in lives]
    )
    curves = np.stack([curve(step, returns, steps) for step, returns in lives])
    tasks, distribution = problem.drawn(learners), problem.distribution()
    if problem.normalised:
        scores, curves = distribution.normalise(scores, tasks), distribution.normalise(curves, tasks)
    # environment steps at which each part of the curve ends
    grid = (np.arange(1, POINTS + 1) * problem.steps / POINTS).astype(int).tolist()
    return {
        "side": side,
        "agent": parameters(problem.learner()) | problem.agent,
        "learners": learners,
        "steps_per_learner": problem.steps,
        "num_final_episodes": problem.num_final_episodes,
        "normalised": problem.normalised,
        "target": problem.target,
        "seconds": round(seconds, 1),
        "groups": {
            name: summary(scores[rows], curves[rows]) | {"steps": grid} for name, rows in groups(problem, tasks).items()
        },
    }


def groups(problem: Problem, tasks: Tasks) -> dict[str, NDArray[np.intp]]:
    """Indices of the learners that are reported together, by the group's name."""
    if not problem.grouped_by:
        return {"all": np.arange(len(tasks))}
    values = tasks[problem.grouped_by]
    return {f"{problem.grouped_by} {value:g}": np.flatnonzero(values == value) for value in np.unique(values)}


def summary(scores: NDArray[np.float64], curves: NDArray[np.float64]) -> dict[str, Any]:
    """Median and quartiles over learners of the scores and of each point of the curve; None for a missing score."""
    low, middle, high = _quartiles(curves)
    return {
        "median": _rounded(np.median(scores)),
        "quartiles": _rounded(np.quantile(scores, [0.25, 0.75])),
        "scores": _rounded(scores),
        "curve": {"median": middle, "low": low, "high": high, "mean": _rounded(_mean(curves))},
    }


def _quartiles(curves: NDArray[np.float64]) -> list[Any]:
    known = ~np.isnan(curves).all(axis=0)
    quartiles = np.full((3, curves.shape[1]), np.nan)
    quartiles[:, known] = np.nanquantile(curves[:, known], [0.25, 0.5, 0.75], axis=0)
    return [_rounded(row) for row in quartiles]


def _mean(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    count = (~np.isnan(curves)).sum(axis=0)
    return np.where(count > 0, np.nansum(curves, axis=0) / np.maximum(count, 1), np.nan)


def _rounded(values: Any) -> Any:
    plain = np.round(values, 4).tolist()
    one = [plain] if isinstance(plain, float) else plain
    clean = [None if np.isnan(value) else value for value in one]
    return clean[0] if isinstance(plain, float) else clean


def recorded(side: str) -> dict[str, dict[str, Any]]:
    """Recorded figures of one side (see `--record`), by problem."""
    paths = {name: RESULTS / f"{name}.{side}.json" for name in PROBLEMS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def plot(path: Path = PICTURE) -> None:
    """Draws the recorded curves of both sides, one panel per problem and group: median and quartiles over learners."""
    from matplotlib.figure import Figure

    sides = {side: recorded(side) for side in SIDES}
    panels = [
        (name, group)
        for name in PROBLEMS
        for group in next((results[name]["groups"] for results in sides.values() if name in results), {})
    ]
    columns = 4
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (name, group) in zip(axes, panels, strict=False):
        for side, color, label in (("stable_baselines", "#9ca3af", "Stable-Baselines3"), ("ours", "#2563eb", "ours")):
            if name not in sides[side]:
                continue
            shown = sides[side][name]["groups"][group]
            low, middle, high = (np.array(shown["curve"][key], dtype=float) for key in ("low", "median", "high"))
            axis.plot(shown["steps"], middle, color=color, label=f"{label}, {len(shown['scores'])} learners")
            axis.fill_between(shown["steps"], low, high, color=color, alpha=0.2, linewidth=0)
        if PROBLEMS[name].target is not None:
            axis.axhline(PROBLEMS[name].target, color="#111827", linewidth=0.7, linestyle=":")
        axis.set_title(name if group == "all" else f"{name}, {group}", fontsize=9)
        axis.set_xlabel("environment steps per learner", fontsize=7)
        axis.set_ylabel("normalised return" if PROBLEMS[name].normalised else "return", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=", ".join(PROBLEMS))
    parser.add_argument("--side", choices=[*SIDES, "both"], default="both")
    parser.add_argument("--learners", type=int, default=16)
    parser.add_argument("--record", action="store_true", help="also write benchmarks/results/PROBLEM.SIDE.json")
    parser.add_argument("--plot", action="store_true", help="draw docs/images/deep_rl.png from the recorded figures")
    arguments = parser.parse_args()
    unknown = set(arguments.problems) - set(PROBLEMS)
    if unknown:
        parser.error(f"{sorted(unknown)[0]!r} is not a problem: choose from {', '.join(PROBLEMS)}")
    for chosen in arguments.problems or ([] if arguments.plot else PROBLEMS):
        for side in SIDES if arguments.side == "both" else (arguments.side,):
            figures = measure(PROBLEMS[chosen], side, arguments.learners)
            report("deep_rl", problem=chosen, **figures)
            if arguments.record:
                RESULTS.mkdir(exist_ok=True)
                (RESULTS / f"{chosen}.{side}.json").write_text(json.dumps({"problem": chosen, **figures}, indent=1))
    if arguments.plot:
        plot()
