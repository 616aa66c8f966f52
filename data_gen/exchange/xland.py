"""XLand-100B and XLand-Trivial-20B as learning histories of this project, with the expert's actions as labels.

The columns are the file's own (`data_gen.exchange.xland_file`), with two things made plain: a cell is a tile and a
colour instead of one number for both, and an episode's end is a termination or a truncation. `task` is the place of the
history's group among those imported, and `ruleset` in `tasks-train.npz` what the benchmark calls it; `actor` is the
history's place in its group.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.exchange.xland_file import ACTIONS, COLORS, TILES, XLandTask, find_task, open_xland, task_names
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl.support.errors import UserError

_SHARD_BYTES = 2**28  # of a shard's arrays; the 32 histories of a task of XLand-100B have 226 MB


def import_xland(
    file: Path,
    path: Path,
    *,
    tasks: Sequence[int] | None = None,
    histories: int | None = None,
    steps: int | None = None,
    episode_length: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a data folder from a file of XLand-100B's layout, whole or not at all; returns what its `info.json` says.

    Memory is bounded by one shard, whatever the size of the file.

    Args:
        file: the HDF5 file.
        path: the folder.
        tasks: places of the groups to import, in the order of their numbers; all unless given.
        histories: the first so many of each task; all unless given.
        steps: the first so many of each history; all unless given.
        episode_length: the environment's time limit, where it is not XLand-MiniGrid's own, 3 * height * width.
        overwrite: replace a folder that is there.

    Raises UserError if the file is not of this layout, has not so much, or cannot be read.
    """
    with open_xland(file) as opened:
        names = _chosen(task_names(opened), tasks, file)
        with tqdm(names, unit=" tasks", desc="check", dynamic_ncols=True) as bar:
            found = [find_task(opened, name) for name in bar]
        counts = [task.histories if histories is None else histories for task in found]
        history_steps = found[0].steps if steps is None else steps
        _check_alike(found, whole=steps is None)
        _check_has(found, counts, history_steps)
        first = found[0]
        limit = first.time_limit if episode_length is None else episode_length
        if limit is None:
            raise UserError(f"{file}: the time limit of {first.environment!r} is not known here: give --episode-length")
        about = Recorded(
            observation_space=MultiDiscrete(np.broadcast_to([TILES, COLORS], (*first.view, 2))),
            action_space=Discrete(ACTIONS),
            episode_length=limit,
            sources=[{"name": "recurrent_ppo", "environment": first.environment, "benchmark": first.benchmark}],
            train_tasks=Tasks({"ruleset": np.array([task.ruleset for task in found], dtype=np.int64)}),
        )
        total = sum(counts) * history_steps
        with tqdm(total=total, unit=" steps", unit_scale=True, desc="import", dynamic_ncols=True) as bar:
            return write_histories(path, _parts(found, counts, history_steps, limit, bar), about, overwrite)


def _chosen(names: Sequence[str], tasks: Sequence[int] | None, file: Path) -> list[str]:
    places = range(len(names)) if tasks is None else tasks
    outside = [place for place in places if not 0 <= place < len(names)]
    if outside or not len(places):
        wanted = f"there is no task {outside[0]}" if outside else "no task is chosen"
        raise UserError(f"{file}: {wanted}: it has tasks 0 to {len(names) - 1}")
    return [names[place] for place in places]


def _check_alike(tasks: Sequence[XLandTask], whole: bool) -> None:
    """Raises UserError if tasks are not of one environment, or, where histories are taken `whole`, differ in length."""
    first = tasks[0]
    for task in tasks:
        if (task.environment, task.benchmark, task.view) != (first.environment, first.benchmark, first.view):
            raise UserError(
                f"{task.where}: is of {task.environment}, benchmark {task.benchmark}, views of {task.view} cells, but "
                f"the first task of {first.environment}, {first.benchmark}, {first.view}: import them apart"
            )
        if whole and task.steps != first.steps:
            raise UserError(
                f"{task.where}: has histories of {task.steps} steps, but the first task of {first.steps}: cut them to "
                "the shortest, with --steps"
            )


def _check_has(tasks: Sequence[XLandTask], counts: Sequence[int], steps: int) -> None:
    """Raises UserError if a task has not got so many histories and steps."""
    for task, count in zip(tasks, counts, strict=True):
        if not 1 <= count <= task.histories or not 1 <= steps <= task.steps:
            raise UserError(
                f"{task.where}: has {task.histories} histories of {task.steps} steps, and not {count} of {steps}"
            )


def _parts(
    tasks: Sequence[XLandTask], counts: Sequence[int], steps: int, limit: int, bar: Any
) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of shard after shard, all of about the same size.

    Args:
        counts: histories to import of each task.
        steps: of each history.
        limit: the environment's.
        bar: is told of every step.
    """
    number = np.repeat(np.arange(len(tasks)), counts)
    actor = np.concatenate([np.arange(count) for count in counts])
    height, width = tasks[0].view
    shards = -(-len(number) * steps * (2 * height * width + 8) // _SHARD_BYTES)
    for rows in np.array_split(np.arange(len(number)), min(shards, len(number))):
        yield _part(tasks, number[rows], actor[rows], steps, limit, bar)


def _part(
    tasks: Sequence[XLandTask],
    number: NDArray[np.int64],
    actor: NDArray[np.int64],
    steps: int,
    limit: int,
    bar: Any,
) -> dict[str, NDArray[Any]]:
    """The columns of histories that are each given by their task's place and their own; a task's are beside another."""
    pieces = []
    for place in np.unique(number):
        own = actor[number == place]
        pieces.append(tasks[place].read(slice(own[0], own[-1] + 1), steps, limit))
        bar.update(len(own) * steps)
    columns = {name: np.concatenate([piece.pop(name) for piece in pieces]) for name in list(pieces[0])}
    return columns | {"task": number, "actor": actor}
