"""Recordings: learning histories of one environment or of each slot of a vector environment, and data made of them.

A recording is what `RecordHistory` has written down so far, and travels: pickled, from a worker process that steps the
environment; as an HDF5 file, from one training run to the program that makes a data folder of many. In the file the
steps of all histories lie one after another, `steps` says how many each has, and the spaces are attributes.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from data_gen.spaces import Space, one_line, space_from_json, to_json
from data_gen.storage.info import DataInfo
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl.run.folder import SCHEMA_VERSION
from icrl.support.errors import UserError
from icrl.support.files import write_file

_STEPS = "steps"


@dataclass(frozen=True)
class Recording:
    """Histories of one environment, one for each of its slots, from its first reset on."""

    observation_space: Space
    action_space: Space
    episode_limit: int | None
    """The most steps that an episode may have by the environment's spec; None where that says nothing."""
    histories: Sequence[Mapping[str, NDArray[Any]]]
    """For each slot the columns of a learning history, (steps, ...): `observation`, or one for each leaf of a Dict or
    Tuple space such as `observation.image`; `action`, `reward`, `terminated`, `truncated`."""

    @property
    def steps(self) -> list[int]:
        """How many steps each history has."""
        return [len(history["reward"]) for history in self.histories]

    @property
    def longest_episode(self) -> int:
        """The steps of the longest episode in any history, the last ones included, which may not have ended."""
        longest = 0
        for history, steps in zip(self.histories, self.steps, strict=True):
            last = np.flatnonzero(history["terminated"] | history["truncated"])
            longest = max(longest, int(np.diff(last, prepend=-1, append=steps - 1).max()))
        return longest

    def save(self, path: str | Path) -> None:
        """Writes everything to an HDF5 file, whole or not at all. Raises UserError if there is nothing to write."""
        if not sum(self.steps):
            raise UserError(f"{path}: nothing has been recorded yet: save after training")
        about = {
            "schema_version": SCHEMA_VERSION,
            "observation_space": to_json(self.observation_space),
            "action_space": to_json(self.action_space),
            "episode_limit": self.episode_limit,
        }
        image = io.BytesIO()
        with h5py.File(image, "w", libver=("v110", "v110")) as file:
            for name, value in about.items():
                file.attrs[name] = json.dumps(value)
            file[_STEPS] = np.array(self.steps)
            for name in self.histories[0]:
                rows = np.concatenate([history[name] for history in self.histories])
                file.create_dataset(
                    name, data=rows, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
                )
        write_file(Path(path), image.getvalue())

    @staticmethod
    def load(path: str | Path) -> "Recording":
        """Reads what `save` wrote. Raises UserError if the file is missing, damaged, or of another kind."""
        try:
            with h5py.File(path) as file:
                about = {name: json.loads(value) for name, value in file.attrs.items()}
                if about["schema_version"] != SCHEMA_VERSION:
                    raise UserError(f"{path}: is of schema version {about['schema_version']}, not {SCHEMA_VERSION}")
                ends = np.cumsum(file[_STEPS][()])[:-1]
                columns = {name: np.split(file[name][()], ends) for name in file if name != _STEPS}
            histories = [dict(zip(columns, parts, strict=True)) for parts in zip(*columns.values(), strict=True)]
            seen, taken = (space_from_json(about[name]) for name in ("observation_space", "action_space"))
            return Recording(seen, taken, about["episode_limit"], histories)
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such file") from error
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is not a recording, or damaged ({error}); record it again") from error


class Recorder(Protocol):
    """A wrapper that records."""

    @property
    def recording(self) -> Recording:
        """What has happened so far."""


@dataclass(frozen=True)
class Saved:
    """What `save_histories` did."""

    info: DataInfo
    """The content of the folder's `info.json`."""
    steps_left_out: int
    """Steps at the ends of longer histories that are not in the folder, of all histories together."""


