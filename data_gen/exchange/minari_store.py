"""Minari's local data sets: where they are, and opening one without running anything that it names."""

import contextlib
import warnings
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from data_gen.storage.info import Part, SourceSaid
from icrl.support.errors import UserError, did_you_mean

RECORD = "learning_histories"
"""The key of a data set's metadata under which `export_minari` says what its histories are of."""


class _Record(Part):
    """What it says."""

    tasks: dict[str, Any] | None
    train_tasks: dict[str, list[Any]]
    task_numbers: list[int]
    sources: Annotated[list[SourceSaid], Field(min_length=1)]
    optimal_actions: bool
    episode_length: PositiveInt


def minari_library() -> Any:
    """The package `minari`. Raises UserError if it is not installed."""
    try:
        import minari
    except ImportError as error:
        raise UserError(f"Minari is not installed ({error}): pip install 'in-context-rl[minari]'") from error
    return minari


def minari_folder(dataset_id: str = "") -> Path:
    """Where Minari has the data set, or would have it; of no id, where it has all. Raises UserError if it is no id."""
    minari_library()
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage import get_dataset_path

    if dataset_id:
        try:
            parse_dataset_id(dataset_id)
        except (ValueError, TypeError) as error:  # the latter, if it has no version
            form = "[NAMESPACE/]NAME-vNUMBER of letters, digits, - and _, such as mujoco/hopper/expert-v0"
            raise UserError(f"data set {dataset_id!r}: is no id of Minari's: {form}") from error
    return Path(get_dataset_path(dataset_id))


def open_dataset(dataset_id: str, download: bool = False) -> Any:
    """A `MinariDataset` of those that are here, fetched first if it is not and `download` says so.

    Minari builds a data set's environment, which is code that the data set names, where it does not say its spaces.
    Such a one is refused before Minari opens it.

    Raises UserError if there is none, or it cannot be read.
    """
    minari, folder = minari_library(), minari_folder(dataset_id)
    from minari.dataset.minari_storage import MinariStorage

    if not (folder / "data").exists():
        if not download:
            raise UserError(
                f"data set {dataset_id}: is not in {minari_folder()}{_near(dataset_id)}; --download "
                f"fetches it, and so does `minari download {dataset_id}`"
            )
        try:
            minari.download_dataset(dataset_id)
        except Exception as error:  # its clients may raise anything
            raise UserError(f"data set {dataset_id}: cannot be downloaded ({brief(error)})") from error
    try:
        said = MinariStorage.read_raw_metadata(folder / "data")
        if not {"observation_space", "action_space"} <= said.keys():
            raise ValueError("it does not say its spaces, and its environment would have to be run to know them")
        if said["dataset_id"] != dataset_id:
            raise ValueError(f"it says that it is {said['dataset_id']}")
        return minari.load_dataset(dataset_id)
    except Exception as error:  # whatever a file of another version, or a damaged one, leads to
        raise UserError(f"data set {dataset_id}: cannot be read ({brief(error)})") from error


def record_of(dataset: Any) -> dict[str, Any] | None:
    """What `export_minari` wrote about the histories; None of any other data set. Raises UserError if it is damaged."""
    found = dataset.storage.metadata.get(RECORD)
    if found is None:
        return None
    try:
        said = _Record.model_validate(found)
        if any(len(values) != len(said.task_numbers) for values in said.train_tasks.values()):
            raise ValueError("its tasks are not as many as their numbers")
    except ValueError as error:
        raise UserError(
            f"data set {dataset.id}: its metadata's {RECORD!r} is not what an export writes; export it again"
        ) from error
    return said.model_dump()


def brief(error: Exception) -> str:
    """What a foreign error says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _near(dataset_id: str) -> str:
    """A hint at the nearest id."""
    found: list[str] = []
    # A folder that is no data set's makes Minari warn, and one whose name has no version makes it raise.
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(TypeError, ValueError):
        found = list(minari_library().list_local_datasets())
    return did_you_mean(dataset_id, found)
