"""Two commands at once, dead ranks, read-only folders and symbolic links.

The second of two commands is refused in one line, or reads only. Wherever a fault is survived, the results are those of
an uninterrupted run; nothing outside of the run folder is changed.
"""

from pathlib import Path

from tests.faults.harness.neighbours import links, pairs, ranks, read_only
from tests.faults.harness.neighbours.commands import COMMANDS, CONFIG, expected
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.stages import make_stages

NUMBER = 66

KINDS = {"pair": pairs, "rank": ranks, "read-only": read_only, "link": links}
"""Modules with `NAMES`, and `attempt(home, folder, *parts of a name)`, which returns the ending and broken promises."""


def prepare(home: Path) -> None:
    """Makes the states that cases start from, and runs every command twice without a fault."""
    make_stages(home, CONFIG, ("generate", "train", "evaluate"))
    for command in COMMANDS:
        expected(home, command)
    ranks.expected(home)


def cases(home: Path, number: int) -> list[str]:
    """Names such as `pair:train:generate-overwrite:3`; the first ones of every kind if `number` is small."""
    kinds = [[f"{kind}:{name}" for name in module.NAMES] for kind, module in KINDS.items()]
    total = sum(map(len, kinds))
    return [name for names in kinds for name in names[: max(1, round(number * len(names) / total))]]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Tries one case."""
    kind, *parts = case.split(":")
    ending, broken = KINDS[kind].attempt(home, folder, *parts)
    return Outcome("neighbours", case, ending, tuple(broken), detail="\n".join(broken.values()))
