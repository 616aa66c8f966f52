"""Round trips over a hub on the loopback interface with the real clients: push, load, train, evaluate, pull."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from ad_model.train import train
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard
from data_gen.storage.writing import write_histories
from eval.evaluate import evaluate
from eval.report import write_report
from icrl.config.loader import dump, validate
from icrl.run.checkpoints import last_checkpoint
from icrl.run.folder import RunFolder, run_folder
from tests.conftest import ROOT, TINY, merged, seal
from tests.data_gen.test_given import histories, recorded

DATA, MODEL = "tester/histories", "tester/transformer"


def command(folder, words):
    return [sys.executable, str(ROOT / "tests" / "in_one_process.py"), str(folder / "answers.json"), json.dumps(words)]


def environment(hub, folder, token=None):
    return {**os.environ, **hub.environment(folder / "home", token), "PYTHONPATH": str(ROOT)}


def answers(hub, folder, words, token=None):
    """The result of each command: exit code, stdout, stderr."""
    done = subprocess.run(
        command(folder, words), cwd=folder, env=environment(hub, folder, token), capture_output=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr.decode()
    return [
        SimpleNamespace(code=code, out=out, error=error)
        for code, out, error in json.loads((folder / "answers.json").read_text())
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, `runs/made`, and a server to which nothing has been pushed."""
    from hub_server import HubServer

    folder = tmp_path_factory.mktemp("hub")
    config = validate(merged({**TINY, "name": "made"}, {"output": str(folder / "runs")}))
    generate(config)
    train(config)
    evaluate(config)
    write_report(config)
    with HubServer(folder / "server") as server:
        yield SimpleNamespace(folder=folder, config=config, run=run_folder(config), hub=server)
    assert not server.errors, server.errors[0]


def write_config(folder, name, **data):
    """Writes the config of an experiment on data from the hub, and returns its path."""
    path = folder / f"{name}.yaml"
    plain = {**TINY, "name": name, "output": str(folder / "runs"), "data": {"repo": DATA, **data}}
    path.write_text(dump(validate(plain)))
    return str(path)


LOADS = f"""
import json
from datasets import load_dataset
plain = load_dataset("{DATA}", split="train")
streamed = load_dataset("{DATA}", split="train", streaming=True)
rewards = [row["reward"] for row in plain]
assert rewards == [row["reward"] for row in streamed]
print(json.dumps([plain.column_names, rewards]))
"""
LOADS_MODEL = f"""
import torch
from ad_model import ADModel  # registers it with transformers
from transformers import AutoModel
print(type(AutoModel.from_pretrained("{MODEL}")).__module__)
print(type(AutoModel.from_pretrained("{MODEL}", trust_remote_code=True)).__name__)
"""


@pytest.fixture(scope="module")
def results(made):
    """The results, by name, of commands that must all succeed, run in one process."""
    folder, run = made.folder, str(made.run.path)
    push = ["push", "data", run, "--repo", DATA]
    words = {
        "dry": [*push, "--dry-run"],
        "push": [*push, "--license", "cc-by-4.0"],
        "again": [*push, "--license", "cc-by-4.0"],
        "load": LOADS,
        "train": ["run", "--config", write_config(folder, "given")],
        "streamed": ["run", "--config", write_config(folder, "streamed", streaming=True, resident_shards=2)],
        "info": ["info", str(folder / "runs/streamed")],
        "pull": ["pull", "data", DATA, "--to", str(folder / "pulled")],
        "model": ["push", "model", run, "--repo", MODEL],
        "model loads": LOADS_MODEL,
        "model of given": ["push", "model", str(folder / "runs/given"), "--repo", "tester/given", "--public"],
        "evaluate": ["evaluate", "--config", write_config(folder, "from_hub"), "--checkpoint", MODEL],
        "parquet": ["push", "data", run, "--repo", "tester/parquet", "--format", "parquet"],
        "load parquet": LOADS.replace(DATA, "tester/parquet"),
        "train parquet": ["run", "--config", write_config(folder, "from_parquet", repo="tester/parquet")],
        "branch": [*push, "--revision", "next"],
        "pull branch": ["pull", "data", f"{DATA}@next"],
    }
    done = answers(made.hub, folder, [*words.values()])
    return dict(zip(words, done, strict=True))


def test_every_command_succeeds(results):
    for name, done in results.items():
        assert done.code == 0, f"{name}: {done.out} {done.error}"


