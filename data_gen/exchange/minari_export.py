"""Learning histories as Minari data sets, for offline RL and any other reader of Minari.

Every episode of a history becomes one episode of Minari, in the same order. Its metadata holds the history, task,
source and learner, so `import_minari` restores the same histories.

Minari requires one observation more than an episode has steps. A history does not record that last observation: its
next row already belongs to the next episode. The export therefore repeats the observation before the last step, and the
data set's description says so. An algorithm that bootstraps at truncations has to take this into account.
"""

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_gen.exchange.minari_store import RECORD, minari_folder, minari_library, open_dataset
from data_gen.exchange.minari_tasks import ENTRY_POINT
from data_gen.spaces import Space, column_name, leaves, map_leaves, space_from_json
from data_gen.storage.folder import checked_shards, load_info, load_tasks
from data_gen.storage.info import DataInfo
from data_gen.storage.shards import STEP_COLUMNS, read_shard
from data_gen.tasks.base import Tasks
from icrl.run.folder import TASK_FILES, RunFolder
from icrl.support.errors import UserError
from icrl.support.files import new_folder, remove, remove_leftovers, temporary_name

_DESCRIPTION = (
    "Learning histories: each is the lifetime of one learner on one task, its episodes one after another. The metadata "
    "of an episode gives its `history`, and the `task`, `source`, `learner_seed` and `actor` of that history. The "
    "observation after an episode's last step was not recorded: the observation before that step is repeated in its "
    "place. An episode with `cut_off` had not ended when its history ended, and is marked as truncated."
)

_ROOT = "MINARI_DATASETS_PATH"
"""Environment variable with the folder of Minari's data sets."""


def export_minari(
    folder: RunFolder,
    dataset_id: str,
    *,
    by_task: bool = False,
    histories: Sequence[int] | None = None,
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
) -> list[str]:
    """Writes a run's data as one Minari data set, or one per task; returns the ids. One shard is in memory at a time.

    Every data set is written completely or not at all, and an export that was killed continues where it was. A data set
    of a single task names its environment. Minari's `recover_environment` builds that environment where this project is
    installed.

    Args:
        folder: the run folder; its data has to be complete.
        dataset_id: an id such as `dark-room/q-learning-v0`.
        by_task: write one data set per task; the one of task 7 is `dark-room/q-learning-task-00007-v0`.
        histories: numbers of the histories to write; all by default.
        author, author_email, code_permalink: written to the data set's metadata.

    Raises UserError if the data is incomplete, or if a data set already exists.
    """
    info = load_info(folder)
    if info.streamed:
        raise UserError(f"{folder.data}: the shards are on the hub only; set data.streaming: false to fetch them")
    minari_folder(dataset_id)  # raises for an invalid id, before anything is read
    chosen = _chosen(folder, info, histories)
    tasks = sorted({int(task) for _, _, numbers in chosen for task in numbers})
    name, _, version = dataset_id.rpartition("-v")
    ids = {task: f"{name}-task-{task:05d}-v{version}" if by_task else dataset_id for task in tasks}
    targets = {one: minari_folder(one) for one in ids.values()}
    credit = {"author": author, "author_email": author_email, "code_permalink": code_permalink}
    train = load_tasks(folder.data, info, TASK_FILES[0])
    writers = {
        one: _Writer(one, info, [task for task in tasks if ids[task] == one], histories, train, credit)
        for one in targets
    }
    _remove_leftovers(dataset_id, targets.values())
    missing = _missing(targets, writers)
    # write to a scratch folder, then move complete data sets to their final path
    with _scratch(dataset_id) as scratch:
        with (
            _minari_in(scratch),
            tqdm(total=sum(len(rows) for _, rows, _ in chosen), unit=" histories", desc="export") as bar,
        ):
            for path, rows, numbers in chosen:
                shard = read_shard(path)
                for row, task in zip(rows, numbers, strict=True):
                    if ids[int(task)] in missing:
                        writers[ids[int(task)]].write(shard, int(row))
                    bar.update()
            for one in missing:
                writers[one].finish()
        for one in missing:
            _make_namespace(one)
            with new_folder(targets[one]) as temporary:
                (scratch / one / "data").rename(temporary / "data")
    return list(targets)


