"""Forged data sets of Minari."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults.harness.hdf5_links import make_external_link, make_external_storage, make_virtual
from tests.faults.harness.payloads import ANSI, INSTEAD, MARK, Bomb, replace_file, replaced

DATA_SET = "me/data-v0"


def _external(file: h5py.File, rng: random.Random, home: Path) -> None:
    make_external_link(file["episode_0"], "rewards", home)
    if rng.random() < 0.5:
        del file["episode_0"]
        file["episode_0"] = h5py.ExternalLink(str(home / "secret" / "secret.h5"), "/")


def _soft_link(file: h5py.File, rng: random.Random, home: Path) -> None:
    del file["episode_0/rewards"]
    file["episode_0/rewards"] = h5py.SoftLink("/episode_0/rewards")


def _types(file: h5py.File, rng: random.Random, home: Path) -> None:
    length = len(file["episode_0/rewards"])
    del file["episode_0/rewards"]
    file.create_dataset("episode_0/rewards", (length,), h5py.vlen_dtype(np.float64))


def _sparse(file: h5py.File, rng: random.Random, home: Path) -> None:
    del file["episode_0/rewards"]
    file.create_dataset("episode_0/rewards", (10**9,), np.float64, chunks=(10**5,))


def _cycle(file: h5py.File, rng: random.Random, home: Path) -> None:
    del file["episode_0/observations"]
    file["episode_0/observations"] = file["episode_0"]


def _attributes(file: h5py.File, rng: random.Random, home: Path) -> None:
    key = rng.choice(["total_steps", "id", "seed"])
    file["episode_0"].attrs[key] = rng.choice([-1, 10**12, ANSI, np.zeros(3)])


IN_HDF5: dict[str, Callable[[h5py.File, random.Random, Path], None]] = {
    "external": _external,
    "soft": _soft_link,
    "virtual": lambda file, rng, home: make_virtual(file["episode_0"], "rewards", home),
    "raw": lambda file, rng, home: make_external_storage(file["episode_0"], "rewards", home),
    "types": _types,
    "sparse": _sparse,
    "cycle": _cycle,
    "attributes": _attributes,
}
"""Faults of `main_data.hdf5`: (file, random numbers, home)."""


def _spec() -> str:
    """The spec of an environment that is code of the attacker's."""
    spec = {"id": "trap_module:X-v0", "entry_point": "trap_module:load", "kwargs": {"x": ANSI}}
    return json.dumps({**spec, "additional_wrappers": [], "vector_entry_point": "trap_module:load"})


IN_METADATA: dict[str, Callable[[dict[str, Any], random.Random], dict[str, Any]]] = {
    "metadata": replaced,
    "spec": lambda metadata, rng: {**metadata, "env_spec": _spec()},
    "arrow": lambda metadata, rng: {**metadata, "data_format": "arrow"},
    "format": lambda metadata, rng: {**metadata, "data_format": rng.choice(["arrow", "trap_module:Family", ANSI, 7])},
    "record": lambda metadata, rng: {
        **metadata,
        "learning_histories": replaced(metadata.get("learning_histories", {}), rng),
    },
}
"""Faults of `metadata.json`: (content, random numbers)."""

HOW = [
    *("external", "soft", "virtual", "raw", "metadata", "metadata", "spec", "arrow", "types", "sparse", "cycle"),
    *("instead", "attributes", "format", "record"),
]
MUST_REFUSE = ("external", "virtual", "raw")
"""Faults that read other files if they are accepted."""


def forge_minari(store: Path, rng: random.Random, home: Path) -> bool:
    """Makes a store with a data set that has one fault; True if it must be refused."""
    shutil.copytree(home / "minari", store)
    data = store / DATA_SET / "data"
    main, about = data / "main_data.hdf5", data / "metadata.json"
    how = rng.choice(HOW)
    if how in IN_HDF5:
        with h5py.File(main, "r+") as file:
            IN_HDF5[how](file, rng, home)
    elif how in IN_METADATA:
        about.write_text(json.dumps(IN_METADATA[how](json.loads(about.read_text()), rng)))
    else:
        replace_file(rng.choice([main, about]), rng.choice(INSTEAD), home)
    if how == "arrow":
        (data / "0").mkdir()
        (data / "0" / "x.arrow").write_bytes(pickle.dumps(Bomb(store.parent / MARK)))
    return how in MUST_REFUSE
