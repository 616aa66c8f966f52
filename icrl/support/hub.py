"""Repositories of the hub: what they hold, fetching and sending files, and what goes wrong as one line.

Nothing that comes from there is executed or unpickled here, and a file is written only where its name says, inside the
folder that it belongs to.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from icrl.support.errors import ENVIRONMENT_ERRNOS, UserError

Kind = Literal["dataset", "model"]
NAME = r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?"
"""USER/NAME or USER/NAME@REVISION, as a regular expression."""


@dataclass(frozen=True)
class Repository:
    """A repository: USER/NAME, and of it a branch, tag or commit."""

    id: str
    kind: Kind
    revision: str | None = None

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


@dataclass(frozen=True)
class Snapshot:
    """What a repository holds at one commit."""

    repository: Repository
    commit: str
    sizes: dict[str, int]
    """Bytes of every file, by its path."""

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The files that match a shell-style pattern; one without a slash is of the top folder alone."""
        return [
            name
            for name in self.sizes
            if any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)
        ]


def repository(text: str, kind: Kind, key: str) -> Repository:
    """The repository that USER/NAME or USER/NAME@REVISION names. Raises UserError, naming `key`, if it is neither."""
    found = re.fullmatch(NAME, text)
    if not found or ".." in text:
        raise UserError(f"{key}: {text!r} is no repository of the hub: write USER/NAME or USER/NAME@REVISION")
    return Repository(found["id"], kind, found["revision"])


def snapshot(wanted: Repository) -> Snapshot:
    """Asks the hub for the commit that `wanted` stands for, and its files; with HF_HUB_OFFLINE, the client's cache.

    Raises UserError if it cannot be had, or names a file that would lie outside the folder that it is put in.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    with hub_errors(wanted, "read"):
        if constants.HF_HUB_OFFLINE:
            place = Path(snapshot_download(wanted.id, repo_type=wanted.kind, revision=wanted.revision))
            files = [path for path in place.rglob("*") if path.is_file()]
            sizes = {path.relative_to(place).as_posix(): path.stat().st_size for path in files}
            return Snapshot(wanted, place.name, sizes)
        found: Any = HfApi().repo_info(wanted.id, repo_type=wanted.kind, revision=wanted.revision, files_metadata=True)
    sizes = {file.rfilename: int(file.size or 0) for file in found.siblings or ()}
    for name in sizes:
        check_name(name, wanted)
    return Snapshot(wanted, str(found.sha), sizes)


def fetch(of: Snapshot, names: Sequence[str], folder: Path | None = None) -> Path:
    """Downloads files that are not there yet; returns the folder that they are in.

    Args:
        of: the snapshot.
        names: of the files; those that the snapshot has not are left out.
        folder: to write to; by default the shared cache of the hub's client.

    Raises UserError if the hub or the disk fails; the same call goes on where it was.
    """
    from huggingface_hub import snapshot_download

    there = [name for name in names if name in of.sizes]
    with hub_errors(of.repository, "read"):
        path = Path(
            snapshot_download(
                of.repository.id,
                repo_type=of.repository.kind,
                revision=of.commit,
                allow_patterns=[escape(name) for name in there],
                local_dir=folder,
            )
        )
    absent = [name for name in there if not (path / name).is_file()]
    if absent:
        raise UserError(f"{of.repository}: {absent[0]} did not arrive; run the same command again")
    return path


def check_name(name: str, where: object) -> None:
    """Raises UserError for a path that could lead out of the folder that it is put in."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise UserError(f"{where}: has a file called {name!r}, which would lie outside of its folder; not loaded")


@contextlib.contextmanager
def hub_errors(where: Repository, verb: Literal["read", "write"]) -> Iterator[None]:
    """Turns what the hub's client raises into one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # the client wraps what happens to one of several files
            said = _explained(cause, verb)
            if said is not None:
                raise UserError(f"{where.kind} {where}: {said}") from error
            cause = cause.__cause__ or cause.__context__
        raise


def _explained(error: BaseException, verb: str) -> str | None:
    """What an error of the hub's client means and what to do; None of another error."""
    from huggingface_hub import constants, errors

    login = "log in with `hf auth login`, or set HF_TOKEN"
    match error:
        case errors.LocalTokenNotFoundError():
            return f"needs a token: {login}"
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set, and it is not in the client's cache; unset it"
        case errors.LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set, and it is not in the client's cache; unset it"
        case errors.GatedRepoError():
            return f"is gated: ask for access on its page, and {login}"
        case errors.RepositoryNotFoundError():
            return f"no such repository, or a private one: check the name, and {login}"
        case errors.RevisionNotFoundError():
            return "has no such branch, tag or commit"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"the hub does not let this token {verb} it ({error.response.status_code}): {login}"
        case errors.HfHubHTTPError():
            answer = f"the hub answers {error.response.status_code}: {_short(error)}"
            return f"{answer}; the same command goes on where it was"
        case _ if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("httpx"):
            what = f"cannot reach {constants.ENDPOINT} ({type(error).__name__})"
            return f"{what}; check the network, then run the same command again, it goes on where it was"
        case OSError() if error.errno in ENVIRONMENT_ERRNOS:
            return f"the disk refuses: {error.strerror}"
        case errors.EntryNotFoundError() | errors.HFValidationError() | ValueError():
            return _short(error)
        case OSError() if error.errno is None:  # the client's own, such as a file that is not as long as it should be
            return f"{_short(error)}; run the same command again"
    return None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
