"""Writes learning histories from elsewhere as a data folder that training accepts like a generated one.

An importer or the user's own program gives the arrays. They are checked here, once: all histories have the same number
of steps, values are elements of their spaces, and numbers are finite.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.spaces import Space, to_json
from data_gen.storage.columns import checked_columns, checked_numbers, spaces_of_columns
from data_gen.storage.folder import check_folder_name, finish_data_folder
from data_gen.storage.info import DataInfo, checked_info
from data_gen.storage.shards import shard_name, write_shard
from data_gen.tasks.base import Tasks
from icrl.config.loader import fingerprint
from icrl.run.folder import INFO, SCHEMA_VERSION
from icrl.support.errors import UserError
from icrl.support.files import new_folder, remove_leftovers

_COUNTED = ("task", "source", "seed", "actor")
"""Columns of shape (histories,) that may be left out; they are then 0."""


@dataclass(frozen=True)
class Recorded:
    """Spaces, sources and tasks of histories from elsewhere."""

    observation_space: Space
    action_space: Space
    episode_length: int
    """Most steps that an episode may have. Contexts are measured in episodes of this length."""
    sources: Sequence[Mapping[str, Any]]
    """The sources, numbered as in the column `source`: a `name`, and plain values such as hyper-parameters."""
    tasks: Mapping[str, Any] | None = None
    """The task family as a config names it, `{"name": ..., parameters}`; None for a family that this project lacks."""
    train_tasks: Tasks | None = None
    """The tasks, numbered as in the column `task`. Normalised returns and the check against leaks need them."""


def write_histories(
    path: Path, parts: Iterable[Mapping[str, NDArray[Any]]], about: Recorded, overwrite: bool = False
) -> DataInfo:
    """Writes a data folder, whole or not at all, with one shard per part; returns the content of its `info.json`.

    Args:
        path: the folder.
        parts: the columns of each part; one part is in memory at a time. `observation` (histories, steps, ...), for a
            Dict or Tuple space one column per leaf, such as `observation.image`; `action` and, if known,
            `optimal_action` likewise; `reward`, `terminated` and `truncated` (histories, steps), the results of each
            step; optionally `task`, `source`, `seed` and `actor` (histories,).
        about: spaces, sources and tasks of the histories.
        overwrite: replace an existing folder.

    Raises UserError if columns do not fit, or if the folder exists and `overwrite` is False.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists; choose another folder, or --overwrite to replace it")
    if path.exists() and not (path.is_dir() and ((path / INFO).is_file() or not any(path.iterdir()))):
        raise UserError(f"{path}: is not a data folder and is not replaced; choose another one")
    check_folder_name(path)
    about_all = {
        "schema_version": SCHEMA_VERSION,
        "observation_space": to_json(about.observation_space),
        "action_space": to_json(about.action_space),
        "episode_length": about.episode_length,
        "seed": None,
        "tasks": dict(about.tasks) if about.tasks is not None else None,
        "swept": [],
        "sources": [dict(source) for source in about.sources],
        "meta_learners": {},
        "seconds": 0.0,
        "device": None,
    }
    unknown = {"fingerprint": "", "num_histories": 1, "num_steps": 1, "shards": [{"file": "-.h5", "sha256": ""}]}
    checked_info({**about_all, **unknown}, path)  # now, rather than after everything is written
    # Write the shards, one per part.
    remove_leftovers(path.parent, f".{escape(path.name)}.*")
    with new_folder(path) as folder:
        checksums: list[str] = []
        histories, steps, labelled = 0, None, None
        for number, part in enumerate(parts):
            columns = _columns(part, about, f"part {number}")
            if (steps or columns["reward"].shape[1]) != columns["reward"].shape[1]:
                raise UserError(
                    f"part {number}: histories of {columns['reward'].shape[1]} steps, but earlier parts have {steps}"
                )
            if labelled not in (None, "optimal_action" in columns):
                raise UserError(f"part {number}: some parts have optimal_action and others do not")
            steps, labelled = columns["reward"].shape[1], "optimal_action" in columns
            columns["history"] = np.arange(histories, histories + len(columns["reward"]))
            histories += len(columns["reward"])
            attributes = {"fingerprint": "recorded", "schema_version": SCHEMA_VERSION}
            checksums.append(write_shard(folder / f"{number}.h5", columns, attributes))
            del part, columns  # before the next part is made
        if not histories:
            raise UserError(f"{path}: no histories were given")
        # Name the shards now that their number is known, and write the record.
        names = [shard_name(number, len(checksums)) for number in range(len(checksums))]
        for number, name in enumerate(names):
            (folder / f"{number}.h5").rename(folder / name)
        record = {
            **about_all,
            "num_histories": histories,
            "num_steps": steps,
            "optimal_actions": bool(labelled),
            "shards": [{"file": name, "sha256": checksum} for name, checksum in zip(names, checksums, strict=True)],
        }
        return finish_data_folder(
            folder, path.name, (about.train_tasks, None, None), {"fingerprint": fingerprint(record), **record}
        )


def _columns(part: Mapping[str, NDArray[Any]], about: Recorded, where: str) -> dict[str, NDArray[Any]]:
    """The columns of a shard in their stored types. Raises UserError for a column that is missing or does not fit."""
    shape = np.shape(part.get("reward", ()))
    if len(shape) != 2 or not shape[0] or not shape[1]:
        raise UserError(f"{where}: reward: must have shape (histories, steps) (got {shape})")
    spaces_of = spaces_of_columns(about.observation_space, about.action_space)
    known = {*spaces_of, "reward", "terminated", "truncated", *_COUNTED}
    absent = [name for name in (*spaces_of, "terminated", "truncated") if name not in part and name != "optimal_action"]
    if absent:
        raise UserError(f"{where}: column {absent[0]!r} is missing")
    unknown = sorted(set(part) - known)
    if unknown:
        raise UserError(f"{where}: column {unknown[0]!r} is unknown; choose from {', '.join(sorted(known))}")
    columns = checked_columns(part, spaces_of, shape, where)
    counts = {"source": len(about.sources), "task": None if about.train_tasks is None else len(about.train_tasks)}
    for name in _COUNTED:
        given = np.asarray(part.get(name, np.zeros(shape[0], np.int64)))
        columns[name] = checked_numbers(given, shape[0], counts.get(name), f"{where}: {name}")
    columns["seed"] = columns["seed"].astype(np.uint64)
    if about.train_tasks is not None:
        columns |= {f"task_{name}": about.train_tasks[name][columns["task"]] for name in about.train_tasks}
    return columns
