"""The cost of a study, estimated from short measurements: `icrl study --dry-run`.

Each distinct size is measured once: a shard with the first few episodes of its histories, a few updates of the model on
tiny data, and an evaluation of that model over a few episodes. Times are scaled to the full lengths. So the figures
are of this machine, as busy as it is now.
"""

import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ad_model.build import context_length
from ad_model.train import train
from ad_model.training_log import read_log
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.generation.shard import make_shard
from data_gen.meta.base import MetaLearner
from data_gen.meta.store import is_meta_learner, meta_learners
from data_gen.meta.training import check_meta_learners
from eval.evaluate import evaluate
from eval.summary import load_summary
from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent, Source
from icrl.config.splits import SplitConfig
from icrl.config.training import SelectionConfig
from icrl.config.validation import ValidationConfig
from icrl.run.checkpoints import last_checkpoint
from icrl.run.fingerprints import data_fingerprint, meta_fingerprint
from icrl.support.errors import UserError
from studies.cells import Run, Study
from studies.folder import StudyFolder
from studies.keys import training_key
from studies.plan import counted, is_complete, needs, shared
from studies.runner import Executor

_UPDATES = 8  # of a measured training; the first half warms up
_EPISODES = 2  # of a measured lifetime
_START = 6.0  # seconds until a process has imported everything


@dataclass
class Cost:
    """Seconds of work and bytes on disk."""

    seconds: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)