def _chosen(
    folder: RunFolder, info: DataInfo, histories: Sequence[int] | None
) -> list[tuple[Path, NDArray[np.intp], NDArray[np.int64]]]:
    """The shards that hold the chosen histories, with the row numbers and the tasks of these histories.

    Raises UserError if a chosen history does not exist.
    """
    chosen, present = [], set()
    for path in checked_shards(folder, info):
        shard = read_shard(path, ("history", "task"))
        mine = np.ones(len(shard["history"]), np.bool_) if histories is None else np.isin(shard["history"], histories)
        if mine.any():
            chosen.append((path, np.flatnonzero(mine), shard["task"][mine]))
            present |= set(shard["history"][mine].tolist())
    absent = [number for number in histories or () if number not in present]
    if absent or not present:
        raise UserError(
            f"{folder.data}: has no history {absent[0] if absent else 'to write'}; the data has {info.num_histories:,}"
        )
    return chosen


def _missing(targets: Mapping[str, Path], writers: Mapping[str, "_Writer"]) -> list[str]:
    """The ids of the data sets to write: all, or those that an earlier export of the same histories did not reach.

    Raises UserError for a data set of another origin, or if all exist.
    """
    missing = [one for one, target in targets.items() if not target.exists()]
    for one in targets:
        if one not in missing and not (missing and _recorded(one) == writers[one].record()):
            raise UserError(f"data set {one}: already exists; choose another id, or run `minari delete {one}`")
    return missing


def _recorded(dataset_id: str) -> Any:
    """The record in the metadata of an existing data set; None without one."""
    try:
        return open_dataset(dataset_id).storage.metadata.get(RECORD)
    except UserError:  # of another program
        return None


@dataclass
class _Writer:
    """Writes one data set, one history at a time."""

    dataset_id: str
    info: DataInfo
    tasks: list[int]
    """Numbers of the tasks of the data set's histories."""
    histories: Sequence[int] | None
    """Numbers of the histories that were asked for; None for all."""
    train: Tasks | None
    credit: dict[str, str | None]
    dataset: Any = None
    """The `MinariDataset`; None before the first history."""

    def __post_init__(self) -> None:
        self.observation_space = space_from_json(self.info.observation_space)
        self.action_space = space_from_json(self.info.action_space)

    def write(self, shard: Mapping[str, NDArray[Any]], row: int) -> None:
        """Appends the episodes of one history. Raises UserError if they cannot be written."""
        episodes = list(_episodes(shard, row, self.observation_space, self.action_space))
        buffers = [buffer for buffer, _ in episodes]
        with self._written():
            if self.dataset is None:
                self.dataset = self._create(buffers)
            else:
                self.dataset.update_dataset_from_buffer(buffers)
            end = self.dataset.total_episodes
            numbers = range(end - len(buffers), end)
            self.dataset.storage.update_episode_metadata([metadata for _, metadata in episodes], numbers)

    def finish(self) -> None:
        """Writes the record from which `import_minari` restores the same histories."""
        with self._written():
            self.dataset.storage.update_metadata({RECORD: self.record()})

    def record(self) -> dict[str, Any]:
        """The record: what `import_minari` needs, and the data that the histories come from."""
        train = {} if self.train is None else {name: self.train[name][self.tasks].tolist() for name in self.train}
        copied = {name: getattr(self.info, name) for name in ("tasks", "sources", "optimal_actions", "episode_length")}
        chosen = None if self.histories is None else sorted(self.histories)
        origin = {"data": self.info.identity, "histories": chosen}
        return {**copied, "train_tasks": train, "task_numbers": self.tasks if train else [], **origin}

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Turns the errors of a full disk into a UserError; HDF5 raises RuntimeError for those it meets last."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            why = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
            raise UserError(f"data set {self.dataset_id}: cannot be written ({why})") from error

    def _create(self, buffers: Sequence[Any]) -> Any:
        spec = self._spec()
        env = gymnasium.Env[Any, Any]()  # Minari reads only these three fields, so no environment is built
        env.spec, env.observation_space, env.action_space = spec, self.observation_space, self.action_space
        with warnings.catch_warnings(action="ignore"):  # Minari warns about every missing credit
            return minari_library().create_dataset_from_buffers(
                self.dataset_id,
                buffers,
                env=env,
                algorithm_name=", ".join(dict.fromkeys(str(source["name"]) for source in self.info.sources)),
                description=_DESCRIPTION,
                requirements=["in-context-rl"] if spec else None,
                jpeg_encoding=False,  # JPEG would change the images
                **self.credit,
            )

    def _spec(self) -> EnvSpec | None:
        """The spec of the environment; None for several tasks or an unknown task family."""
        if self.info.tasks is None or self.train is None or len(self.tasks) > 1:
            return None
        parameters = dict(self.info.tasks)
        name = parameters.pop("name")
        task = {name: self.train[name][self.tasks[0]].tolist() for name in self.train}
        return EnvSpec(
            f"icrl/{name}",
            entry_point=ENTRY_POINT,
            max_episode_steps=self.info.episode_length,
            kwargs={"family": name, **parameters, "task": task},
        )