def test_a_dry_run_lists_the_files_and_sends_nothing(results):
    lines = results["dry"].out.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == {
        *(f"train-0000{number}-of-00003.h5" for number in range(3)),
        *("tasks-train.npz", "tasks-validation.npz", "tasks-test.npz"),
        *("config.yaml", "learning_curve.png", "README.md", "info.json"),
    }
    assert "10 files" in lines[-1]
    assert "created private" in lines[-1]


def test_repositories_are_private_unless_public_and_tagged_with_the_schema(results, made):
    repositories = made.hub.repositories
    assert repositories[f"datasets/{DATA}"].private
    assert not repositories["tester/given"].private
    assert "schema-v2" in repositories[f"datasets/{DATA}"].tags


def test_loaded_data_equals_the_pushed_data(results, made):
    shards = [read_shard(made.run.data / shard.file) for shard in load_info(made.run).shards]
    for done in (results["load"], results["load parquet"]):
        columns, rewards = json.loads(done.out.splitlines()[-1])
        assert set(columns) == set(shards[0])
        np.testing.assert_array_equal(np.asarray(rewards, np.float32), np.concatenate([s["reward"] for s in shards]))


def test_a_second_push_sends_no_shard_again(results, made):
    for number in range(3):
        name = f"train-0000{number}-of-00003.h5"
        assert [upload.name for upload in made.hub.uploads if upload.repo == f"datasets/{DATA}"].count(name) == 1


def weights(folder):
    return (last_checkpoint(folder / "checkpoints") / "model" / "model.safetensors").read_bytes()


def test_training_from_the_hub_equals_training_from_disk(results, made):
    on_disk = weights(made.run.path)
    assert weights(made.folder / "runs/given") == on_disk
    assert weights(made.folder / "runs/from_parquet") == on_disk


def test_streaming_trains_and_stores_no_shard(results, made):
    place = made.folder / "runs/streamed"
    assert not [*place.rglob("*.h5")]
    assert len((place / "training_log.jsonl").read_text().splitlines()) == 6
    assert "streamed from tester/histories at" in results["info"].out


def test_a_model_from_the_hub_is_evaluated_and_loads_with_and_without_its_own_code(results, made):
    assert results["model loads"].out.split() == ["ad_model.modeling_ad", "ADModel"]
    ours, its = (
        json.loads((made.folder / f"runs/{name}/eval/summary.json").read_text()) for name in ("made", "from_hub")
    )
    assert ours["agents"]["transformer"]["test"]["return"] == its["agents"]["transformer"]["test"]["return"]
    assert its["training_steps"]["transformer"] is None


def test_pulled_data_is_a_data_folder(results, made):
    assert load_info(RunFolder(made.folder, made.folder / "pulled")).statistics
    assert "next: a config with data: {folder:" in results["pull"].out


def card(hub, repo):
    text = hub.files(repo)["README.md"].read_text()
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_cards_describe_the_data_and_the_model(results, made):
    header, body = card(made.hub, f"datasets/{DATA}")
    assert header["license"] == "cc-by-4.0"
    assert header["task_categories"] == ["reinforcement-learning"]
    for part in (
        "dark_room",
        "q_learning",
        "(histories, 144)",
        "held-out, for evaluation | 3 |",
        "in-context-rl",
        "git",
    ):
        assert part in body, part
    header, body = card(made.hub, MODEL)
    (result,) = header["model-index"][0]["results"]
    assert {metric["type"] for metric in result["metrics"]} >= {
        "return_first_episode",
        "normalised_return_final_episodes",
    }
    assert "| transformer |" in body
    header, _ = card(made.hub, "tester/given")
    assert header["datasets"] == [DATA]


def test_the_code_snippets_of_cards_run(results, made):
    snippets = [
        code
        for repo in (f"datasets/{DATA}", MODEL)
        for code in re.findall(r"```python\n(.*?)```", card(made.hub, repo)[1], flags=re.DOTALL)
    ]
    assert len(snippets) == 3
    for done in answers(made.hub, made.folder, snippets):
        assert done.code == 0, done.error


