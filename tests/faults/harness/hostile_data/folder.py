"""A data folder that is being forged: its record, its shards, and checksums that fit what was forged."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icrl.run.records import record_text
from icrl.support.files import sha256

Mutation = Callable[[Path, random.Random, Path], None]
"""Changes a data folder: (folder, random numbers, home)."""


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `info.json`."""
    content: dict[str, Any] = json.loads((folder / "info.json").read_bytes())
    return content


def write_record(folder: Path, record: Any) -> None:
    """Writes `info.json`, with the checksum that fits, if the record can have one."""
    (folder / "info.json").unlink(missing_ok=True)
    try:
        (folder / "info.json").write_text(record_text(record))
    except (ValueError, TypeError, AttributeError, UnicodeError):
        pairs = record.items() if isinstance(record, dict) else ()
        plain = {key: value for key, value in pairs if key != "checksum"} or record
        (folder / "info.json").write_text(json.dumps(plain))


def random_shard(folder: Path, rng: random.Random) -> Path:
    """One of the shards."""
    return folder / rng.choice(sorted(path.name for path in folder.glob("*.h5")))


def seal(folder: Path) -> None:
    """Writes the checksums that fit, for files that are files."""
    record = read_record(folder)
    for shard in record["shards"]:
        if isinstance(shard["file"], str) and "\0" not in shard["file"] and (folder / shard["file"][:200]).is_file():
            shard["sha256"] = sha256(folder / shard["file"])
    for name in record.get("files", {}):
        if (folder / name).is_file():
            record["files"][name] = sha256(folder / name)
    write_record(folder, record)
