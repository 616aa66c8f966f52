"""Minari's data sets as learning histories (Farama Foundation, https://minari.farama.org).

A Minari data set is a list of episodes in the order in which they were recorded. One of a learner's whole training is
therefore a learning history, and several, of equal spaces, are histories of several tasks or of one. A data set that
`export_minari` wrote says which of its episodes belong to which history, and gives those histories back.

Two things differ. Minari keeps an episode's last observation, one more than its steps: it is left out, since the row of
step t holds what was seen before it. And Minari does not ask that an episode's end be marked: where its last step is
neither a termination nor a truncation, it becomes a truncation, and the import says how often.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.exchange.minari_store import brief, open_dataset, record_of
from data_gen.exchange.minari_tasks import Home, locate
from data_gen.spaces import Space, column_name, leaves, one_line, to_json
from data_gen.storage.info import DataInfo
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl.support.errors import UserError, did_you_mean

_PART_BYTES = 2**27  # of a shard's arrays, unless one history has more


@dataclass(frozen=True)
class Imported:
    """What `import_minari` did."""

    info: DataInfo
    """The content of the folder's `info.json`."""
    left_out: dict[str, int]
    """Steps of each data set that are in no history."""
    truncated: dict[str, int]
    """Episodes of each data set that neither terminated nor were truncated, and count as truncated now."""


@dataclass(frozen=True)
class _Lifetime:
    """One learner's episodes in a data set, in their order."""

    dataset: int
    episodes: NDArray[np.int64]
    """Their numbers in the data set."""
    lengths: NDArray[np.int64]
    """Their steps."""
    task: int
    """Number of its task in the data set."""
    source: int
    """Number of its source in the data set."""
    seed: int
    actor: int
    cut_off: bool
    """Whether its last episode was still going on."""


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
    """Writes a data folder from Minari data sets, whole or not at all. Memory is bounded by one shard.

    A data set is one history, or those that it was exported from. `task` and `source` number the data sets, and so does
    `seed`, unless an export says them.

    Args:
        dataset_ids: such as `D4RL/pen/human-v2`, of equal spaces; looked for where MINARI_DATASETS_PATH says.
        path: the folder.
        tasks: the task family that the data sets are of, as a config names it. Each data set's own task is found in it
            by what it says of its environment. Without it, nothing can say whether a held-out task is among them.
        same_task: the data sets are several histories of one task, and not of a task each.
        steps: of every history. By default those of the shortest, so that nothing is left out of that one.
        cut: cut what is longer into as many histories as it has, each from the beginning of an episode. Only the first
            of them then begins where the learner began.
        episode_length: the most steps that an episode may have. By default what `tasks` says, or the environments'
            specs, or where they say less or nothing, the longest episode.
        keys: of a Dict observation, those to keep, where others cannot be recorded, as a text.
        download: fetch a data set that is not there.
        overwrite: replace a folder that is there.

    Raises UserError for data sets that are not there, do not go together, or cannot be recorded.
    """
    if not dataset_ids or len(set(dataset_ids)) < len(dataset_ids):
        raise UserError(f"data sets {', '.join(dataset_ids) or 'none'}: give one or more, each once")
    datasets = [open_dataset(dataset_id, download) for dataset_id in dataset_ids]
    observation_space, action_space = _common_spaces(datasets, keys)
    lifetimes = [life for number, dataset in enumerate(datasets) for life in _lifetimes(number, dataset)]
    history_steps = _history_steps(datasets, lifetimes, steps)
    pieces = [(life, piece) for life in lifetimes for piece in _pieces(life.lengths, history_steps, cut)]
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
    truncated = dict.fromkeys(dataset_ids, 0)
    columns = _Reader(datasets, about, _labelled(datasets), history_steps, truncated)
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
    info = write_histories(path, _parts(tqdm(histories, "import", len(pieces), unit=" histories")), about, overwrite)
    left_out = dict.fromkeys(dataset_ids, 0)
    for life in lifetimes:
        left_out[dataset_ids[life.dataset]] += int(life.lengths.sum())
    for life, _ in pieces:
        left_out[dataset_ids[life.dataset]] -= history_steps
    return Imported(info, left_out, truncated)


