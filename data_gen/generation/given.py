"""Given data: a repository of the hub or a folder, linked into the run folder as if it had been generated there.

The run's `data/` gets links to the files and its own `info.json`, so that all later stages read one kind of folder.
Claims of the data are trusted only if they can be checked: its spaces must equal those of the config's tasks, a task
family that the config does not name is not built, and no held-out task may be among the data's tasks. The run takes the
data's split if the data states one for these very tasks and the config gives none (`data_gen.storage.given_split`).
"""

import json
import sys
from pathlib import Path
from typing import Any

from data_gen.experiment import Experiment
from data_gen.spaces import to_json
from data_gen.storage.folder import load_info, load_tasks, read_info
from data_gen.storage.given_split import plain_tasks, split_of_data
from data_gen.storage.info import DataInfo
from data_gen.storage.named_family import same_tasks
from data_gen.storage.source import BESIDE, located, record_at
from data_gen.tasks.base import TaskDistribution
from data_gen.tasks.same import seen_among
from icrl.config.components import TASKS, find_component
from icrl.config.schema import ExperimentConfig
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import INFO, TASK_FILES, RunFolder, locked, stale, write_config
from icrl.run.records import record_text
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import new_folder, write_file
from icrl.support.hub import Snapshot, fetch
from icrl.support.terminal import say


def take_given(experiment: Experiment, overwrite: bool = False) -> bool:
    """Fetches the missing files, checks them, and links them into the run folder.

    Files that have since been deleted from the client's cache are fetched again, at the same commit.

    Returns:
        True if there was anything to do.

    Raises UserError if the hub or the folder does not have the data, ConfigError if it does not fit the config's tasks.
    """
    config, folder = experiment.config, experiment.folder
    with locked(folder):
        before = _before(experiment, overwrite)
        if before is not None and _unchanged(config, folder, before):
            return False
        # The record first: it decides whether anything else is fetched.
        remote, origin, source = located(config, folder, before)
        info = record_at(config, source)
        shards = [shard.file for shard in info.shards]
        _check_spaces(config, info, experiment.family)
        taken = config.takes_given_split and split_of_data(config, experiment.family, source, info)
        if not taken:
            _check_leak(experiment, source, info)
        if remote is not None and not config.data.streaming:
            _check_complete(remote, shards)
            source = fetch(remote, [INFO, *BESIDE, *shards])
        write_config(config, folder)
        with new_folder(folder.data) as temporary:
            for name in BESIDE if config.data.streaming else (*BESIDE, *shards):
                if (source / name).is_file():
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / name).symlink_to((source / name).resolve())
                elif name in shards:
                    raise UserError(f"data: {source} has no {name}, which its {INFO} names")
            own = {"tasks": _believed(config, info), "given": origin, "fingerprint": data_fingerprint(config)}
            write_file(temporary / INFO, record_text(info.model_copy(update=own).plain()))
        experiment.forget_split()
        sizes = [len(tasks) for tasks in experiment.splits]
        say(
            f"split: {sizes[0]} training, {sizes[1]} validation and {sizes[2]} held-out tasks, "
            + ("those of the data" if taken else "by this config")
        )
    return True


def _before(experiment: Experiment, overwrite: bool) -> DataInfo | None:
    """The record of data that was linked before, or None. Raises UserError if that data is of another config."""
    folder = experiment.folder
    if overwrite:
        return None
    if folder.data_info.exists():
        before = load_info(folder)
        if before.fingerprint != data_fingerprint(experiment.config):
            raise stale(folder.data)
        return before
    # Links alone are of data whose record has been deleted; it is linked again.
    if folder.data.exists() and not all(path.is_symlink() for path in folder.data.iterdir()):
        raise stale(folder.data)
    return None


