"""The layout of XLand-100B and XLand-Trivial-20B (Nikulin et al. 2024, arXiv 2406.08973), checked and read.

As the authors' own code writes it (dunnolab/xland-minigrid-datasets, `collection/`), an HDF5 file has

    /N                  a group a task, N from 0; its attributes `env-id`, `benchmark-id` and `ruleset-id` name it
    /N/states           (32, T, 5, 5) uint8     what was seen before the action: 12 * tile + colour of every cell
    /N/actions          (32, T) uint8           forward, turn right, turn left, pick up, put down, toggle
    /N/rewards          (32, T) float16         what that action earned
    /N/dones            (32, T) bool            whether that action ended its episode; the next row begins a new one
    /N/expert_actions   (32, T) uint8           what the learner's final policy thinks best there, after that history

with T = 60,928 (Trivial-20B) or 121,856 (100B), in gzip chunks of (1, 4096, ...). A task's 32 histories are of 32 of
the 8,192 environments that one recurrent PPO learner acted in: one learner, 32 actors. Tasks on which it ended below a
mean return of .3 are not in the files.

`dones` does not say how an episode ended, but the reward does. XLand-MiniGrid pays for reaching the goal alone, at
least .1, and that terminates; an episode that ends with nothing has met the time limit, 3 * height * width steps.
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

from icrl.support.errors import UserError

TILES, COLORS, ACTIONS = 13, 12, 6
"""Kinds of tiles, colours and actions of XLand-MiniGrid since its version 0.7, which is older than these files."""

_ATTRIBUTES = {"env-id": str, "benchmark-id": str, "ruleset-id": int | np.integer}
_DATASETS = {"states": "u", "actions": "u", "rewards": "f", "dones": "b", "expert_actions": "u"}
"""What a group has to hold, and the kind of its numbers."""


@dataclass(frozen=True)
class XLandTask:
    """A group of the file, nothing of it decompressed."""

    group: h5py.Group
    where: str
    """The file and the group, for errors."""
    environment: str
    benchmark: str
    ruleset: int
    """The task's number in its benchmark."""
    histories: int
    steps: int
    view: tuple[int, int]
    """Height and width of what is seen, in cells."""

    @property
    def time_limit(self) -> int | None:
        """Steps after which its environment ends an episode; None if the id is not one of XLand-MiniGrid's own."""
        size = re.fullmatch(r"XLand-MiniGrid-R\d+-(\d+)x(\d+)", self.environment)
        return 3 * int(size[1]) * int(size[2]) if size else None

    def read(self, histories: slice, steps: int, time_limit: int) -> dict[str, NDArray[Any]]:
        """The first `steps` steps of some histories: a learning history's columns, (histories, steps, ...).

        Raises UserError if they cannot be read, or are not what XLand-MiniGrid gives within its time limit.
        """
        stored = {name: self._read(name, histories, steps) for name in _DATASETS}
        for name, count in (("states", TILES * COLORS), ("actions", ACTIONS), ("expert_actions", ACTIONS)):
            if stored[name].max() >= count:
                raise UserError(
                    f"{self.where}: {name} has {stored[name].max()}, but XLand-MiniGrid's are below {count}"
                )
        reward, done = stored["rewards"].astype(np.float32), stored["dones"]
        reached = reward > 0
        if not ((reward >= 0) & (reward <= 1)).all() or (reached & ~done).any():
            raise UserError(
                f"{self.where}: how episodes end cannot be told from rewards that are not XLand-MiniGrid's, which are "
                "between 0 and 1, and above 0 in the last step of an episode alone"
            )
        longest = longest_episode(done)
        if longest > time_limit:
            raise UserError(
                f"{self.where}: an episode has {longest} steps, and the time limit is {time_limit}: give another "
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
    """Steps of the longest episode, the unfinished last ones included; `done` is (histories, steps)."""
    step = np.arange(done.shape[1], dtype=np.int32)
    begins = np.roll(done, 1, axis=1)  # in the first step, what the last one says; it is step 0 in either case
    return 1 + int((step - np.maximum.accumulate(np.where(begins, step, 0), axis=1)).max())


def open_xland(file: Path) -> h5py.File:
    """The file, opened. Raises UserError if it is not there, or not HDF5."""
    try:
        return h5py.File(file)
    except OSError as error:
        why = f"is not an HDF5 file, or is damaged ({error})" if file.exists() else "there is no such file"
        raise UserError(f"{file}: {why}") from error


def task_names(opened: h5py.File) -> list[str]:
    """The names of all groups, in the order of their numbers. Raises UserError if the file has anything else."""
    with _reading(opened.filename):
        names = list(opened)
    strangers = [name for name in names if not re.fullmatch("[0-9]+", name)]
    if strangers or not names:
        found = f"it has {strangers[0]!r}" if strangers else "it is empty"
        raise UserError(f"{opened.filename}: is not of XLand-100B's layout, groups 0, 1, 2 ...: {found}")
    return sorted(names, key=int)


def find_task(opened: h5py.File, name: str) -> XLandTask:
    """What the group `name` says of itself. Raises UserError if it is not of the layout."""
    where = f"{opened.filename}: group {name}"
    group = _member(opened, name, h5py.Group, opened.filename)
    with _reading(where):
        attributes = {name: group.attrs.get(name) for name in _ATTRIBUTES}
    for attribute, kind in _ATTRIBUTES.items():
        if not isinstance(attributes[attribute], kind):
            expected = "a text" if kind is str else "a whole number"
            raise UserError(f"{where}: is not of XLand-100B's layout: its attribute {attribute!r} is not {expected}")
    shapes = {dataset: _shape(group, dataset, kind, where) for dataset, kind in _DATASETS.items()}
    states = shapes.pop("states")
    if len(states) != 4 or 0 in states:
        raise UserError(f"{where}: states has shape {states}, where (histories, steps, height, width) is expected")
    for dataset, shape in shapes.items():
        if shape != states[:2]:
            raise UserError(f"{where}: {dataset} has shape {shape}, where states has {states}")
    environment, benchmark, ruleset = attributes.values()
    return XLandTask(group, where, environment, benchmark, int(ruleset), states[0], states[1], states[2:])


def _member(group: h5py.Group, name: str, kind: type, where: str) -> Any:
    """The group or dataset `name` of a group. Raises UserError if it is not there, or leads out of the group."""
    with _reading(f"{where}: {name}"):
        link = group.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise UserError(f"{where}: {name!r} is a link, and links are not followed: put what it leads to in its place")
    with _reading(f"{where}: {name}"):
        found = group.get(name)
    if not isinstance(found, kind):
        raise UserError(f"{where}: is not of XLand-100B's layout: it has no {kind.__name__.lower()} {name!r}")
    return found


def _shape(group: h5py.Group, name: str, kind: str, where: str) -> tuple[int, ...]:
    """The shape of a dataset. Raises UserError if it is not there, of another type, or cannot be read here."""
    dataset = _member(group, name, h5py.Dataset, where)
    with _reading(f"{where}: {name}"):
        dtype, shape, elsewhere = dataset.dtype, dataset.shape, dataset.external or dataset.is_virtual
        created = dataset.id.get_create_plist()
        filters = [created.get_filter(number) for number in range(created.get_nfilters())]
    if dtype.kind != kind:
        raise UserError(f"{where}: is not of XLand-100B's layout: {name} is of type {dtype}")
    if elsewhere:
        raise UserError(f"{where}: {name} lies in other files, which are not read: put its numbers into this one")
    for code, _, _, label in filters:
        if not h5py.h5z.filter_avail(code):
            raise UserError(
                f"{where}: {name} is compressed by HDF5 filter {code} ({label.decode(errors='replace')}), which is not "
                "installed: put its plugin where HDF5_PLUGIN_PATH says, or repack the file with h5repack -f GZIP=6"
            )
    return tuple(shape)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Makes what HDF5 raises for a damaged file a UserError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{what} cannot be read ({' '.join(str(error).split())}); the file is damaged") from error