def save_histories(
    path: str | Path,
    recorders: Sequence[Recorder | Recording],
    *,
    steps: int | None = None,
    episode_length: int | None = None,
    sources: Mapping[str, Any] | Sequence[Mapping[str, Any]] = MappingProxyType({"name": "recorded"}),
    seeds: Sequence[int] | None = None,
    tasks: Mapping[str, Any] | None = None,
    train_tasks: Tasks | None = None,
    task_numbers: Sequence[int | Sequence[int]] | None = None,
    shards: int = 4,
    overwrite: bool = False,
) -> Saved:
    """Makes a data folder of one or many recorders, which a config trains from by `data: {folder: PATH}`.

    Args:
        path: the folder.
        recorders: wrappers, or recordings of wrappers that lived elsewhere: several seeds, several tasks.
        steps: of every history; the rest of longer ones is left out. By default those of the shortest history.
        episode_length: the most steps that an episode may have, in which contexts are counted. By default what the
            environments' specs say (`gymnasium.make` knows), or where they say less or nothing, the longest seen.
        sources: who learned, for all recorders or one for each: a `name`, and plain values such as hyper-parameters.
        seeds: one for each recorder, to be told apart by.
        tasks: the task family as a config names it, {"name": "dark_room", "size": 5}, if it is one.
        train_tasks: the family's tasks that were trained on. With `tasks`, returns can be normalised, and a config
            that would hold out one of these is refused.
        task_numbers: for each recorder the number of its task, the row in `train_tasks`; of a vector environment
            whose slots have tasks of their own, one for each slot. By default all histories are of task 0.
        shards: HDF5 files that the histories are written to; one of them is in memory at a time.
        overwrite: replace a folder that is there.

    Raises UserError for recorders that do not fit together, or arguments that do not fit them.
    """
    for name, value in (("steps", steps), ("episode_length", episode_length), ("shards", shards)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: has to be 1 at least")
    recordings = [_recording(number, recorder) for number, recorder in enumerate(recorders)]
    _check_spaces(recordings)
    lengths = [(number, length) for number, recording in enumerate(recordings) for length in recording.steps]
    shortest, least = min(lengths, key=lambda each: each[1])
    if least < (1 if steps is None else steps):
        wanted = "" if steps is None else f" of the {steps} that are asked for: lower steps, or leave it out"
        raise UserError(f"recorder {shortest} has a history with {least} steps{wanted}")
    history_steps = least if steps is None else steps
    longest = max(recording.longest_episode for recording in recordings)
    if episode_length is not None and episode_length < longest:
        raise UserError(f"episode_length {episode_length}: an episode of {longest} steps has been recorded")
    if train_tasks is not None and len(train_tasks) > 1 and task_numbers is None:
        raise UserError("task_numbers: say for each recorder which row of train_tasks was its task")
    named, source = _sources(sources, recordings)
    columns = {
        "source": source,
        "task": _by_history("task_numbers", _or_zeros(task_numbers, recordings), recordings),
        "seed": _by_history("seeds", _or_zeros(seeds, recordings), recordings, np.uint64),
        "actor": np.concatenate([np.arange(len(recording.histories)) for recording in recordings]),
    }
    about = Recorded(
        observation_space=recordings[0].observation_space,
        action_space=recordings[0].action_space,
        episode_length=int(episode_length or max(longest, *(recording.episode_limit or 0 for recording in recordings))),
        sources=named,
        tasks=None if tasks is None else _plain("tasks", tasks),
        train_tasks=train_tasks,
    )
    info = write_histories(Path(path), _parts(recordings, columns, history_steps, shards), about, overwrite)
    return Saved(info, sum(length for _, length in lengths) - history_steps * len(lengths))


def _recording(number: int, recorder: Recorder | Recording) -> Recording:
    try:
        return recorder if isinstance(recorder, Recording) else recorder.recording
    except AttributeError as error:
        raise UserError(
            f"recorder {number} is a {type(recorder).__name__}: give what RecordHistory(...) made, or "
            'env.get_wrapper_attr("recording")'
        ) from error


def _check_spaces(recordings: Sequence[Recording]) -> None:
    """Raises UserError if there is no recording, or if one is of other spaces than the first."""
    if not recordings:
        raise UserError("there are no recorders to save")
    for name in ("observation_space", "action_space"):
        first = getattr(recordings[0], name)
        for number, recording in enumerate(recordings):
            if to_json(getattr(recording, name)) != to_json(first):
                raise UserError(
                    f"recorder {number} has the {name} {one_line(getattr(recording, name))}, and recorder 0 has "
                    f"{one_line(first)}: make a folder of each"
                )


def _sources(
    sources: Mapping[str, Any] | Sequence[Mapping[str, Any]], recordings: Sequence[Recording]
) -> tuple[list[dict[str, Any]], NDArray[np.integer]]:
    """The sources that differ, and the number of its source for each history."""
    given = [sources] * len(recordings) if isinstance(sources, Mapping) else list(sources)
    distinct: list[dict[str, Any]] = []
    plain = [_plain("sources", source) for source in given]
    for source in plain:
        if not isinstance(source.get("name"), str):
            raise UserError(f"sources: {source} has no name")
        if source not in distinct:
            distinct.append(source)
    return distinct, _by_history("sources", [distinct.index(source) for source in plain], recordings)


def _plain(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON has them, NumPy's numbers as Python's. Raises UserError for others."""
    try:
        found: dict[str, Any] = json.loads(
            json.dumps(dict(values), allow_nan=False, default=lambda value: value.item())
        )
        return found
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: {values} is not made of plain values ({error})") from error


def _or_zeros(given: Any, recordings: Sequence[Recording]) -> Any:
    return [0] * len(recordings) if given is None else given


def _by_history(
    name: str, given: Sequence[int | Sequence[int]], recordings: Sequence[Recording], dtype: type[np.integer] = np.int64
) -> NDArray[np.integer]:
    """A number for each history from one for each recording, or for each of its slots."""
    if len(given) != len(recordings):
        raise UserError(f"{name}: {len(given)} are given for {len(recordings)} recorders")
    parts = []
    for number, (values, recording) in enumerate(zip(given, recordings, strict=True)):
        slots = len(recording.histories)
        plain = np.array(values, dtype=object)
        if plain.shape not in ((), (slots,)):
            raise UserError(f"{name}: recorder {number} has {slots} slots, and is given {values}")
        limits = np.iinfo(dtype)
        if not all(isinstance(value, int | np.integer) and limits.min <= value <= limits.max for value in plain.flat):
            raise UserError(f"{name}: {values} of recorder {number} is no number that can be stored")
        parts.append(np.broadcast_to(plain.astype(dtype), slots))
    return np.concatenate(parts)


def _parts(
    recordings: Sequence[Recording], columns: Mapping[str, NDArray[Any]], steps: int, shards: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of one shard after another."""
    histories = [history for recording in recordings for history in recording.histories]
    for rows in np.array_split(np.arange(len(histories)), min(shards, len(histories))):
        lived = {name: np.stack([histories[row][name][:steps] for row in rows]) for name in histories[0]}
        yield lived | {name: values[rows] for name, values in columns.items()}
