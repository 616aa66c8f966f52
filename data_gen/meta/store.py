"""The meta-learners that a config names: their checkpoint folders, and agents with meta-trained weights.

A meta-learner is meta-trained once, even if a config names it several times with the same parameters. Its folder is
named after the meta-learner and its fingerprint: other parameters mean another folder, so finished work is never stale.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from data_gen.agents.base import Agent
from data_gen.storage.info import TrainedFigures
from icrl.config.components import find_component
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import (
    RECORD,
    MetaTrainingRecord,
    best_checkpoint,
    best_line,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    intact_record,
)
from icrl.run.fingerprints import meta_fingerprint
from icrl.run.folder import META_WEIGHTS, RunFolder
from icrl.support.errors import UserError
from icrl.support.files import sha256


class NotMetaTrained(UserError):
    """A meta-learner is needed whose meta-training is not finished."""


_FOLDER_DIGITS = 8  # of a fingerprint


def meta_learners(config: ExperimentConfig) -> dict[str, AgentComponent]:
    """The distinct meta-learners among the sources and baselines, by the config key that names each first."""
    learners: dict[str, AgentComponent] = {}
    seen = set()
    for key, component in _agents(config):
        if is_meta_learner(component) and (identity := meta_fingerprint(config, component)) not in seen:
            seen.add(identity)
            learners[key] = component
    return learners


def is_meta_learner(component: AgentComponent) -> bool:
    """True if the agent has to be meta-trained. Looks at its class only, without building the agent."""
    return hasattr(find_component(component.name, component.table), "acting_only")


def learner_folder(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path:
    """The folder of a meta-learner's checkpoints, whether or not the folder exists."""
    return folder.meta / f"{component.name.replace(':', '.')}-{meta_fingerprint(config, component)[:_FOLDER_DIGITS]}"


def trained_checkpoint(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path | None:
    """The last checkpoint of finished meta-training, else None. Raises UserError if the checkpoint is damaged."""
    home = learner_folder(config, folder, component)
    steps, iterations = checkpoint_steps(home), component.build().iterations
    if not steps or steps[-1] != iterations:
        return None
    path = checkpoint_path(home, steps[-1])
    meta_record(path, config, component)
    return path


def meta_record(path: Path, config: ExperimentConfig, component: AgentComponent) -> MetaTrainingRecord:
    """The record of a checkpoint. Raises UserError if the checkpoint is damaged, or of another meta-learner."""
    record = checkpoint_record(path, MetaTrainingRecord)
    if record.fingerprint != meta_fingerprint(config, component):
        raise UserError(f"{path}: the checkpoint belongs to another meta-learner than the folder's name; delete it")
    return intact_record(path, MetaTrainingRecord)


def evaluated_checkpoint(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path:
    """The checkpoint of a meta-learner that is evaluated: its last one, or its best if `evaluation.checkpoint` is best.

    Raises UserError if meta-training is not finished, or no checkpoint is known to be the best.
    """
    path = trained_checkpoint(config, folder, component)
    if path is None:
        raise not_trained(config, folder, component)
    if config.evaluation.checkpoint != "best":
        return path
    best = best_checkpoint(path.parent)
    if best is None:
        raise UserError(
            f"{path.parent}: no checkpoint was validated, so none is known to be the best: use evaluation.checkpoint: "
            "last, or meta-train with validation.meta_every above 0"
        )
    meta_record(best, config, component)
    return best


def ready_agent(
    config: ExperimentConfig, folder: RunFolder, component: AgentComponent, checkpoint: Path | None = None
) -> Agent:
    """The agent of a config, with its meta-trained weights if it is a meta-learner.

    Args:
        config, folder, component: the experiment, its run folder and the agent.
        checkpoint: checkpoint to load instead of the last one of finished meta-training.

    Raises UserError if the agent has not been meta-trained, or its weights are damaged.
    """
    agent: Agent = component.build()
    if is_meta_learner(component):
        path = checkpoint or trained_checkpoint(config, folder, component)
        if path is None:
            raise not_trained(config, folder, component)
        if checkpoint:
            intact_record(checkpoint, MetaTrainingRecord)
        agent.weights = load_tensors(path / META_WEIGHTS)  # type: ignore[attr-defined]
    return agent


def not_trained(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> NotMetaTrained:
    """The error for a meta-learner that is needed but not meta-trained."""
    home = learner_folder(config, folder, component)
    steps = checkpoint_steps(home)
    state = f"stopped after {steps[-1]} iterations" if steps else "has not been done"
    return NotMetaTrained(f"{home}: meta-training of {component.name} {state}; run `icrl meta-train` with this config")


def source_weights(config: ExperimentConfig, folder: RunFolder) -> dict[str, TrainedFigures]:
    """The weights of every meta-learner among the sources and their cost, by config key; for `info.json`."""
    weights = {}
    for index, source in enumerate(config.data.sources):
        if is_meta_learner(source):
            weights[f"data.sources.{index}"] = trained_figures(config, folder, source)
    return weights


def sources_steps(config: ExperimentConfig, folder: RunFolder) -> int:
    """Environment steps of the sources' meta-training. A meta-learner that is named twice counts once."""
    learners = source_weights(config, folder).values()
    return sum({learner.weights: learner.environment_steps for learner in learners}.values())


def trained_figures(
    config: ExperimentConfig, folder: RunFolder, component: AgentComponent, checkpoint: Path | None = None
) -> TrainedFigures:
    """A meta-learner's weights and their cost: those of `checkpoint`, by default the last one.

    Raises UserError if it has not been meta-trained.
    """
    path = checkpoint or trained_checkpoint(config, folder, component)
    if path is None:
        raise not_trained(config, folder, component)
    record = checkpoint_record(path, MetaTrainingRecord)
    return TrainedFigures(
        weights=sha256(path / META_WEIGHTS),
        environment_steps=record.environment_steps,
        seconds=record.seconds,
        iterations=record.step,
    )


def meta_learner_lines(config: ExperimentConfig, folder: RunFolder) -> list[str]:
    """One line per meta-learner of the config, for people: the progress of its meta-training, and its cost."""
    lines = []
    for component in meta_learners(config).values():
        home = learner_folder(config, folder, component)
        steps, iterations = checkpoint_steps(home), component.build().iterations
        done = steps[-1] if steps else 0
        line = f"meta-training: {component.label or component.name}: {done} of {iterations} iterations"
        if steps:
            path = checkpoint_path(home, done)
            record = checkpoint_record(path, MetaTrainingRecord)
            if record.fingerprint != meta_fingerprint(config, component):
                lines.append(f"warning: {path / RECORD}: is of another config; delete {path}")
            line += f", {record.environment_steps:,} environment steps, {record.seconds:.0f} s: {home}"
        lines.append(line)
        if best := best_checkpoint(home):
            lines.append(f"  {best_line(best, 'iteration')}")
    return lines


def load_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file. Raises UserError if the file is missing or damaged."""
    from safetensors.torch import load_file  # torch takes seconds to import, and tabular sources do not need it

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: cannot be read ({why}); delete its folder to resume from an older checkpoint"
        ) from error


def _agents(config: ExperimentConfig) -> Iterator[tuple[str, AgentComponent]]:
    """Sources and baselines, with their config keys."""
    for index, source in enumerate(config.data.sources):
        yield f"data.sources.{index}", source
    for index, baseline in enumerate(config.evaluation.baselines):
        yield f"evaluation.baselines.{index}", baseline