def test_only_a_changed_shard_is_sent(made):
    folder = made.folder / "changing"
    parts = [histories(np.random.default_rng(number)) for number in range(3)]
    write_histories(folder, parts, recorded())
    push = ["push", "data", str(folder), "--repo", "tester/changing"]
    made.hub.uploads.clear()
    # The hub accepts one of the three shards and then refuses.
    made.hub.fail_after(uploads=1, fault=403, times=10)
    (refused,) = answers(made.hub, made.folder, [push])
    assert refused.code == 1
    assert "the hub does not let this token write the repository (403)" in refused.error
    made.hub.fail_after(uploads=10**6)
    words = [push, f"from tests.test_hub import change; change({str(folder)!r})", push]
    first, _, second = answers(made.hub, made.folder, words)
    assert (first.code, second.code) == (0, 0), first.error + second.error
    sent = [upload.name for upload in made.hub.uploads if upload.size and upload.name.endswith(".h5")]
    assert sorted(sent) == [f"train-0000{number}-of-00003.h5" for number in (0, 1, 1, 2)]


def change(folder):
    """Writes the histories of the test above with one reward changed."""
    from pathlib import Path

    parts = [histories(np.random.default_rng(number)) for number in range(3)]
    parts[1]["reward"][0, 0] += 1
    write_histories(Path(folder), parts, recorded(), overwrite=True)


def test_a_killed_push_resumes_where_it_stopped(made):
    folder = made.folder / "killed"
    write_histories(folder, [histories(np.random.default_rng(number)) for number in range(4)], recorded())
    push = ["push", "data", str(folder), "--repo", "tester/killed"]
    made.hub.uploads.clear()
    made.hub.fail_after(uploads=2, fault="hang", times=9)
    process = subprocess.Popen(
        command(made.folder, [push]), cwd=made.folder, env=environment(made.hub, made.folder), start_new_session=True
    )
    assert made.hub.struck.wait(200)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "README.md" not in made.hub.files("datasets/tester/killed")  # a partial push commits nothing
    made.hub.fail_after(uploads=10**6)
    (done,) = answers(made.hub, made.folder, [push])
    assert done.code == 0, done.error
    sent = [upload.name for upload in made.hub.uploads if upload.name.endswith(".h5")]
    assert sorted(sent) == [f"train-0000{number}-of-00004.h5" for number in range(4)]


def test_a_push_replaces_the_other_format_and_sends_no_config_from_elsewhere(results, made):
    """HDF5, Parquet and HDF5 again in one repository. Each push leaves only its own format, and `datasets` reads it."""
    push = ["push", "data", str(made.run.path), "--repo", "tester/both"]
    load = LOADS.replace(DATA, "tester/both")
    (made.folder / "config.yaml").write_text("password: hunter2")
    words = [push, [*push, "--format", "parquet", "--dry-run"], [*push, "--format", "parquet"]]
    for done in answers(made.hub, made.folder, words):
        assert done.code == 0, done.error
    files = set(made.hub.files("datasets/tester/both"))
    assert {name for name in files if name.endswith((".h5", ".parquet"))} == {
        f"data/train-0000{number}-of-00003.parquet" for number in range(3)
    }
    pull = ["pull", "data", "tester/both", "--to", "both"]
    again = ["push", "data", "both", "--repo", "tester/again"]
    for done in answers(made.hub, made.folder, [load, pull, again, LOADS.replace(DATA, "tester/again"), push]):
        assert done.code == 0, done.error
    assert b"hunter2" not in made.hub.files("datasets/tester/again")["config.yaml"].read_bytes()
    assert str(made.folder) not in made.hub.files("datasets/tester/again")["config.yaml"].read_text()
    load_it, pull_it = answers(made.hub, made.folder, [load, pull])
    assert (load_it.code, pull_it.code) == (0, 0), load_it.error
    assert sorted(
        path.name for path in (made.folder / "both").rglob("train-*") if path.suffix in (".h5", ".parquet")
    ) == [f"train-0000{number}-of-00003.h5" for number in range(3)]


def test_a_model_is_pushed_only_with_its_own_evaluation(made, tmp_path):
    run = tmp_path / "moved"
    shutil.copytree(made.run.path, run)
    checkpoint = last_checkpoint(run / "checkpoints") / "model" / "model.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (damaged,) = answers(made.hub, tmp_path, [["push", "model", str(run), "--repo", "tester/moved", "--dry-run"]])
    assert "model.safetensors: is damaged" in damaged.error
    seal(checkpoint.parent.parent)
    push = ["push", "model", str(run), "--repo", "tester/moved", "--dry-run"]
    (done,) = answers(made.hub, tmp_path, [push])
    assert done.code == 1
    assert "belongs to other weights than" in done.error


