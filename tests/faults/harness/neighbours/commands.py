"""The commands that have a neighbour, and what is compared after them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import TINY, merged
from tests.faults.harness.promises import broken_lines, broken_promises
from tests.faults.harness.stages import ON, reference, run
from tests.faults.harness.uninterrupted import contents, differences
from tests.faults.harness.watched import Result

CONFIG = merged(TINY, {"output": "runs", "evaluation": {"episodes": 2, "test_tasks": 2, "train_tasks": 1}})

COMMANDS: dict[str, tuple[str, Sequence[str]]] = {
    "generate": ("nothing", ["generate", *ON]),
    "train": ("generate", ["train", *ON]),
    "evaluate": ("train", ["evaluate", *ON]),
    "run": ("nothing", ["run", *ON]),
    "run-again": ("evaluate", ["run", *ON]),
    "generate-overwrite": ("evaluate", ["generate", *ON, "--overwrite"]),
    "train-overwrite": ("evaluate", ["train", *ON, "--overwrite"]),
    "evaluate-overwrite": ("evaluate", ["evaluate", *ON, "--overwrite"]),
    "run-overwrite": ("evaluate", ["run", *ON, "--overwrite"]),
}
"""By name: the state that a command starts from, and its words."""


def expected(home: Path, command: str) -> dict[str, Any]:
    """The results of a command without a fault."""
    start, words = COMMANDS[command]
    return reference(home, command, start, lambda folder, fault: run(words, folder, fault))


def broken_answer(result: Result, codes: Sequence[int], words: str = "") -> dict[str, str]:
    """Broken promises of a command that should end with one of `codes`, and a line with `words` if not with 0."""
    return broken_promises(result, codes) | broken_lines(result, words)


def broken_results(agreed: dict[str, Any], work: Path) -> dict[str, str]:
    """The promise that is broken if a folder differs from what runs without a fault `agreed` on."""
    wrong = differences(agreed, contents(work))
    return {"leftover" if only_added(wrong) else "silent": "; ".join(wrong[:5])} if wrong else {}


def only_added(lines: Sequence[str]) -> bool:
    """True if all differences are files that are left over."""
    return all(line.endswith(": left over") for line in lines)
