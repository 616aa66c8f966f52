"""Sends files to a repository of the hub in one commit; only changed content is uploaded.

The hub addresses content by its hash. A shard that it has received before, in an earlier commit or in a push that was
interrupted, is not sent again. Every file is read piece by piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from icrl.run.folder import SCHEMA_VERSION
from icrl.support.errors import UserError
from icrl.support.hub import Repository, hub_errors
from icrl.support.terminal import say

TAG = f"schema-v{SCHEMA_VERSION}"
"""Tag of the newest commit of the main branch that this version of the project can read."""


@dataclass(frozen=True)
class Parcel:
    """The files of one push."""

    files: dict[str, Path | bytes]
    """By path in the repository: a local file, or the content itself."""
    replaces: Sequence[str] = field(default=())
    """Patterns of files in the repository that are deleted unless they are sent again."""
    message: str = "Upload"

    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


def describe(parcel: Parcel, to: Repository, public: bool) -> str:
    """The files that would be sent, one line per file, and their target."""
    sizes = parcel.sizes()
    width = max(map(len, sizes))
    lines = [f"  {name:{width}}  {size:>15,} bytes" for name, size in sizes.items()]
    total = f"{len(sizes)} files, {sum(sizes.values()):,} bytes"
    state = "public" if public else "private"
    tagged = f", tagged {TAG}" if to.revision is None else ""
    return "\n".join([*lines, f"push: {total} to the {to.kind} {to}{tagged}; created {state} if it does not exist"])


def send(parcel: Parcel, to: Repository, public: bool) -> str:
    """Sends everything in one commit, so that the repository is never half updated; returns its address.

    Creates the repository, private unless `public`, and the branch `to.revision` if they do not exist. An existing
    repository keeps its visibility.

    Raises UserError if the hub refuses or cannot be reached. The same call then resumes the push.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    api = HfApi()
    target: dict[str, Any] = {"repo_id": to.id, "repo_type": to.kind}
    with hub_errors(to, "write"):
        api.create_repo(**target, private=not public, exist_ok=True)
        if to.revision is not None:
            api.create_branch(**target, branch=to.revision, exist_ok=True)
        existing = api.list_repo_files(**target, revision=to.revision)
        obsolete = [
            name
            for name in existing
            if name not in parcel.files and any(fnmatch(name, pattern) for pattern in parcel.replaces)
        ]
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(
                CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name, content in parcel.files.items()
            ),
            *(CommitOperationDelete(name) for name in obsolete),
        ]
        commit = api.create_commit(**target, operations=operations, commit_message=parcel.message, revision=to.revision)
        if to.revision is None:
            move_tag(api, target, commit.oid)
    return str(commit.repo_url) if getattr(commit, "repo_url", None) else f"{api.endpoint}/{to.id}"


def move_tag(api: Any, target: dict[str, Any], commit: str) -> None:
    """Moves the tag of the schema version to `commit`."""
    if TAG in {tag.name for tag in api.list_repo_refs(**target).tags}:
        api.delete_tag(**target, tag=TAG)
    api.create_tag(**target, tag=TAG, revision=commit, exist_ok=True)


def push(parcel: Parcel, to: Repository, public: bool, dry_run: bool) -> None:
    """Sends a parcel and prints its address; with `dry_run`, only prints what would be sent."""
    if not parcel.files:
        raise UserError(f"{to}: there is nothing to push")
    say(describe(parcel, to, public))
    if dry_run:
        return
    address = send(parcel, to, public)
    say(f"push: done: {address}")
