"""A data folder: shards, their tasks, and `info.json`, which is written last and marks the data as complete.

train-00000-of-00004.h5 ...   learning histories (`data_gen.storage.shards`)
tasks-train.npz               the training tasks, numbered as in the shards' column `task`, if they are known
tasks-validation.npz          the validation tasks, if there are any
tasks-test.npz                the held-out tasks, if they are known
README.md                     the card, which makes the folder a hub data set as it is
info.json                     spaces, sources, checksums: everything that training needs besides the shards
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_gen.spaces import Space, storage_type
from data_gen.storage.card import dataset_card
from data_gen.storage.columns import checked_columns, checked_numbers, spaces_of_columns
from data_gen.storage.info import DataInfo, checked_info
from data_gen.storage.shards import damaged, declared, read_shard, reward_shape
from data_gen.tasks.base import Tasks
from icrl.run.folder import CARD, CONFIG, INFO, SCHEMA_VERSION, TASK_FILES, RunFolder, origin
from icrl.run.records import record_text, versioned
from icrl.support.errors import UserError
from icrl.support.files import check_files, leads_out, sha256, write_file

_LARGEST_REST = 2**28
"""Most bytes of a shard besides its steps: numbers of histories, the tasks' parameters, metadata."""

_LARGEST_TASKS = 2**32
"""Most bytes of a file of tasks."""

_NUMBERS = ("history", "task", "source", "seed", "actor")
"""Columns with one number per history."""

_ELSEWHERE = "get the data again"


def check_folder_name(path: Path) -> None:
    """Raises UserError for the name of a new data folder that `load_dataset` would take for a pattern or an address."""
    name = path.name
    wrong = [character for character in name if character in "?*[]" or not character.isprintable()]
    if wrong or "::" in name:
        raise UserError(
            f"{str(path)!r}: `load_dataset` would take the {(wrong or ['::'])[0]!r} in this name for a pattern or an "
            "address; choose another name"
        )


def finish_data_folder(
    folder: Path, name: str, tasks: tuple[Tasks | None, Tasks | None, Tasks | None], about: Mapping[str, Any]
) -> DataInfo:
    """Writes the other files beside complete shards, `info.json` last; returns the content of `info.json`.

    Args:
        folder: the data folder, with all shards.
        name: name of the data, for the card.
        tasks: training, validation and held-out tasks; None if not known. A set without tasks has no file.
        about: the fields of `DataInfo` that do not follow from the other arguments.
    """
    files = {}
    for file, some in zip(TASK_FILES, tasks, strict=True):
        if some is not None and len(some):
            some.save(folder / file)
            files[file] = sha256(folder / file)
        else:
            (folder / file).unlink(missing_ok=True)
    train, validation, test = (None if some is None else len(some) for some in tasks)
    counts = {"num_train_tasks": train, "num_validation_tasks": validation, "num_test_tasks": test}
    record = {"schema_version": SCHEMA_VERSION, **about, **counts, "files": files, "made_with": origin()}
    info = checked_info(record, folder / INFO)
    write_file(folder / CARD, dataset_card(name, info))
    write_file(folder / INFO, record_text(info.plain()))  # last: its existence marks the data as complete
    return info


def load_info(folder: RunFolder) -> DataInfo:
    """The record of complete data. Raises UserError if the data is not complete."""
    if not folder.data_info.exists():
        state = "is not complete" if folder.data.is_dir() else "has not been generated"
        raise UserError(f"{folder.data}: the data {state}; run `icrl generate` with this config first")
    check_links(folder, None, [INFO])
    generated = folder.own_data is None
    remedy = "delete it, and `icrl generate` makes it again" if generated else _ELSEWHERE
    info = read_info(folder.data_info, remedy)
    check_links(folder, info, [*TASK_FILES, CONFIG, *(shard.file for shard in info.shards)])
    return info


def check_links(folder: RunFolder, info: DataInfo | None, names: Sequence[str]) -> None:
    """Raises UserError if one of the files is a link to another folder, from which data from elsewhere could read.

    A run's own data folder consists of links if its data is given: into the folder that the record names, or into the
    cache of the hub's client.
    """
    given = info.given if info is not None and folder.own_data is None else None
    for name in names:
        path = folder.data / name
        if not leads_out(path, folder.data):
            continue
        real = Path(os.path.realpath(path))
        linked = given is not None and given.folder is not None and real.is_relative_to(Path(given.folder).resolve())
        cached = given is not None and given.repo is not None and (real.parent.parent / "snapshots").is_dir()
        if not linked and not cached:
            raise UserError(
                f"{path}: is a link to another folder, which is not followed; use the folder that has the file"
            )


