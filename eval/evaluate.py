"""Evaluation: the frozen transformer and every baseline live on the same tasks, held-out ones and training ones."""

import contextlib
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging

from ad_model.modeling_ad import ADModel
from data_gen.agents.base import Agent
from data_gen.generation.generate import (
    check_agent,
    environment_steps,
    planned_steps,
    source_device,
    split_tasks,
)
from data_gen.interaction import Histories, interact
from data_gen.meta.store import is_meta_learner, ready_agent, trained_figures
from data_gen.spaces import column_name, leaves
from data_gen.storage.folder import load_info
from data_gen.returns import episode_returns, final_returns
from data_gen.streams import make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks
from eval.in_context import TransformerAgent
from eval.results import (
    FINAL_EPISODES,
    FINAL_SHARE,
    TRANSFORMER,
    Lifetimes,
    load_summary,
    returns_scale,
    returns_table,
    summary_figures,
)
from icrl.run.purpose import Purpose
from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import checkpoint_record, last_checkpoint
from icrl.run.fingerprints import data_identity, evaluation_fingerprint, training_fingerprint
from icrl.run.folder import SCHEMA_VERSION, RunFolder, locked, origin, run_folder, stale, write_config
from icrl.support.device import check_device
from icrl.support.errors import UserError
from icrl.support.files import new_folder, read_json, remove_leftovers, sha256, write_json
from icrl.support.hub import fetch, repository, snapshot

_PICTURED_TASKS = 6


def evaluate(config: ExperimentConfig, overwrite: bool = False) -> bool:
    """Writes `eval/`, whole or not at all: returns.parquet, summary.json, paths.npz.

    Returns whether there was anything to do.

    Raises UserError if there is no finished training of this config and no `evaluation.checkpoint`, or if the
    checkpoint is for other spaces.
    """
    folder, identity = run_folder(config), evaluation_fingerprint(config)
    with locked(folder):
        remove_leftovers(folder.path)
        path = model_path(config, folder)
        weights = evaluated_weights(config, folder, path)
        if folder.summary.exists() and not overwrite:
            summary = load_summary(folder)
            if (summary["fingerprint"], summary["weights"]) != (identity, weights):
                raise stale(folder.eval)
            return False
        check_agents(config)
        model = load_model(path, config.runtime.device, config.evaluation.trust_remote_code)
        distribution, train, test = split_tasks(config)
        splits = {
            "test": test.take(slice(config.evaluation.test_tasks)),
            "train": train.take(slice(config.evaluation.train_tasks)),
        }
        agents = _agents(config, folder, model)
        sources = list(agents)[1 : 1 + len(config.data.sources)] or _learned(config)
        lived = {
            (name, split): _live(config, distribution, tasks, split, name, agent, sees)
            for split, tasks in splits.items()
            if len(tasks)
            for name, (agent, sees) in agents.items()
        }
        write_config(config, folder)
        scale, one = returns_scale(distribution, splits, sources, lived)
        known = not any(bool(np.isnan(span).any()) for _, span in scale.values())
        table = returns_table(scale, lived)
        summary = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": identity,
            "checkpoint": str(path),
            "weights": weights,
            "made_with": origin(),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": str(model.device),
            "episodes": config.evaluation.episodes,
            "num_final_episodes": min(FINAL_EPISODES, config.evaluation.episodes),
            "interval": "95% bootstrap over tasks",
            "normalised_return": {"0": "the random policy's expected return on that task", "1": one, "known": known},
            "training_steps": _training_steps(config, folder),
            "agents": summary_figures(table, scale, lived),
        }
        folder.report.unlink(missing_ok=True)  # it would be of another evaluation
        with new_folder(folder.eval) as temporary:
            table.to_parquet(temporary / folder.returns.name, index=False)
            np.savez(temporary / "paths.npz", **lived[TRANSFORMER, "test"].paths)  # type: ignore[arg-type]
            write_json(temporary / folder.summary.name, summary)
    return True


def model_path(config: ExperimentConfig, folder: RunFolder) -> Path:
    """The model folder to evaluate. Raises UserError if training is not finished, or was with another config."""
    if config.evaluation.checkpoint is not None:
        return given_model(config.evaluation.checkpoint, config.evaluation.trust_remote_code)
    checkpoint = last_checkpoint(folder.checkpoints)
    record = checkpoint_record(checkpoint)
    other_data = folder.data_info.exists() and record["data"] != data_identity(load_info(folder))
    if record["fingerprint"] != training_fingerprint(config) or other_data:
        raise stale(checkpoint, "icrl train --overwrite")
    if record["step"] != config.training.steps:
        raise UserError(
            f"{checkpoint}: training stopped at update {record['step']} of {config.training.steps}; run `icrl train` "
            f"to go on, or evaluate it as it is with --evaluation.checkpoint {checkpoint}"
        )
    return checkpoint / "model"


