"""The source of given data: a repository of the hub or a folder, and its record, before anything is linked."""

from pathlib import Path

from data_gen.storage.folder import check_links, read_info
from data_gen.storage.info import DataInfo, Given
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import CONFIG, INFO, TASK_FILES, RunFolder
from icrl.support.errors import ConfigError, UserError
from icrl.support.hub import Repository, Snapshot, fetch, repository, snapshot

BESIDE = (*TASK_FILES, CONFIG)
"""Files that may lie beside the shards."""


def located(
    config: ExperimentConfig, folder: RunFolder, before: DataInfo | None = None
) -> tuple[Snapshot | None, Given, Path]:
    """The repository's snapshot (None for a folder), the origin to record, and the folder with the data's record.

    Fetches the small files of a repository, and no shards. `before` is the record of data that was linked before, whose
    commit is kept.

    Raises UserError if the hub does not have the data, ConfigError if the folder is the run's own.
    """
    if config.data.repo:
        wanted = repository(config.data.repo, "dataset", "data.repo")
        if before is not None and before.given is not None:
            wanted = Repository(wanted.id, "dataset", before.given.commit)
        remote = snapshot(wanted)
        origin = Given(repo=wanted.id, commit=remote.commit, streaming=config.data.streaming)
        return remote, origin, fetch(remote, [INFO, *BESIDE])
    source = Path(str(config.data.folder)).resolve()
    if source == folder.data.resolve():
        raise ConfigError(f"data.folder: {source} is this run's own data folder: choose another --name")
    return None, Given(folder=str(source)), source


def record_at(config: ExperimentConfig, source: Path) -> DataInfo:
    """The record of the data at `source`. Raises UserError if it is missing or wrong, or a file leads elsewhere."""
    if not (source / INFO).is_file():
        raise UserError(f"data: {config.data.given} has no {INFO}, so it is not a data set of this project")
    theirs = RunFolder(source.parent, source)
    check_links(theirs, None, [INFO])  # the record first: it decides whether anything else is read
    info = read_info(source / INFO)
    check_links(theirs, info, [*BESIDE, *(shard.file for shard in info.shards)])
    return info
