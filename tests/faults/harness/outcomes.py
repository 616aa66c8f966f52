"""Outcomes of the faults that were tried: one line per case on disk, and the table of all of them."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """One fault that was tried."""

    kind: str
    """The row of the table, such as `kills`."""
    case: str
    """Names the case within its kind; the same name makes the same fault again."""
    ending: str
    """How the program answered, in one or two words: `continued`, `refused`, `made again` ..."""
    broken: tuple[str, ...] = ()
    """Promises that did not hold: `lost`, `silent`, `traceback`, `executed`, `outside`, `memory`, `time`, `orphan`,
    `leftover`, `exit code`, `many lines`."""
    seconds: float = 0.0
    detail: str = field(default="", compare=False)
    """For a broken promise, what was seen."""


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes in a file of an earlier or interrupted run; a half-written last line is dropped."""
    outcomes = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        outcomes.append(Outcome(**{**values, "broken": tuple(values["broken"])}))
    return outcomes


def add_outcome(path: Path, outcome: Outcome) -> None:
    """Appends a line, in one write, so that several processes can share the file."""
    with open(path, "ab", buffering=0) as file:
        file.write((json.dumps(asdict(outcome)) + "\n").encode())


def table(outcomes: Iterable[Outcome]) -> str:
    """The table in Markdown: one row per kind."""
    rows = ["| kind | tried | held | did not hold | endings | minutes |", "|---|---|---|---|---|---|"]
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.kind, []).append(outcome)
    for kind, tried in kinds.items():
        broken = Counter(word for outcome in tried for word in outcome.broken)
        endings = Counter(outcome.ending for outcome in tried)
        rows.append(
            f"| {kind} | {len(tried):,} | {sum(not outcome.broken for outcome in tried):,} | "
            f"{', '.join(f'{count} {word}' for word, count in broken.most_common()) or '0'} | "
            f"{', '.join(f'{count:,} {word}' for word, count in endings.most_common())} | "
            f"{sum(outcome.seconds for outcome in tried) / 60:.0f} |"
        )
    return "\n".join(rows) + "\n"