def given_model(place: str, with_code: bool = False) -> Path:
    """The folder of a model: itself, a checkpoint's, or that of a repository of the hub, USER/NAME[@REVISION].

    Of a repository, config and weights alone are fetched: no pickles, and no code but `with_code`. Raises UserError if
    there is none.
    """
    given = Path(place)
    if given.is_dir():
        return given / "model" if (given / "model").is_dir() else given
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UserError(f"evaluation.checkpoint: {place}: there is no such folder")
    try:
        found = snapshot(repository(place, "model", "evaluation.checkpoint"))
        wanted = ["config.json", "*.safetensors", "model.safetensors.index.json", *(["*.py"] if with_code else [])]
        return fetch(found, found.matching(wanted))
    except UserError as error:
        raise UserError(f"evaluation.checkpoint: {place} is no folder here, and on the hub: {error}") from error


def _attention_elsewhere(value: Any) -> bool:
    """Whether a model's config asks for attention that transformers would fetch from another repository, and run."""
    if not isinstance(value, dict):
        return False
    return any(
        _attention_elsewhere(part) or ("attn_implementation" in key and not _own_attention(part))
        for key, part in value.items()
    )


def _own_attention(value: Any) -> bool:
    return isinstance(value, dict) or value in (None, "eager", "sdpa", "flex_attention")


def load_model(place: Path | str, device: str | None = None, trust_remote_code: bool = False) -> ADModel:
    """The trained transformer on `device`; `place` is a folder, or text as `given_model` takes it.

    It is built with this project's own class; with `trust_remote_code`, by the code that lies beside the weights.

    Raises UserError if it holds none, or a damaged one.
    """
    path = given_model(place, trust_remote_code) if isinstance(place, str) else place
    check_device(device)
    where = torch.device(device or (torch.accelerator.current_accelerator() or "cpu"))
    if (
        not trust_remote_code
        and (path / "config.json").exists()
        and _attention_elsewhere(read_json(path / "config.json"))
    ):
        raise UserError(f"{path}: its config names attention code to fetch from elsewhere; not loaded")
    try:
        logging.disable_progress_bar()
        kind: Any = _own_class(path) if trust_remote_code else ADModel
        loaded: Any = kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
        model, found = loaded
        wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
        if wrong:
            raise ValueError(f"its weights are not those of its config, see {wrong[0]}")
        placed: ADModel = model.to(where)
        return placed
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise UserError(f"{path}: cannot load the model: {' '.join(str(error).split())[:300]}") from error


def _own_class(path: Path) -> type:
    """The class that a model's own code defines; `AutoModel` would prefer this project's, which it knows.

    Raises KeyError if the model names none.
    """
    return cast(
        type, get_class_from_dynamic_module(read_json(path / "config.json")["auto_map"]["AutoModel"], str(path))
    )


def check_agents(config: ExperimentConfig) -> None:
    """Raises UserError if a source or baseline cannot live on these tasks, naming its key."""
    check_device(config.runtime.device)
    distribution, _, test = split_tasks(config)
    named: list[tuple[str, AgentComponent]] = []
    named += [(f"data.sources.{index}", source) for index, source in enumerate(config.data.sources)]
    named += [(f"evaluation.baselines.{index}", agent) for index, agent in enumerate(config.evaluation.baselines)]
    with contextlib.closing(distribution.make_vec(test.take([0]))) as envs:
        for key, component in named:
            planned, lived = (
                planned_steps(config, distribution),
                config.evaluation.episodes * distribution.episode_length,
            )
            check_agent(key, component, envs, planned, source_device(config), lived)


def _agents(config: ExperimentConfig, folder: RunFolder, model: ADModel) -> dict[str, tuple[Agent, str]]:
    """The transformer, the sources and the baselines, and what they see, by their names in the results."""
    agents: dict[str, tuple[Agent, str]] = {
        TRANSFORMER: (TransformerAgent(model, config.evaluation.temperature), "observation")
    }
    for name, component in _named(config).items():
        agents[name] = ready_agent(config, folder, component), component.sees
    return agents


def _named(config: ExperimentConfig) -> dict[str, AgentComponent]:
    """The sources and the baselines by their labels or names; one that comes twice is numbered."""
    named: dict[str, AgentComponent] = {}
    components: tuple[AgentComponent, ...] = (*config.data.sources, *config.evaluation.baselines)
    for component in components:
        first = name = component.label or component.name
        count = 2
        while name in named or name == TRANSFORMER:
            name, count = f"{first}_{count}", count + 1
        named[name] = component
    return named


