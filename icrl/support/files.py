"""Atomic files: written under a temporary name, synced, then renamed.

A process killed at any moment leaves either the old file or the new one, and perhaps temporary files, which the next
run of the same command removes.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icrl.support.errors import UserError

TEMPORARY_SUFFIX = ".tmp"
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
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
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
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as JSON, whole or not at all. Raises UserError if the file cannot be written."""
    write_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError if the file is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def read_json_lines(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    """The lines of a log that have these keys. A line that a killed process left unfinished is dropped."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            line = json.loads(text)
            if isinstance(line, dict) and keys <= line.keys():
                lines.append(line)
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
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        # The old version stays on disk until the new one is in place.
        if path.exists():
            path.replace(replaced)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