def _common_spaces(datasets: Sequence[Any], keys: Sequence[str] | None) -> tuple[Space, Space]:
    """Observation and action space of all. Raises UserError if they differ, or cannot be recorded."""
    found = [(_kept(dataset, keys), dataset.action_space) for dataset in datasets]
    for dataset, pair in zip(datasets, found, strict=True):
        for space, what in zip(pair, ("observations", "actions"), strict=True):
            try:
                to_json(space)
            except UserError as error:
                hint = "; --keys keeps the others" if what == "observations" else ""
                raise UserError(f"data set {dataset.id}: {what}: {error}{hint}") from error
        if isinstance(pair[1], gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
            raise UserError(f"data set {dataset.id}: actions of {one_line(pair[1])} cannot be recorded")
        for space, first, what in zip(pair, found[0], ("observations", "actions"), strict=True):
            if to_json(space) != to_json(first):
                raise UserError(
                    f"data set {dataset.id}: its {what} are of {one_line(space)}, those of {datasets[0].id} of "
                    f"{one_line(first)}; import them apart"
                )
    return found[0]


def _kept(dataset: Any, keys: Sequence[str] | None) -> Space:
    """The data set's observation space, with those keys alone."""
    space: Space = dataset.observation_space
    if keys is None:
        return space
    if not isinstance(space, gymnasium.spaces.Dict):
        raise UserError(f"keys: observations of {dataset.id} are of {one_line(space)}, which has none")
    for key in keys:
        if key not in space.spaces:
            raise UserError(f"keys: observations of {dataset.id} have no {key!r}{did_you_mean(key, space)}")
    return gymnasium.spaces.Dict({key: space[key] for key in keys})


def _lifetimes(number: int, dataset: Any) -> list[_Lifetime]:
    """The lifetimes in a data set: those that it was exported from, or one. Raises UserError if it has no steps."""
    record = record_of(dataset)
    try:
        metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        lengths = np.array([episode["total_steps"] for episode in metadata], dtype=np.int64)
        if not lengths.sum():
            raise ValueError("it has no steps")
        if record is None:
            return [_Lifetime(number, dataset.episode_indices, lengths, 0, 0, number, 0, False)]
        history = np.array([episode["history"] for episode in metadata])
        lifetimes = []
        for rows in np.split(np.arange(len(history)), np.flatnonzero(np.diff(history)) + 1):
            said = metadata[rows[-1]]
            task, source, seed, actor = (int(said[name]) for name in ("task", "source", "learner_seed", "actor"))
            if min(task, source, seed, actor) < 0 or source >= len(record["sources"]):
                raise ValueError(f"it has no source {source}")
            episodes = dataset.episode_indices[rows]
            lifetimes.append(
                _Lifetime(number, episodes, lengths[rows], task, source, seed, actor, bool(said["cut_off"]))
            )
        return lifetimes
    except Exception as error:  # whatever a damaged file leads Minari to
        raise UserError(f"data set {dataset.id}: its episodes cannot be read ({brief(error)})") from error


def _numbered(places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Numbers from 0 for what each data set numbers for itself, in order."""
    return {place: number for number, place in enumerate(sorted(set(places)))}


def _history_steps(datasets: Sequence[Any], lifetimes: Sequence[_Lifetime], steps: int | None) -> int:
    """Length of the histories. Raises UserError if one of the lifetimes has less."""
    shortest = min(lifetimes, key=lambda life: int(life.lengths.sum()))
    least = int(shortest.lengths.sum())
    if steps is not None and not 1 <= steps <= least:
        raise UserError(
            f"steps {steps}: has to be from 1 to {least}, which data set {datasets[shortest.dataset].id} has"
        )
    return least if steps is None else steps


def _pieces(lengths: NDArray[np.int64], steps: int, cut: bool) -> Iterator[slice]:
    """The episodes that the histories of one lifetime are of; the last of them may be longer than the history."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths) and ends[-1] - (ends[first] - lengths[first]) >= steps:
        after = int(np.searchsorted(ends, ends[first] - lengths[first] + steps)) + 1
        yield slice(first, after)
        first = after if cut else len(lengths)


def _home(dataset: Any, task: int) -> Home:
    """What the data set says of one of its tasks."""
    record, where = record_of(dataset), f"data set {dataset.id}"
    if record is None or task not in record["task_numbers"]:
        return Home(where, dataset.env_spec)
    row = record["task_numbers"].index(task)
    own = {name: values[row] for name, values in record["train_tasks"].items()}
    return Home(where, dataset.env_spec, record["tasks"], own)


def _family(
    tasks: Mapping[str, Any] | None, homes: Sequence[Home], same_task: bool
) -> tuple[dict[str, Any] | None, Tasks | None, int | None]:
    """The family as a config names it, its tasks by number, and its episodes' length; None three times without one."""
    if tasks is None:
        return None, None, None
    family, distribution, train_tasks = locate(tasks, homes)
    if same_task:
        if len(set(train_tasks.keys().tolist())) > 1:
            raise UserError("same_task: the data sets are of several tasks, by what they say of their environments")
        train_tasks = train_tasks.take([0])
    return family, train_tasks, distribution.episode_length


def _sources(
    datasets: Sequence[Any], lifetimes: Sequence[_Lifetime]
) -> tuple[list[dict[str, Any]], dict[tuple[int, int], int]]:
    """The sources that differ, and the number of each by data set and number there."""
    distinct: list[dict[str, Any]] = []
    numbers = {}
    for place in sorted({(life.dataset, life.source) for life in lifetimes}):
        dataset = datasets[place[0]]
        record, said = record_of(dataset), dataset.storage.metadata
        source = {"name": str(said.get("algorithm_name", "unknown")), "dataset": dataset.id}
        source |= {name: said[name] for name in ("code_permalink",) if name in said}
        source |= {name: sorted(said[name]) for name in ("author",) if name in said}
        if record is not None:
            source = record["sources"][place[1]]
        if source not in distinct:
            distinct.append(source)
        numbers[place] = distinct.index(source)
    return distinct, numbers


def _episode_length(datasets: Sequence[Any], lifetimes: Sequence[_Lifetime], given: int | None) -> int:
    longest = max(int(life.lengths.max()) for life in lifetimes)
    if given is not None:
        if given < longest:
            raise UserError(f"episode_length {given}: an episode has {longest} steps; give that")
        return given
    specs = [dataset.env_spec for dataset in datasets]
    said = [spec.max_episode_steps or 0 for spec in specs if spec is not None]
    exported = [record["episode_length"] for record in map(record_of, datasets) if record is not None]
    return max([longest, *said, *exported])


def _labelled(datasets: Sequence[Any]) -> bool:
    """Whether the data sets hold optimal actions. Raises UserError if some do and others do not."""
    labelled = [bool((record_of(dataset) or {}).get("optimal_actions")) for dataset in datasets]
    if len(set(labelled)) > 1:
        with_them, without = (datasets[labelled.index(which)].id for which in (True, False))
        raise UserError(f"data set {with_them} has optimal actions and {without} has not; import them apart")
    return labelled[0]


@dataclass(frozen=True)
class _Reader:
    """Reads histories, one at a time."""

    datasets: Sequence[Any]
    about: Recorded
    labelled: bool
    history_steps: int
    truncated: dict[str, int]
    """Counts, by data set, the episodes whose end it does not say."""

    def read(self, life: _Lifetime, piece: slice) -> dict[str, NDArray[Any]]:
        """The columns of a history that have steps, each (steps, ...). Raises UserError if it cannot be read."""
        dataset, left = self.datasets[life.dataset], self.history_steps
        numbers, parts = life.episodes[piece], []
        ends_open = [life.cut_off and number == life.episodes[-1] for number in numbers]
        episodes = iter(dataset.iterate_episodes(numbers))
        for number, length, is_open in zip(numbers, life.lengths[piece], ends_open, strict=True):
            taken = min(int(length), left)
            where = f"data set {dataset.id}: episode {number}"
            try:
                part = self._episode(next(episodes), int(length), where)
            except UserError:
                raise
            except Exception as error:  # whatever a damaged file leads Minari to
                raise UserError(f"{where}: cannot be read ({brief(error)}); the data set is damaged") from error
            if taken == length and taken:
                if is_open:  # then the exporter has truncated it
                    part["truncated"][-1] = False
                elif not part["terminated"][-1] and not part["truncated"][-1]:
                    part["truncated"][-1] = True
                    self.truncated[dataset.id] += 1
            parts.append({name: values[:taken] for name, values in part.items()})
            left -= taken
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _episode(self, episode: Any, length: int, where: str) -> dict[str, NDArray[Any]]:
        """The columns of one episode, each (steps, ...)."""
        seen = leaves(episode.observations)
        columns = {column_name("observation", path): seen[path] for path in leaves(self.about.observation_space)}
        columns |= {"action": episode.actions, "reward": episode.rewards}
        columns |= {"terminated": episode.terminations, "truncated": episode.truncations}
        if self.labelled:
            columns["optimal_action"] = episode.infos["optimal_action"]
        for name, values in columns.items():
            columns[name] = np.array(values[:length])
            if len(columns[name]) != length:
                raise UserError(f"{where}: has {len(columns[name])} of {name} where {length} steps are expected")
        return columns


def _parts(histories: Iterable[dict[str, Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Histories put together until they fill a shard."""
    held: list[dict[str, Any]] = []
    for history in histories:
        held.append(history)
        if (len(held) + 1) * sum(values.nbytes for values in history.values()) > _PART_BYTES:
            yield _stacked(held)
            held = []
    if held:
        yield _stacked(held)


def _stacked(histories: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([history[name] for history in histories]) for name in histories[0]}
