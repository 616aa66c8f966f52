"""Answers of the loopback hub to huggingface_hub, datasets and transformers: one route per kind of request.

It assumes `HF_HUB_DISABLE_XET=1`: large files travel as in git's large file storage, in one `PUT` each.
"""

import base64
import contextlib
import json
import re
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

from hub_repositories import Commit, HubError, Repository, card_data, is_large

CHUNK = 1 << 20  # bytes
PARTS = {
    "api": r"/api/(?P<repo>(models|datasets)/[^/]+/[^/]+)",
    "repo": r"/(?P<repo>(datasets/)?[^/]+/[^/]+)",
    "revision": r"(?P<revision>[^/]+)",
    "path": r"(?P<path>.+)",
    "oid": r"(?P<oid>[0-9a-f]+)",
}


class Route(NamedTuple):
    """A kind of request, its answer, and the access that its sender needs: "read", "write" or ""."""

    method: str
    address: re.Pattern
    access: str
    answer: Callable


ROUTES: list[Route] = []


def route(method: str, address: str, access: str = "read") -> Callable:
    """Registers a method as the answer to requests at `address`, a regular expression with `{parts}`."""

    def register(answer: Callable) -> Callable:
        ROUTES.append(Route(method, re.compile(address.format(**PARTS)), access, answer))
        return answer

    return register


