"""A data folder as a repository of the hub: the files that are pushed, with shards as HDF5 or as Parquet."""

import re
import tempfile
from glob import escape
from pathlib import Path
from typing import Any

from ad_model.statistics import DataStatistics
from data_gen.scoring.report import DataReport, data_report
from data_gen.storage.card import PICTURE, config_name, dataset_card
from data_gen.storage.folder import checked_shards, load_info, load_tasks, read_histories
from data_gen.storage.info import DataInfo, Shard, checked_info
from eval.report import learning_curve
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import CARD, CONFIG, INFO, TASK_FILES, RunFolder, config_text
from icrl.run.records import record_text
from icrl.support.errors import UserError
from icrl.support.files import TEMPORARY_SUFFIX, leads_out, remove_leftovers
from icrl.support.hub import Repository, Snapshot, fetch, hub_errors, snapshot
from icrl.support.pictures import png
from icrl.support.yaml12 import read_yaml, write_yaml
from publish.push import Parcel, send

SHARDS = ("train-*.h5", "train-*.parquet", "data/*.parquet")
"""Patterns of the files that a push replaces: a data set has one format at a time."""


def data_parcel(folder: RunFolder, name: str, repo: Repository, licence: str | None = None) -> Parcel:
    """The files to send for complete data, with its shards as they are. One shard is in memory at a time.

    Raises UserError if the data is incomplete or damaged, or is streamed from elsewhere.
    """
    info = described(folder)
    report = data_report(folder, info)
    files: dict[str, Path | bytes] = {shard.file: folder.data / shard.file for shard in info.shards}
    return Parcel(
        {**files, **_beside(folder, name, info, repo, licence, report)}, SHARDS, f"Learning histories: {name}"
    )


def described(folder: RunFolder) -> DataInfo:
    """The data's record with its statistics, which streaming needs. Verifies the checksum of every shard."""
    info = load_info(folder)
    if info.streamed:
        raise UserError(f"{folder.data}: its shards are already on the hub: {info.given and info.given.repo}")
    statistics = DataStatistics(info.observation_space)
    for path in checked_shards(folder, info):
        statistics.add(read_histories(path, info))
    plain = {key: value for key, value in info.plain().items() if key != "given"}
    return checked_info({**plain, "statistics": statistics.record().model_dump()}, folder.data_info)


def config_of_data(folder: RunFolder, info: DataInfo) -> bytes | None:
    """The config that the data was made with, without the path of its run folder; None if it is not available."""
    made_here = folder.own_data is None and info.given is None
    path = folder.config if made_here else folder.data / folder.config.name
    if not path.exists():
        return None
    content = public_config(path)
    values = read_yaml(content.decode())
    if not isinstance(values, dict) or not {"tasks", "data"} <= {*values} <= {*ExperimentConfig.model_fields}:
        # It may be a link to any file of this machine.
        raise UserError(f"{path}: is not a config of an experiment, so it is not pushed; delete it")
    return content


def public_config(config: Path) -> bytes:
    """The text of a config file without the path of the run folder on its machine."""
    return re.sub(r"(?m)^output:.*$", "output: runs", config_text(config)).encode()


def _beside(
    folder: RunFolder,
    name: str,
    info: DataInfo,
    repo: Repository,
    licence: str | None,
    report: DataReport,
    header: dict[str, Any] | None = None,
) -> dict[str, Path | bytes]:
    """The files to send beside the shards: the card with its picture, the tasks, the config, and the record.

    `header` replaces this project's metadata about the files in the card.
    """
    files: dict[str, Path | bytes] = {}
    for file in TASK_FILES:
        path = folder.data / file
        if load_tasks(folder.data, info, file) is not None:  # a link, for instance, to any file is not a file of tasks
            if file not in info.files and leads_out(path, folder.data):
                raise UserError(f"{path}: is a link to another folder, without a checksum in {INFO}: it is not pushed")
            files[file] = path
    config = config_of_data(folder, load_info(folder))
    if config is not None:
        files[CONFIG] = config
    card = dataset_card(name, info, repo.id, licence, picture=True, config=config is not None)
    files[PICTURE] = png(learning_curve(report), dpi=150)
    files[CARD] = (card if header is None else _with_header(card, header)).encode()
    files[INFO] = record_text(info.plain()).encode()
    return files


