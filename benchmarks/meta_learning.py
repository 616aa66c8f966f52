"""Meta-learners: meta-training and what comes of it on held-out tasks, for several seeds, and in between.

python -m benchmarks.meta_learning configs/bandit/rl2.yaml --seeds 0 1 2 [--at 50 100] [--block 1] [KEY VALUE ...]

Meta-trains every meta-learner that the config names, as `icrl meta-train` does, in runs/benchmarks/NAME-seed0 and so
on; a killed run goes on where it was. Then they, and the other agents of the config beside them, live `data.episodes`
episodes on the held-out tasks. `--at` evaluates at these iterations as well: a learning curve over meta-training.
`--block` is the number of full-length episodes that the returns are averaged over, such as those between two gradient
steps; `--lifetimes` is the number of those on each task. `--also greedy=true` lets every meta-learner live with this
value of a parameter as well, one that meta-training does not depend on, or with several. A line of JSON an agent and
seed, also written to FILE with `--record FILE`. Other words override the config: `--tasks.arms 10`.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import report
from data_gen.generation.generate import source_device, split_tasks
from data_gen.interaction import interact
from data_gen.meta.store import is_meta_learner, learner_folder, meta_learners, ready_agent
from data_gen.meta.training import meta_train
from data_gen.streams import make_seeds
from icrl.run.purpose import Purpose
from icrl.config.loader import load_config, parse_overrides
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import checkpoint_path, checkpoint_record, checkpoint_steps
from icrl.run.folder import RunFolder, run_folder


def stages(config: ExperimentConfig, at: list[int]) -> Iterator[int]:
    """Meta-trains up to each of the iterations `at`, and then to the end; gives the iteration after each stretch.

    Those that an earlier run has passed are left out: their weights are gone, and it has printed their figures.
    """
    folder, learners = run_folder(config), meta_learners(config).values()
    last = max((component.build().iterations for component in learners), default=0)
    passed = [max(checkpoint_steps(learner_folder(config, folder, component)), default=-1) for component in learners]
    for until in [*sorted(iteration for iteration in at if min(passed, default=-1) <= iteration < last), last]:
        meta_train(config, until=until)
        yield until


def checkpoint(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path | None:
    """The newest checkpoint of a meta-learner; None of another agent."""
    if not is_meta_learner(component):
        return None
    place = learner_folder(config, folder, component)
    return checkpoint_path(place, checkpoint_steps(place)[-1])


def variants(components: list[AgentComponent], also: list[str]) -> list[AgentComponent]:
    """The meta-learners, and the same with the parameters of `also` as well. Exits if one is not for acting."""
    if not also:
        return components
    given = dict(parse_overrides(also))
    for component in components:
        unknown = given.keys() - component.build().acting_only
        if unknown:
            why = f"meta-training of {component.name} depends on {min(unknown)}, or it has no such parameter"
            raise SystemExit(f"--also {' '.join(also)}: {why}")
    changed = [
        component.model_copy(
            update={
                "params": {**component.params, **given},
                "label": f"{component.label or component.name} {' '.join(also)}",
            }
        )
        for component in components
    ]
    return [*components, *changed]


def lives(
    config: ExperimentConfig, component: AgentComponent, tasks: int, lifetimes: int, block: int
) -> dict[str, Any]:
    """How an agent fares on held-out tasks: the total reward of a lifetime, and the mean return of its episodes."""
    folder = run_folder(config)
    path = checkpoint(config, folder, component)
    agent = ready_agent(config, folder, component, path)
    distribution, _, test = split_tasks(config)
    test = test.take(np.arange(min(tasks, len(test))).repeat(lifetimes))
    steps, actors = config.data.episodes * distribution.episode_length, agent.actors
    started = time.perf_counter()
    with closing(distribution.make_vec(test.take(np.repeat(np.arange(len(test)), actors)))) as envs:
        lived = interact(
            agent, envs, steps, make_seeds(len(test), config.seed, Purpose.BENCHMARKS), sees=component.sees,
            device=source_device(config),
        )  # fmt: skip
    totals = lived.reward.astype(np.float64).sum(axis=1).reshape(len(test), actors).mean(axis=1)
    record = checkpoint_record(path) if path else {"step": 0, "environment_steps": 0, "seconds": 0.0}
    return {
        "iteration": record["step"],
        "training_steps": record["environment_steps"],
        "training_seconds": round(record["seconds"], 1),
        "lifetimes": len(test),
        "total": round(float(totals.mean()), 3),
        "standard_error": round(float(totals.std(ddof=1)) / len(totals) ** 0.5, 3) if len(totals) > 1 else None,
        "episode_returns": block_returns(lived.reward, lived.ended, block * distribution.episode_length),
        "seconds": round(time.perf_counter() - started, 1),
    }


def block_returns(reward: Any, ended: Any, block_steps: int) -> list[float | None]:
    """Mean return of the episodes that end in each block of steps, a mean over lifetimes; None where none does.

    Every lifetime in which one ends counts once. Were every episode to count, an easy task, whose episodes end early
    and are therefore many, would count for many.

    Args:
        reward: (lifetimes, steps).
        ended: (lifetimes, steps) bool, whether a step was the last of its episode.
        block_steps: steps of a block.
    """
    cumulative = reward.astype(np.float64).cumsum(axis=1)
    row, step = np.nonzero(ended)  # in the order of the lifetimes, and of the steps within each
    before = np.zeros(len(row))
    same = row[1:] == row[:-1]
    before[1:][same] = cumulative[row, step][:-1][same]
    returns = cumulative[row, step] - before
    means: list[float | None] = []
    for first in range(0, reward.shape[1], block_steps):
        inside = (step >= first) & (step < first + block_steps)
        number = np.bincount(row[inside], minlength=len(reward))
        total = np.bincount(row[inside], returns[inside], len(reward))
        own = total[number > 0] / number[number > 0]
        means.append(round(float(own.mean()), 3) if len(own) else None)
    return means


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the split, the weights and the lifetimes")
    parser.add_argument("--at", type=int, nargs="+", default=[], help="iterations to evaluate at besides the last")
    parser.add_argument("--held-out", type=int, default=1000, help="tasks, at most")
    parser.add_argument("--lifetimes", type=int, default=1, help="on each task")
    parser.add_argument("--also", metavar="KEY=VALUE", nargs="+", default=[], help="parameters of a lifetime")
    parser.add_argument("--block", type=int, default=1, help="full-length episodes that returns are averaged over")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a JSON file for the figures")
    args, overrides = parser.parse_known_args()
    rows = []
    for seed in args.seeds:
        name = f"{Path(args.config).stem}-seed{seed}"
        place = ["--output", "runs/benchmarks", "--name", name, "--seed", str(seed)]
        config = load_config(args.config, [*place, *overrides])
        components = (*config.data.sources, *config.evaluation.baselines)
        trained = variants([component for component in components if is_meta_learner(component)], args.also)
        others = [component for component in components if not is_meta_learner(component)]
        for chosen in itertools.chain((trained for _ in stages(config, args.at)), [others]):
            for component in chosen:
                figures = lives(config, component, args.held_out, args.lifetimes, args.block)
                row = {"agent": component.label or component.name, "seed": seed, **figures}
                rows.append(row)
                report("meta_learning", config=Path(args.config).name, overrides=overrides, **row)
    if args.record:
        args.record.parent.mkdir(parents=True, exist_ok=True)
        content = {"config": args.config, "overrides": overrides, "block_episodes": args.block, "rows": rows}
        args.record.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