class Connection(BaseHTTPRequestHandler):
    """Answers the requests of one connection. Routes return JSON, or None if they sent the answer themselves."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> dict:
        if self.role is None:
            raise HubError(401, "Invalid username or password.")
        token = {"displayName": "loopback", "role": self.role}
        return {"type": "user", "name": self.hub.user, "orgs": [], "auth": {"accessToken": token}}

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> dict | None:
        try:
            data = card_data(self.json()["content"])
        except HubError as error:
            return self.send_json(error.status, {"errors": [{"message": str(error)}], "warnings": []})
        return {"errors": [], "warnings": [] if data else [{"message": "empty or missing yaml metadata in repo card"}]}

    @route("POST", "/api/repos/create")
    def create(self) -> dict | None:
        self.check_write()
        asked = self.json()
        prefix = "datasets/" if asked.get("type") == "dataset" else ""
        name = f"{prefix}{asked.get('organization') or self.hub.user}/{asked['name']}"
        answer = {"name": name, "url": f"{self.hub.url}/{name}"}
        with self.hub.lock:
            if name in self.hub.repositories:
                return self.send_json(409, {"error": "You already created this repository", **answer})
            self.hub.create(name, private=is_private(asked, default=False))
        return answer

    @route("PUT", "{api}/settings", "write")
    def change_settings(self, repo: Repository) -> dict:
        repo.private = is_private(self.json(), default=repo.private)
        return {"private": repo.private}

    @route("GET", "{api}/auth-check")
    @route("GET", "{api}/auth-check/write", "write")
    def check_access(self, repo: Repository) -> dict:
        self.check_gate(repo)
        return {}

    @route("GET", "{api}(/revision/{revision})?")
    def info(self, repo: Repository, revision: str | None) -> dict:
        commit = repo.resolve(revision or "main")
        siblings = []
        for path, file in sorted(commit.files.items()):
            sizes = {"size": file.size, "blobId": file.blob, **file.large("sha256")} if "blobs" in self.query else {}
            siblings.append({"rfilename": path, **sizes})
        data: dict[str, Any] = {}
        if "README.md" in commit.files:
            with contextlib.suppress(HubError):
                card = self.hub.contents.path(commit.files["README.md"].sha256)
                data = card_data(card.read_text(errors="replace"))
        return {
            "id": repo.name.removeprefix("datasets/"),
            "sha": commit.oid,
            "lastModified": commit.date,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "siblings": siblings,
            "tags": data.get("tags") or [],
            "cardData": data,
        }

    @route("GET", "{api}/tree/{revision}(/{path})?")
    def tree(self, repo: Repository, revision: str, path: str | None) -> list:
        commit, folder = repo.resolve(revision), path or ""
        names = [name for name in commit.entries() if not folder or name.startswith(f"{folder}/")]
        if folder and not names:
            raise HubError(404, "Entry not found", "EntryNotFound", commit.oid)
        if self.query.get("recursive") != ["true"]:
            names = [name for name in names if name.rpartition("/")[0] == folder]
        return [commit.describe(name, self.query.get("expand") == ["true"]) for name in names]

    @route("POST", "{api}/paths-info/{revision}")
    def paths_info(self, repo: Repository, revision: str) -> list:
        commit, asked = repo.resolve(revision), parse_qs(b"".join(self.body).decode())
        paths = [path for path in asked["paths"] if path in commit.entries()]
        return [commit.describe(path, asked.get("expand") == ["true"]) for path in paths]

    @route("GET", "{api}/commits/{revision}")
    def commits(self, repo: Repository, revision: str) -> list:
        common = {"authors": [{"user": self.hub.user}], "message": ""}
        return [{"id": c.oid, "title": c.title, "date": c.date, **common} for c in repo.resolve(revision).history()]

    @route("GET", "{api}/refs")
    def refs(self, repo: Repository) -> dict:
        def listed(kind: str, commits: dict[str, Commit]) -> list:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c.oid} for n, c in commits.items()]

        named = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags)}
        return {**named, "converts": [], "pullRequests": []}

    @route("POST", "{api}/tag/{revision}", "write")
    def create_tag(self, repo: Repository, revision: str) -> dict:
        return self.point(repo.tags, self.json()["tag"], repo.resolve(revision))

    @route("DELETE", "{api}/tag/{revision}", "write")
    def delete_tag(self, repo: Repository, revision: str) -> dict:
        if repo.tags.pop(revision, None) is None:
            raise HubError(404, "Invalid revision", "RevisionNotFound")
        return {}

    @route("POST", "{api}/branch/{revision}", "write")
    def create_branch(self, repo: Repository, revision: str) -> dict:
        return self.point(repo.branches, revision, repo.resolve(self.json().get("startingPoint", "main")))

    def point(self, commits: dict[str, Commit], name: str, commit: Commit) -> dict:
        with self.hub.lock:
            if name in commits:
                raise HubError(409, "A branch or tag of this name already exists")
            commits[name] = commit
        return {}

    @route("POST", "{api}/preupload/{revision}", "write")
    def announce(self, repo: Repository, revision: str) -> dict:
        """Tells the client which files are large and which exist: clients skip files that would not change."""
        here, answers = repo.resolve(revision).files, []
        for file in self.json()["files"]:
            mode = "lfs" if is_large(file["path"], file["size"]) else "regular"
            now = {"oid": here[file["path"]].etag} if file["path"] in here else {}
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **now})
        return {"files": answers}

    @route("POST", r"{repo}\.git/info/lfs/objects/batch", "write")
    def offer(self, repo: Repository) -> dict:
        """Tells the client where to upload large files. Files received before need no upload."""
        answers = []
        for asked in self.json()["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.hub.url}/upload/{repo.name}/{asked['oid']}"}}}
            answers.append({**asked, **({} if asked["oid"] in repo.uploaded else upload)})
        return {"transfer": "basic", "objects": answers}

    @route("PUT", "/upload{repo}/{oid}", access="")
    def upload(self, repo: Repository, oid: str) -> dict:
        """Receives a large file. As in an object store, everybody who has the address may write there."""

        def counted() -> Iterator[bytes]:
            for chunk in self.body:
                self.hub.count("bytes", len(chunk))
                yield chunk

        self.hub.count("uploads", 1)
        self.hub.contents.receive(counted(), expected=oid)
        repo.uploaded.add(oid)
        self.hub.log_upload(repo.name, oid, self.hub.contents.path(oid).stat().st_size)
        return {}

    @route("POST", "{api}/commit/{revision}", "write")
    def commit(self, repo: Repository, revision: str) -> dict:
        """Commits files given as lines of JSON: regular ones in base64, large ones by the SHA-256 of an upload."""
        lines = [json.loads(line) for line in b"".join(self.body).splitlines()]
        self.hub.count("uploads", 1)
        if "create_pr" in self.query:
            raise HubError(400, "The loopback hub has no pull requests")
        with self.hub.lock:
            if revision not in repo.branches:
                raise HubError(404, "Invalid revision", "RevisionNotFound")
            head, header = repo.branches[revision], lines[0]["value"]
            if header.get("parentCommit", head.oid) != head.oid:
                raise HubError(412, "A commit has happened since")
            files = dict(head.files)
            for line in lines[1:]:
                self.apply(repo, files, line["key"], line["value"])
            commit = repo.commit(revision, files, header["summary"])
        return {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{self.hub.url}/{repo.name}/commit/{commit.oid}",
        }

    def apply(self, repo: Repository, files: dict, key: str, value: dict) -> None:
        """Applies one line of a commit to `files`, the files of the next snapshot."""
        path = value["path"]
        if key == "file":
            content = base64.b64decode(value["content"])
            files[path] = self.hub.contents.regular(content)
            self.hub.log_upload(repo.name, path, len(content))
        elif key == "lfsFile":
            if value["oid"] not in repo.uploaded:
                raise HubError(400, "A large file was not uploaded before the commit")
            files[path] = self.hub.contents.large(value["oid"])
            self.hub.name_upload(repo.name, value["oid"], path)
        elif key in ("deletedFile", "deletedFolder"):
            gone = list(Commit(files, "").below(path.rstrip("/")))
            if not gone:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise HubError(400, "The loopback hub does not know this line of a commit")

    @route("GET", "{repo}/resolve/{revision}/{path}")
    def download(self, repo: Repository, revision: str, path: str) -> None:
        commit = repo.resolve(revision)
        self.check_gate(repo)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", commit.oid)
        file = commit.files[path]
        start, stop = byte_range(self.headers.get("Range"), file.size)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.pointer_size is not None:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        self.send_head(206 if "Range" in self.headers else 200, "application/octet-stream", stop - start, headers)
        if self.command == "GET":
            self.hub.log_download(repo.name, path, stop - start)
            with open(self.hub.contents.path(file.sha256), "rb") as content:
                content.seek(start)
                for offset in range(start, stop, CHUNK):
                    self.wfile.write(content.read(min(CHUNK, stop - offset)))

    def answer_request(self) -> None:
        self.hub = self.server.hub
        self.hub.requests.append(f"{self.command} {self.path}")
        self.body = self.chunks()
        address, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        try:
            payload = self.find_answer(address)
            if payload is not None:
                self.send_json(200, payload)
        except HubError as error:
            self.send_json(error.status, {"error": str(error)}, error.headers)
        except ConnectionError:
            self.close_connection = True
        except Exception:
            self.hub.errors.append(traceback.format_exc())
            self.send_json(501, {"error": "The loopback hub has a bug"})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer_request

    def find_answer(self, address: str) -> Any:
        method = "GET" if self.command == "HEAD" else self.command
        for known in ROUTES:
            found = known.address.fullmatch(address)
            if found and known.method == method:
                parts: dict[str, Any] = {name: part and unquote(part) for name, part in found.groupdict().items()}
                if "repo" in parts:
                    parts["repo"] = self.repository(parts["repo"].removeprefix("models/"), known.access)
                return known.answer(self, **parts)
        raise HubError(404, "The loopback hub does not know this address")

    @property
    def role(self) -> str | None:
        """Access that the sender's token gives, or None without a token."""
        roles = {None: None, f"Bearer {self.hub.token}": "write", f"Bearer {self.hub.read_token}": "read"}
        if self.headers.get("Authorization") not in roles:
            raise HubError(401, "Invalid credentials in Authorization header")
        return roles[self.headers.get("Authorization")]

    def repository(self, name: str, access: str) -> Repository:
        """The repository of this name. Raises HubError if the sender may not see it or lacks the `access`."""
        repository = self.hub.repositories.get(name)
        role = self.role
        if repository is None or (access and repository.private and role is None):
            raise HubError(404 if role else 401, "Repository not found", "RepoNotFound")
        if access == "write":
            self.check_write()
        return repository

    def check_write(self) -> None:
        if self.role != "write":
            raise HubError(403 if self.role else 401, "This token may not write here")

    def check_gate(self, repo: Repository) -> None:
        if repo.gated:
            raise HubError(403 if self.role else 401, "Access to this repository is restricted", "GatedRepo")

    def chunks(self) -> Iterator[bytes]:
        """The body of the request."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield from self.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self.read(int(self.headers.get("Content-Length", 0)))

    def read(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self.rfile.read(min(size, CHUNK))
            if not chunk or self.hub.stopped.is_set():
                raise ConnectionAbortedError("client or hub stopped in the middle of a request")
            size -= len(chunk)
            yield chunk

    def json(self) -> Any:
        return json.loads(b"".join(self.body))

    def send_json(self, status: int, payload: Any, headers: dict[str, str] | None = None) -> None:
        for _ in self.body:  # unread bytes would be taken for the next request
            pass
        content = json.dumps(payload, default=str).encode()
        self.send_head(status, "application/json", len(content), headers or {})
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_head(self, status: int, kind: str, size: int, headers: dict[str, str]) -> None:
        if self.hub.stopped.is_set():
            raise ConnectionAbortedError("the hub has stopped")
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(size), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing: `HubServer.requests` is the log."""


def is_private(asked: dict, default: bool) -> bool:
    """The privacy in a request: `visibility`, or `private` in older clients."""
    return asked["visibility"] == "private" if "visibility" in asked else bool(asked.get("private", default))


def byte_range(header: str | None, size: int) -> tuple[int, int]:
    """First byte of a `Range` header, and the byte after its last. The clients ask for at most one range."""
    if header is None:
        return 0, size
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    first, last = asked.groups() if asked else ("", "0")
    start = int(first) if first else size - min(size, int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise HubError(416, "Range not satisfiable")
    return start, stop
