"""Reading .npz files from anywhere: sizes that a file only declares are checked before anything is allocated."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_COMPRESSED = 1100
"""Most bytes per stored byte that deflate can give (1,032), with a margin. A file that declares more is damaged."""

SLACK = 2**20
"""Bytes that may be declared in any case."""


def read_npz(path: Path | str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, without unpickling.

    Raises ValueError if the file declares arrays that its bytes cannot hold, ValueError, OSError or BadZipFile if it is
    damaged.
    """
    stored = Path(path).stat().st_size
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > SLACK + MOST_COMPRESSED * stored:
            raise ValueError("it declares more than its bytes can hold")
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"{member.filename} is not an array")
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = header(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size or min(shape, default=0) < 0:
                    raise ValueError(f"{member.filename} declares shape {shape}, but its bytes hold less")
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays
