"""Single flipped bits in every file that decides a result: each is noticed by the checks before the file is used.

A case is `FILE NUMBER`: one random bit of the file, anywhere in it.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ad_model.checked_arrays import CheckedFolder
from ad_model.load import check_checksums
from data_gen.storage.folder import check_task_files, checked_shards, load_info
from eval.report import report_exists
from eval.summary import intact_summary
from icrl.run.checkpoints import MetaTrainingRecord, TrainingRecord, intact_record
from icrl.run.folder import RunFolder, config_text
from icrl.support.errors import UserError
from tests.faults.harness.damaged_files import kinds_of_files, only
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.tiny_runs import make_states

EACH = 100
"""Flips per file."""

NUMBER = 100_000
"""More than there are files, each with its flips."""


def opened_cache(tiny: Path) -> None:
    """Opens the token cache and reads every window, as training would."""
    cache = CheckedFolder(only(tiny, "cache/*"))
    for name in ("strands.npy", "likelihoods.npy"):
        cache.whole(name)
    cache.file("statistics.json").verify_all()
    for name in ("observation", "previous_action", "previous_reward", "boundary", "action"):
        array = cache.array(f"{name}.npy")
        for row in range(0, len(array.values), 7):
            array.verify(np.array([row]), min(7, len(array.values) - row))


def opened_report(tiny: Path) -> None:
    """Asks whether the report is there."""
    if not report_exists(RunFolder(tiny)):
        raise UserError("it is made again")


USES: dict[str, Callable[[Path], object]] = {
    "cache/": opened_cache,
    "checkpoints/step-000004/model/checksums.json": lambda tiny: check_checksums(
        tiny / "checkpoints/step-000004/model"
    ),
    "checkpoints/step-000004/": lambda tiny: intact_record(tiny / "checkpoints/step-000004", TrainingRecord),
    "meta/*/step-000002/": lambda tiny: intact_record(only(tiny, "meta/*/step-000002"), MetaTrainingRecord),
    "meta/*/step-000003/": lambda tiny: intact_record(only(tiny, "meta/*/step-000003"), MetaTrainingRecord),
    "eval/": lambda tiny: intact_summary(RunFolder(tiny)),
    "report": opened_report,
    "data/tasks": lambda tiny: check_task_files(tiny / "data", load_info(RunFolder(tiny))),
    "data/train": lambda tiny: list(checked_shards(RunFolder(tiny), load_info(RunFolder(tiny)))),
    "data/info.json": lambda tiny: load_info(RunFolder(tiny)),
    "config.yaml": lambda tiny: config_text(tiny / "config.yaml"),
}
"""By the begin of a file's path, without the names of meta-learners: the check that the next stage makes first."""


def prepare(home: Path) -> None:
    """A finished run."""
    make_states(home / "states")


def cases(home: Path, number: int) -> list[str]:
    """The first flip of every file, then the second of every file, and so on."""
    files = [kind for kind in kinds_of_files(home / "states/finished/runs/tiny") if use_of(kind)]
    return [f"{file} {flip}" for flip in range(EACH) for file in files][:number]


def use_of(kind: str) -> Callable[[Path], object] | None:
    """The check that is made before a file is used; None for a file that decides nothing."""
    plain = "/".join("*" if "-*" in part else part for part in kind.split("/"))
    return next((use for begin, use in USES.items() if plain.startswith(begin)), None)


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Flips one bit and makes the check."""
    kind, flip = case.rsplit(" ", 1)
    shutil.copytree(home / "states/finished/runs/tiny", folder, copy_function=os.link, dirs_exist_ok=True)
    path = only(folder, kind)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng((zlib.crc32(kind.encode()), int(flip)))
    at = int(rng.integers(len(content)))
    content[at] ^= 1 << int(rng.integers(8))
    path.unlink()  # not through the link
    path.write_bytes(content)
    use = use_of(kind)
    assert use is not None
    try:
        use(folder)
    except UserError as error:
        return Outcome("flips", case, "noticed", () if "\n" not in str(error) else ("many lines",))
    return Outcome("flips", case, "not noticed", ("silent",), detail=f"byte {at} is {content[at]}")
