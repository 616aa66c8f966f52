"""Promises that every command keeps, whatever fault it meets: how it ends, what it prints, what it leaves behind.

The kinds of faults add their own, such as that nothing is lost. Broken promises are collected as a dictionary: the
promise, and what was seen.
"""

import json
import re
from collections.abc import Sequence

from tests.faults.harness.watched import Result

MOST_BYTES, MOST_SECONDS = 2**30, 120.0
_LONGEST_LINE = 4000
_PROGRESS = re.compile(r"%\||\d+(it|B| steps| updates| iterations)? \[\d\d:|\d+it |it/s|\?it")


def messages(result: Result) -> list[str]:
    """The lines of standard error that are neither empty nor progress."""
    lines = result.errors.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and not _PROGRESS.search(line)]


def broken_promises(result: Result, codes: Sequence[int] = (0, 1, 2), seconds: float = MOST_SECONDS) -> dict[str, str]:
    """The promises that a command broke, with what was seen, but for those about its lines.

    Args:
        result: how the command ended.
        codes: exit codes that are right.
        seconds: longest time.
    """
    seen = {
        "traceback": result.errors[-1500:] if result.has_traceback else "",
        "exit code": f"{result.code}: {result.errors[-800:]}" if result.code not in codes else "",
        "executed": "; ".join([*result.executed, *result.imported]),
        "memory": f"{result.peak_bytes >> 20} MiB" if result.peak_bytes > MOST_BYTES else "",
        "time": f"{result.seconds:.0f} s" if result.seconds > seconds else "",
        "orphan": "; ".join(result.left),
    }
    return {promise: what for promise, what in seen.items() if what}


def broken_lines(result: Result, words: str = "") -> dict[str, str]:
    """`many lines`, unless there is one line per problem: a config may have several problems, anything else is one.

    Args:
        result: how the command ended.
        words: words that an error must have.
    """
    lines = messages(result)
    errors = [line for line in lines if line.startswith("error: ")]
    others = [line for line in lines if not line.startswith(("error: ", "warning: ", "note: "))]
    right = {0: not errors, 2: bool(errors)}.get(result.code, len(errors) == 1) and not others
    right = right and all(words in line for line in errors) and all(len(line) <= _LONGEST_LINE for line in lines)
    return {} if right else {"many lines": "\n".join(lines)[-1500:] or "no line"}


def described(result: Result) -> str:
    """The lines that are shown of an answer that broke a promise."""
    parts = {"code": result.code, "executed": result.executed, "imported": result.imported, "left": result.left}
    shown = {**{name: value for name, value in parts.items() if value}, "MiB": result.peak_bytes >> 20}
    return f"{json.dumps(shown)}\n{result.output[-1500:]!r}\n{result.errors[-3000:]}"
