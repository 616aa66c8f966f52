"""Generation: source agents run on the training tasks, and their learning histories are written as shards.

A shard is a pure function of (config, shard index). So the same config gives the same bytes on any number of workers,
finished shards are skipped on a restart, and any executor can make them.
"""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from data_gen.experiment import Experiment
from data_gen.generation.checks import check_generation
from data_gen.generation.executors import make_shards
from data_gen.generation.given import take_given
from data_gen.generation.shard import shard_config_fingerprint, swept_columns
from data_gen.meta.store import NotMetaTrained, source_weights, sources_steps
from data_gen.spaces import to_json
from data_gen.storage.card import dataset_card
from data_gen.storage.folder import check_task_files, finish_data_folder, load_info
from data_gen.storage.info import TrainedFigures
from data_gen.storage.shards import checksum_file, damaged, shard_fingerprint, shard_name
from icrl.config.schema import ExperimentConfig
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import CARD, TASK_FILES, RunFolder, keep_config, locked, stale, write_config
from icrl.support.errors import UserError
from icrl.support.files import remove, remove_leftovers, sha256
from icrl.support.terminal import say


def generate(given: Experiment | ExperimentConfig, overwrite: bool = False) -> bool:
    """Makes the missing shards, and then `info.json`, which marks the data as complete.

    If the config gives data instead of sources, fetches and links that data.

    Returns:
        True if there was anything to do.

    Raises UserError if the folder holds data of another config (unless `overwrite`), or a shard is damaged.
    """
    experiment = Experiment.of(given)
    config, folder = experiment.config, experiment.folder
    if config.data.given:
        return take_given(experiment, overwrite)
    check_generation(experiment)
    with locked(folder):
        # Find out by checksum which shards are finished and which are missing.
        trained = _source_weights(config, folder, overwrite)
        if overwrite:
            remove(folder.data)
        folder.data.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.data)
        recorded = _recorded_checksums(folder, data_fingerprint(config), trained)
        names = [shard_name(index, config.data.shards) for index in range(config.data.shards)]
        checksums = {
            name: _finished(folder.data / name, shard_config_fingerprint(config, trained), recorded) for name in names
        }
        unexpected = {path.name for path in folder.data.glob("train-*.h5")} - set(names)
        if unexpected:
            raise stale(folder.data / min(unexpected))
        missing = [index for index, name in enumerate(names) if checksums[name] is None]
        if not missing and recorded and all((folder.data / name).exists() for name in _beside(experiment)):
            check_task_files(folder.data, load_info(folder))
            _check_card(folder, config.name)
            _remove_checksums(folder, names)
            keep_config(config, folder)
            return False
        write_config(config, folder)
        # Make the missing shards.
        started = time.perf_counter()
        lengths = _shard_steps(experiment)
        with tqdm(total=sum(lengths), unit=" steps", unit_scale=True, desc="generate", dynamic_ncols=True) as bar:
            bar.update(sum(lengths) - sum(lengths[index] for index in missing))
            with closing(make_shards(experiment, missing, lengths, bar.update)) as made:  # no worker outlives the lock
                for index, checksum in made:
                    checksums[names[index]] = checksum
        for name in names:
            if recorded.get(name, checksums[name]) != checksums[name]:
                raise UserError(
                    f"{folder.data / name}: was made again and differs from {folder.data_info}: use --overwrite"
                )
        # Mark the data as complete.
        about = _about(experiment, trained, {name: str(checksums[name]) for name in names})
        about["seconds"] = time.perf_counter() - started
        finish_data_folder(folder.data, config.name, experiment.splits, about)
        _remove_checksums(folder, names)
    return True


def environment_steps(experiment: Experiment) -> int:
    """Environment steps that the histories cost: the steps of all actors and of the sources' meta-training.

    For given data, the recorded steps.
    """
    if experiment.config.data.given:
        return load_info(experiment.folder).total_steps
    acted = int(experiment.learners.actors.sum()) * experiment.history_steps
    return acted + sources_steps(experiment.config, experiment.folder)


