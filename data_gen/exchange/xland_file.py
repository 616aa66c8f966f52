"""The layout of XLand-100B and XLand-Trivial-20B (Nikulin et al. 2024, arXiv 2406.08973), checked and read.

The authors' own code (dunnolab/xland-minigrid-datasets, `collection/`) writes an HDF5 file with

    /N                  one group per task, N from 0; attributes `env-id`, `benchmark-id`, `ruleset-id` name the task
    /N/states           (32, T, 5, 5) uint8     observation before the action: 12 * tile + colour per cell
    /N/actions          (32, T) uint8           forward, turn right, turn left, pick up, put down, toggle
    /N/rewards          (32, T) float16         reward of that action
    /N/dones            (32, T) bool            True if that action ended the episode; the next row starts a new one
    /N/expert_actions   (32, T) uint8           the final policy's best action at that step, given that history

with T = 60,928 (Trivial-20B) or 121,856 (100B), in gzip chunks of (1, 4096, ...). A task's 32 histories come from 32
of the 8,192 environments in which one recurrent PPO learner acted: one learner, 32 actors. The files do not include
tasks on which the learner ended below a mean return of .3.

`dones` does not tell how an episode ended, but the reward does. XLand-MiniGrid gives a reward only for reaching the
goal, at least .1, and this terminates the episode. An episode that ends without a reward has met the time limit of
3 * height * width steps.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_gen.storage.shards import check_stored, regular
from icrl.support.errors import UserError

TILES, COLORS, ACTIONS = 13, 12, 6
"""Numbers of tiles, colours and actions in XLand-MiniGrid since version 0.7, which is older than these files."""

_ATTRIBUTES = {"env-id": str, "benchmark-id": str, "ruleset-id": int | np.integer}
_DATASETS = {"states": "u", "actions": "u", "rewards": "f", "dones": "b", "expert_actions": "u"}
"""Required datasets of a group, with the NumPy kind of their numbers."""


@dataclass(frozen=True)
class XLandTask:
    """A group of the file; its datasets stay on disk until `read`."""

    group: h5py.Group
    where: str
    """Name of the file and the group in error messages."""
    environment: str
    benchmark: str
    ruleset: int
    """The task's number in its benchmark."""
    histories: int
    steps: int
    view: tuple[int, int]
    """Height and width of the observation, in cells."""

    @property
    def time_limit(self) -> int | None:
        """Maximum number of steps per episode; None for an environment id that is not XLand-MiniGrid's own."""
        size = re.fullmatch(r"XLand-MiniGrid-R\d{1,4}-(\d{1,4})x(\d{1,4})", self.environment)
        return 3 * int(size[1]) * int(size[2]) if size else None

    def read(self, histories: slice, steps: int, time_limit: int) -> dict[str, NDArray[Any]]:
        """The columns of learning histories, (histories, steps, ...): the first `steps` steps of some histories.

        Raises UserError if a dataset cannot be read, or has values that XLand-MiniGrid cannot give in this time limit.
        """
        stored = {name: self._read(name, histories, steps) for name in _DATASETS}
        for name, count in (("states", TILES * COLORS), ("actions", ACTIONS), ("expert_actions", ACTIONS)):
            if stored[name].max() >= count:
                raise UserError(
                    f"{self.where}: {name} has {stored[name].max()}, but XLand-MiniGrid's values are below {count}"
                )
        # How episodes ended follows from the rewards, if these are XLand-MiniGrid's (see the module's docstring).
        reward, done = stored["rewards"].astype(np.float32), stored["dones"]
        reached = reward > 0
        if not ((reward >= 0) & (reward <= 1)).all() or (reached & ~done).any():
            raise UserError(
                f"{self.where}: the rewards do not tell how episodes ended; XLand-MiniGrid's rewards are between 0 "
                "and 1, and above 0 only in the last step of an episode"
            )
        longest = longest_episode(done)
        if longest > time_limit:
            raise UserError(
                f"{self.where}: an episode has {longest} steps, but the time limit is {time_limit}; give a larger "
                "--episode-length"
            )
        return {
            "observation": np.stack(np.divmod(stored["states"], COLORS), axis=-1),
            "action": stored["actions"],
            "reward": reward,
            "terminated": done & reached,
            "truncated": done & ~reached,
            "optimal_action": stored["expert_actions"],
        }

    def _read(self, name: str, histories: slice, steps: int) -> NDArray[Any]:
        with _reading(f"{self.where}: {name}"):
            values: NDArray[Any] = self.group[name][histories, :steps]
        return values


