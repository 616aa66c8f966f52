"""The run folder: all file names in `runs/NAME/`, and the lock that guards the folder.

A stage (data, training, evaluation) is finished once its last file exists. That file carries the fingerprint of all
config sections that the stage depends on. A stage with another fingerprint is overwritten only if the user asks for it.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from icrl.config.loader import dump, load_config
from icrl.config.schema import ExperimentConfig
from icrl.support.errors import UserError
from icrl.support.files import read_bytes, remove, remove_all_leftovers, write_file
from icrl.support.yaml12 import write_yaml

SCHEMA_VERSION = 2
"""Version of the file formats; part of every fingerprint."""

CONFIG, INFO, CARD = "config.yaml", "info.json", "README.md"
TASK_FILES = ("tasks-train.npz", "tasks-validation.npz", "tasks-test.npz")
"""The files of tasks in a data folder. The second is missing if there are no validation tasks."""
SUMMARY, RETURNS, VALUES, PATHS = "summary.json", "returns.parquet", "values.parquet", "paths.npz"
TRAINING_LOG, RECORD, MODEL = "training_log.jsonl", "training.json", "model"
META_WEIGHTS, META_STATE = "weights.safetensors", "training_state.safetensors"
REPORT, LOGS = "report.html", "logs"
CHECKSUMS = "checksums.json"
"""In a model folder and in a token cache: the checksums of the other files."""

_CONFIG_CHECKSUM = "# sha256: "
_MOST_CONFIG = 2**22
"""Most bytes of a config. YAML has fewer in any case (`icrl.support.yaml12`)."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
"""Error numbers of file systems without locks, such as some NFS and Lustre mounts."""

_TOLD: set[Path] = set()
"""Run folders without locks of which this process has told the user."""

_PACKAGES = ("in-context-rl", "torch", "transformers", "datasets", "accelerate", "gymnasium", "h5py", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder."""

    path: Path

    own_data: Path | None = None
    """The data folder, if it is not `data/` in the run folder."""

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / CONFIG

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.own_data or self.path / "data"

    @property
    def data_info(self) -> Path:
        """The record of complete data."""
        return self.data / INFO

    @property
    def meta(self) -> Path:
        """The meta-learners, one folder each."""
        return self.path / "meta"

    @property
    def cache(self) -> Path:
        """Token arrays made from the data. You may delete them at any time."""
        return self.path / "cache"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints of the transformer's training, one folder each."""
        return self.path / "checkpoints"

    @property
    def training_log(self) -> Path:
        """The log of the transformer's training, one JSON object per line."""
        return self.path / TRAINING_LOG

    @property
    def logs(self) -> Path:
        """The trackers' files of the transformer's training."""
        return self.path / LOGS

    @property
    def eval(self) -> Path:
        """The evaluation's folder."""
        return self.path / "eval"

    @property
    def summary(self) -> Path:
        """The figures of the evaluation."""
        return self.eval / SUMMARY

    @property
    def returns(self) -> Path:
        """The returns of the evaluation, one row per episode."""
        return self.eval / RETURNS

    @property
    def values(self) -> Path:
        """The figures of the evaluation by task and lifetime."""
        return self.eval / VALUES

    @property
    def paths(self) -> Path:
        """The agents' paths in first and last episodes on a few tasks, for pictures."""
        return self.eval / PATHS

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / REPORT

    @property
    def report_pictures(self) -> Path:
        """The report's pictures."""
        return self.path / "report"


def run_folder(config: ExperimentConfig) -> RunFolder:
    """The run folder that `config` names."""
    return RunFolder(Path(config.output) / config.name)


def folder_of_data(path: Path) -> RunFolder:
    """The run folder `path`. If `path` is itself a data folder, the run folder around it."""
    return RunFolder(path.resolve().parent, path) if (path / INFO).is_file() else RunFolder(path)


def check_places(folder: RunFolder) -> None:
    """Raises UserError if a stage could not write its files; nothing is written.

    A file may be in the place of a folder, or the other way round, or the folder is not writable.
    """
    there = next(parent for parent in (folder.path, *folder.path.absolute().parents) if os.path.lexists(parent))
    rooms = (folder.data, folder.meta, folder.cache, folder.checkpoints, folder.eval, folder.report_pictures)
    for path in (there, *rooms):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path} is not a folder: remove or rename it, or choose another --name or --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} is not writable: change its permissions, or choose another --name or --output")
    for path in (folder.config, folder.training_log, folder.report):
        if path.is_dir():
            raise UserError(f"{path} is a folder, where a file is to be written: remove or rename it")


