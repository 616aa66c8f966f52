"""XLand-100B and XLand-Trivial-20B as learning histories of this project, with the expert's actions as labels.

The columns are those of the file (`data_gen.exchange.xland_file`) with two changes: a cell becomes a tile and a colour
instead of one number for both, and the end of an episode becomes a termination or a truncation. `task` is the index of
the history's group among the imported groups, and `ruleset` in `tasks-train.npz` is the task's number in the benchmark.
`actor` is the index of the history in its group.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.exchange.xland_file import ACTIONS, COLORS, TILES, XLandTask, find_task, open_xland, task_names
from data_gen.storage.info import DataInfo
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl.support.errors import UserError

_SHARD_BYTES = 2**28  # size of a shard's arrays; the 32 histories of one task of XLand-100B take 226 MB


def import_xland(
    file: Path,
    path: Path,
    *,
    tasks: Sequence[int] | None = None,
    histories: int | None = None,
    steps: int | None = None,
    episode_length: int | None = None,
    overwrite: bool = False,
) -> DataInfo:
    """Writes a data folder from a file in XLand-100B's layout, completely or not at all; returns its `info.json`.

    Memory is bounded by one shard, whatever the size of the file.

    Args:
        file: the HDF5 file.
        path: the folder.
        tasks: indices of the groups to import, counted in the order of the groups' numbers; all by default.
        histories: number of histories per task, counted from the first; all by default.
        steps: number of steps per history, counted from the first; all by default.
        episode_length: the environment's time limit; by default that of XLand-MiniGrid, 3 * height * width.
        overwrite: replace an existing folder.

    Raises UserError if the file does not have this layout, has fewer tasks, histories or steps, or cannot be read.
    """
    with open_xland(file) as opened:
        # check every group before anything is decompressed
        names = _chosen(task_names(opened), tasks, file)
        with tqdm(names, unit=" tasks", desc="check", dynamic_ncols=True) as bar:
            groups = [find_task(opened, name) for name in bar]
        counts = [task.histories if histories is None else histories for task in groups]
        history_steps = groups[0].steps if steps is None else steps
        _check_alike(groups, whole=steps is None)
        _check_has(groups, counts, history_steps)
        # describe the data
        first = groups[0]
        limit = first.time_limit if episode_length is None else episode_length
        if limit is None:
            raise UserError(f"{file}: the time limit of {first.environment!r} is unknown; give --episode-length")
        about = Recorded(
            observation_space=MultiDiscrete(np.broadcast_to([TILES, COLORS], (*first.view, 2))),
            action_space=Discrete(ACTIONS),
            episode_length=limit,
            sources=[{"name": "recurrent_ppo", "environment": first.environment, "benchmark": first.benchmark}],
            train_tasks=Tasks({"ruleset": np.array([task.ruleset for task in groups], dtype=np.int64)}),
        )
        # read and write, one shard at a time
        total = sum(counts) * history_steps
        with tqdm(total=total, unit=" steps", unit_scale=True, desc="import", dynamic_ncols=True) as bar:
            return write_histories(path, _parts(groups, counts, history_steps, limit, bar), about, overwrite)


def _chosen(names: Sequence[str], tasks: Sequence[int] | None, file: Path) -> list[str]:
    indices = range(len(names)) if tasks is None else tasks
    outside = [index for index in indices if not 0 <= index < len(names)]
    if outside or not len(indices):
        wanted = f"task {outside[0]} does not exist" if outside else "no task is chosen"
        raise UserError(f"{file}: {wanted}; the file has tasks 0 to {len(names) - 1}")
    return [names[index] for index in indices]


def _check_alike(tasks: Sequence[XLandTask], whole: bool) -> None:
    """Raises UserError if the tasks differ in environment, benchmark or view, or, with `whole`, in history length."""
    first = tasks[0]
    for task in tasks:
        if (task.environment, task.benchmark, task.view) != (first.environment, first.benchmark, first.view):
            raise UserError(
                f"{task.where}: has {task.environment}, benchmark {task.benchmark}, views of {task.view} cells, but "
                f"the first task has {first.environment}, {first.benchmark}, {first.view}; import the tasks separately"
            )
        if whole and task.steps != first.steps:
            raise UserError(
                f"{task.where}: has histories of {task.steps} steps, but the first task has {first.steps}; cut all "
                "histories to the length of the shortest with --steps"
            )


def _check_has(tasks: Sequence[XLandTask], counts: Sequence[int], steps: int) -> None:
    """Raises UserError if a task does not have the requested number of histories or steps."""
    for task, count in zip(tasks, counts, strict=True):
        if not 1 <= count <= task.histories or not 1 <= steps <= task.steps:
            raise UserError(
                f"{task.where}: has {task.histories} histories of {task.steps} steps, not {count} of {steps}"
            )


def _parts(
    tasks: Sequence[XLandTask], counts: Sequence[int], steps: int, limit: int, bar: Any
) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of each shard in turn; all shards have about the same size.

    Args:
        counts: number of histories to import per task.
        steps: number of steps per history.
        limit: the environment's time limit.
        bar: progress bar, updated by the number of steps read.
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
    """The columns of one shard.

    Args:
        tasks: all tasks of the import.
        number: (histories,) index of each history's task in `tasks`, ascending.
        actor: (histories,) index of each history in its task, consecutive within a task.
        steps: number of steps per history.
        limit: the environment's time limit.
        bar: progress bar, updated by the number of steps read.
    """
    pieces = []
    for index in np.unique(number):
        own = actor[number == index]
        pieces.append(tasks[index].read(slice(own[0], own[-1] + 1), steps, limit))
        bar.update(len(own) * steps)
    columns = {name: np.concatenate([piece.pop(name) for piece in pieces]) for name in list(pieces[0])}
    return columns | {"task": number, "actor": actor}
