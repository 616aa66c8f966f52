"""The meta-learners that a config names: where their checkpoints lie, and agents with meta-trained weights.

A meta-learner is meta-trained once for all places of a config that name it with the same parameters, and its folder is
called by its name and its fingerprint. So another parameter means another folder, and no finished work is ever stale.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from data_gen.agents.base import Agent
from icrl.config.components import find_component
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import checkpoint_path, checkpoint_record, checkpoint_steps
from icrl.run.fingerprints import meta_fingerprint
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError
from icrl.support.files import sha256

WEIGHTS = "weights.safetensors"
TRAINING_STATE = "training_state.safetensors"
_FOLDER_DIGITS = 8  # of a fingerprint


def meta_learners(config: ExperimentConfig) -> dict[str, AgentComponent]:
    """The different meta-learners among the sources and baselines, by the key of the config that names each first."""
    found: dict[str, AgentComponent] = {}
    seen = set()
    for key, component in _agents(config):
        if is_meta_learner(component) and (identity := meta_fingerprint(config, component)) not in seen:
            seen.add(identity)
            found[key] = component
    return found


def is_meta_learner(component: AgentComponent) -> bool:
    """Whether the agent has to be meta-trained; asks its class, without building it."""
    return hasattr(find_component(component.name, component.table), "acting_only")


def learner_folder(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path:
    """Where the checkpoints of a meta-learner lie, or would lie."""
    return folder.meta / f"{component.name.replace(':', '.')}-{meta_fingerprint(config, component)[:_FOLDER_DIGITS]}"


def trained_checkpoint(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> Path | None:
    """The checkpoint of finished meta-training, None if it is not finished. Raises UserError for a damaged one."""
    place = learner_folder(config, folder, component)
    steps, iterations = checkpoint_steps(place), component.build().iterations
    if not steps or steps[-1] != iterations:
        return None
    path = checkpoint_path(place, steps[-1])
    checked_record(path, config, component)
    return path


def checked_record(path: Path, config: ExperimentConfig, component: AgentComponent) -> dict[str, Any]:
    """The record of a checkpoint. Raises UserError if it is of another meta-learner."""
    record = checkpoint_record(path)
    if record["fingerprint"] != meta_fingerprint(config, component):
        raise UserError(f"{path}: is of another meta-learner than its folder's name says; delete it")
    return record


def ready_agent(
    config: ExperimentConfig, folder: RunFolder, component: AgentComponent, checkpoint: Path | None = None
) -> Agent:
    """The agent of a config, with its meta-trained weights if it is a meta-learner.

    Args:
        config, folder, component: the experiment, its run folder and the agent.
        checkpoint: one of its checkpoints, instead of the last, with which its meta-training is finished.

    Raises UserError if it has not been meta-trained, or its weights are damaged.
    """
    agent: Agent = component.build()
    if is_meta_learner(component):
        path = checkpoint or trained_checkpoint(config, folder, component)
        if path is None:
            raise not_trained(config, folder, component)
        agent.weights = load_tensors(path / WEIGHTS)  # type: ignore[attr-defined]
    return agent


def not_trained(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> UserError:
    """The error for a meta-learner that is needed, and not there."""
    place = learner_folder(config, folder, component)
    steps = checkpoint_steps(place)
    state = f"stopped after {steps[-1]} iterations" if steps else "has not been done"
    return UserError(f"{place}: meta-training of {component.name} {state}; run `icrl meta-train` with this config")


def source_weights(config: ExperimentConfig, folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Of every meta-learner among the sources: its key, what its weights are and what they cost; for `info.json`."""
    found = {}
    for index, source in enumerate(config.data.sources):
        if is_meta_learner(source):
            found[f"data.sources.{index}"] = trained_figures(config, folder, source)
    return found


def sources_steps(config: ExperimentConfig, folder: RunFolder) -> int:
    """Environment steps that the sources were meta-trained with; of one that is named twice, once."""
    learners = source_weights(config, folder).values()
    return sum({learner["weights"]: learner["environment_steps"] for learner in learners}.values())


def trained_figures(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> dict[str, Any]:
    """What a meta-learner's weights are and what they cost. Raises UserError if it has not been meta-trained."""
    path = trained_checkpoint(config, folder, component)
    if path is None:
        raise not_trained(config, folder, component)
    record = checkpoint_record(path)
    return {
        "weights": sha256(path / WEIGHTS),
        "environment_steps": record["environment_steps"],
        "seconds": record["seconds"],
        "iterations": record["step"],
    }


def meta_learner_lines(config: ExperimentConfig, folder: RunFolder) -> list[str]:
    """A line a meta-learner of the config: how far its meta-training is, and what it cost; for people."""
    lines = []
    for component in meta_learners(config).values():
        place = learner_folder(config, folder, component)
        steps, iterations = checkpoint_steps(place), component.build().iterations
        done = steps[-1] if steps else 0
        line = f"meta-training: {component.label or component.name}: {done} of {iterations} iterations"
        if steps:
            record = checkpoint_record(checkpoint_path(place, done))
            line += f", {record['environment_steps']:,} environment steps, {record['seconds']:.0f} s: {place}"
        lines.append(line)
    return lines


def load_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file. Raises UserError if it is missing or damaged."""
    from safetensors.torch import load_file  # torch takes seconds to import, and tabular sources need none of it

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({why}); delete its folder to go on from an older one") from error


def _agents(config: ExperimentConfig) -> Iterator[tuple[str, AgentComponent]]:
    """Sources and baselines, with their keys of the config."""
    for index, source in enumerate(config.data.sources):
        yield f"data.sources.{index}", source
    for index, baseline in enumerate(config.evaluation.baselines):
        yield f"evaluation.baselines.{index}", baseline
