"""Minari data sets as learning histories (Farama Foundation, https://minari.farama.org).

A Minari data set is a list of episodes in the order in which they were recorded. A data set of a learner's whole
training is therefore a learning history. Several data sets with equal spaces are histories of several tasks, or of one
task. A data set that `export_minari` wrote records the history of every episode, so the import restores the same
histories.

The formats differ in two ways. Minari keeps the observation after an episode's last step. The import drops it, since
row t of a history holds the observation before step t. And Minari does not require an end flag: where the last step of
an episode is neither terminated nor truncated, the import marks the step as truncated and counts the episode.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.exchange.minari_reading import Lifetime, Reader, shard_parts
from data_gen.exchange.minari_store import brief, open_dataset, record_of
from data_gen.exchange.minari_tasks import Home, locate
from data_gen.spaces import Space, one_line, to_json
from data_gen.storage.info import DataInfo
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl.support.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Imported:
    """Result of `import_minari`."""

    info: DataInfo
    """The content of the folder's `info.json`."""
    left_out: dict[str, int]
    """Number of steps per data set that are not part of any history."""
    truncated: dict[str, int]
    """Number of episodes per data set without an end flag, which the import marked as truncated."""


def import_minari(
    dataset_ids: Sequence[str],
    path: Path,
    *,
    tasks: Mapping[str, Any] | None = None,
    same_task: bool = False,
    steps: int | None = None,
    cut: bool = False,
    episode_length: int | None = None,
    keys: Sequence[str] | None = None,
    download: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Writes a data folder from Minari data sets, completely or not at all. Memory is bounded by one shard.

    A data set becomes one history; an exported one becomes the histories that it was exported from. The columns `task`,
    `source` and `seed` are the number of the data set, unless an export recorded their values.

    Args:
        dataset_ids: ids such as `D4RL/pen/human-v2`, of data sets with equal spaces. They are looked up in
            MINARI_DATASETS_PATH.
        path: the folder.
        tasks: the task family of the data sets, as a config names it. Each data set's task in the family is found from
            the data set's environment. Without `tasks`, held-out tasks among the data sets go unnoticed.
        same_task: treat the data sets as histories of one task, instead of one task per data set.
        steps: length of every history. The default is the length of the shortest one.
        cut: cut longer data sets into several histories, each starting at the beginning of an episode. Only the first
            of them then starts where the learner started.
        episode_length: maximum number of steps per episode. The default is the limit of `tasks`. Without `tasks`, it is
            the limit in the environments' specs, or the longest episode if that is longer or the specs have no limit.
        keys: keys of a Dict observation to keep, if other keys (such as texts) cannot be recorded.
        download: download data sets that are missing.
        overwrite: replace an existing folder.

    Raises UserError if a data set is missing, cannot be recorded, or does not match the others.
    """
    if not dataset_ids or len(set(dataset_ids)) < len(dataset_ids):
        raise UserError(f"data sets {', '.join(dataset_ids) or 'none'}: give one or more, without repeats")
    # plan: spaces, lifetimes, and the episodes of every history
    datasets = [open_dataset(dataset_id, download) for dataset_id in dataset_ids]
    observation_space, action_space = _common_spaces(datasets, keys)
    lifetimes = [life for number, dataset in enumerate(datasets) for life in _lifetimes(number, dataset)]
    history_steps = _history_steps(datasets, lifetimes, steps)
    pieces = [(life, piece) for life in lifetimes for piece in _pieces(life.lengths, history_steps, cut)]
    # tasks and sources, numbered across all data sets
    task_of = _numbered((life.dataset, life.task) for life in lifetimes)
    family, train_tasks, limit = _family(tasks, [_home(datasets[one], task) for one, task in task_of], same_task)
    sources, source_of = _sources(datasets, lifetimes)
    about = Recorded(
        observation_space=observation_space,
        action_space=action_space,
        episode_length=_episode_length(datasets, lifetimes, limit if episode_length is None else episode_length),
        sources=sources,
        tasks=family,
        train_tasks=train_tasks,
    )
    # read and write, one shard at a time
    truncated = dict.fromkeys(dataset_ids, 0)
    columns = Reader(datasets, about, _labelled(datasets), history_steps, truncated)
    histories = (
        columns.read(life, piece)
        | {
            "task": np.int64(0 if same_task else task_of[life.dataset, life.task]),
            "source": np.int64(source_of[life.dataset, life.source]),
            "seed": np.uint64(life.seed),
            "actor": np.int64(life.actor),
        }
        for life, piece in pieces
    )
    with tqdm(histories, "import", len(pieces), unit=" histories") as bar:  # closed before an error is printed
        info = write_histories(path, shard_parts(bar), about, overwrite)
    left_out = dict.fromkeys(dataset_ids, 0)
    for life in lifetimes:
        left_out[dataset_ids[life.dataset]] += int(life.lengths.sum())
    for life, _ in pieces:
        left_out[dataset_ids[life.dataset]] -= history_steps
    return Imported(info, left_out, truncated)


def _common_spaces(datasets: Sequence[Any], keys: Sequence[str] | None) -> tuple[Space, Space]:
    """The observation and action space of all data sets. Raises UserError if they differ or cannot be recorded."""
    pairs = [(_kept(dataset, keys), dataset.action_space) for dataset in datasets]
    for dataset, pair in zip(datasets, pairs, strict=True):
        for space, what in zip(pair, ("observations", "actions"), strict=True):
            try:
                to_json(space)
            except UserError as error:
                hint = "; use --keys to keep only the other keys" if what == "observations" else ""
                raise UserError(f"data set {dataset.id}: {what}: {error}{hint}") from error
        if isinstance(pair[1], gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
            raise UserError(f"data set {dataset.id}: actions of {one_line(pair[1])} cannot be recorded")
        for space, first, what in zip(pair, pairs[0], ("observations", "actions"), strict=True):
            if to_json(space) != to_json(first):
                raise UserError(
                    f"data set {dataset.id}: {what} have the space {one_line(space)}, but those of "
                    f"{datasets[0].id} have {one_line(first)}; import the data sets separately"
                )
    return pairs[0]


def _kept(dataset: Any, keys: Sequence[str] | None) -> Space:
    """The data set's observation space, reduced to `keys` if given. Raises UserError for an unknown key."""
    space: Space = dataset.observation_space
    if keys is None:
        return space
    if not isinstance(space, gymnasium.spaces.Dict):
        raise UserError(f"keys: observations of {dataset.id} have the space {one_line(space)}, which has no keys")
    for key in keys:
        if key not in space.spaces:
            raise UserError(f"keys: observations of {dataset.id} have no {key!r}{did_you_mean(key, space)}")
    return gymnasium.spaces.Dict({key: space[key] for key in keys})


def _lifetimes(number: int, dataset: Any) -> list[Lifetime]:
    """The lifetimes in a data set: those that an export recorded, otherwise a single one.

    Raises UserError if the data set has no steps or cannot be read.
    """
    record = record_of(dataset)
    try:
        metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        lengths = np.array([episode["total_steps"] for episode in metadata], dtype=np.int64)
        if not lengths.sum():
            raise ValueError("the data set has no steps")
        if record is None:
            return [Lifetime(number, dataset.episode_indices, lengths, 0, 0, number, 0, False)]
        history = np.array([episode["history"] for episode in metadata])
        lifetimes = []
        for rows in np.split(np.arange(len(history)), np.flatnonzero(np.diff(history)) + 1):
            last = metadata[rows[-1]]
            task, source, seed, actor = (int(last[name]) for name in ("task", "source", "learner_seed", "actor"))
            if min(task, source, seed, actor) < 0 or source >= len(record.sources):
                raise ValueError(f"the data set has no source {source}")
            episodes = dataset.episode_indices[rows]
            lifetimes.append(
                Lifetime(number, episodes, lengths[rows], task, source, seed, actor, bool(last["cut_off"]))
            )
        return lifetimes
    except Exception as error:  # Minari may raise anything for a damaged file
        raise UserError(f"data set {dataset.id}: episodes cannot be read ({brief(error)})") from error


def _numbered(pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Consecutive numbers from 0 for pairs of a data set and a number within it, in sorted order."""
    return {pair: number for number, pair in enumerate(sorted(set(pairs)))}


def _history_steps(datasets: Sequence[Any], lifetimes: Sequence[Lifetime], steps: int | None) -> int:
    """The length of the histories. Raises UserError if a lifetime is shorter than `steps`."""
    shortest = min(lifetimes, key=lambda life: int(life.lengths.sum()))
    least = int(shortest.lengths.sum())
    if steps is not None and not 1 <= steps <= least:
        raise UserError(
            f"steps {steps}: has to be from 1 to {least}, the length of data set {datasets[shortest.dataset].id}"
        )
    return least if steps is None else steps


def _pieces(lengths: NDArray[np.int64], steps: int, cut: bool) -> Iterator[slice]:
    """Slices of the episodes of one lifetime, one per history.

    Every slice holds at least `steps` steps; its last episode may extend beyond them.
    """
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths) and ends[-1] - (ends[first] - lengths[first]) >= steps:
        after = int(np.searchsorted(ends, ends[first] - lengths[first] + steps)) + 1
        yield slice(first, after)
        first = after if cut else len(lengths)


def _home(dataset: Any, task: int) -> Home:
    """The data set's own description of one of its tasks."""
    record, where = record_of(dataset), f"data set {dataset.id}"
    if record is None or task not in record.task_numbers:
        return Home(where, dataset.env_spec)
    row = record.task_numbers.index(task)
    own = {name: values[row] for name, values in record.train_tasks.items()}
    return Home(where, dataset.env_spec, record.tasks, own)


def _family(
    tasks: Mapping[str, Any] | None, homes: Sequence[Home], same_task: bool
) -> tuple[dict[str, Any] | None, Tasks | None, int | None]:
    """The family as a config names it, its tasks by number, and its episode length; all None without `tasks`."""
    if tasks is None:
        return None, None, None
    family, distribution, train_tasks = locate(tasks, homes)
    if same_task:
        if len(set(train_tasks.keys().tolist())) > 1:
            raise UserError("same_task: the environments of the data sets have different tasks")
        train_tasks = train_tasks.take([0])
    return family, train_tasks, distribution.episode_length


def _sources(
    datasets: Sequence[Any], lifetimes: Sequence[Lifetime]
) -> tuple[list[dict[str, Any]], dict[tuple[int, int], int]]:
    """The distinct sources, and the number of each by data set and number within the data set."""
    distinct: list[dict[str, Any]] = []
    numbers = {}
    for pair in sorted({(life.dataset, life.source) for life in lifetimes}):
        dataset = datasets[pair[0]]
        record, metadata = record_of(dataset), dataset.storage.metadata
        source = {"name": str(metadata.get("algorithm_name", "unknown")), "dataset": dataset.id}
        source |= {name: metadata[name] for name in ("code_permalink",) if name in metadata}
        source |= {name: sorted(metadata[name]) for name in ("author",) if name in metadata}
        if record is not None:
            source = record.sources[pair[1]]
        if source not in distinct:
            distinct.append(source)
        numbers[pair] = distinct.index(source)
    return distinct, numbers


def _episode_length(datasets: Sequence[Any], lifetimes: Sequence[Lifetime], given: int | None) -> int:
    longest = max(int(life.lengths.max()) for life in lifetimes)
    if given is not None:
        if given < longest:
            raise UserError(f"episode_length {given}: an episode has {longest} steps; give at least {longest}")
        return given
    specs = [dataset.env_spec for dataset in datasets]
    limits = [spec.max_episode_steps or 0 for spec in specs if spec is not None]
    exported = [record.episode_length for record in map(record_of, datasets) if record is not None]
    return max([longest, *limits, *exported])


def _labelled(datasets: Sequence[Any]) -> bool:
    """True if the data sets hold optimal actions. Raises UserError if only some of them do."""
    labelled = [record is not None and record.optimal_actions for record in map(record_of, datasets)]
    if len(set(labelled)) > 1:
        with_them, without = (datasets[labelled.index(which)].id for which in (True, False))
        raise UserError(f"data set {with_them} has optimal actions, but {without} does not; import them separately")
    return labelled[0]
