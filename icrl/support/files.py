"""Atomic files: written under a temporary name, synced, then renamed. Deletion renames first, too.

A process killed at any moment leaves either the old file or the new one, and perhaps temporary files, which the next
run of the same command removes. What was written is verified by its checksum before it is used again.
"""

import contextlib
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from icrl.support.errors import UserError
from icrl.support.terminal import say

TEMPORARY_SUFFIX = ".tmp"
_CRC32 = "crc32"
_REPLACED = f".replaced{TEMPORARY_SUFFIX}"


def temporary_name(path: Path) -> Path:
    """A hidden sibling of `path`, different in every process."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")


def remove_leftovers(folder: Path, pattern: str = ".*") -> None:
    """Deletes temporary files and folders that killed processes left in `folder` and that match `pattern`.

    Workers of a killed process may run a moment longer and rename a file at the same time. That file is then finished.
    """
    for path in folder.glob(f"{pattern}{TEMPORARY_SUFFIX}"):
        if path.name.endswith(_REPLACED):  # the old version of a folder that was being replaced
            original = folder / path.name[1 : -len(_REPLACED)].rpartition(".")[0]
            if not original.exists():
                path.replace(original)
                continue
        with contextlib.suppress(OSError):
            _delete(path)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it exists. A killed process leaves all of it, or nothing under its name.

    Of a symbolic link, only the link is deleted, so nothing outside of the run folder is touched. Raises UserError.
    """
    if not os.path.lexists(path):
        return
    going = path.with_name(f".{path.name}.{os.getpid()}.deleted{TEMPORARY_SUFFIX}")
    try:
        _delete(going)
        path.rename(going)
        sync(path.parent)
        _delete(going)
    except OSError as error:
        raise UserError(f"cannot delete {path}: {error.strerror or error}") from error


def _delete(path: Path) -> None:
    """Deletes `path`, whatever it is, without following links."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the file or folder entry `path` is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes | str) -> None:
    """Writes the whole file or nothing. Raises UserError if the file cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, IsADirectoryError):
            raise UserError(f"cannot write {path}: is a folder; delete it") from error
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as JSON, whole or not at all. Raises UserError if the file cannot be written."""
    write_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str = "make it again with --overwrite") -> Any:
    """The content of a JSON file. Raises UserError, which ends with `remedy`, if it is missing or cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}; {remedy}") from error


def log_line(values: Mapping[str, Any]) -> str:
    """One line of a log, which ends with the CRC-32 of its other values."""
    return json.dumps({**values, _CRC32: zlib.crc32(json.dumps(values).encode())}) + "\n"


def read_json_lines(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    """The lines of a log, as `log_line` writes them, that have a number under each of these keys.

    Lines that are damaged, or that a killed process left unfinished, are left out, and the user is told. Lines of
    earlier versions have no checksum. Raises UserError if the file cannot be read.
    """
    try:
        texts = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; delete it") from error
    lines = []
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and all(type(line.get(key)) in (int, float) for key in keys):
                checksum = line.pop(_CRC32, None)
                if checksum in (None, zlib.crc32(json.dumps(line).encode())):
                    lines.append(line)
    if damaged := sum(map(bool, texts)) - len(lines):
        say(f"warning: {path}: lines that are damaged are left out: {damaged}")
    return lines


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `path` when the block ends without an error.

    An existing `path` is replaced. Raises UserError if the folder cannot be written.
    """
    temporary = temporary_name(path)
    replaced = path.with_name(f".{path.name}.{os.getpid()}{_REPLACED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete(temporary)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        # The old version stays on disk until the new one is in place.
        if os.path.lexists(path):
            path.replace(replaced)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for left in (temporary, replaced):
            with contextlib.suppress(OSError):  # the next run of the command removes it
                _delete(left)


def sha256(path: Path) -> str:
    """The file's SHA-256 as hexadecimal digits. Raises UserError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in `folder`, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def check_files(folder: Path, expected: Mapping[str, str], remedy: str) -> None:
    """Raises UserError, which ends with `remedy`, for the first file that is missing or differs from its checksum."""
    for name, checksum in expected.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: is missing; {remedy}")
        if sha256(path) != checksum:
            raise UserError(f"{path}: is damaged (its checksum differs from the recorded one); {remedy}")