def _about(experiment: Experiment, trained: dict[str, TrainedFigures], checksums: dict[str, str]) -> dict[str, Any]:
    """The fields of `info.json` that follow from the experiment."""
    config, family = experiment.config, experiment.family
    return {
        "fingerprint": data_fingerprint(config),
        "observation_space": to_json(family.observation_space),
        "action_space": to_json(family.action_space),
        "episode_length": family.episode_length,
        "num_histories": int(experiment.learners.histories.sum()),
        "num_steps": experiment.history_steps,
        "seed": config.seed_for("data"),
        "split_seed": config.seed_for("split"),
        "tasks": config.tasks.model_dump(mode="json"),
        "optimal_actions": config.data.optimal_actions,
        "swept": swept_columns(config),
        "sources": [source.model_dump(mode="json") for source in config.data.sources],
        "meta_learners": trained,
        "shards": [{"file": name, "sha256": checksum} for name, checksum in checksums.items()],
        "device": experiment.source_device,
        "check_values": config.runtime.check_values,
    }


def _beside(experiment: Experiment) -> list[str]:
    """The files that complete data has beside its shards and its record."""
    return [*(name for name, tasks in zip(TASK_FILES, experiment.splits, strict=True) if len(tasks)), CARD]


def _shard_steps(experiment: Experiment) -> list[int]:
    """(shards,) environment steps that each shard takes to make."""
    learners, steps = experiment.learners, experiment.history_steps
    return [int(learners.actors[part].sum()) * steps for part in learners.shards(experiment.config.data.shards)]


def _source_weights(config: ExperimentConfig, folder: RunFolder, overwrite: bool) -> dict[str, TrainedFigures]:
    """The sources' meta-trained weights; from the data's record if the data is complete but checkpoints are gone."""
    try:
        return source_weights(config, folder)
    except NotMetaTrained:
        if overwrite or not folder.data_info.exists():
            raise
        return load_info(folder).meta_learners


def _recorded_checksums(folder: RunFolder, fingerprint: str, trained: dict[str, TrainedFigures]) -> dict[str, str]:
    """Checksums by file from `info.json`; empty for incomplete data. Raises UserError for data of another config."""
    if not folder.data_info.exists():
        return {}
    info = load_info(folder)
    if info.fingerprint != fingerprint:
        raise stale(folder.data)
    for key, learner in info.meta_learners.items():
        if key in trained and trained[key].weights != learner.weights:
            raise UserError(f"{folder.data}: {key} has been meta-trained again since; generate with --overwrite")
    return {shard.file: shard.sha256 for shard in info.shards}


def _finished(path: Path, fingerprint: str, recorded: dict[str, str]) -> str | None:
    """The checksum of a shard; None if the shard does not exist. Raises UserError if it is stale or damaged."""
    if not path.exists():
        return None
    checksum = sha256(path)
    if path.name in recorded:
        if checksum != recorded[path.name]:
            raise damaged(path, "its checksum differs from info.json")
        return checksum
    if checksum_file(path).exists() and checksum_file(path).read_bytes() != checksum.encode():
        raise damaged(path, f"its checksum differs from {checksum_file(path).name}")
    if shard_fingerprint(path) != fingerprint:
        raise stale(path)
    return checksum


def _remove_checksums(folder: RunFolder, names: list[str]) -> None:
    """Deletes the shards' own checksums, once `info.json` has them."""
    for name in names:
        checksum_file(folder.data / name).unlink(missing_ok=True)


def _check_card(folder: RunFolder, name: str) -> None:
    """Tells the user if the card is not the one that was written. It may have been edited, so it is kept."""
    path = folder.data / CARD
    if not path.is_file() or path.read_bytes() != dataset_card(name, load_info(folder)).encode():
        say(f"warning: {path}: is damaged, or was edited; delete it, and `icrl generate` writes it again")