def _learned(config: ExperimentConfig) -> list[str]:
    """The baselines that say how far one can get, where there are no sources: all but random ones."""
    return [name for name, component in _named(config).items() if component.name != "random"]


def _training_steps(config: ExperimentConfig, folder: RunFolder) -> dict[str, int | None]:
    """By agent, the environment steps that it was trained with before its lifetimes here; None where not known."""
    given = config.evaluation.checkpoint is not None
    steps: dict[str, int | None] = {TRANSFORMER: None if given else environment_steps(config, folder)}
    for name, component in _named(config).items():
        trained = is_meta_learner(component)
        steps[name] = trained_figures(config, folder, component)["environment_steps"] if trained else 0
    return steps


def evaluated_weights(config: ExperimentConfig, folder: RunFolder, path: Path) -> str:
    """Changes with the weights of the model at `path` and of every meta-learner. Raises UserError if one has none."""
    files = [sha256(file) for file in sorted(path.glob("*.safetensors"))]
    learners = [
        trained_figures(config, folder, component)["weights"]
        for component in _named(config).values()
        if is_meta_learner(component)
    ]
    return fingerprint([*files, *learners])


def _live(
    config: ExperimentConfig,
    distribution: TaskDistribution,
    tasks: Tasks,
    split: str,
    name: str,
    agent: Agent,
    sees: str,
) -> Lifetimes:
    """Lets `agent` live on every task with every seed at once. A learner plans for the lifetime that its data has.

    Of a learner with several actors, its first one's episodes count, and every actor's steps.
    """
    seeds, episodes = config.evaluation.seeds, config.evaluation.episodes
    steps = episodes * distribution.episode_length
    slots = len(tasks) * seeds
    envs = distribution.make_vec(tasks.take(np.repeat(np.arange(len(tasks)), seeds * agent.actors)))
    slot_seeds = make_seeds(slots, config.seed, Purpose.EVALUATION)
    description = f"{name} on {split} tasks"
    started = time.perf_counter()
    total = slots * agent.actors * steps
    with tqdm(total=total, unit=" steps", unit_scale=True, desc=f"{description:34}", dynamic_ncols=True) as bar:
        planned = planned_steps(config, distribution)
        histories = interact(
            agent,
            envs,
            steps,
            slot_seeds,
            planned_steps=planned,
            sees=sees,
            recorded=slice(None, None, agent.actors),
            device=source_device(config),
            progress=bar.update,
        )
    envs.close()
    seconds = time.perf_counter() - started
    most = int(histories.ended.sum(axis=1).max())
    ends = np.argsort(~histories.ended, axis=1, kind="stable")[:, :most] + 1  # the ends in order, then other steps
    by_task = "(task seed) episode -> task seed episode"
    return Lifetimes(
        episodes=episodes,
        returns=rearrange(episode_returns(histories.reward, histories.ended, most), by_task, seed=seeds),
        steps=rearrange(ends * agent.actors, by_task, seed=seeds),
        final=rearrange(
            final_returns(histories.reward, histories.ended, max(FINAL_SHARE, 1 / episodes)), "(t s) -> t s", s=seeds
        ),
        seconds=seconds,
        environment_steps=total,
        paths=_paths(histories, ends[:, :episodes], seeds, min(len(tasks), _PICTURED_TASKS), tasks),
    )


def _paths(
    histories: Histories, ends: NDArray[np.int64], seeds: int, count: int, tasks: Tasks
) -> dict[str, NDArray[Any]]:
    """The first and the last episode of the first `count` tasks, padded to the longest; `length` (task, 2)."""
    slots = np.arange(count) * seeds
    last = ends.shape[1] - 1
    starts = np.stack([np.zeros(count, int), ends[slots, last - 1] if last else np.zeros(count, int)], axis=1)
    lengths = np.stack([ends[slots, 0], ends[slots, last] - starts[:, 1]], axis=1)
    steps = np.minimum(starts[:, :, None] + np.arange(lengths.max()), histories.reward.shape[1] - 1)
    slot = slots[:, None, None]
    seen = {column_name("observation", path): leaf for path, leaf in leaves(histories.observation).items()}
    return {
        **{name: leaf[slot, steps] for name, leaf in seen.items()},
        "reward": histories.reward[slot, steps],
        "length": lengths,
        **{f"task_{name}": tasks[name][:count] for name in tasks},
    }