def longest_episode(done: NDArray[np.bool_]) -> int:
    """Number of steps of the longest episode, unfinished last episodes included; `done` is (histories, steps)."""
    step = np.arange(done.shape[1], dtype=np.int32)
    begins = np.roll(done, 1, axis=1)  # the last flag lands in step 0, which is a start in any case
    return 1 + int((step - np.maximum.accumulate(np.where(begins, step, 0), axis=1)).max())


def open_xland(file: Path) -> h5py.File:
    """Opens the file. Raises UserError if the file is missing or is not HDF5."""
    try:
        return h5py.File(regular(file), locking=False)
    except OSError as error:
        why = f"is not an HDF5 file, or is damaged ({error})" if file.exists() else "file not found"
        raise UserError(f"{file}: {why}") from error


def task_names(opened: h5py.File) -> list[str]:
    """The names of all groups, in the order of their numbers. Raises UserError if the file has other members."""
    with _reading(opened.filename):
        names = list(opened)
    unexpected = [name for name in names if not re.fullmatch("[0-9]{1,18}", name)]
    if unexpected or not names:
        problem = f"found {unexpected[0]!r}" if unexpected else "the file is empty"
        raise UserError(f"{opened.filename}: does not have XLand-100B's layout of groups 0, 1, 2 ...: {problem}")
    return sorted(names, key=int)


def find_task(opened: h5py.File, name: str) -> XLandTask:
    """The task in the group `name`. Raises UserError if the group does not have the layout."""
    where = f"{opened.filename}: group {name}"
    group = _member(opened, name, h5py.Group, opened.filename)
    with _reading(where):
        attributes = {name: group.attrs.get(name) for name in _ATTRIBUTES}
    for attribute, kind in _ATTRIBUTES.items():
        if not isinstance(attributes[attribute], kind):
            expected = "a string" if kind is str else "a whole number"
            raise UserError(f"{where}: does not have XLand-100B's layout: attribute {attribute!r} is not {expected}")
    shapes = {dataset: _shape(group, dataset, kind, where) for dataset, kind in _DATASETS.items()}
    states = shapes.pop("states")
    if len(states) != 4 or 0 in states:
        raise UserError(f"{where}: states has shape {states}, expected (histories, steps, height, width)")
    for dataset, shape in shapes.items():
        if shape != states[:2]:
            raise UserError(f"{where}: {dataset} has shape {shape}, but states has {states}")
    environment, benchmark, ruleset = attributes.values()
    return XLandTask(group, where, environment, benchmark, int(ruleset), states[0], states[1], states[2:])


def _member(group: h5py.Group, name: str, kind: type, where: str) -> Any:
    """The group or dataset `name` of a group. Raises UserError if the member is missing or is a link."""
    with _reading(f"{where}: {name}"):
        link = group.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise UserError(f"{where}: {name!r} is a link, and links are not followed; replace the link with its target")
    with _reading(f"{where}: {name}"):
        member = group.get(name)
    if not isinstance(member, kind):
        raise UserError(f"{where}: does not have XLand-100B's layout: {kind.__name__.lower()} {name!r} is missing")
    return member


def _shape(group: h5py.Group, name: str, kind: str, where: str) -> tuple[int, ...]:
    """The shape of a dataset.

    Raises UserError if the dataset is missing, has another type, lies in other files, or needs a missing HDF5 filter.
    """
    dataset = _member(group, name, h5py.Dataset, where)
    with _reading(f"{where}: {name}"):
        dtype, shape, elsewhere = dataset.dtype, dataset.shape, dataset.external or dataset.is_virtual
        created = dataset.id.get_create_plist()
        if not elsewhere:
            check_stored([dataset], Path(group.file.filename))
        filters = [created.get_filter(number) for number in range(created.get_nfilters())]
    if dtype.kind != kind:
        raise UserError(f"{where}: does not have XLand-100B's layout: {name} has type {dtype}")
    if elsewhere:
        raise UserError(f"{where}: {name} is stored in other files, which are not read; copy the data into this file")
    for code, _, _, label in filters:
        if not h5py.h5z.filter_avail(code):
            raise UserError(
                f"{where}: {name} is compressed by HDF5 filter {code} ({label.decode(errors='replace')}), which is not "
                "installed; put its plugin in the folder HDF5_PLUGIN_PATH, or repack the file with h5repack -f GZIP=6"
            )
    return tuple(shape)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turns the errors that HDF5 raises for a damaged file into a UserError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{what} cannot be read ({' '.join(str(error).split())}); the file is damaged") from error