def read_info(path: Path, remedy: str = _ELSEWHERE) -> DataInfo:
    """The record in an `info.json` from anywhere. Raises UserError if the file does not hold one."""
    return checked_info(versioned(path, remedy), path)


def load_tasks(folder: Path, info: DataInfo, name: str) -> Tasks | None:
    """The tasks in the file `name` of a data folder, verified by checksum; None if they are not known.

    Streamed data may be without its files of tasks. Raises UserError if the file is damaged, or if that of other data
    is missing although the record names it.
    """
    if info.streamed and not (folder / name).exists():
        return None
    check_task_files(folder, info, name)
    return Tasks.load(folder / name) if (folder / name).exists() else None


def check_task_files(folder: Path, info: DataInfo, *names: str) -> None:
    """Raises UserError if one of the task files `names` differs from the record, or is missing; by default, of all."""
    expected = {name: checksum for name, checksum in info.files.items() if name in (names or TASK_FILES)}
    for name in expected:
        if (folder / name).exists() and (folder / name).stat().st_size > _LARGEST_TASKS:
            raise UserError(f"{folder / name}: has more than {_LARGEST_TASKS:,} bytes; get or generate the data again")
    check_files(folder, expected, "delete the file, and `icrl generate` writes it again")


def checked_shards(folder: RunFolder, info: DataInfo) -> Iterator[Path]:
    """The paths of the shards, each verified by checksum first. Raises UserError if a shard differs or is missing."""
    per_step = 8 + sum(
        math.prod(shape) * dtype.itemsize
        for shape, dtype in map(storage_type, spaces_of_columns(*info.spaces()).values())
    )
    most = _LARGEST_REST + 16 * info.total_steps * per_step  # Parquet without an encoding takes 8 bytes per value
    for shard in info.shards:
        path = folder.data / shard.file
        if not path.exists():
            raise UserError(f"{path}: the shard is missing; run `icrl generate` to make it again")
        if path.stat().st_size > most:
            raise damaged(path, f"it is larger than the histories of {folder.data_info.name}")
        if sha256(path) != shard.sha256:
            raise damaged(path, f"its checksum differs from {folder.data_info.name}")
        yield path


def check_sizes(folder: RunFolder, info: DataInfo) -> None:
    """Raises UserError unless the shards hold as many histories and steps as `info` states; reads no values.

    Call it before arrays of all histories are allocated.
    """
    counts = []
    for shard in info.shards:
        rows, steps = reward_shape(folder.data / shard.file)
        counts.append(rows)
        if steps != info.history_steps:
            raise damaged(folder.data / shard.file, f"it has {steps} steps, but {INFO} states {info.history_steps}")
    if sum(counts) != info.num_histories:
        raise UserError(
            f"{folder.data_info}: states {info.num_histories:,} histories, but the shards hold {sum(counts):,}: the "
            "data is damaged; get or generate it again"
        )


def _check_declared(
    path: Path, present: Mapping[str, tuple[int, int]], known: Mapping[str, Space], info: DataInfo
) -> None:
    """Raises UserError unless the columns have as many values as the record states; before any of them is read."""
    rows = {rows for rows, _ in present.values()}
    if len(rows) != 1 or max(rows) > info.num_histories:
        raise damaged(path, f"its columns have {', '.join(map(str, sorted(rows)))} histories")
    for name, (histories, values) in present.items():
        steps = info.history_steps if name in known or name in ("reward", "terminated", "truncated") else 1
        expected = histories * steps * (math.prod(storage_type(known[name])[0]) if name in known else 1)
        if values != expected:
            raise damaged(path, f"{name} has {values:,} values, but {expected:,} follow from {INFO}")


def read_histories(path: Path, info: DataInfo, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """A shard's columns, as `read_shard` returns them, checked against `info`.

    Raises UserError if columns, shapes or values differ from what `info` states.
    """
    known = spaces_of_columns(*info.spaces())
    needed = {*known, "reward", "terminated", "truncated"} - {"optimal_action"} if names is None else set(names)
    if info.optimal_actions and names is None:
        needed.add("optimal_action")
    present = declared(path)
    absent = sorted(needed - set(present))
    if absent:
        raise damaged(path, f"column {absent[0]!r} is missing")
    if names is None:
        needed |= {"optimal_action", *_NUMBERS} & set(present)
    _check_declared(path, {name: present[name] for name in needed}, known, info)
    columns = read_shard(path, sorted(needed))
    histories = len(columns["reward"])
    columns |= checked_columns(columns, known, (histories, info.history_steps), str(path))
    counts = {"task": info.num_train_tasks, "source": len(info.sources)}
    for name in {"task", "source"} & set(columns):
        columns[name] = checked_numbers(columns[name], histories, counts[name], f"{path}: {name}")
    return columns
