"""Storage of the loopback hub: repositories like git's, and file contents on disk.

A commit is an immutable snapshot of files by path; branches and tags point to commits. Each content is stored once,
under its SHA-256, and is written and read in chunks. So a push of many gigabytes never sits in memory, and no path
that a client or a test invents becomes a path on this machine.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

REGULAR_LIMIT = 10 << 20  # bytes; the hub keeps every larger file in large file storage
LFS_PATTERNS = (  # some of the patterns in the .gitattributes that the hub gives a new repository
    *("*.arrow", "*.bin", "*.ckpt", "*.gz", "*.h5", "*.npy", "*.npz", "*.parquet", "*.pickle", "*.pkl", "*.png"),
    *("*.pt", "*.pth", "*.safetensors", "*.tar", "*.zip", "*.zst"),
)


class HubError(Exception):
    """An error answer: the HTTP status, and the hub's error code where it has one for this case."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = ""):
        super().__init__(message)
        self.status = status
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.headers = {name: value for name, value in headers.items() if value}


@dataclass(frozen=True)
class StoredFile:
    """A file of a snapshot. Git stores the content, or a pointer for a large file; `blob` is git's id of either."""

    sha256: str
    size: int
    blob: str
    pointer_size: int | None = None

    @property
    def etag(self) -> str:
        return self.blob if self.pointer_size is None else self.sha256

    def large(self, digest: str) -> dict[str, Any]:
        """The entry for large file storage, with the SHA-256 under the key `digest`. Empty for a regular file."""
        sizes = {"size": self.size, "pointerSize": self.pointer_size}
        return {} if self.pointer_size is None else {"lfs": {digest: self.sha256, **sizes}}


@dataclass(frozen=True)
class Commit:
    """An immutable snapshot: files by path, and the parent commit."""

    files: dict[str, StoredFile]
    title: str
    parent: "Commit | None" = None
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    @cached_property
    def oid(self) -> str:
        return git_id(repr((self.parent and self.parent.oid, self.title, self.date, self.files)).encode())

    def history(self) -> "Iterator[Commit]":
        """This commit and its ancestors, newest first."""
        commit: Commit | None = self
        while commit:
            yield commit
            commit = commit.parent

    def below(self, path: str) -> dict[str, StoredFile]:
        """The file at `path`, or all files in that folder."""
        return {name: file for name, file in self.files.items() if f"{name}/".startswith(f"{path}/")}

    def entries(self) -> dict[str, StoredFile | None]:
        """Every file by path, and every folder that contains one, mapped to None."""
        folders = {path[: slash.start()] for path in self.files for slash in re.finditer("(?!^)/", path)}
        return dict(sorted({**dict.fromkeys(folders), **self.files}.items()))

    def describe(self, path: str, expand: bool) -> dict[str, Any]:
        """The hub's listing of a file or folder; `expand` adds the commit that last changed it."""
        here = self.below(path)
        if path in self.files:
            file = self.files[path]
            entry = {"path": path, "type": "file", "size": file.size, "oid": file.blob, **file.large("oid")}
        else:
            entry = {"path": path, "type": "directory", "size": 0, "oid": git_id(repr(here).encode())}
        if expand:
            *_, last = (commit for commit in self.history() if commit.below(path) == here)
            entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
        return entry


class Repository:
    """Branches, tags and commits under a name. A `gated` repository lets nobody read its files."""

    def __init__(self, name: str, private: bool, first: Commit):
        self.name = name
        self.private = private
        self.gated = False
        self.uploaded: set[str] = set()  # SHA-256 of the large files received
        self.commits = {first.oid: first}
        self.branches = {"main": first}
        self.tags: dict[str, Commit] = {}

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, a tag or a full commit id. Raises HubError for an unknown revision."""
        for commits in (self.branches, self.tags, self.commits):
            if revision in commits:
                return commits[revision]
        raise HubError(404, "Invalid revision", "RevisionNotFound")

    def commit(self, branch: str, files: dict[str, StoredFile], title: str) -> Commit:
        commit = Commit(files, title, self.branches[branch])
        self.commits[commit.oid] = self.branches[branch] = commit
        return commit


class Contents:
    """The contents of all files, in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def receive(self, chunks: Iterable[bytes], expected: str | None = None) -> str:
        """Writes a content and returns its SHA-256. Raises HubError, and stores nothing, if it is not as `expected`."""
        with tempfile.NamedTemporaryFile(dir=self.folder) as target:
            digest = hashlib.sha256()
            for chunk in chunks:
                target.write(chunk)
                digest.update(chunk)
            target.flush()
            sha256 = digest.hexdigest()
            if expected not in (None, sha256):
                raise HubError(400, "The content does not have the announced SHA-256")
            with contextlib.suppress(FileExistsError):
                os.link(target.name, self.path(sha256))
        return sha256

    def regular(self, content: bytes) -> StoredFile:
        """Stores the content of a regular file."""
        return StoredFile(self.receive([content]), len(content), git_id(content))

    def large(self, sha256: str) -> StoredFile:
        """The large file with this SHA-256; its content was received before."""
        size = self.path(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return StoredFile(sha256, size, git_id(pointer), len(pointer))


def git_id(content: bytes) -> str:
    """The id that git gives to a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int) -> bool:
    """True if a file belongs in large file storage, by its name (as in .gitattributes) or by its size."""
    return size > REGULAR_LIMIT or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)


def card_data(card: str) -> dict[str, Any]:
    """The metadata at the head of a card, or an empty dict. Raises HubError if it is not a YAML mapping."""
    head = re.match(r"---\s*\n(.*?)\n?---\s*(\n|$)", card, re.DOTALL)
    try:
        data = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        raise HubError(400, "The metadata is not valid YAML") from error
    if not isinstance(data, dict | None):
        raise HubError(400, "The metadata is not a mapping")
    return data or {}
