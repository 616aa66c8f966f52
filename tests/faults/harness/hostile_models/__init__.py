"""Model folders and checkpoints as an attacker or a broken exporter would make them.

A case is `MUTATION:SEALED:USE:SEED`: the mutation changes a copy of a trained model's folder, whose checksums are then
made to fit (`sealed`), left as they were (`stale`) or deleted (`without`), and the use is the command that gets it.

Each module forges one kind of file: the config, the weights, and the rest.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icrl.config.loader import dump, validate
from tests.conftest import TINY, merged
from tests.faults.harness.hostile import given_to, make_run
from tests.faults.harness.hostile_models import config, other_files, weights
from tests.faults.harness.hostile_models.folder import Mutation, seal_checkpoint, seal_model
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.payloads import make_secrets

NUMBER = 120

MUTATIONS: dict[str, Mutation] = {**config.MUTATIONS, **weights.MUTATIONS, **other_files.MUTATIONS}
WEIGHTS = {"sizes": 4, "other-backbone": 3, "spaces": 3, "references": 5, "fuzz": 3, "fuzz-backbone": 3, "header": 4}
MUST_REFUSE = {"nan", "missing", "more", "shape"}
USES = ("evaluate", "evaluate", "load", "push", "run", "resume")


def prepare(home: Path) -> None:
    """A complete run, and the folder of its model."""
    make_secrets(home)
    make_run(home, "run")
    shutil.copytree(home / "runs" / "made" / "checkpoints" / "step-000006" / "model", home / "model")


def cases(home: Path, number: int) -> list[str]:
    """Every mutation at least twice, then more of those with many forms."""
    rng = random.Random(17)
    names = [name for name in MUTATIONS for _ in range(WEIGHTS.get(name, 1))]
    seals = ("sealed", "sealed", "without", "stale")
    return [
        f"{names[seed % len(names)]}:{rng.choice(seals)}:{USES[(seed * 5 + seed // len(names)) % len(USES)]}:{seed}"
        for seed in range(number)
    ]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Makes the hostile model folder, and gives it to the command."""
    name, seal, use, seed = case.split(":")
    forge_model(name, seal, use, random.Random(int(seed)), home, folder)
    words, call = _words(use, home, folder)
    refuse = name in MUST_REFUSE and use not in ("push", "resume")
    return given_to("hostile_models", case, words, folder, home, refuse, call)


def forge_model(name: str, seal: str, use: str, rng: random.Random, home: Path, folder: Path) -> None:
    """Makes the model folder `theirs` in `folder`, or for the use `resume`, a run folder with a checkpoint."""
    if use == "resume":
        shutil.copytree(home / "runs" / "made", folder / "runs" / "made", symlinks=True)
        shutil.rmtree(folder / "runs" / "made" / "checkpoints" / "step-000006")
        place = folder / "runs" / "made" / "checkpoints" / "step-000004"
        MUTATIONS[name](place / "model", rng, home)
        seal_checkpoint(place, seal, rng)
    else:
        shutil.copytree(home / "model", folder / "theirs")
        MUTATIONS[name](folder / "theirs", rng, home)
        seal_model(folder / "theirs", seal)


def _words(use: str, home: Path, folder: Path) -> tuple[list[str], Callable[[], int] | None]:
    """The command that gets the hostile folder, or a function in its place."""
    if use == "resume":
        shutil.copy(home / "made.yaml", folder / "mine.yaml")
        return ["train", "mine.yaml", "--output", "runs"], None
    given: dict[str, Any] = {"name": "mine", "output": "runs", "data": {"sources": [{"name": "q_learning"}]}}
    given["evaluation"] = {"checkpoint": "theirs", "allow_seen_tasks": True, "baselines": [{"name": "random"}]}
    (folder / "mine.yaml").write_text(dump(validate(merged(TINY, given))))
    if use == "load":
        return ["load_model"], _load
    if use == "push":
        (folder / "mine").mkdir()
        (folder / "mine.yaml").rename(folder / "mine" / "config.yaml")
        return ["push", "model", "mine", "--repo", "me/x", "--dry-run"], None
    return [use, "mine.yaml"], None


def _load() -> int:
    """The public face, as a script would use it."""
    import icrl
    from icrl.support.terminal import reported

    return reported(lambda: icrl.load_model("theirs"))