def _episodes(
    shard: Mapping[str, NDArray[Any]], row: int, observation_space: Space, action_space: Space
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The episodes of one history, each as a Minari `EpisodeBuffer` with its metadata."""
    from minari.data_collector import EpisodeBuffer

    history = {name: values[row] for name, values in shard.items()}
    metadata: dict[str, Any] = {name: history[name] for name in ("history", "task", "source", "actor")}
    metadata["learner_seed"] = history["seed"]  # Minari's own `seed` is the seed of an environment's reset
    metadata |= {name: value for name, value in history.items() if name.startswith("hyper_")}
    ended = history["terminated"] | history["truncated"]
    for first, end in pairwise(np.unique([0, *(np.flatnonzero(ended) + 1), len(ended)])):
        columns = {name: history[name][first:end] for name in history if name.partition(".")[0] in STEP_COLUMNS}
        cut_off = bool(not ended[end - 1])
        truncated = columns["truncated"].copy()
        truncated[-1] |= cut_off
        labels = None
        if "optimal_action" in columns:
            labels = {"optimal_action": _and_last(columns["optimal_action"]).astype(action_space.dtype)}
        buffer = EpisodeBuffer(
            observations=_observations(columns, observation_space),
            actions=columns["action"].astype(action_space.dtype),
            rewards=columns["reward"],
            terminations=columns["terminated"],
            truncations=truncated,
            infos=labels,
        )
        yield buffer, metadata | {"cut_off": cut_off}


def _observations(columns: Mapping[str, NDArray[Any]], space: Space) -> Any:
    """An episode's observations in the types of the space, (steps + 1, ...)."""
    stored = iter([columns[column_name("observation", path)] for path in leaves(space)])
    return map_leaves(lambda leaf: _and_last(next(stored)).astype(leaf.dtype), space)


def _and_last(values: NDArray[Any]) -> NDArray[Any]:
    """The values with the last one repeated, since the value after it was not recorded, (steps + 1, ...)."""
    return np.concatenate([values, values[-1:]])


def _remove_leftovers(dataset_id: str, targets: Iterable[Path]) -> None:
    """Removes what a killed export of the same id left beside Minari's data sets."""
    for path in (_scratch_base(dataset_id), *targets):
        remove_leftovers(path.parent, f".{escape(path.name)}.*")


def _scratch_base(dataset_id: str) -> Path:
    """The path that scratch folders are named after."""
    return minari_folder() / dataset_id.replace("/", ".")


@contextlib.contextmanager
def _scratch(dataset_id: str) -> Iterator[Path]:
    """A hidden folder beside Minari's data sets."""
    base = _scratch_base(dataset_id)
    scratch = temporary_name(base.with_name(f"{base.name}.export"))  # an id without a namespace is the base itself
    try:
        scratch.mkdir()
        yield scratch
    except OSError as error:
        raise UserError(f"data set {dataset_id}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(UserError):  # the next export of this id removes it
            remove(scratch)


@contextlib.contextmanager
def _minari_in(folder: Path) -> Iterator[None]:
    """Makes Minari write to `folder`, so that its own folder never holds an incomplete data set."""
    before = os.environ.get(_ROOT)
    os.environ[_ROOT] = str(folder.resolve())  # Minari misplaces its own files under a relative path
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT]
        else:
            os.environ[_ROOT] = before


def _make_namespace(dataset_id: str) -> None:
    """Registers the namespace of the data set with Minari if it is new."""
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)