def stale(path: Path, flag: str = "--overwrite") -> UserError:
    """The error for finished work of another config at `path`."""
    return UserError(f"{path} belongs to another config: choose another --name, or {flag} to delete it and start again")


def write_config(config: ExperimentConfig, folder: RunFolder) -> None:
    """Writes the resolved config, headed by its checksum, versions and the git commit; called by stages with work."""
    write_sealed(folder.config, dump(config))


def write_sealed(path: Path, body: str) -> None:
    """Writes YAML, headed by its checksum, versions and the git commit, whole or not at all. Raises UserError."""
    header = "".join(f"# {line}\n" for line in write_yaml(origin()).splitlines())
    text = header + body
    write_file(path, f"{_CONFIG_CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def keep_config(config: ExperimentConfig, folder: RunFolder) -> None:
    """Writes the resolved config again if it is missing or damaged; called by stages that are complete."""
    try:
        config_text(folder.config)
        load_config(folder.config, [])  # a file of an earlier version has no checksum
    except UserError:
        write_config(config, folder)


_CONFIG_AGAIN = "run a stage of this experiment with its own config, and the file is written again"


def config_text(path: Path, again: str = _CONFIG_AGAIN) -> str:
    """The text of a config file in a run folder, without its checksum; or of another file of `write_sealed`.

    Raises UserError, which ends with `again`, if the file is missing, or differs from its checksum. A file of an
    earlier version has none.
    """
    try:
        text = read_bytes(path, _MOST_CONFIG).decode()
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; {again}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({getattr(error, 'strerror', None) or error}); {again}") from error
    first, _, rest = text.partition("\n")
    if not first.startswith(_CONFIG_CHECKSUM) and not re.search("[0-9a-f]{64}$", first):  # either may be damaged
        return text
    if first != _CONFIG_CHECKSUM + hashlib.sha256(rest.encode()).hexdigest():
        raise UserError(f"{path}: is damaged, or was edited: it differs from its checksum; {again}")
    return rest


def remove_results(folder: RunFolder, with_data: bool) -> None:
    """Deletes a whole run's results, the last stage's first, but not its meta-learners.

    If the run that replaces them is killed, it continues without `--overwrite`: nothing of another config is left.
    """
    with locked(folder):
        for path in (folder.report, folder.eval, folder.checkpoints, *([folder.data] if with_data else [])):
            remove(path)


def origin() -> dict[str, str]:
    """Versions and the git commit of the running code."""
    return {"python": platform.python_version(), **_versions(), "git": git_commit()}


def git_commit() -> str:
    """The git commit of this code, with `-dirty` if there are uncommitted changes; `unknown` outside a repository."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        answer = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "unknown"


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Locks the run folder for one writing process, and removes what killed processes left in it.

    The operating system releases the lock when a process is killed. Where the file system has no locks, a warning is
    printed and the user has to see to it. Raises UserError if another process holds the lock.
    """
    lock = folder.path / ".lock"
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if lock.is_symlink():  # never opened: it may be any file of the user's
            raise UserError(f"{lock}: is a symbolic link; delete it, and run the same command again") from error
        if error.errno == errno.EISDIR:
            raise UserError(f"{lock}: is a folder in place of a file; delete it") from error
        raise UserError(f"cannot write to {folder.path}: {error.strerror}") from error
    with open(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder.path} is in use by another process: wait until it has ended, or choose another --name"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(f"{folder.path} cannot be locked: {error.strerror}") from error
            if folder.path not in _TOLD:  # every stage of `icrl run` comes here
                _TOLD.add(folder.path)
                print(
                    f"warning: {folder.path}: its file system has no locks ({error.strerror}): run one command at a "
                    "time in this folder",
                    file=sys.stderr,
                )
        else:
            remove_all_leftovers(folder.path)  # nobody else is at work here
        yield
