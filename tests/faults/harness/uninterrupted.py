"""The parts that uninterrupted runs of a command agree on, and how far a folder differs from it.

Two clean runs say which bytes and which figures a config decides: those that are the same in both. Times differ, so
they drop out without a list of their names.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

_NOT_DECIDED = {"files", "checksum", "crc32", "made_with", "seconds", "share_of_peak", "tokens_per_second"}
_NOT_DECIDED |= {"steps_per_second", "validation_seconds"}
"""Keys of times, of versions, and of checksums over files that hold them."""
_STEP = re.compile(r"step-(\d+)")
_HIDDEN = {".lock"}
"""Hidden files that may stay."""


def contents(folder: Path) -> dict[str, Any]:
    """By relative path of every file: its digest, or the values in it. Only the last of a folder's checkpoints counts.

    Which of the earlier checkpoints are kept depends on where a run was interrupted.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _HIDDEN and not _is_earlier_checkpoint(path, folder):
            name = path.relative_to(folder).as_posix()
            found[name] = _values(path)
    return found


def agreement(first: Any, second: Any) -> Any:
    """The parts of two values that are the same in both; None for the others. Keys of both are kept."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {key: agreement(first[key], second[key]) for key in first if key in second}
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [agreement(*pair) for pair in zip(first, second, strict=True)]
    return first if first == second else None


def differences(agreed: Any, found: Any, where: str = "") -> list[str]:
    """The parts of `found` that differ from the agreed values, and files that only one of the two has."""
    if agreed is None:
        return []
    if isinstance(agreed, dict) and isinstance(found, dict):
        lines = [f"{where}{key}: missing" for key in agreed.keys() - found.keys()]
        lines += [f"{where}{key}: left over" for key in found.keys() - agreed.keys()]
        for key in agreed.keys() & found.keys():
            lines += differences(agreed[key], found[key], f"{where}{key} ")
        return lines
    if isinstance(agreed, list) and isinstance(found, list) and len(agreed) == len(found):
        pairs = enumerate(zip(agreed, found, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{where}{number} ")]
    return [] if agreed == found else [f"{where.strip()}: {str(agreed)[:60]} became {str(found)[:60]}"]


def _values(path: Path) -> Any:
    if path.suffix == ".json":
        return _decided(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_decided(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".yaml":
        return [line for line in path.read_text().splitlines() if not line.startswith("#")]  # versions
    if path.suffix in (".md", ".html"):  # pages, which show times
        return None
    return digest(path)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _decided(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _decided(value) for key, value in values.items() if key not in _NOT_DECIDED}
    return [_decided(each) for each in values] if isinstance(values, list) else values


def _is_earlier_checkpoint(path: Path, folder: Path) -> bool:
    for parent in path.parents:
        if parent == folder:
            return False
        if _STEP.fullmatch(parent.name):
            siblings = [int(name.group(1)) for each in parent.parent.iterdir() if (name := _STEP.fullmatch(each.name))]
            return int(parent.name.removeprefix("step-")) != max(siblings)
    return False
