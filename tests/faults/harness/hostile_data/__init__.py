"""Data folders and files of other projects, as an attacker or a broken exporter would make them.

A case is `MUTATION[+MUTATION]:USE:SEED`. The mutations change a copy of a valid data folder, one after another; an
attacker computes checksums that fit, so they are made to fit afterwards. The use is the command that gets the folder.
`xland::SEED` and `minari::SEED` are files in the formats of other projects, which are imported.

Each module forges one kind of file: the record, the columns of a shard, a shard as a file, the tasks, and the rest.
"""

import random
import shutil
from pathlib import Path
from typing import Any

from icrl.config.loader import dump, validate
from tests.conftest import TINY
from tests.faults.harness.hostile import given_to, make_run
from tests.faults.harness.hostile_data import columns, other_files, record, shards, tasks
from tests.faults.harness.hostile_data.folder import Mutation
from tests.faults.harness.hostile_data.minari import DATA_SET, forge_minari
from tests.faults.harness.hostile_data.xland import forge_xland, write_xland
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.payloads import make_secrets
from tests.faults.harness.watched import MINARI, watched

NUMBER = 220

MUTATIONS: dict[str, Mutation] = {
    **record.MUTATIONS,
    **columns.MUTATIONS,
    **shards.MUTATIONS,
    **tasks.MUTATIONS,
    **other_files.MUTATIONS,
}
WEIGHTS = {"fuzz": 4, "space": 4, "shard-names": 4, "type": 3, "shape": 4, "npz": 5, "parquet": 3, "family": 3}
MUST_REFUSE = {"values", "external-link", "external-storage", "virtual", "pickled-shard"}
"""Mutations of shards that change results, or read other files, if they are accepted."""

USES = ("run", "push", "info", "parquet", "given", "own-info", "own-push")
READ_EVERYTHING = ("run", "push", "own-push")
"""Uses that read every column."""


def prepare(home: Path) -> None:
    """A complete run, its data folder, and a valid file of every foreign format."""
    make_secrets(home)
    make_run(home, "generate")
    shutil.copytree(home / "runs" / "made" / "data", home / "data")
    shutil.copy(home / "runs" / "made" / "config.yaml", home / "data" / "config.yaml")
    write_xland(home / "xland.h5", tasks=2, size=9, steps=400, episode=100, storage=lambda shape: {})
    (home / "minari").mkdir()
    words = ["export", "minari", "runs/made", "--id", DATA_SET, "--histories", "0"]
    exported = watched(words, home, environment={MINARI: str(home / "minari")})
    assert exported.code == 0, exported.errors


def cases(home: Path, number: int) -> list[str]:
    """Every mutation at least once, then as many more as asked for; a fifth of them are pairs of mutations."""
    rng = random.Random(13)
    names = [name for name, times in ((name, WEIGHTS.get(name, 1)) for name in MUTATIONS) for _ in range(times)]
    chosen: list[str] = []
    for seed in range(number):
        if seed % 6 == 5:
            chosen.append(f"{rng.choice(['xland', 'xland', 'minari'])}::{seed}")
            continue
        name = names[seed % len(names)] if seed < 2 * len(names) else rng.choice(names)
        if seed >= len(names) and rng.random() < 0.25:
            name += f"+{rng.choice(names)}"
        chosen.append(f"{name}:{rng.choice([*USES, 'run', 'push'])}:{seed}")
    return chosen


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Makes the hostile folder or file, and gives it to the command."""
    names, use, seed = case.split(":")
    rng, environment = random.Random(int(seed)), {}
    if names == "xland":
        words, refuse = ["import", "xland", "x.h5", "--to", "imported"], forge_xland(folder / "x.h5", rng, home)
    elif names == "minari":
        words, refuse = ["import", "minari", DATA_SET, "--to", "imported"], forge_minari(folder / "store", rng, home)
        environment = {MINARI: str(folder / "store")}
    else:
        place = forge_data(names, use, rng, home, folder)
        words, refuse = _words(use, place, folder), names in MUST_REFUSE and use in READ_EVERYTHING
    return given_to("hostile_data", case, words, folder, home, refuse, environment=environment)


def forge_data(names: str, use: str, rng: random.Random, home: Path, folder: Path) -> Path:
    """Makes a data folder with these mutations in `folder`, or in a run folder there for the uses `own-...`."""
    place = folder / "made" / "data" if use.startswith("own") else folder / "theirs"
    shutil.copytree(home / "data", place)
    if use.startswith("own"):
        shutil.copy(home / "runs" / "made" / "config.yaml", place.parent / "config.yaml")
    for name in names.split("+"):
        try:
            MUTATIONS[name](place, rng, home)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError):
            if "+" not in names:  # the second mutation may find nothing to change after the first
                raise
    return place


def _words(use: str, place: Path, folder: Path) -> list[str]:
    """The command that gets the folder `place`."""
    relative = str(place.relative_to(folder))
    push = ["push", "data", relative, "--repo", "me/x", "--dry-run"]
    match use:
        case "run":  # generate, train and evaluate with given data
            return ["run", _given_config(folder, relative)]
        case "given":
            return ["generate", _given_config(folder, relative)]
        case "push":
            return push
        case "parquet":
            return [*push, "--format", "parquet"]
        case "info":
            return ["info", relative]
        case "own-info":
            return ["info", "made"]
        case "own-push":
            return ["push", "data", "made", "--repo", "me/x", "--dry-run"]
    raise ValueError(use)


def _given_config(folder: Path, relative: str) -> str:
    values: dict[str, Any] = {**TINY, "name": "mine", "output": "runs", "data": {"folder": relative}}
    (folder / "mine.yaml").write_text(dump(validate(values)))
    return "mine.yaml"