def describe_parquet(folder: RunFolder, to: Repository) -> str:
    """The files that a push as Parquet would send, as one line."""
    shards = len(load_info(folder).shards)
    return f"push: {shards} Parquet files, of sizes not known yet, and the tasks, card and info.json, to {to}"


def push_parquet(folder: RunFolder, name: str, to: Repository, public: bool, licence: str | None) -> str:
    """Sends complete data as Parquet files, with `Dataset.push_to_hub`, then the other files; returns the address.

    The shards go through an Arrow table on disk; one shard is in memory at a time. If the push is killed between its
    two commits, the same call completes the repository.
    """
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    info, report = described(folder), data_report(folder, load_info(folder))
    disable_progress_bar()
    remove_leftovers(folder.data)
    # First commit: the Parquet files, which `datasets` writes.
    scratch = tempfile.TemporaryDirectory(dir=folder.data, prefix=".push-", suffix=TEMPORARY_SUFFIX)
    with scratch as cache, hub_errors(to, "write"):
        # `datasets` takes paths as patterns: unescaped, `exp[1]` would be the rows of `exp1`.
        paths = [escape(str((folder.data / shard.file).resolve())) for shard in info.shards]
        kind = "parquet" if paths[0].endswith(".parquet") else "hdf5"
        table = load_dataset(kind, data_files={"train": paths}, split="train", cache_dir=cache)
        if len(table) != info.num_histories:
            raise UserError(
                f"{folder.data}: `datasets` reads {len(table):,} histories, but {INFO} has {info.num_histories:,}, so "
                "nothing is pushed; choose a path of letters, digits, - and _"
            )
        config = config_name(name, info)
        table.push_to_hub(
            to.id,
            config_name=config,
            data_dir="data",
            private=not public,
            revision=to.revision,
            num_shards=len(paths),
            commit_message=f"Parquet: {name}",
        )
    # Second commit: the other files, with the record of those shards.
    remote = snapshot(to)
    with hub_errors(to, "read"):
        header = _yaml_header(fetch(remote, [CARD]) / CARD) | {"config_name": config}
    info = info.model_copy(update={"shards": _parquet_shards(to, remote)})
    files = _beside(folder, name, info, to, licence, report, header)
    return send(Parcel(files, ("train-*.h5",), f"Learning histories: {name}"), to, public)


def _parquet_shards(to: Repository, remote: Snapshot) -> list[Shard]:
    from huggingface_hub import HfApi

    names = sorted(name for name in remote.sizes if name.startswith("data/train-") and name.endswith(".parquet"))
    with hub_errors(to, "read"):
        known: Any = HfApi().get_paths_info(to.id, names, repo_type=to.kind, revision=remote.commit)
    checksums = {file.path: file.lfs.sha256 for file in known if file.lfs is not None}
    absent = [name for name in names if name not in checksums]
    if absent or not names:
        raise UserError(f"{to}: the hub does not report the checksum of {(absent or ['its Parquet files'])[0]}")
    return [Shard(file=name, sha256=checksums[name]) for name in names]


def _yaml_header(card: Path) -> dict[str, Any]:
    parts = card.read_text().split("---\n", 2)
    header: dict[str, Any] = read_yaml(parts[1]) if len(parts) == 3 else {}
    return header


def _with_header(card: str, header: dict[str, Any]) -> str:
    """This project's card, with the metadata of `datasets` about the columns of its Parquet files."""
    _, own, body = card.split("---\n", 2)
    about = read_yaml(own)
    about["configs"][0]["config_name"] = header["config_name"]  # the name that `datasets` has given its columns
    every = header.get("dataset_info", [])
    known = [each for each in (every if isinstance(every, list) else [every]) if isinstance(each, dict)]
    ours = [each for each in known if each.get("config_name", header["config_name"]) == header["config_name"]]
    if ours:
        about["dataset_info"] = ours[0]
    return f"---\n{write_yaml(about)}---\n{body}"