def test_a_repositorys_code_runs_only_if_it_is_trusted(made):
    folder, model = made.folder, last_checkpoint(made.run.checkpoints) / "model"
    for path in model.iterdir():
        content = path.read_bytes()
        if path.name == "modeling_ad.py":
            content += b'\nimport pathlib\npathlib.Path("executed").touch()\n'
        made.hub.put_file("tester/coded", path.name, content)
    evaluate_it = ["evaluate", "--config", write_config(folder, "coded"), "--checkpoint", "tester/coded"]
    (done,) = answers(made.hub, folder, [evaluate_it])
    assert done.code == 0, done.error
    assert not (folder / "executed").exists()
    (done,) = answers(made.hub, folder, [[*evaluate_it, "--trust-remote-code", "--overwrite"]])
    assert done.code == 0, done.error
    assert (folder / "executed").exists()


def test_an_error_is_one_line_that_says_what_to_do(made):
    folder, hub = made.folder, made.hub
    run = str(made.run.path)
    model = last_checkpoint(made.run.checkpoints) / "model"
    hub.put_file("datasets/tester/empty", "README.md", b"nothing")
    hub.put_file("datasets/tester/any", "info.json", b"{}")
    for name in ("../../evil.h5", "/etc/evil.h5", "a/../../evil.h5"):
        hub.put_file("datasets/tester/hostile", "info.json", b"{}")
        hub.put_file("datasets/tester/hostile", name, b"evil")
    hub.put_file("tester/pickled", "config.json", (model / "config.json").read_bytes())
    hub.put_file("tester/pickled", "pytorch_model.bin", b"not loaded")
    kernel = json.loads((model / "config.json").read_text())
    hub.put_file("tester/kernel", "config.json", json.dumps({**kernel, "attn_implementation": "evil/kernel"}).encode())
    hub.put_file(
        "tester/kernel",
        "model.safetensors",
        (model / "model.safetensors").read_bytes(),
    )
    evaluate_it = ["evaluate", "--config", str(made.run.config), "--name", "wrong", "--checkpoint"]
    words = {
        "does not exist, or is private": ["pull", "data", "tester/nothing"],
        "no such branch, tag or commit": ["pull", "data", "tester/empty@v9"],
        "has no info.json": ["generate", "--config", write_config(folder, "empty", repo="tester/empty")],
        "outside of its folder": ["pull", "data", "tester/hostile", "--to", str(folder / "hostile")],
        "so nothing is loaded": ["generate", "--config", write_config(folder, "hostile", repo="tester/hostile")],
        "is not a hub repository": ["pull", "data", "../../etc/passwd"],
        "has no safetensors weights": [*evaluate_it, "tester/pickled"],
        "asks for attention code from elsewhere": [*evaluate_it, "tester/kernel"],
        "is neither a folder nor a model on the hub": [*evaluate_it, "tester/nothing"],
        "holds something else": ["pull", "data", "tester/any", "--to", str(folder / "runs")],
        "so this project did not push it": ["pull", "data", "tester/empty"],
        "is not a run folder": ["push", "model", str(folder / "nothing"), "--repo", "tester/x"],
        "give the branch as --revision v1": ["push", "data", run, "--repo", "tester/x@v1"],
    }
    for line, done in zip(words, answers(hub, folder, [*words.values()]), strict=True):
        assert done.code in (1, 2), (line, done)
        assert done.error.count("error: ") == 1, (line, done.error)
        assert line in done.error.splitlines()[-1], done.error
    assert not [*folder.rglob("evil*")]
    (done,) = answers(hub, folder, [["push", "data", run, "--repo", "tester/x"]], token="hf_wrong")
    assert done.code == 1
    assert "log in with `hf auth login`, or set HF_TOKEN" in done.error


def test_a_missing_network_is_reported(made):
    words = [["pull", "data", DATA], ["push", "data", str(made.run.path), "--repo", DATA]]
    nowhere = {**environment(made.hub, made.folder), "HF_ENDPOINT": "http://127.0.0.1:9"}
    subprocess.run(command(made.folder, words), cwd=made.folder, env=nowhere, check=True, timeout=3600)
    for code, _, error in json.loads((made.folder / "answers.json").read_text()):
        assert code == 1
        assert "cannot reach http://127.0.0.1:9" in error
        assert "check the network" in error
