"""Data that is given, a repository of the hub or a folder, put into the run's folder as if it had been made there.

The run's `data/` gets links to the files, and an `info.json` of its own, so that everything downstream reads one kind
of folder. What the data says of itself is only believed where it can be checked: its spaces have to be those of the
config's tasks, a task family that the config does not name is not built, and held-out tasks are looked for among its
tasks.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.spaces import to_json
from data_gen.storage.folder import TASK_FILES, is_streamed, load_info, read_info
from data_gen.storage.info import DataInfo
from data_gen.tasks.base import TaskDistribution, Tasks
from icrl.config.schema import ExperimentConfig
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import RunFolder, locked, run_folder, stale, write_config
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import new_folder, write_json
from icrl.support.hub import Repository, Snapshot, fetch, repository, snapshot

INFO = "info.json"
_BESIDE = (*TASK_FILES, "config.yaml")
"""What may lie beside the shards."""


def take_given(config: ExperimentConfig, overwrite: bool = False) -> bool:
    """Fetches what is not there yet, checks it, and links it; returns whether there was anything to do.

    Files that have gone since, from the client's cache, are fetched again, at the same commit.

    Raises UserError if the hub or the folder has no such data, ConfigError if it does not go with the config's tasks.
    """
    folder = run_folder(config)
    with locked(folder):
        before = None
        if folder.data_info.exists() and not overwrite:
            before = load_info(folder)
            if before["fingerprint"] != data_fingerprint(config):
                raise stale(folder.data)
            if _unchanged(config, folder, before):
                return False
        elif folder.data.exists() and not overwrite and any(folder.data.iterdir()):
            raise stale(folder.data)
        if config.data.repo:
            wanted = repository(config.data.repo, "dataset", "data.repo")
            if before is not None:
                wanted = Repository(wanted.id, "dataset", before["given"]["commit"])
            found = snapshot(wanted)
            origin = {"repo": wanted.id, "commit": found.commit, "streaming": config.data.streaming}
            source = fetch(found, [INFO, *_BESIDE])
        else:
            source = Path(str(config.data.folder)).resolve()
            origin = {"folder": str(source)}
            if source == folder.data.resolve():
                raise ConfigError(f"data.folder: {source} is this run's own: choose another --name")
        if not (source / INFO).is_file():
            raise UserError(f"data: {config.data.given} has no {INFO}: it is not a data set of this project's")
        info = read_info(source / INFO)
        shards = [shard.file for shard in info.shards]
        distribution: TaskDistribution = config.tasks.build()
        _check_spaces(config, info, distribution)
        _check_leak(config, source, info, distribution)
        if config.data.repo and not config.data.streaming:
            _check_there(found, shards)
            source = fetch(found, [INFO, *_BESIDE, *shards])
        write_config(config, folder)
        with new_folder(folder.data) as temporary:
            for name in _BESIDE if config.data.streaming else (*_BESIDE, *shards):
                if (source / name).exists():
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / name).symlink_to((source / name).resolve())
                elif name in shards:
                    raise UserError(f"data: {source} has no {name}, which its {INFO} names")
            own = {**info, "tasks": _believed(config, info), "given": origin, "fingerprint": data_fingerprint(config)}
            write_json(temporary / INFO, own)
    return True


def _unchanged(config: ExperimentConfig, folder: RunFolder, info: DataInfo) -> bool:
    """Whether what was linked is still there. Raises UserError if `data.folder` holds something else by now."""
    if not is_streamed(info) and not all((folder.data / shard.file).exists() for shard in info.shards):
        return False
    if config.data.folder and read_info(Path(config.data.folder) / INFO)["shards"] != info.shards:
        raise UserError(f"{config.data.folder}: was made anew since; take it with `icrl generate --overwrite`")
    return True


def _check_there(found: Snapshot, shards: list[str]) -> None:
    absent = [name for name in shards if name not in found.sizes]
    if absent:
        raise UserError(f"data.repo: {found.repository} has no {absent[0]}, which its {INFO} names; push it again")


def _check_spaces(config: ExperimentConfig, info: DataInfo, distribution: TaskDistribution) -> None:
    """Raises ConfigError if histories of this data are not about tasks like those of the config."""
    for name in ("observation_space", "action_space"):
        own = to_json(getattr(distribution, name))
        if json.dumps(info[name], sort_keys=True) != json.dumps(own, sort_keys=True):
            what = name.replace("_", " ")
            raise ConfigError(f"tasks: the {what} of {config.tasks.name!r} is {own}, but the data's is {info[name]}")
    if info.episode_length != distribution.episode_length:
        raise ConfigError(
            f"tasks: episodes of {config.tasks.name!r} have {distribution.episode_length} steps, but the data's "
            f"{info.episode_length}; contexts are counted in episodes"
        )


def _check_leak(config: ExperimentConfig, source: Path, info: DataInfo, distribution: TaskDistribution) -> None:
    """Raises ConfigError if a task that the config holds out is one that the data is from.

    Tasks are the same if their arrays are, whatever the other parameters of their family. Of another family nothing
    can be said: the same numbers may mean something else there.
    """
    path = source / TASK_FILES[0]
    if not path.exists() or (info.tasks is not None and info.tasks["name"] != config.tasks.name):
        return
    trained = Tasks.load(path)
    _, test = distribution.split(config.split.train, config.split.test, config.seed)
    if [*trained] != [*test]:
        return
    seen = int(np.isin(test.keys(), trained.keys()).sum())
    if seen:
        raise ConfigError(
            f"split: {seen} of the {len(test)} held-out tasks are among the data's training tasks: take the seed and "
            f"the split that it was made with (seed {info.seed}, {info.num_train_tasks} and "
            f"{info.num_test_tasks} tasks)"
        )


def _believed(config: ExperimentConfig, info: DataInfo) -> dict[str, Any] | None:
    """The config's tasks, if the data says that it is of these; a name of its own could make anything be imported."""
    own: dict[str, Any] = json.loads(json.dumps(config.tasks.model_dump(mode="json")))
    said = info.tasks
    same = isinstance(said, dict) and "name" in said and all(own.get(key) == value for key, value in said.items())
    return own if same else None
