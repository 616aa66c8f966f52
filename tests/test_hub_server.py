"""The loopback hub against the real clients. The client functions here run in processes that know only this hub."""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import tracemalloc
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, run_python

DATA = "datasets/someone/histories"
SHARD = 3000  # bytes


def program(client, *arguments) -> list[str]:
    return ["-c", f"import json, test_hub_server as t; print(json.dumps(t.{client.__name__}(*{arguments!r})))"]


def variables(hub, folder, token=None) -> dict[str, str]:
    return {**hub.environment(folder / "home", token), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def ask(hub, folder, client, *arguments, token=None):
    """The return value of the function `client` of this file, run in a separate process."""
    done = run_python(program(client, *arguments), folder, variables(hub, folder, token))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    """A working folder whose subfolder `shards` is a data set to push: three shards and a card."""
    (tmp_path / "shards" / "data").mkdir(parents=True)
    (tmp_path / "shards" / "README.md").write_text("---\nlicense: mit\ntags: [histories]\n---\n# Histories\n")
    for shard in range(3):
        (tmp_path / "shards" / "data" / f"{shard}.h5").write_bytes(bytes([shard]) * SHARD)
    return tmp_path


def push():
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo("someone/histories", repo_type="dataset", private=True, exist_ok=True)
    return api.upload_folder(repo_id="someone/histories", repo_type="dataset", folder_path="shards").oid


def names(transfers) -> list[str]:
    return sorted(name for _, name, _ in transfers)


def test_a_push_uploads_only_changed_files_and_keeps_old_revisions(hub, folder):
    first = ask(hub, folder, push)
    assert names(hub.uploads) == ["README.md", "data/0.h5", "data/1.h5", "data/2.h5"]
    assert hub.repositories[DATA].private
    hub.uploads.clear()

    (folder / "shards" / "data" / "1.h5").write_bytes(b"new" * SHARD)
    second = ask(hub, folder, push)
    assert hub.uploads == [(DATA, "data/1.h5", 3 * SHARD)]
    assert hub.files(DATA)["data/1.h5"].read_bytes() == b"new" * SHARD
    assert hub.files(DATA, first)["data/1.h5"].read_bytes() == b"\1" * SHARD

    assert ask(hub, folder, work_with_revisions, first, second) == {
        "unchanged": second,
        "by revision": {"main": "new", "v1": "\1\1\1", first: "\1\1\1", "draft": "new"},
        "tags": {"v1": first},
        "branches": {"draft": second, "main": second},
        "titles": ["Upload folder using huggingface_hub", "Upload folder using huggingface_hub", "initial commit"],
        "again": {"tag": 409, "branch": 409, "parent": 412, "card": "ValueError"},
        "moved": second,
        "after deleting": [".gitattributes", "data/2.h5"],
        "whole": [".gitattributes", "README.md", "data/0.h5", "data/1.h5", "data/2.h5"],
        "private": [True, False],
        "user": "tester",
    }


def work_with_revisions(first, second):
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    api, repo = HfApi(), {"repo_id": "someone/histories", "repo_type": "dataset"}
    found = {"unchanged": push(), "again": {}}
    api.create_tag(**repo, tag="v1", revision=first)
    api.create_tag(**repo, tag="v1", exist_ok=True)
    api.create_branch(**repo, branch="draft")
    path = {
        revision: api.hf_hub_download(**repo, filename="data/1.h5", revision=revision)
        for revision in ("main", "v1", first, "draft")
    }
    found["by revision"] = {revision: Path(file).read_bytes()[:3].decode() for revision, file in path.items()}
    refs = api.list_repo_refs(**repo)
    found["tags"] = {tag.name: tag.target_commit for tag in refs.tags}
    found["branches"] = {
        branch.name: branch.target_commit for branch in sorted(refs.branches, key=lambda ref: ref.name)
    }
    found["titles"] = [commit.title for commit in api.list_repo_commits(**repo)]
    late = {"path_in_repo": "late", "path_or_fileobj": b"late", "parent_commit": first}
    for name, call in {
        "tag": lambda: api.create_tag(**repo, tag="v1"),
        "branch": lambda: api.create_branch(**repo, branch="draft"),
        "parent": lambda: api.upload_file(**repo, **late),
    }.items():
        try:
            call()
        except HfHubHTTPError as error:
            found["again"][name] = error.response.status_code
    try:
        api.upload_file(**repo, path_in_repo="README.md", path_or_fileobj=b"---\na: [\n---\n")
    except ValueError as error:
        found["again"]["card"] = type(error).__name__
    api.delete_tag(**repo, tag="v1")
    api.create_tag(**repo, tag="v1")
    found["moved"] = api.dataset_info("someone/histories", revision="v1").sha
    api.delete_file("README.md", **repo, revision="draft")
    api.delete_files(**repo, delete_patterns=["data/0.h5", "data/1.h5"], revision="draft")
    found["after deleting"] = api.list_repo_files(**repo, revision="draft")
    whole = Path(snapshot_download(**repo, local_dir="pulled"))
    files = [file for file in whole.rglob("*") if file.is_file() and ".cache" not in file.parts]
    found["whole"] = sorted(str(file.relative_to(whole)) for file in files)
    found["private"] = [api.repo_info(**repo).private]
    api.update_repo_settings(**repo, private=False)
    found["private"].append(api.repo_info(**repo).private)
    found["user"] = api.whoami()["name"]
    return found


def test_the_hub_lists_files_as_git_would(hub, folder):
    commit = ask(hub, folder, push)
    hub.put_file(DATA, "later.txt", b"of a later commit")
    content = b"\2" * SHARD
    oid = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {SHARD}\n".encode()
    card = (folder / "shards" / "README.md").read_bytes()
    found = ask(hub, folder, look_around)
    assert found["card"] == {"etag": git_blob(card), "size": len(card), "blob": git_blob(card), "commit": commit}
    assert found["shard"] == {"etag": oid, "size": SHARD, "blob": git_blob(pointer), "sha256": oid}
    assert found["root"] == [".gitattributes", "README.md", "data/", "later.txt"]
    assert found["below"] == ["data/0.h5", "data/1.h5", "data/2.h5"]
    assert found["info"] == ["data/", "README.md"]
    assert found["tags"] == ["histories"]
    assert found["siblings"] == found["all"] == [".gitattributes", "README.md", *found["below"], "later.txt"]
    assert found["read"] == ["\2" * 5, "\2" * 10]
    assert {size for _, _, size in hub.downloads} == {10, SHARD}


def look_around():
    from huggingface_hub import HfApi, HfFileSystem, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.hf_api import RepoFolder

    def listed(entries):
        return [entry.path + ("/" if isinstance(entry, RepoFolder) else "") for entry in entries]

    api, fs, repo = HfApi(), HfFileSystem(), {"repo_id": "someone/histories", "repo_type": "dataset"}
    heads = [get_hf_file_metadata(hf_hub_url(**repo, filename=name)) for name in ("README.md", "data/2.h5")]
    tree = list(api.list_repo_tree(**repo, recursive=True, expand=True))
    card, shard = tree[1], tree[-2]
    info = api.dataset_info("someone/histories", files_metadata=True)
    assert info.siblings[-2].lfs.sha256 == shard.lfs.sha256
    with fs.open("datasets/someone/histories/data/2.h5", "rb", block_size=10, cache_type="none") as file:
        file.seek(SHARD - 10)
        end = file.read(10).decode()
    with fs.open("datasets/someone/histories/data/2.h5", "rb", block_size=0) as file:
        start = file.read(5).decode()
    return {
        "card": {"etag": heads[0].etag, "size": heads[0].size, "blob": card.blob_id, "commit": card.last_commit.oid},
        "shard": {"etag": heads[1].etag, "size": heads[1].size, "blob": shard.blob_id, "sha256": shard.lfs.sha256},
        "root": listed(api.list_repo_tree(**repo)),
        "below": listed(api.list_repo_tree(**repo, path_in_repo="data")),
        "info": listed(api.get_paths_info(**repo, paths=["data", "README.md", "nothing"], expand=True)),
        "tags": info.tags,
        "siblings": [sibling.rfilename for sibling in info.siblings],
        "all": [name.split("/", 3)[-1] for name in fs.find("datasets/someone/histories")],
        "read": [start, end],
    }


def git_blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def test_the_loopback_hub_refuses_like_the_real_hub(hub, folder):
    hub.put_file("datasets/someone/open", "a.txt", b"a")
    hub.create("datasets/someone/closed", private=True)
    hub.put_file("datasets/someone/gated", "a.txt", b"a")
    hub.repositories["datasets/someone/gated"].gated = True
    assert ask(hub, folder, try_refused_calls, hub.token, hub.read_token, token="") == {
        "no repository": ["RepositoryNotFoundError", 404],
        "no revision": ["RevisionNotFoundError", 404],
        "no file": ["RemoteEntryNotFoundError", 404],
        "no folder": ["RemoteEntryNotFoundError", 404],
        "commit to no branch": ["RevisionNotFoundError", 404],
        "gated": ["GatedRepoError", 403],
        "unknown sees private": ["RepositoryNotFoundError", 401],
        "unknown writes": ["HfHubHTTPError", 401],
        "unknown is asked who": ["LocalTokenNotFoundError", None],
        "reader sees private": None,
        "reader writes": ["HfHubHTTPError", 403],
        "reader makes": ["HfHubHTTPError", 403],
        "wrong token": ["HfHubHTTPError", 401],
        "wrong token is asked who": ["HfHubHTTPError", 401],
    }


def try_refused_calls(token, read_token):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    owner, reader, wrong, unknown = (HfApi(token=token) for token in (token, read_token, "hf_wrong", None))
    opened, closed, gated = (
        {"repo_id": f"someone/{name}", "repo_type": "dataset"} for name in ("open", "closed", "gated")
    )
    file = {"path_in_repo": "b.txt", "path_or_fileobj": b"b"}
    found = {}
    for name, call in {
        "no repository": lambda: owner.model_info("someone/open"),
        "no revision": lambda: owner.dataset_info("someone/open", revision="v9"),
        "no file": lambda: owner.hf_hub_download(**opened, filename="b.txt"),
        "no folder": lambda: list(owner.list_repo_tree(**opened, path_in_repo="b")),
        "commit to no branch": lambda: owner.upload_file(**opened, **file, revision="draft"),
        "gated": lambda: owner.auth_check(**gated),
        "unknown sees private": lambda: unknown.repo_info(**closed),
        "unknown writes": lambda: unknown.upload_file(**opened, **file),
        "unknown is asked who": lambda: unknown.whoami(),
        "reader sees private": lambda: reader.repo_info(**closed),
        "reader writes": lambda: reader.upload_file(**opened, **file),
        "reader makes": lambda: reader.create_repo("someone/new"),
        "wrong token": lambda: wrong.dataset_info("someone/open"),
        "wrong token is asked who": lambda: wrong.whoami(),
    }.items():
        try:
            call()
            found[name] = None
        except (HfHubHTTPError, LocalTokenNotFoundError) as error:
            found[name] = [type(error).__name__, error.response.status_code if hasattr(error, "response") else None]
    return found


def test_hostile_names_reach_the_client_but_never_become_local_paths(hub, folder):
    hostile = ["../../evil.txt", "/etc/evil.txt", "weights.pkl"]
    for name in hostile:
        hub.put_file("someone/trap", name, b"evil")
    found = ask(hub, folder, walk_into_trap)
    assert found["tree"] == found["siblings"] == sorted([".gitattributes", *hostile])
    assert found["pickle"] == "evil"
    assert all(path.parent == folder / "hub" for path in hub.files("someone/trap").values())


def walk_into_trap():
    from huggingface_hub import HfApi, RepoFile

    api = HfApi()
    tree = api.list_repo_tree("someone/trap", recursive=True)
    return {
        "tree": [entry.path for entry in tree if isinstance(entry, RepoFile)],
        "siblings": [sibling.rfilename for sibling in api.model_info("someone/trap").siblings],
        "pickle": Path(api.hf_hub_download("someone/trap", "weights.pkl")).read_text(),
    }


def test_an_interrupted_push_resumes(hub, folder):
    hub.fail_after(uploads=2, fault=403)
    failed = run_python(program(push), folder, variables(hub, folder))
    assert failed.returncode != 0 and "403 Forbidden" in failed.stderr
    assert hub.struck.is_set() and len(hub.uploads) == 2
    there = {name for _, name, _ in hub.uploads}
    hub.uploads.clear()
    ask(hub, folder, push)
    assert len(hub.uploads) == 2 and "README.md" in names(hub.uploads)
    assert not there & {hub.files(DATA)[name].name for name in names(hub.uploads)}


def test_clients_survive_one_fault(hub, folder):
    """The hub's clients retry by themselves: the library needs no code for it."""
    hub.fail_after(n_bytes=SHARD // 2, fault="cut")
    ask(hub, folder, push)
    assert names(hub.uploads) == ["README.md", "data/0.h5", "data/1.h5", "data/2.h5"]
    assert len([request for request in hub.requests if request.startswith("PUT")]) == 4


def test_a_push_killed_in_the_middle_of_a_file_can_be_repeated(hub, folder):
    hub.fail_after(n_bytes=SHARD // 2, fault="hang")
    environment = {**os.environ, **variables(hub, folder)}
    with subprocess.Popen([sys.executable, *program(push)], cwd=folder, env=environment) as process:
        assert hub.struck.wait(60)
        process.kill()
    assert "data/0.h5" not in hub.files(DATA)
    ask(hub, folder, push)
    assert {"data/0.h5", "data/1.h5", "data/2.h5"} <= set(hub.files(DATA))


def put(hub, content: bytes, sha256: str | None = None, timeout: float = 60) -> int | type[Exception]:
    """Uploads a large file. Returns the status, or the type of the error without an answer."""
    address = f"{hub.url}/upload/someone/model/{sha256 or hashlib.sha256(content).hexdigest()}"
    try:
        return urllib.request.urlopen(urllib.request.Request(address, content, method="PUT"), timeout=timeout).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error)


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (500, 500),
        ("cut", http.client.RemoteDisconnected),
        ("hang", TimeoutError),
        ("die", http.client.RemoteDisconnected),
    ],
)
def test_a_fault_strikes_when_and_as_often_as_requested(hub, fault, answer):
    hub.create("someone/model")
    for when in ({"uploads": 1, "times": 2}, {"n_bytes": 2, "times": 2}):
        hub.uploads.clear()
        hub.fail_after(**when, fault=fault)
        for content, expected in {b"ab": 200, b"cd": answer, b"ef": answer, b"gh": 200}.items():
            assert put(hub, content, timeout=0.2 if expected is TimeoutError else 60) == expected
            assert hub.stopped.is_set() == (fault == "die" and expected == answer)
            if hub.stopped.is_set():
                hub.start()
        assert hub.struck.is_set() and len(hub.uploads) == 2