@dataclass
class _Measured:
    """Costs by what is measured, so that runs of one size are measured once."""

    costs: dict[str, Cost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cost(self, key: str, measure: Callable[[], Cost]) -> Cost:
        """The cost under `key`, measured on first use; nothing, and a note, if it cannot be measured."""
        if key not in self.costs:
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    self.costs[key] = measure()
            except UserError as error:
                self.costs[key] = Cost()
                self.notes.append(str(error).splitlines()[0])
        return self.costs[key]


def describe_plan(study: Study, mine: Sequence[Run], folder: StudyFolder, executor: Executor) -> str:
    """The work to be done, what is shared, and its cost, as lines of text. Nothing is written."""
    import torch

    complete = [run for run in study.runs if is_complete(run, folder)]
    done = {run.name for run in complete}
    missing = [run for run in mine if run.name not in done]
    lines = [
        f"study: {counted(len(study.cells), 'cell')}, {counted(len(study.runs), 'run')}, of which this call does "
        f"{len(missing)}: {folder.path}",
        f"  needed, what is shared counted once: {shared(missing, complete)}",
    ]
    if not missing:
        return "\n".join(lines)
    started, measured = time.perf_counter(), _Measured()
    before = torch.get_num_threads()
    torch.set_num_threads(study.spec.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="icrl-study-") as place:
            rows, chain = _rows(missing, complete, measured, Path(place))
    finally:
        torch.set_num_threads(before)
    total = sum((cost for _, _, cost in rows), Cost())
    width = executor.width(study.spec.threads) if executor.kind == "processes" else None
    lines.append(
        f"  estimate, from {_duration(time.perf_counter() - started)} of measurement on this machine, as busy as it is "
        "now; expect it to be off by a third, and by more where histories begin faster than they go on:"
    )
    lines += [
        f"    {what:13} {number:5,} x {_duration(cost.seconds / number):>7} = {_duration(cost.seconds):>7} "
        f"{_size(cost.bytes):>9}"
        for what, number, cost in rows
        if number
    ]
    if width is None:
        lines.append(
            f"    in all {_duration(total.seconds)} of work, divided over the cluster; {_size(total.bytes)} on disk"
        )
    else:
        width = min(width, len(missing))
        wall = max(total.seconds / width, chain)
        at_once = "one run at a time" if width == 1 else f"{width} runs at once"
        lines.append(f"    in all about {_duration(wall)} with {at_once}; {_size(total.bytes)} on disk")
    lines += [f"  not measured: {note}" for note in dict.fromkeys(measured.notes)]
    return "\n".join(lines)


def _rows(
    runs: Sequence[Run], complete: Sequence[Run], measured: _Measured, place: Path
) -> tuple[list[tuple[str, int, Cost]], float]:
    """(what, number, cost of all) for every kind of work, and the seconds of the longest chain of one run."""
    configs = [run.config for run in runs]
    trained, made, taught, _ = needs(complete)
    learners = {
        meta_fingerprint(config, each): (config, each) for config in configs for each in meta_learners(config).values()
    }
    learners = {key: each for key, each in learners.items() if key not in trained}
    data = {data_fingerprint(config): config for config in configs if not config.data.given}
    data = {key: config for key, config in data.items() if key not in made}
    trainings = {training_key(config): config for config in configs}
    trainings = {key: config for key, config in trainings.items() if key not in taught}

    def of_data(config: ExperimentConfig) -> Cost:
        return measured.cost(_key("data", config.tasks, config.data), lambda: _data(config, place))

    def of_training(config: ExperimentConfig) -> Cost:
        return measured.cost(_key("train", *_model_parts(config)), lambda: _training(config, place))

    def of_evaluation(config: ExperimentConfig) -> Cost:
        key = _key("evaluate", config.tasks, config.model, config.evaluation, config.data.sources)
        return measured.cost(key, lambda: _evaluation(config, place))

    def of_meta(config: ExperimentConfig, learner: AgentComponent) -> Cost:
        return measured.cost(_key("meta", config.tasks, learner), lambda: _meta(config, learner))

    rows = [
        ("meta-training", len(learners), _sum(of_meta(*each) for each in learners.values())),
        ("data", len(data), _sum(of_data(config) for config in data.values())),
        ("training", len(trainings), _sum(of_training(config) for config in trainings.values())),
        ("evaluation", len(configs), _sum(of_evaluation(config) for config in configs)),
        ("start", len(configs), Cost(_START * len(configs))),
    ]
    chain = max(
        (0.0 if config.data.given else of_data(config).seconds)
        + of_training(config).seconds
        + of_evaluation(config).seconds
        + _START
        for config in configs
    )
    return rows, chain


def _data(config: ExperimentConfig, place: Path) -> Cost:
    """The cost of the data, from its first shard with a few episodes; at least two updates of every source."""
    family = config.tasks.build()
    sources = config.data.sources
    learned = [source.name for source in sources if is_meta_learner(source)]
    if learned:
        raise UserError(f"data of {learned[0]}, which has to be meta-trained first")
    steps = max(2 * source.build().first_update for source in sources)
    episodes = min(config.data.episodes, max(_EPISODES, -(-steps // family.episode_length)))
    small = _changed(config, place, "data", data={"episodes": episodes})
    folder = Experiment(small).folder
    folder.data.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    make_shard(Experiment(small), folder.data, 0)
    seconds = time.perf_counter() - started
    scale = config.data.shards * config.data.episodes / episodes
    written = sum(path.stat().st_size for path in folder.data.glob("*.h5"))
    workers = min(config.runtime.workers, config.data.shards)
    return Cost(seconds * scale / workers, written * scale)


def _training(config: ExperimentConfig, place: Path) -> Cost:
    """The cost of a training, from a few updates on tiny data of random actions; with its checkpoints and tokens."""
    small = _tiny(config, place)
    experiment = Experiment(small)
    generate(experiment)
    train(experiment)
    speed = read_log(experiment.folder.training_log)[-1]["tokens_per_second"]
    length = context_length(config.model, experiment.family.episode_length)
    tokens = config.training.steps * config.training.batch_size * length
    kept = min(config.runtime.keep_checkpoints, -(-config.training.steps // config.runtime.checkpoint_every))
    return Cost(tokens / max(speed, 1), kept * _bytes(last_checkpoint(experiment.folder.checkpoints)))


def _evaluation(config: ExperimentConfig, place: Path) -> Cost:
    """The cost of an evaluation, from a few episodes of every agent; meta-learners are left out."""
    tiny = Experiment(_tiny(config, place))
    if not tiny.folder.checkpoints.exists():
        generate(tiny)
        train(tiny)
    sources = tuple(source for source in config.data.sources if not is_meta_learner(source))
    baselines = tuple(agent for agent in config.evaluation.baselines if not is_meta_learner(agent))
    episodes = min(config.evaluation.episodes, _EPISODES)
    small = _changed(
        config,
        place,
        "evaluation",
        data={} if config.data.given else {"sources": sources or (Source(name="random"),)},
        evaluation={
            "episodes": episodes,
            "baselines": baselines,
            "checkpoint": str(last_checkpoint(tiny.folder.checkpoints)),
            "allow_seen_tasks": True,
            "figures": (),
        },
    )
    folder = Experiment(small).folder
    started = time.perf_counter()
    evaluate(small)
    whole = time.perf_counter() - started
    lived = sum(figures.seconds for splits in load_summary(folder).agents.values() for figures in splits.values())
    scale = config.evaluation.episodes / episodes
    return Cost(whole - lived + lived * scale, _bytes(folder.eval) * scale)


def _meta(config: ExperimentConfig, component: AgentComponent) -> Cost:
    """The cost of a meta-training, from its first two iterations."""
    training = check_meta_learners(Experiment(config))[component.sees]
    learner: MetaLearner = component.build()
    learner.start(training)
    iterations = min(2, learner.iterations)
    started = time.perf_counter()
    for iteration in range(iterations):
        learner.improve(iteration)
    return Cost((time.perf_counter() - started) / max(1, iterations) * learner.iterations)


def _tiny(config: ExperimentConfig, place: Path) -> ExperimentConfig:
    """The config with a single context of random actions as data, and a few updates."""
    data: dict[str, Any] = {
        "sources": (Source(name="random"),),
        "repo": None,
        "folder": None,
        "streaming": False,
        "histories_per_task": 1,
        "episodes": max(1, math.ceil(config.model.context_episodes)),
        "shards": 1,
    }
    training: dict[str, Any] = {
        "initial": None,
        "schedule": "cosine",
        "steps": _UPDATES,
        "subsample": 1,
        "selection": SelectionConfig(),
        "warmup_steps": 0,
    }
    name = _key("tiny", *_model_parts(config))
    changed = _changed(config, place, name, data=data, training=training)
    few = SplitConfig(train=1, validation=0, test=1)
    runtime = config.runtime.model_copy(update={"log_every": _UPDATES // 2, "trackers": (), "workers": 1})
    watched = ValidationConfig(every=0, meta_every=0)
    return changed.model_copy(update={"split": few, "runtime": runtime, "validation": watched})


def _changed(config: ExperimentConfig, place: Path, name: str, **sections: dict[str, Any]) -> ExperimentConfig:
    """The config with other values in its sections, and a run folder in `place`."""
    changed = {key: getattr(config, key).model_copy(update=values) for key, values in sections.items()}
    runtime = config.runtime.model_copy(update={"trackers": (), "executor": "processes"})
    return config.model_copy(update={**changed, "runtime": runtime, "name": name, "output": str(place)})


def _model_parts(config: ExperimentConfig) -> tuple[Any, ...]:
    """The part of a config that the speed of an update depends on."""
    same = {"learning_rate": 1.0, "final_learning_rate": 0.0, "warmup_steps": 0, "weight_decay": 0.0}
    return config.tasks, config.model, config.training.model_copy(update=same)


def _key(what: str, *parts: Any) -> str:
    return f"{what}-{fingerprint(*[list(map(_plain, part)) if isinstance(part, tuple) else part for part in parts])}"


def _plain(part: Any) -> Any:
    return part.model_dump(mode="json")


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours, in a few characters."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(size: float) -> str:
    """Bytes, in a few characters."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