def _unchanged(config: ExperimentConfig, folder: RunFolder, info: DataInfo) -> bool:
    """True if the linked files still exist. Raises UserError if `data.folder` now holds other data."""
    if not info.streamed and not all((folder.data / shard.file).exists() for shard in info.shards):
        return False
    if config.data.folder and read_info(Path(config.data.folder) / INFO).shards != info.shards:
        raise UserError(
            f"{config.data.folder}: has changed since it was linked; take the new data with `icrl generate --overwrite`"
        )
    return True


def _check_complete(remote: Snapshot, shards: list[str]) -> None:
    absent = [name for name in shards if name not in remote.sizes]
    if absent:
        raise UserError(f"data.repo: {remote.repository} has no {absent[0]}, which its {INFO} names; push it again")


def _check_spaces(config: ExperimentConfig, info: DataInfo, distribution: TaskDistribution) -> None:
    """Raises ConfigError if the data's spaces or episode length differ from those of the config's tasks."""
    for name in ("observation_space", "action_space"):
        own, theirs = to_json(getattr(distribution, name)), getattr(info, name)
        if json.dumps(theirs, sort_keys=True) != json.dumps(own, sort_keys=True):
            what = name.replace("_", " ")
            raise ConfigError(f"tasks: the {what} of {config.tasks.name!r} is {own}, but the data's is {theirs}")
    if info.episode_length != distribution.episode_length:
        raise ConfigError(
            f"tasks: episodes of {config.tasks.name!r} have {distribution.episode_length} steps, but the data's have "
            f"{info.episode_length}; contexts are measured in episodes"
        )


def _check_leak(experiment: Experiment, source: Path, info: DataInfo) -> None:
    """Raises ConfigError if a held-out task of the config is among the tasks of the data, or if that cannot be told.

    Two tasks are the same if they have equal values in the family's own names and types, whatever the other parameters
    of their family. Tasks of another family are not compared, since the same numbers may mean something else there.
    Tasks of an unnamed family are compared whatever their arrays are called.
    """
    test, trained = experiment.split_of_config.test, load_tasks(source, info, TASK_FILES[0])
    if trained is None or (info.tasks is not None and _other_family(experiment, str(info.tasks["name"]))):
        return
    among = seen_among(experiment.family, test, trained, info.tasks, any_names=info.tasks is None)
    if among is None:
        what = f"the data's tasks have the arrays {[*trained]}, and those of {experiment.config.tasks.name!r} {[*test]}"
        if same_tasks(experiment.config.tasks.model_dump(mode="json"), info.tasks):
            raise ConfigError(f"tasks: {what}: held-out tasks cannot be told from the data's; name the arrays alike")
        print(f"warning: tasks: {what}: the held-out tasks were not compared with the data's", file=sys.stderr)
        return
    seen = int(among.sum())
    if seen:
        theirs = info.num_test_tasks and not experiment.config.takes_given_split
        advice = "; without split and seeds.split in the config, the run takes the data's split" if theirs else ""
        raise ConfigError(
            f"split: {seen} of the {len(test)} held-out tasks are among the data's training tasks: use the seed and "
            f"the split that the data was made with (seed {info.seed if info.split_seed is None else info.split_seed}, "
            f"{info.num_train_tasks} and {info.num_test_tasks} tasks){advice}"
        )


def _other_family(experiment: Experiment, name: str) -> bool:
    """True if `name`, from a file, is certainly another family than the config's. Nothing is imported to find out.

    One class may have several names: that of its table, and `module:Class` for every module that exports the class.
    A class and the class that it is derived from may share their tasks.
    """
    own = type(experiment.family)
    if name in TASKS:
        known: Any = find_component(name, TASKS)
    else:
        module, _, attribute = name.partition(":")
        known = getattr(sys.modules.get(module), attribute, None) if attribute else None
    return isinstance(known, type) and not (issubclass(known, own) or issubclass(own, known))


def _believed(config: ExperimentConfig, info: DataInfo) -> dict[str, Any] | None:
    """The config's tasks if the data names the same, else None: a name from the data alone could import anything."""
    own = plain_tasks(config)
    return own if same_tasks(own, info.tasks) else None
