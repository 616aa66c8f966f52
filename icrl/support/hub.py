"""Repositories of the hub: their files, downloads, and errors of the hub's client as one line.

Nothing from the hub is executed or unpickled here. A file name that leads out of its folder is refused.
"""

import contextlib
import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any, Literal

from icrl.support.errors import ENVIRONMENT_ERRNOS, UserError
from icrl.support.files import check_name

Kind = Literal["dataset", "model"]
NAME = r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?"
"""USER/NAME or USER/NAME@REVISION, as a regular expression."""


_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
"""Error numbers of file systems without locks."""


@dataclass(frozen=True)
class Repository:
    """A repository USER/NAME, optionally at a branch, tag or commit."""

    id: str
    kind: Kind
    revision: str | None = None

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


@dataclass(frozen=True)
class Snapshot:
    """The content of a repository at one commit."""

    repository: Repository
    commit: str
    sizes: dict[str, int]
    """Size of every file in bytes, by its path."""

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The files that match a shell-style pattern. A pattern without a slash matches only in the top folder."""
        return [
            name
            for name in self.sizes
            if any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)
        ]


def repository(text: str, kind: Kind, key: str) -> Repository:
    """The repository USER/NAME or USER/NAME@REVISION. Raises UserError, naming `key`, if `text` is neither."""
    match = re.fullmatch(NAME, text)
    if not match or ".." in text:
        raise UserError(f"{key}: {text!r} is not a hub repository: write USER/NAME or USER/NAME@REVISION")
    return Repository(match["id"], kind, match["revision"])


def snapshot(wanted: Repository) -> Snapshot:
    """Asks the hub for the commit that `wanted` stands for and its files. With HF_HUB_OFFLINE, asks the client's cache.

    Raises UserError if the request fails, or if a file name leads out of its folder.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    with hub_errors(wanted, "read"):
        if constants.HF_HUB_OFFLINE:
            folder = Path(snapshot_download(wanted.id, repo_type=wanted.kind, revision=wanted.revision))
            files = [path for path in folder.rglob("*") if path.is_file()]
            sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
            return Snapshot(wanted, folder.name, sizes)
        info: Any = HfApi().repo_info(wanted.id, repo_type=wanted.kind, revision=wanted.revision, files_metadata=True)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    for name in sizes:
        check_name(name, wanted)
    return Snapshot(wanted, str(info.sha), sizes)


def fetch(of: Snapshot, names: Sequence[str], folder: Path | None = None) -> Path:
    """Downloads the files that are missing locally; returns the folder that contains them.

    Args:
        of: the snapshot.
        names: paths of the files. Paths that the snapshot lacks are ignored.
        folder: target folder; by default the shared cache of the hub's client.

    Raises UserError if the hub or the disk fails. The same call then resumes the download.
    """
    from huggingface_hub import snapshot_download

    known = [name for name in names if name in of.sizes]
    with hub_errors(of.repository, "read"):
        path = Path(
            snapshot_download(
                of.repository.id,
                repo_type=of.repository.kind,
                revision=of.commit,
                allow_patterns=[escape(name) for name in known],
                local_dir=folder,
            )
        )
    absent = [name for name in known if not (path / name).is_file()]
    if absent:
        raise UserError(f"{of.repository}: {absent[0]} did not arrive; run the same command again")
    return path


@contextlib.contextmanager
def hub_errors(where: Repository, verb: Literal["read", "write"]) -> Iterator[None]:
    """Turns an error of the hub's client into a UserError of one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # the client wraps an error of one file among several
            explanation = _explained(cause, verb)
            if explanation is not None:
                raise UserError(f"{where.kind} {where}: {explanation}") from error
            cause = cause.__cause__ or cause.__context__
        raise


def _explained(error: BaseException, verb: str) -> str | None:
    """The meaning of an error of the hub's client, and what to do; None for any other error."""
    from huggingface_hub import constants, errors

    login = "log in with `hf auth login`, or set HF_TOKEN"
    match error:
        case errors.LocalTokenNotFoundError():
            return f"no token found: {login}"
        case errors.OfflineModeIsEnabled():
            return "is not in the client's cache, and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE"
        case errors.LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            return "is not in the client's cache, and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE"
        case errors.GatedRepoError():
            return f"is gated: ask for access on its page, and {login}"
        case errors.RepositoryNotFoundError():
            return f"does not exist, or is private: check the name, and {login}"
        case errors.RevisionNotFoundError():
            return "has no such branch, tag or commit"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"the hub does not let this token {verb} the repository ({error.response.status_code}): {login}"
        case errors.HfHubHTTPError():
            answer = f"the hub answers {error.response.status_code}: {_short(error)}"
            return f"{answer}; run the same command again to resume"
        case _ if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("httpx"):
            what = f"cannot reach {constants.ENDPOINT} ({type(error).__name__})"
            return f"{what}; check the network, then run the same command again to resume"
        case OSError() if error.errno in ENVIRONMENT_ERRNOS:
            return f"the disk reports an error: {error.strerror}"
        case OSError() if error.errno in _NO_LOCKS:  # of the client, or of `datasets`
            what = f"a file could not be locked ({error.strerror}): its file system has no locks"
            return f"{what}; copy the data to a local disk, or give HF_HOME or --to on one, or push as hdf5"
        case errors.EntryNotFoundError() | errors.HFValidationError() | ValueError():
            return _short(error)
        case OSError() if error.errno is None:  # the client's own, such as for an incomplete file
            return f"{_short(error)}; run the same command again"
    return None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
