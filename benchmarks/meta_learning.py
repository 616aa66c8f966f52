"""Meta-trains meta-learners with several seeds, and evaluates them on held-out tasks.

python -m benchmarks.meta_learning configs/bandit/rl2.yaml --seeds 0 1 2 [--at 50 100] [--block 1] [KEY VALUE ...]

Every meta-learner that the config names is meta-trained, as by `icrl meta-train`, in runs/benchmarks/NAME-seed0 and so
on; a killed run resumes where it was. Then the meta-learners and the other agents of the config run for `data.episodes`
episodes on the held-out tasks. One line of JSON is printed per agent and seed.

- `--at` also evaluates at these iterations, which gives a learning curve over meta-training.
- `--block` is the number of full-length episodes that the returns are averaged over, such as those between two gradient
  steps.
- `--lifetimes` is the number of lifetimes per task.
- `--also greedy=true` also evaluates every meta-learner with this value of a parameter that meta-training does not
  depend on. It takes several parameters.
- `--record FILE` also writes the figures to FILE.
- All other words override the config: `--tasks.arms 10`.
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
from data_gen.experiment import Experiment
from data_gen.interaction import interact
from data_gen.meta.store import is_meta_learner, learner_folder, meta_learners, ready_agent
from data_gen.meta.training import meta_train
from data_gen.streams import make_seeds
from icrl.config.loader import load_config, parse_overrides
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import MetaTrainingRecord, checkpoint_path, checkpoint_record, checkpoint_steps
from icrl.run.folder import RunFolder, run_folder
from icrl.run.purpose import Purpose


def stages(config: ExperimentConfig, at: list[int]) -> Iterator[int]:
    """Meta-trains up to each of the iterations `at`, and then to the end; yields the iteration after each stretch.

    Iterations that an earlier run has passed are left out: their weights are gone, and that run printed their figures.
    """
    folder, learners = run_folder(config), meta_learners(config).values()
    last = max((component.build().iterations for component in learners), default=0)
    passed = [max(checkpoint_steps(learner_folder(config, folder, component)), default=-1) for component in learners]
    for until in [*sorted(iteration for iteration in at if min(passed, default=-1) <= iteration < last), last]:
        meta_train(config, until=until)
        yield until


def checkpoint(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path | None:
    """The newest checkpoint of a meta-learner; None for another agent."""
    if not is_meta_learner(component):
        return None
    checkpoints = learner_folder(config, folder, component)
    return checkpoint_path(checkpoints, checkpoint_steps(checkpoints)[-1])


def variants(components: list[AgentComponent], also: list[str]) -> list[AgentComponent]:
    """The meta-learners, followed by copies of them with the parameters of `also`.

    Exits if meta-training depends on one of these parameters.
    """
    if not also:
        return components
    given = dict(parse_overrides(also))
    for component in components:
        unknown = given.keys() - component.build().acting_only
        if unknown:
            why = f"{component.name} has no parameter {min(unknown)}, or its meta-training depends on it"
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
    """Runs an agent on held-out tasks: the total reward of a lifetime and the mean return of its episodes."""
    folder = run_folder(config)
    path = checkpoint(config, folder, component)
    agent = ready_agent(config, folder, component, path)
    experiment = Experiment(config)
    distribution, test = experiment.family, experiment.test_tasks
    test = test.take(np.arange(min(tasks, len(test))).repeat(lifetimes))
    steps, actors = config.data.episodes * distribution.episode_length, agent.actors  # a slot for each actor
    started = time.perf_counter()
    with closing(distribution.make_vec(test.take(np.repeat(np.arange(len(test)), actors)))) as envs:
        histories = interact(
            agent,
            envs,
            steps,
            make_seeds(len(test), config.seed_for("evaluation"), Purpose.BENCHMARKS),
            sees=component.sees,
            device=experiment.source_device,
        )
    totals = histories.reward.astype(np.float64).sum(axis=1).reshape(len(test), actors).mean(axis=1)
    record = checkpoint_record(path, MetaTrainingRecord) if path else None
    return {
        "iteration": record.step if record else 0,
        "training_steps": record.environment_steps if record else 0,
        "training_seconds": round(record.seconds if record else 0.0, 1),
        "lifetimes": len(test),
        "total": round(float(totals.mean()), 3),
        "standard_error": round(float(totals.std(ddof=1)) / len(totals) ** 0.5, 3) if len(totals) > 1 else None,
        "episode_returns": block_returns(histories.reward, histories.ended, block * distribution.episode_length),
        "seconds": round(time.perf_counter() - started, 1),
    }


def block_returns(reward: Any, ended: Any, block_steps: int) -> list[float | None]:
    """Mean return of the episodes that end in each block of steps, a mean over lifetimes; None for a block without one.

    Every lifetime with an episode that ends in the block counts once. If every episode counted, easy tasks would count
    more, because their episodes end early and so are many.

    Args:
        reward: (lifetimes, steps).
        ended: (lifetimes, steps) bool, True where a step was the last of its episode.
        block_steps: steps per block.
    """
    cumulative = reward.astype(np.float64).cumsum(axis=1)
    row, step = np.nonzero(ended)  # sorted by lifetime, then by step
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
    parser.add_argument("--held-out", type=int, default=1000, help="held-out tasks, at most")
    parser.add_argument("--lifetimes", type=int, default=1, help="lifetimes per task")
    parser.add_argument("--also", metavar="KEY=VALUE", nargs="+", default=[], help="also evaluate with these")
    parser.add_argument("--block", type=int, default=1, help="full-length episodes that returns are averaged over")
    parser.add_argument("--record", type=Path, metavar="FILE", help="JSON file for the figures")
    args, overrides = parser.parse_known_args()
    rows = []
    for seed in args.seeds:
        name = f"{load_config(args.config).name}-seed{seed}"
        words = ["--output", "runs/benchmarks", "--name", name, "--seed", str(seed)]
        config = load_config(args.config, [*words, *overrides])
        components = (*config.data.sources, *config.evaluation.baselines)
        trained = variants([component for component in components if is_meta_learner(component)], args.also)
        others = [component for component in components if not is_meta_learner(component)]
        for chosen in itertools.chain((trained for _ in stages(config, args.at)), [others]):
            for component in chosen:
                figures = lives(config, component, args.held_out, args.lifetimes, args.block)
                row = {"agent": component.label or component.name, "seed": seed, **figures}
                rows.append(row)
                report("meta_learning", config=args.config, overrides=overrides, **row)
    if args.record:
        args.record.parent.mkdir(parents=True, exist_ok=True)
        content = {"config": args.config, "overrides": overrides, "block_episodes": args.block, "rows": rows}
        args.record.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
