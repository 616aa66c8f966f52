"""Evaluation: the frozen transformer and every baseline on the same held-out, validation and training tasks."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ad_model.in_context import TransformerAgent
from ad_model.load import check_checksums, given_model, load_model
from ad_model.model_files import CONFIG, weight_files
from ad_model.modeling_ad import ADModel
from ad_model.objectives.base import Objective
from data_gen.agents.base import Agent
from data_gen.experiment import Experiment
from data_gen.generation.checks import check_agent
from data_gen.generation.generate import environment_steps
from data_gen.meta.store import evaluated_checkpoint, is_meta_learner, ready_agent, trained_figures
from data_gen.storage.folder import load_info
from data_gen.storage.info import TrainedFigures
from data_gen.tasks.sets import TaskSet
from eval.ablations import ABLATIONS, ContextOfAnotherTask, ablation_name, other_tasks
from eval.evaluated_tasks import evaluated_sets, seen_tasks
from eval.figures import FINAL_EPISODES, load_figures
from eval.lifetimes import Lifetimes, run_lifetimes
from eval.results import returns_scale, returns_table, scores_of
from eval.statistics import INTERVAL
from eval.summary import TRANSFORMER, Summary, figure_titles, intact_summary, load_summary, split_figures
from eval.values import tasks_record, values_table
from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import TrainingRecord, checkpoint_record, intact_record, last_checkpoint
from icrl.run.fingerprints import evaluation_fingerprint
from icrl.run.folder import (
    MODEL,
    PATHS,
    RETURNS,
    SUMMARY,
    VALUES,
    RunFolder,
    keep_config,
    locked,
    origin,
    stale,
    write_config,
)
from icrl.run.progress import check_training, chosen_checkpoint, finished, replaced_evaluations
from icrl.run.records import write_record
from icrl.support.device import check_device
from icrl.support.errors import UserError
from icrl.support.files import checksums, new_folder, sha256

# Model cards that were pushed earlier import `load_model` from here.
__all__ = ["check_agents", "evaluate", "evaluated_weights", "load_model", "model_path"]


class Contestant(NamedTuple):
    """An agent of the evaluation, what it is shown (`observation` or `state`), and the lifetime that it plans for."""

    agent: Agent
    sees: str
    planned_episodes: int
    """Full-length episodes that the agent plans for: its schedules run over them."""


def evaluate(given: Experiment | ExperimentConfig, overwrite: bool = False) -> bool:
    """Writes `eval/`, completely or not at all: returns.parquet, summary.json, paths.npz.

    Returns:
        True if there was anything to do.

    Raises UserError if the training of this config is not finished and `evaluation.checkpoint` is unset, or if the
    checkpoint is for other spaces.
    """
    experiment = Experiment.of(given)
    config, folder, identity = experiment.config, experiment.folder, evaluation_fingerprint(experiment.config)
    with locked(folder):
        # An earlier evaluation of the same weights is kept.
        path = model_path(config, folder)
        seen = seen_tasks(experiment, path)
        weights = evaluated_weights(config, folder, path)
        if folder.summary.exists() and not overwrite:
            done = load_summary(folder)
            replaced = done.fingerprint in replaced_evaluations(config, folder)
            if (done.fingerprint, done.weights) != (identity, weights) and not replaced:
                load_model(path, config.runtime.device, config.evaluation.trust_remote_code)  # raises if damaged
                raise stale(folder.eval)
            # Otherwise all of it is made again.
            if not replaced and all(path.exists() for path in (folder.returns, folder.paths, folder.values)):
                intact_summary(folder)
                keep_config(config, folder)
                return False
        # Every agent on every split.
        check_agents(experiment)
        figures = load_figures(config.evaluation.figures, config.evaluation.episodes)
        model = load_model(path, config.runtime.device, config.evaluation.trust_remote_code)
        sets, agents = evaluated_sets(experiment), _contestants(experiment, model)
        lifetimes = {pair: life for each in sets for pair, life in _lives(experiment, each, agents)}
        # Returns, on each task's own scale, and their figures.
        sources = [*_named(config)][: len(config.data.sources)] or _learned(config)
        scale, meaning = returns_scale(sets, sources, lifetimes)
        table = returns_table(scale, lifetimes)
        num_final_episodes = min(FINAL_EPISODES, config.evaluation.episodes)
        by_agent: dict[str, dict[str, object]] = {name: {} for name in agents}
        scores = {(name, split): scores_of(life, scale[split]) for (name, split), life in lifetimes.items()}
        for (name, split), life in lifetimes.items():
            by_agent[name][split] = split_figures(figures, scores[name, split], life.seconds, life.environment_steps)
        summary = Summary.model_validate(
            {
                "fingerprint": identity,
                "checkpoint": str(path),
                "weights": weights,
                "made_with": origin(),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "device": str(model.device),
                "episodes": config.evaluation.episodes,
                "num_final_episodes": num_final_episodes,
                "interval": INTERVAL,
                "normalised_return": meaning,
                "training_steps": {
                    name: steps for name, steps in _training_steps(experiment).items() if name in agents
                },
                "seen_tasks": seen.trained,
                "chosen_tasks": seen.chosen,
                "held_out_tasks": sum(len(each) for each in sets if each.name == "test"),
                "ablations": [*map(ablation_name, config.evaluation.ablations)],
                "task_sets": {
                    each.name: {
                        "changes": each.changes,
                        "tasks": len(each),
                        "left_out": each.left_out,
                        "seen_tasks": seen.in_sets[each.name],
                    }
                    for each in experiment.task_sets
                },
                "tasks": {each.name: tasks_record(each.family, each.tasks) for each in sets},
                "figures": figure_titles(figures, num_final_episodes=num_final_episodes),
                "agents": by_agent,
            }
        )
        write_config(config, folder)
        folder.report.unlink(missing_ok=True)  # the report of an earlier evaluation
        with new_folder(folder.eval) as temporary:
            table.to_parquet(temporary / RETURNS, index=False)
            values_table(figures, scores).to_parquet(temporary / VALUES, index=False)
            np.savez(temporary / PATHS, **lifetimes[TRANSFORMER, sets[0].name].paths)  # type: ignore[arg-type]
            write_record(temporary / SUMMARY, summary.model_copy(update={"files": checksums(temporary)}))
    return True


def model_path(config: ExperimentConfig, folder: RunFolder) -> Path:
    """The model folder to evaluate, verified.

    Raises UserError if training is not finished, belongs to another config, or its weights are damaged.
    """
    if config.evaluation.given is not None:
        given = given_model(config.evaluation.given, config.evaluation.trust_remote_code)
        check_checksums(given)
        return given
    checkpoint = last_checkpoint(folder.checkpoints)
    record = checkpoint_record(checkpoint, TrainingRecord)
    check_training(checkpoint, record, config, "icrl train --overwrite")
    if folder.data_info.exists() and record.data != load_info(folder).identity:
        raise stale(checkpoint, "icrl train --overwrite")
    if not finished(record, config):
        raise UserError(
            f"{checkpoint}: training stopped at update {record.step} of {config.training.steps}; run `icrl train` "
            f"to resume, or evaluate this checkpoint with --evaluation.checkpoint {checkpoint}"
        )
    if config.evaluation.checkpoint == "best":
        checkpoint = chosen_checkpoint(config, folder.checkpoints)
    intact_record(checkpoint, TrainingRecord)
    return checkpoint / MODEL


def _lives(
    experiment: Experiment, task_set: TaskSet, agents: dict[str, Contestant]
) -> Iterator[tuple[tuple[str, str], Lifetimes]]:
    """Runs every agent on a task set; yields the names of agent and set, and the lifetimes."""
    exchanged = agents.get(ablation_name("context_of_another_task"))
    for name, contestant in agents.items():
        keep = name == TRANSFORMER and exchanged is not None
        life = run_lifetimes(experiment, task_set, name, *contestant, keep=keep)
        if keep and exchanged is not None and life.histories is not None:
            assert isinstance(exchanged.agent, ContextOfAnotherTask)
            exchanged.agent.give(life.histories, task_set)
        yield (name, task_set.name), dataclasses.replace(life, histories=None)


def check_agents(given: Experiment | ExperimentConfig) -> None:
    """Raises UserError, with the key, if a source, a baseline or an ablation cannot act on the tasks of every set."""
    experiment = Experiment.of(given)
    config = experiment.config
    check_device(config.runtime.device)
    named: list[tuple[str, AgentComponent]] = []
    named += [(f"data.sources.{index}", source) for index, source in enumerate(config.data.sources)]
    named += [(f"evaluation.baselines.{index}", agent) for index, agent in enumerate(config.evaluation.baselines)]
    tried = [("", experiment.family, experiment.one_task)]
    tried += [(f"evaluation.tasks.{each.name}: ", each.family, each.tasks.take([0])) for each in experiment.task_sets]
    for where, family, task in tried:
        planned, lived = (each * family.episode_length for each in _planned_and_lived(experiment))
        with contextlib.closing(family.make_vec(task)) as envs:
            for key, component in named:
                check_agent(where + key, component, envs, planned, experiment.source_device, lived)
    if "context_of_another_task" in config.evaluation.ablations:
        for task_set in evaluated_sets(experiment):
            other_tasks(task_set)


def evaluated_weights(config: ExperimentConfig, folder: RunFolder, path: Path) -> str:
    """Fingerprint of the weights of the model at `path` and of every meta-learner.

    Of a given model, it covers the settings, too, and the code that lies beside the weights if that code runs.

    Raises UserError for a meta-learner that has not been meta-trained.
    """
    files = [sha256(file) for file in weight_files(path)]
    if config.evaluation.checkpoint is not None and (path / CONFIG).exists():  # those of a run follow from its config
        files.append(sha256(path / CONFIG))
        files += [sha256(code) for code in sorted(path.glob("*.py"))] if config.evaluation.trust_remote_code else []
    learners = [
        _meta_figures(config, folder, component).weights
        for component in _named(config).values()
        if is_meta_learner(component)
    ]
    return fingerprint([*files, *learners])


def _meta_figures(config: ExperimentConfig, folder: RunFolder, component: AgentComponent) -> TrainedFigures:
    """The evaluated weights of a meta-learner and their cost. Raises UserError if it has not been meta-trained."""
    return trained_figures(config, folder, component, evaluated_checkpoint(config, folder, component))


def _contestants(experiment: Experiment, model: ADModel) -> dict[str, Contestant]:
    """The transformer and its ablations, then the sources and the baselines, by name in the results.

    Where the evaluation is shorter than the histories of the data, a learner with a schedule has hardly begun it when
    the evaluation ends. So it takes part twice: as in the data, and planned for the lifetime of the evaluation.
    """
    config, folder = experiment.config, experiment.folder
    planned, lived = _planned_and_lived(experiment)
    objective: Objective = config.training.objective.build()
    kinds = {TRANSFORMER: TransformerAgent}
    kinds |= {ablation_name(name): ABLATIONS[name] for name in config.evaluation.ablations}
    agents = {
        name: Contestant(kind(model, config.evaluation.temperature, objective), "observation", planned)
        for name, kind in kinds.items()
    }
    for name, component in _named(config).items():
        checkpoint = evaluated_checkpoint(config, folder, component) if is_meta_learner(component) else None
        agent = ready_agent(config, folder, component, checkpoint)
        agents[name] = Contestant(agent, component.sees, planned)
        if lived < planned and agent.follows_plan:
            agents[replanned(name, config.evaluation.episodes)] = Contestant(agent, component.sees, lived)
    return agents


def _planned_and_lived(experiment: Experiment) -> tuple[int, int]:
    """Episodes that agents plan for, and episodes of a lifetime."""
    return experiment.planned_episodes, experiment.config.evaluation.episodes


def replanned(name: str, episodes: int) -> str:
    """Name, in the results, of the learner called `name` when it plans for a lifetime of `episodes` episodes."""
    return f"{name} (over {episodes})"


def _named(config: ExperimentConfig) -> dict[str, AgentComponent]:
    """The sources and the baselines by label or name; a name that is taken gets a number."""
    named: dict[str, AgentComponent] = {}
    episodes = config.evaluation.episodes
    reserved = {TRANSFORMER, *map(ablation_name, config.evaluation.ablations)}
    components: tuple[AgentComponent, ...] = (*config.data.sources, *config.evaluation.baselines)
    for component in components:
        first = name = component.label or component.name
        count = 2
        taken = {*reserved, *named, *(replanned(other, episodes) for other in named)}
        while name in taken or replanned(name, episodes) in named:
            name, count = f"{first}_{count}", count + 1
        named[name] = component
    return named


def _learned(config: ExperimentConfig) -> list[str]:
    """Baselines that stand in for the sources if the config has none: all but the random one."""
    return [name for name, component in _named(config).items() if component.name != "random"]


def _training_steps(experiment: Experiment) -> dict[str, int | None]:
    """Environment steps that each agent was trained with before this evaluation; None if unknown."""
    config, folder = experiment.config, experiment.folder
    elsewhere = config.evaluation.given is not None or config.training.initial is not None
    own = None if elsewhere else environment_steps(experiment)
    steps: dict[str, int | None] = {TRANSFORMER: own}
    steps |= {ablation_name(name): own for name in config.evaluation.ablations}
    for name, component in _named(config).items():
        steps[name] = _meta_figures(config, folder, component).environment_steps if is_meta_learner(component) else 0
        steps[replanned(name, config.evaluation.episodes)] = steps[name]
    return steps
