"""A data folder: shards, the tasks that they are of, and `info.json`, which is written last and says all is complete.

train-00000-of-00004.h5 ...   learning histories (`data_gen.storage.shards`)
tasks-train.npz               the tasks, by the numbers that the shards' column `task` has
tasks-test.npz                those that are held out, where that is known
README.md                     the card, which makes the folder a hub dataset as it is
info.json                     spaces, sources, checksums: everything that training needs besides the shards
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_gen.spaces import space_from_json
from data_gen.storage.card import dataset_card
from data_gen.storage.columns import checked_columns, checked_numbers, spaces_of_columns
from data_gen.storage.info import DataInfo, checked_info
from data_gen.storage.shards import damaged, read_shard
from data_gen.tasks.base import Tasks
from icrl.run.folder import SCHEMA_VERSION, RunFolder, origin
from icrl.support.errors import UserError
from icrl.support.files import read_record, sha256, write_file, write_json

TASK_FILES = ("tasks-train.npz", "tasks-test.npz")


def finish_data_folder(
    folder: Path, name: str, tasks: tuple[Tasks | None, Tasks | None], about: dict[str, Any]
) -> dict[str, Any]:
    """Writes what belongs to complete shards, `info.json` last; returns its content.

    Args:
        folder: has all shards.
        name: of the data, for the card.
        tasks: those that the data is of, and those that are held out; None where not known.
        about: everything else that `info.json` says.
    """
    for file, some in zip(TASK_FILES, tasks, strict=True):
        if some is not None:
            some.save(folder / file)
    train, test = (None if some is None else len(some) for some in tasks)
    counts = {"num_train_tasks": train, "num_test_tasks": test}
    info = {"schema_version": SCHEMA_VERSION, **about, **counts, "made_with": origin()}
    write_file(folder / "README.md", dataset_card(name, info))
    write_json(folder / "info.json", info)
    return read_info(folder / "info.json")


def load_info(folder: RunFolder) -> dict[str, Any]:
    """What `info.json` says about complete data. Raises UserError if there is none."""
    if not folder.data_info.exists():
        state = "is not complete" if folder.data.is_dir() else "has not been generated"
        raise UserError(f"{folder.data}: the data {state}; run `icrl generate` with this config first")
    return read_info(folder.data_info)


def read_info(path: Path) -> dict[str, Any]:
    """An `info.json`, wherever it is from. Raises UserError if it is none."""
    return checked_info(read_record(path, SCHEMA_VERSION, ()), path)


def is_streamed(info: DataInfo) -> bool:
    """Whether the data's shards stay on the hub."""
    return bool(info.get("given", {}).get("streaming"))


def checked_shards(folder: RunFolder, info: DataInfo) -> Iterator[Path]:
    """The paths of the shards, each after its checksum was found right. Raises UserError at the first that is not."""
    for shard in info.shards:
        path = folder.data / shard.file
        if not path.exists():
            raise UserError(f"{path}: the shard is missing; run `icrl generate` to make it again")
        if sha256(path) != shard.sha256:
            raise damaged(path, f"its checksum differs from {folder.data_info.name}")
        yield path


def read_histories(path: Path, info: DataInfo, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """A shard's columns, as `read_shard`, after what `info.json` says of them was found true.

    Raises UserError if there are other columns, shapes or values.
    """
    columns = read_shard(path, names)
    seen, action = (space_from_json(info[name]) for name in ("observation_space", "action_space"))
    known = spaces_of_columns(seen, action)
    needed = {*known, "reward", "terminated", "truncated"} - {"optimal_action"} if names is None else set(names)
    if info.optimal_actions and names is None:
        needed.add("optimal_action")
    absent = sorted(needed - set(columns))
    if absent:
        raise damaged(path, f"it has no column {absent[0]!r}")
    histories = len(columns["reward"])
    columns |= checked_columns(columns, known, (histories, info.history_steps), str(path))
    counts = {"task": info.num_train_tasks, "source": len(info.sources)}
    for name in {"task", "source"} & set(columns):
        columns[name] = checked_numbers(columns[name], histories, counts[name], f"{path}: {name}")
    return columns
