"""Reading .npz files from anywhere: sizes that a file only declares are checked before anything is allocated."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icrl.support.files import open_file

MOST_COMPRESSED = 1100
"""Most bytes per stored byte that deflate can give (1,032), with a margin. A file that declares more is damaged."""

_MOST_PACKED = 20
"""Most bytes per stored byte of a large .npz file. Those of this project are not compressed."""

_MOST_MEMBERS = 1024
_MOST_SMALL = 2**26
_LONGEST_HEADER = 2**16
_LONGEST_NAME = 256

SLACK = 2**20
"""Bytes that may be declared in any case."""


def read_npz(path: Path | str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, without unpickling.

    Raises ValueError if the file declares arrays that its bytes cannot hold, ValueError, OSError or BadZipFile if it is
    damaged.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with open_file(Path(path)) as opened, zipfile.ZipFile(opened) as archive:
        stored, members = Path(path).stat().st_size, archive.infolist()
        whole = sum(member.file_size for member in members)
        if whole > SLACK + MOST_COMPRESSED * stored or whole > _MOST_SMALL + _MOST_PACKED * stored:
            raise ValueError("it declares more than its bytes can hold")
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(names) > _MOST_MEMBERS or len({*names}) < len(names):
            raise ValueError("it has an array twice, or too many arrays")
        for name, member in zip(names, members, strict=True):
            if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME or ".." in name or name[0] in "/\\":
                raise ValueError(f"{name[:40]!r} is not the name of an array")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"{member.filename} is not an array")
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = header(file, max_header_size=_LONGEST_HEADER)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size or min(shape, default=0) < 0:
                    raise ValueError(f"{member.filename} declares shape {shape}, but its bytes hold less")
            with archive.open(member) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays
