"""A hub on the loopback interface, for round trips with the real clients and without a network.

    with HubServer(tmp_path / "hub") as hub:
        subprocess.run(command, env={**os.environ, **hub.environment(tmp_path / "home")})
        assert [name for _, name, _ in hub.uploads] == ["data/train-00001-of-00003.h5"]

Repositories are named as in the hub's addresses: `datasets/someone/histories`, and `someone/transformer` for a model.
The answers to requests are in `hub_api`, the storage in `hub_repositories`.
"""

import sys
import threading
import traceback
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from hub_api import Connection
from hub_repositories import LFS_PATTERNS, Commit, Contents, HubError, Repository, is_large

FAULTS = ("cut", "hang", "die")


class Transfer(NamedTuple):
    """Content sent or received: repository, path (the SHA-256 of a large file until a commit names it), bytes."""

    repo: str
    name: str
    size: int


@dataclass
class Fault:
    """A fault of a `kind` that strikes after `left` more of `unit`, `times` times."""

    unit: str
    left: int
    kind: str | int
    times: int


class HubServer:
    """The hub, with methods for a test to inspect it, to plant files and to cause faults.

    Attributes:
        url, token, read_token: the address; a token with write access, and a read-only token of the same user
        repositories: all repositories by name; a test may set their `private` and `gated`
        uploads, downloads: one `Transfer` per content received whole, and one per content sent (the bytes requested)
        requests: the method and address of every request
        struck: an event that is set when a fault of `fail_after` strikes
        errors: tracebacks of the hub's own bugs, normally empty

    """

    user, token, read_token = "tester", "hf_loopback_write", "hf_loopback_read"

    def __init__(self, folder: Path):
        self.contents = Contents(folder)
        self.port = 0
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.uploads: list[Transfer] = []
        self.downloads: list[Transfer] = []
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.struck, self.stopped = threading.Event(), threading.Event()
        self._fault: Fault | None = None

    def __enter__(self) -> "HubServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens. After `stop`, it listens at the same address again and still has all its repositories."""
        self.stopped.clear()
        self._server = _Server(("127.0.0.1", self.port), Connection)
        self._server.hub = self
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuses new connections, and cuts open ones at their next request or chunk."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._server.shutdown()
            self._server.server_close()

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Environment variables for a process that knows this hub only. `token` "" makes its user anonymous."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token if token is None else token,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers would ask a remote service for it
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def create(self, repo: str, private: bool = False) -> Repository:
        """A new repository, with the initial commit that the hub makes."""
        rules = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        first = Commit({".gitattributes": self.contents.regular(rules.encode())}, "initial commit")
        self.repositories[repo] = Repository(repo, private, first)
        return self.repositories[repo]

    def put_file(self, repo: str, path: str, content: bytes) -> None:
        """Commits a file without any check, so its name may be hostile. Creates the repository if it is missing."""
        with self.lock:
            repository = self.repositories.get(repo) or self.create(repo)
            if is_large(path, len(content)):
                file = self.contents.large(self.contents.receive([content]))
                repository.uploaded.add(file.sha256)
            else:
                file = self.contents.regular(content)
            repository.commit("main", {**repository.branches["main"].files, path: file}, f"put {path}")

    def files(self, repo: str, revision: str = "main") -> dict[str, Path]:
        """Paths on disk to the contents of a snapshot, by path in the repository."""
        snapshot = self.repositories[repo].resolve(revision)
        return {path: self.contents.path(file.sha256) for path, file in snapshot.files.items()}

    def fail_after(
        self, *, uploads: int | None = None, n_bytes: int | None = None, fault: str | int = "cut", times: int = 1
    ) -> None:
        """Makes an upload fail: the one after `uploads` more, or the one in which the bytes exceed `n_bytes`.

        Each large file counts as an upload, and so does the commit after them. Only bytes of large files count.

        Arguments:
            uploads, n_bytes: exactly one of them
            fault: an HTTP status to answer with (clients retry up to five times after 500, but not after 403);
                "cut" closes the connection; "hang" holds it until the hub stops, for a test that waits for `struck`
                and kills the client in the middle of an upload; "die" stops the hub, which may `start` again
            times: number of uploads that fail

        """
        if (uploads is None) == (n_bytes is None):
            raise ValueError("fail_after: give either uploads or n_bytes")
        if not isinstance(fault, int) and fault not in FAULTS:
            raise ValueError(f"fail_after: fault is an HTTP status or one of {', '.join(FAULTS)}, not {fault}")
        self.struck.clear()
        unit, left = ("uploads", uploads) if n_bytes is None else ("bytes", n_bytes)
        self._fault = Fault(unit, left, fault, times)

    def count(self, unit: str, amount: int) -> None:
        """Counts towards the fault of `fail_after`, and raises it when it is due."""
        with self.lock:
            fault = self._fault
            if fault is None or fault.unit != unit:
                return
            fault.left -= amount
            if fault.left >= 0:
                return
            fault.times -= 1
            if fault.times == 0:
                self._fault = None
        self.struck.set()
        if isinstance(fault.kind, int):
            raise HubError(fault.kind, "The hub was told to fail here")
        if fault.kind == "hang":
            self.stopped.wait()
        if fault.kind == "die":
            self.stop()
        raise ConnectionAbortedError("the hub was told to fail here")

    def log_upload(self, repo: str, name: str, size: int) -> None:
        with self.lock:
            self.uploads.append(Transfer(repo, name, size))

    def name_upload(self, repo: str, sha256: str, path: str) -> None:
        """Replaces the SHA-256 of an uploaded large file by the path that a commit gives it."""
        with self.lock:
            self.uploads[:] = [u._replace(name=path) if u[:2] == (repo, sha256) else u for u in self.uploads]

    def log_download(self, repo: str, name: str, size: int) -> None:
        self.downloads.append(Transfer(repo, name, size))


class _Server(ThreadingHTTPServer):
    hub: HubServer
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that disconnects is not our bug
            self.hub.errors.append(traceback.format_exc())