def test_a_stopped_hub_is_unreachable_until_it_starts_again(hub):
    hub.put_file("someone/model", "a.txt", b"a")
    address = f"{hub.url}/someone/model/resolve/main/a.txt"
    connection = http.client.HTTPConnection("127.0.0.1", hub.port)
    connection.request("GET", "/api/models/someone/model")
    connection.getresponse().read()
    hub.stop()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(address)
    with pytest.raises(http.client.RemoteDisconnected):  # although its connection was open
        connection.request("GET", "/api/models/someone/model")
        connection.getresponse()
    hub.start()
    assert urllib.request.urlopen(address).read() == b"a"


def test_content_with_another_checksum_than_announced_is_refused(hub):
    hub.create("someone/model")
    assert put(hub, b"a", "0" * 64) == 400
    assert not hub.uploads and not hub.repositories["someone/model"].uploaded


@pytest.mark.parametrize(
    ("asked", "answer"),
    [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=8-99", b"89"), ("bytes=10-", None)],
)
def test_a_range_request_returns_that_range(hub, asked, answer):
    hub.put_file("someone/model", "digits.bin", b"0123456789")
    request = urllib.request.Request(f"{hub.url}/someone/model/resolve/main/digits.bin", headers={"Range": asked})
    if answer is None:
        with pytest.raises(urllib.error.HTTPError, match="416"):
            urllib.request.urlopen(request)
    else:
        with urllib.request.urlopen(request) as response:
            assert (response.status, response.read()) == (206, answer)


def test_memory_of_the_hub_does_not_grow_with_the_file_size(hub):
    """Uploads and downloads 64 MiB. Hub and client together may use 8 MiB, the memory of a few chunks."""
    chunk, chunks = bytes(1 << 20), 64
    oid = hashlib.sha256(chunk * chunks).hexdigest()
    hub.create("someone/model")
    connection = http.client.HTTPConnection("127.0.0.1", hub.port)
    tracemalloc.start()
    try:
        connection.request("PUT", f"/upload/someone/model/{oid}", iter([chunk] * chunks), encode_chunked=True)
        assert connection.getresponse().read() == b"{}"
        line = {"path": "large.bin", "algo": "sha256", "oid": oid, "size": len(chunk) * chunks}
        lines = [{"key": "header", "value": {"summary": "large"}}, {"key": "lfsFile", "value": line}]
        body, headers = "\n".join(map(json.dumps, lines)), {"Authorization": f"Bearer {hub.token}"}
        connection.request("POST", "/api/models/someone/model/commit/main", body, headers)
        connection.getresponse().read()
        connection.request("GET", "/someone/model/resolve/main/large.bin")
        response = connection.getresponse()
        assert sum(len(response.read(1 << 20)) for _ in range(chunks)) == chunks << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
        connection.close()


def test_data_sets_and_models_survive_a_round_trip(hub, folder):
    import h5py
    import numpy as np

    with h5py.File(folder / "shard.h5", "w") as file:
        file["reward"] = np.arange(6, dtype=np.float32).reshape(3, 2)
    for shard in range(2):
        hub.put_file("datasets/someone/flat", f"data/train-{shard}.h5", (folder / "shard.h5").read_bytes())
    configs = "configs:\n- config_name: default\n  data_files: data/train-*.h5\n"
    hub.put_file("datasets/someone/flat", "README.md", f"---\n{configs}---\n".encode())
    assert ask(hub, folder, round_trip) == {
        "rows": [0, 1, 2, 3, 4, 5],
        "split": ["train", "test"],
        "streamed": [0, 1],
        "pushed again": [9],
        "at the tag": 6,
        "hdf5": [6, [4.0, 5.0]],
        "hdf5 streamed": [0.0, 1.0],
        "weights": 0.0,
    }
    assert "datasets/someone/pushed" in hub.repositories
    assert "data/train-00001-of-00002.parquet" in hub.files("datasets/someone/pushed", "v1")
    assert "data/train-00001-of-00002.parquet" not in hub.files("datasets/someone/pushed")
    assert {"config.json", "model.safetensors", "README.md"} <= set(hub.files("tester/model"))


def round_trip():
    from datasets import Dataset, load_dataset
    from huggingface_hub import HfApi
    from transformers import LlamaConfig, LlamaModel

    found = {}
    Dataset.from_dict({"x": range(6)}).push_to_hub("someone/pushed", num_shards=2)
    Dataset.from_dict({"x": [7]}).push_to_hub("someone/pushed", split="test")
    HfApi().create_tag("someone/pushed", tag="v1", repo_type="dataset")
    loaded = load_dataset("someone/pushed")
    found["rows"], found["split"] = loaded["train"]["x"][:], list(loaded)
    stream = load_dataset("someone/pushed", split="train", streaming=True)
    found["streamed"] = [row["x"] for row in stream.take(2)]
    Dataset.from_dict({"x": [9]}).push_to_hub("someone/pushed")
    found["pushed again"] = load_dataset("someone/pushed", split="train")["x"][:]
    found["at the tag"] = len(load_dataset("someone/pushed", split="train", revision="v1"))
    flat = load_dataset("someone/flat", split="train")
    found["hdf5"] = [len(flat), flat[-1]["reward"]]
    found["hdf5 streamed"] = next(iter(load_dataset("someone/flat", split="train", streaming=True)))["reward"]

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaModel(LlamaConfig(vocab_size=4, **small))
    model.push_to_hub("model")
    back = LlamaModel.from_pretrained("tester/model", use_safetensors=True)
    pairs = zip(model.parameters(), back.parameters(), strict=True)
    found["weights"] = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    return found
