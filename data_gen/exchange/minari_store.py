"""Minari's local data sets: their folders, and a way to open one without running the code that it names."""

import contextlib
import functools
import importlib
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import h5py
from pydantic import Field, PositiveInt

from data_gen.storage.info import Named
from data_gen.storage.shards import check_stored, own_dataset, regular
from icrl.run.records import Record
from icrl.support.arrays import MOST_COMPRESSED, SLACK
from icrl.support.errors import UserError, did_you_mean
from icrl.support.files import leads_out, read_json

_REFERENCE_BYTES = 16  # of an element of variable length, which is stored elsewhere in the file
_READ_AT_ONCE = 2**28  # bytes

RECORD = "learning_histories"
"""Key in a data set's metadata under which `export_minari` describes the histories."""


class HistoriesRecord(Record):
    """Value of the key `RECORD`."""

    tasks: Named | None
    train_tasks: dict[str, list[Any]]
    task_numbers: list[int]
    sources: Annotated[list[Named], Field(min_length=1)]
    optimal_actions: bool
    episode_length: PositiveInt


def minari_library() -> Any:
    """The package `minari`, which then opens files without HDF5's locks. Raises UserError if it is not installed."""
    try:
        import minari
    except ImportError as error:
        raise UserError(f"Minari is not installed ({error}): pip install 'in-context-rl[minari]'") from error
    _open_without_locks()
    return minari


def _open_without_locks() -> None:
    """Makes Minari's HDF5 storage open files as this project does: some file systems have no locks."""
    try:
        storage: Any = importlib.import_module("minari.dataset._storages.hdf5_storage")
    except ImportError:  # another version of Minari, which keeps its own way
        return
    unlocked = types.ModuleType("h5py")
    vars(unlocked).update({**vars(h5py), "File": functools.partial(h5py.File, locking=False)})
    storage.h5py = unlocked


def minari_folder(dataset_id: str = "") -> Path:
    """The folder of a data set, existing or not; without an id, the folder of all data sets.

    Raises UserError if `dataset_id` is not a Minari id.
    """
    minari_library()
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage import get_dataset_path

    if dataset_id:
        try:
            parse_dataset_id(dataset_id)
        except (ValueError, TypeError) as error:  # TypeError if the id has no version
            form = "[NAMESPACE/]NAME-vNUMBER of letters, digits, - and _, such as mujoco/hopper/expert-v0"
            raise UserError(f"data set {dataset_id!r}: is not a Minari id; expected {form}") from error
    return Path(get_dataset_path(dataset_id))


def open_dataset(dataset_id: str, download: bool = False) -> Any:
    """Opens a local data set as a `MinariDataset`; with `download`, fetches a missing data set first.

    For a data set without stated spaces, Minari would build the environment, which is code that the data set names.
    Such a data set is refused before Minari opens it.

    Raises UserError if the data set is missing or cannot be read.
    """
    minari, folder = minari_library(), minari_folder(dataset_id)
    from minari.dataset.minari_storage import MinariStorage

    if not (folder / "data").exists():
        if not download:
            raise UserError(
                f"data set {dataset_id}: not found in {minari_folder()}{_near(dataset_id)}; download it with "
                f"--download or `minari download {dataset_id}`"
            )
        try:
            minari.download_dataset(dataset_id)
        except Exception as error:  # Minari's clients may raise anything
            raise UserError(f"data set {dataset_id}: cannot be downloaded ({brief(error)})") from error
    try:
        read_json(folder / "data" / "metadata.json")  # which refuses what is not a bounded regular file
        metadata = MinariStorage.read_raw_metadata(folder / "data")
        if not {"observation_space", "action_space"} <= metadata.keys():
            raise ValueError("it does not state its spaces, and finding them would mean running its environment")
        if metadata["dataset_id"] != dataset_id:
            raise ValueError(f"its metadata has the id {metadata['dataset_id']}")
        _check_files(folder, metadata)
        return minari.load_dataset(dataset_id)
    except Exception as error:  # a damaged file, or one of another version, may raise anything
        raise UserError(f"data set {dataset_id}: cannot be read ({brief(error)})") from error


def record_of(dataset: Any) -> HistoriesRecord | None:
    """The record that `export_minari` wrote about the histories; None for any other data set.

    Raises UserError if the record is damaged.
    """
    content = dataset.storage.metadata.get(RECORD)
    if content is None:
        return None
    try:
        record = HistoriesRecord.model_validate(content)
        if any(len(values) != len(record.task_numbers) for values in record.train_tasks.values()):
            raise ValueError("the number of tasks differs from the number of task numbers")
    except ValueError as error:
        raise UserError(
            f"data set {dataset.id}: {RECORD!r} in its metadata is not a valid record; export the data set again"
        ) from error
    return record


def brief(error: Exception) -> str:
    """The message of a foreign error on one line, cut to 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _check_files(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Raises ValueError or OSError if reading the data set would read files outside of its folder, or never end.

    Minari follows the links of HDF5, so a data set could otherwise bring any HDF5 file of this machine with it.
    """
    for path in folder.rglob("*"):
        if leads_out(path, folder):
            raise ValueError(f"{path.name} is a link to another folder")
        if not path.is_dir():
            regular(path)
    main = folder / "data" / "main_data.hdf5"
    if not main.exists():
        return
    with h5py.File(main, locking=False) as file:
        episodes = sum(name.startswith("episode_") for name in file)
        if metadata.get("total_episodes") != episodes:
            raise ValueError(f"its metadata has {metadata.get('total_episodes')} episodes, but {episodes} are stored")
        seen: set[int] = set()
        groups = [file["/"]]
        while groups:
            group = groups.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:
                raise ValueError(f"{group.name} is linked twice")
            seen.add(address)
            for name in group:
                if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group):
                    groups.append(group[name])
                    continue
                member = own_dataset(group, name)
                if member.dtype.kind == "O":
                    _check_elements(member, main.stat().st_size)
                else:
                    check_stored([member], main)


def _check_elements(member: h5py.Dataset, file_bytes: int) -> None:
    """Raises ValueError if an array of texts or of compressed images declares more than the file can hold.

    The array holds references to its elements, which may all be to one long text. So the elements are read once, a few
    at a time, and their bytes counted.
    """
    if h5py.check_ref_dtype(member.dtype) is not None or member.ndim != 1:
        raise ValueError(f"{member.name} does not hold texts or images")
    if _REFERENCE_BYTES * member.size > SLACK + MOST_COMPRESSED * member.id.get_storage_size():
        raise ValueError(f"{member.name} declares {member.shape}, which is more than its bytes can hold")
    left, count = SLACK + file_bytes, max(1, min(1024, _READ_AT_ONCE // max(1, file_bytes)))
    for first in range(0, member.size, count):
        left -= sum(getattr(element, "nbytes", len(element)) for element in member[first : first + count])
        if left < 0:
            raise ValueError(f"{member.name} declares more than the file's bytes can hold")


def _near(dataset_id: str) -> str:
    """A hint that names the nearest local id."""
    ids: list[str] = []
    # Minari warns about a folder that is not a data set, and raises for a folder name without a version.
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(TypeError, ValueError):
        ids = list(minari_library().list_local_datasets())
    return did_you_mean(dataset_id, ids)
