"""Recordings: learning histories of one environment or of each slot of a vector environment, and data folders of them.

A recording holds what `RecordHistory` has recorded so far. It can be pickled, to leave a worker process that steps the
environment, or saved as an HDF5 file, for a program that combines many training runs into a data folder. The file holds
the steps of all histories one after another, the length of each history in `steps`, and the spaces as attributes.
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

from data_gen.spaces import Space, check_json, one_line, space_from_json, to_json
from data_gen.storage.info import DataInfo
from data_gen.storage.shards import READING_FAULTS, check_stored, own_dataset, regular
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl.run.folder import SCHEMA_VERSION
from icrl.support.errors import UserError
from icrl.support.files import write_file

_STEPS = "steps"


@dataclass(frozen=True)
class Recording:
    """Histories of one environment, one per slot, starting at the first reset."""

    observation_space: Space
    action_space: Space
    episode_limit: int | None
    """Maximum number of steps per episode in the environment's spec; None if the spec has no limit."""
    histories: Sequence[Mapping[str, NDArray[Any]]]
    """One mapping per slot with the columns of a learning history, (steps, ...): `observation`, or one column per leaf
    of a Dict or Tuple space such as `observation.image`; `action`, `reward`, `terminated`, `truncated`."""

    @property
    def steps(self) -> list[int]:
        """Number of steps per history."""
        return [len(history["reward"]) for history in self.histories]

    @property
    def longest_episode(self) -> int:
        """Number of steps of the longest episode in any history, unfinished last episodes included."""
        longest = 0
        for history, steps in zip(self.histories, self.steps, strict=True):
            last = np.flatnonzero(history["terminated"] | history["truncated"])
            longest = max(longest, int(np.diff(last, prepend=-1, append=steps - 1).max()))
        return longest

    def save(self, path: str | Path) -> None:
        """Writes the recording to an HDF5 file, completely or not at all. Raises UserError if it has no steps."""
        if not sum(self.steps):
            raise UserError(f"{path}: nothing has been recorded yet; save after training")
        about = {
            "schema_version": SCHEMA_VERSION,
            "observation_space": to_json(self.observation_space),
            "action_space": to_json(self.action_space),
            "episode_limit": self.episode_limit,
        }
        image = io.BytesIO()  # in memory first, so that the file is written whole
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
        """Reads a file that `save` wrote. Raises UserError if the file is missing, damaged, or not a recording.

        Nor does it read other files to which the file refers, or more than the file's bytes can hold.
        """
        try:
            with h5py.File(regular(Path(path)), locking=False) as file:
                about = {name: json.loads(value) for name, value in file.attrs.items()}
                if about["schema_version"] != SCHEMA_VERSION:
                    raise UserError(f"{path}: has schema version {about['schema_version']}, expected {SCHEMA_VERSION}")
                members = {name: own_dataset(file, name) for name in file}
                check_stored(members.values(), Path(path))
                steps = members.pop(_STEPS)[()]
                whole = steps.ndim == 1 and steps.dtype.kind in "iu" and (steps >= 0).all()
                if not whole or not members or {len(member) for member in members.values()} != {int(steps.sum())}:
                    raise ValueError(f"{_STEPS} does not state the lengths of its histories")
                columns = {name: np.split(member[()], np.cumsum(steps)[:-1]) for name, member in members.items()}
            for name in ("observation_space", "action_space"):
                check_json(about[name])
            histories = [dict(zip(columns, parts, strict=True)) for parts in zip(*columns.values(), strict=True)]
            seen, taken = (space_from_json(about[name]) for name in ("observation_space", "action_space"))
            return Recording(seen, taken, about["episode_limit"], histories)
        except FileNotFoundError as error:
            raise UserError(f"{path}: file not found") from error
        except (*READING_FAULTS, AssertionError, ArithmeticError) as error:
            why = " ".join(str(error).split())[:300]
            raise UserError(f"{path}: is not a recording, or is damaged ({why}); record the history again") from error


class Recorder(Protocol):
    """A wrapper that records histories."""

    @property
    def recording(self) -> Recording:
        """The histories so far."""


