"""Records: the small JSON files that a stage writes last, as typed objects instead of dictionaries.

A record ends with the checksum of its own content, so that a flipped digit is noticed. Files of earlier versions have
none and are accepted as they are.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from icrl.run.folder import SCHEMA_VERSION
from icrl.support.errors import UserError
from icrl.support.files import read_json, write_file

CHECKSUM = "checksum"
"""The last key of a record: SHA-256 of the other keys and their values."""


class Record(pydantic.BaseModel):
    """The content of a record. Values without a field are kept, so that a newer file loses nothing."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True, frozen=True, populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        """The content of the file as plain values, without defaults that were never set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


Kind = TypeVar("Kind", bound=Record)


_AGAIN = "make it again with --overwrite"


def read_record(path: Path, kind: type[Kind], remedy: str = _AGAIN) -> Kind:
    """The record in a file. Raises UserError, which ends with `remedy`, if the file is missing, damaged, or of another
    version or kind."""
    return checked_record(versioned(path, remedy), kind, path, remedy)


def versioned(path: Path, remedy: str = _AGAIN) -> dict[str, Any]:
    """The plain content of a record of this schema version. Raises UserError, which ends with `remedy`."""
    content = read_json(path, remedy)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: is not a record of schema version {SCHEMA_VERSION}: the file is damaged, or another version of "
            f"this project wrote it; {remedy}"
        )
    checksum = _pop_checksum(content)
    if checksum is not None and checksum != _checksum(content):
        raise UserError(f"{path}: is damaged, or was edited: its content differs from its checksum; {remedy}")
    return content


def checked_record(content: dict[str, Any], kind: type[Kind], path: object, remedy: str = _AGAIN) -> Kind:
    """Plain content as a record. Raises UserError, naming `path` and the first value that is wrong or missing."""
    try:
        return kind.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise UserError(f"{path}: has no {name!r}; {remedy}") from error
        raise UserError(f"{path}: {name}: {first['msg'].lower()}; {remedy}") from error


def write_record(path: Path, record: Record) -> None:
    """Writes a record, whole or not at all. Raises UserError if the file cannot be written."""
    write_file(path, record_text({"schema_version": SCHEMA_VERSION, **record.plain()}))


def record_text(content: dict[str, Any]) -> str:
    """The text of a record with this plain content, checksum included."""
    plain = json.loads(json.dumps({key: value for key, value in content.items() if key != CHECKSUM}))
    return json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=2, allow_nan=False) + "\n"


def _pop_checksum(content: dict[str, Any]) -> Any:
    """Removes the checksum and returns it; None in files of earlier versions.

    No record ends with any other SHA-256, so for one under another name, which is damaged, this returns "".
    """
    if CHECKSUM in content:
        return content.pop(CHECKSUM)
    return "" if re.fullmatch("[0-9a-f]{64}", str([*content.values()][-1])) else None


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
