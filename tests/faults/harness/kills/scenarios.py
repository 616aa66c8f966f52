"""The commands that are killed, and the states that they start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import TINY, merged
from tests.faults.harness.hostile_data.xland import write_xland
from tests.faults.harness.stages import ON, done, make_stages, next_state, reference, run
from tests.faults.harness.tiny_runs import LEARNER

CONFIG = merged(
    TINY,
    {
        "output": "runs",
        "data": {
            "sources": [{"name": "q_learning"}, {"name": "a2c"}, LEARNER],
            "histories_per_task": 3,
            "episodes": 16,
        },
        "training": {"subsample": 2},
        "evaluation": {"baselines": [{"name": "random"}], "episodes": 2, "test_tasks": 2, "train_tasks": 1},
        "runtime": {"meta_checkpoint_every": 1, "keep_checkpoints": 2},
    },
)
"""A tiny experiment with a tabular source, a deep one and a meta-learner; checkpoints at updates 2, 4 and 6."""

_EXPORT = ["export", "minari", "runs/tiny", "--id", "tiny/room-v0", "--by-task"]
_IMPORT = ["import", "minari", "tiny/whole-v0", "--to", "imported"]
_XLAND = ["import", "xland", "rooms.hdf5", "--to", "imported"]
_OTHER = ["--seed", "1"]


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and the state of the folder that it starts from."""

    start: str
    """Name of the state: the last stage that is complete."""
    words: Sequence[str]
    weight: int = 1
    """Share of the cases."""
    group: bool = False
    """The command has several processes, and SIGINT and SIGTERM go to all of them."""
    worker: bool = False
    """A worker process is killed, and not the command's own."""


# `icrl push --dry-run` writes nothing.
SCENARIOS = {
    "meta-train": Scenario("nothing", ["meta-train", *ON], 3),
    "meta-train-overwrite": Scenario("evaluate", ["meta-train", *ON, "--overwrite"], 2),
    "generate": Scenario("meta-train", ["generate", *ON], 3),
    "generate-overwrite": Scenario("evaluate", ["generate", *ON, "--overwrite"], 2),
    "generate-2-workers": Scenario("meta-train", ["generate", *ON, "--workers", "2"], 2, group=True),
    "generate-dead-worker": Scenario("meta-train", ["generate", *ON, "--workers", "2"], 1, worker=True),
    "train": Scenario("generate", ["train", *ON], 4),
    "train-overwrite": Scenario("evaluate", ["train", *ON, "--overwrite"], 3),
    "train-other": Scenario("evaluate", ["train", *ON, "--overwrite", "--training.learning_rate", "0.01"], 2),
    "evaluate": Scenario("train", ["evaluate", *ON], 2),
    "evaluate-overwrite": Scenario("evaluate", ["evaluate", *ON, "--overwrite"], 2),
    "evaluate-other": Scenario("evaluate", ["evaluate", *ON, "--overwrite", "--evaluation.seeds", "1"]),
    "report": Scenario("no-report", ["evaluate", *ON]),
    "run": Scenario("nothing", ["run", *ON], 6),
    "run-overwrite": Scenario("evaluate", ["run", *ON, "--overwrite"], 5),
    "run-other": Scenario("evaluate", ["run", *ON, "--overwrite", *_OTHER], 5),
    "export": Scenario("evaluate", _EXPORT, 2),
    "import-minari": Scenario("exported", _IMPORT, 2),
    "import-minari-overwrite": Scenario("imported", [*_IMPORT, "--overwrite"], 2),
    "import-xland": Scenario("xland", _XLAND),
    "import-xland-overwrite": Scenario("imported", [*_XLAND, "--overwrite"]),
}


def make_states(home: Path) -> None:
    """Every state that a scenario starts from."""
    last = make_stages(home, CONFIG)
    no_report = next_state(home, last, "no-report")
    (no_report / "runs/tiny/report.html").unlink()
    exported = next_state(home, last, "exported")
    done(["export", "minari", "runs/tiny", "--id", "tiny/whole-v0"], exported)
    imported = next_state(home, exported, "imported")
    done(_IMPORT, imported)
    for state in (imported, next_state(home, home / "nothing", "xland")):
        write_xland(state / "rooms.hdf5", tasks=5, size=3, steps=60, episode=20, storage=_one_history_per_chunk)


def expected(home: Path, name: str) -> dict[str, Any]:
    """The result of a scenario without a fault, its operations, and how far it is before each of them."""
    scenario = SCENARIOS[name]
    return reference(home, name, scenario.start, lambda folder, fault: run(scenario.words, folder, fault))


def _one_history_per_chunk(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"chunks": (1, *shape[1:]), "compression": "gzip"}
