"""HDF5 columns that lie in another file, which HDF5 and every library on top of it reads without a word."""

from pathlib import Path

import h5py
import numpy as np

_SECRET_SHAPE = (32, 144)
"""Shape of the rewards in the secret file."""


def make_external_link(group: h5py.Group, name: str, home: Path) -> None:
    """Replaces a column by a link to the secret file's rewards."""
    del group[name]
    group[name] = h5py.ExternalLink(str(home / "secret" / "secret.h5"), "reward")


def make_external_storage(group: h5py.Group, name: str, home: Path) -> None:
    """Replaces a column by one whose numbers are the bytes of the secret text."""
    shape, dtype = group[name].shape, group[name].dtype
    del group[name]
    size = int(np.prod(shape)) * dtype.itemsize
    group.create_dataset(name, shape, dtype, external=[(str(home / "secret" / "secret.txt"), 0, size)])


def make_virtual(group: h5py.Group, name: str, home: Path) -> None:
    """Replaces a column, (histories, steps) or (steps,), by one whose first numbers are the secret file's rewards."""
    shape, dtype = group[name].shape, group[name].dtype
    del group[name]
    layout = h5py.VirtualLayout(shape, dtype)
    source = h5py.VirtualSource(str(home / "secret" / "secret.h5"), "reward", _SECRET_SHAPE)
    if len(shape) == 1:
        steps = min(shape[0], _SECRET_SHAPE[1])
        layout[:steps] = source[0, :steps]
    else:
        parts = tuple(slice(min(pair)) for pair in zip(shape, _SECRET_SHAPE, strict=True))
        layout[parts] = source[parts]
    group.create_virtual_dataset(name, layout)
