"""Atomic files: written under a temporary name, synced, then renamed. Deletion renames first, too.

A process killed at any moment leaves either the old file or the new one, and perhaps temporary files, which the next
run of the same command removes. What was written is verified by its checksum before it is used again.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from icrl.support.errors import UserError, shown
from icrl.support.terminal import say

TEMPORARY_SUFFIX = ".tmp"
_CRC32 = "crc32"
_REPLACED = f".replaced{TEMPORARY_SUFFIX}"

_MOST_BYTES = 2**26
"""Most bytes of a JSON file. The checksums of a token cache of 1 TB have 50 MB."""

_LONGEST_NAME = 512
"""Most characters of a file's path in a folder or a repository."""

_MOST_VALUES = 2**22
"""Most lists, mappings and values in a JSON file: each of them takes up to 100 bytes of memory."""


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


def remove_all_leftovers(folder: Path) -> None:
    """Deletes what killed processes left in `folder` and in all folders below, without following links."""
    for place, _, _ in os.walk(folder):
        remove_leftovers(Path(place))


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
        content = read_bytes(path, _MOST_BYTES)
        if sum(map(content.count, (b"[", b"{", b","))) > _MOST_VALUES:
            raise ValueError(f"it has more than {_MOST_VALUES:,} values")
        values = json.loads(content, parse_constant=_number, parse_float=_number)
        if b"\\u" in content or not content.isascii():
            json.dumps(values, ensure_ascii=False).encode()  # half of a pair of surrogates is not text
        return values
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; {remedy}") from error


def _number(letters: str) -> float:
    value = float(letters)
    if not math.isfinite(value):
        raise ValueError(f"{letters[:40]} is not a finite number")
    return value


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading. Raises OSError for anything else: a pipe or a device may never end."""
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened, which starts some devices
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return open(path, "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file. Raises OSError if the file has more than `most` bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
    return content


def check_name(name: str, where: object) -> None:
    """Raises UserError for a path from a file or a repository that could lead out of its folder, or is not plain text.

    Control characters would also reach the terminal, and a name of a thousand letters no file system.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise UserError(f"{where}: the file {shown(name)} would lie outside of its folder, so nothing is loaded")
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise UserError(f"{where}: {shown(name)} is not a name of a file of this project, so nothing is loaded")


def leads_out(path: Path, folder: Path) -> bool:
    """True if `path` is, by symbolic links, a file outside of `folder`, and not in the cache of the hub's client.

    The client's folders of files, `snapshots/COMMIT/`, consist of links into `blobs/` beside `snapshots/`.
    """
    home, real = (Path(os.path.realpath(each)) for each in (folder, path))  # which follows a loop nowhere
    cached = home.parent.name == "snapshots" and real.is_relative_to(home.parent.parent / "blobs")
    return not real.is_relative_to(home) and not cached


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
            if not file.is_symlink():  # what it leads to is not this folder's
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
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in `folder`, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def check_files(folder: Path, expected: Mapping[str, str], remedy: str) -> None:
    """Raises UserError, which ends with `remedy`, for the first file that is missing or differs from its checksum."""
    for name, checksum in expected.items():
        check_name(name, folder)
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: is missing; {remedy}")
        if sha256(path) != checksum:
            raise UserError(f"{path}: is damaged (its checksum differs from the recorded one); {remedy}")