@dataclass(frozen=True)
class Saved:
    """Result of `save_histories`."""

    info: DataInfo
    """The content of the folder's `info.json`."""
    steps_left_out: int
    """Total number of steps that were cut from the ends of longer histories."""


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
    """Writes one or many recordings as a data folder; train on the folder with `data: {folder: PATH}` in a config.

    Args:
        path: the folder.
        recorders: recording wrappers, or recordings from other processes or files: several seeds, several tasks.
        steps: length of every history; the rest of longer ones is dropped. The default is the length of the shortest.
        episode_length: maximum number of steps per episode, the unit of a model's context. The default is the largest
            limit in the environments' specs (set by `gymnasium.make`), or the longest recorded episode if that is
            longer or if the specs have no limit.
        sources: the description of the learner, one for all recorders or one per recorder: a `name`, and plain values
            such as hyper-parameters.
        seeds: one per recorder, to tell the recorders apart.
        tasks: the task family as a config names it, {"name": "dark_room", "size": 5}, if the environment has one.
        train_tasks: the tasks of the family that were trained on. With `tasks`, returns can be normalised, and a config
            that holds out one of these tasks is refused.
        task_numbers: the task of each recorder, as an index into `train_tasks`; one index per slot for a vector
            environment whose slots have different tasks. By default all histories have task 0.
        shards: number of HDF5 files to write; one of them is in memory at a time.
        overwrite: replace an existing folder.

    Raises UserError if the recorders do not match each other, or if an argument does not match them.
    """
    for name, value in (("steps", steps), ("episode_length", episode_length), ("shards", shards)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: has to be at least 1")
    # length of the histories
    recordings = [_recording(number, recorder) for number, recorder in enumerate(recorders)]
    _check_spaces(recordings)
    lengths = [(number, length) for number, recording in enumerate(recordings) for length in recording.steps]
    shortest, least = min(lengths, key=lambda each: each[1])
    if least < (1 if steps is None else steps):
        wanted = "" if steps is None else f", fewer than the requested {steps}; lower steps, or leave it out"
        raise UserError(f"recorder {shortest} has a history with {least} steps{wanted}")
    history_steps = least if steps is None else steps
    longest = max(recording.longest_episode for recording in recordings)
    if episode_length is not None and episode_length < longest:
        raise UserError(f"episode_length {episode_length}: an episode of {longest} steps has been recorded")
    if train_tasks is not None and len(train_tasks) > 1 and task_numbers is None:
        raise UserError("task_numbers: give the row of train_tasks for each recorder")
    # columns with one value per history
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
            f"recorder {number} is a {type(recorder).__name__}; give the RecordHistory wrapper itself, or "
            'env.get_wrapper_attr("recording")'
        ) from error


def _check_spaces(recordings: Sequence[Recording]) -> None:
    """Raises UserError if the list is empty, or if the recordings have different spaces."""
    if not recordings:
        raise UserError("recorders: the list is empty; give at least one")
    for name in ("observation_space", "action_space"):
        first = getattr(recordings[0], name)
        for number, recording in enumerate(recordings):
            if to_json(getattr(recording, name)) != to_json(first):
                raise UserError(
                    f"recorder {number} has the {name} {one_line(getattr(recording, name))}, and recorder 0 has "
                    f"{one_line(first)}; save them to separate folders"
                )


def _sources(
    sources: Mapping[str, Any] | Sequence[Mapping[str, Any]], recordings: Sequence[Recording]
) -> tuple[list[dict[str, Any]], NDArray[np.integer]]:
    """The distinct sources, and the number of the source of each history."""
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
    """The values as plain JSON values, NumPy numbers as Python numbers. Raises UserError for other values."""
    try:
        plain: dict[str, Any] = json.loads(
            json.dumps(dict(values), allow_nan=False, default=lambda value: value.item())
        )
        return plain
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: {values} contains values that JSON cannot store ({error})") from error


def _or_zeros(given: Any, recordings: Sequence[Recording]) -> Any:
    return [0] * len(recordings) if given is None else given


def _by_history(
    name: str, given: Sequence[int | Sequence[int]], recordings: Sequence[Recording], dtype: type[np.integer] = np.int64
) -> NDArray[np.integer]:
    """One number per history, from one per recording or one per slot. Raises UserError if `given` does not fit."""
    if len(given) != len(recordings):
        raise UserError(f"{name}: got {len(given)} values for {len(recordings)} recorders")
    parts = []
    for number, (values, recording) in enumerate(zip(given, recordings, strict=True)):
        slots = len(recording.histories)
        plain = np.array(values, dtype=object)
        if plain.shape not in ((), (slots,)):
            raise UserError(f"{name}: recorder {number} has {slots} slots, but got {values}")
        limits = np.iinfo(dtype)
        if not all(isinstance(value, int | np.integer) and limits.min <= value <= limits.max for value in plain.flat):
            raise UserError(f"{name}: {values} of recorder {number} is not an integer that can be stored")
        parts.append(np.broadcast_to(plain.astype(dtype), slots))
    return np.concatenate(parts)


def _parts(
    recordings: Sequence[Recording], columns: Mapping[str, NDArray[Any]], steps: int, shards: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of each shard in turn."""
    histories = [history for recording in recordings for history in recording.histories]
    for rows in np.array_split(np.arange(len(histories)), min(shards, len(histories))):
        step_columns = {name: np.stack([histories[row][name][:steps] for row in rows]) for name in histories[0]}
        yield step_columns | {name: values[rows] for name, values in columns.items()}
