"""The whole pipeline: in-context learning emerges, stages are skipped, docs run, and other libraries read the files."""

import json
import os
import re
import site
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TINY, merged, run_python

from data_gen.generation.generate import generate
from eval.results import scores_array
from icrl.config.loader import validate
from icrl.run.folder import RunFolder

SMALL = """\
--tasks.size 6 --tasks.episode_length 12 --data.episodes 100 --data.histories_per_task 48 --training.subsample 12
--training.steps 350 --training.batch_size 48 --model.hidden_size 48 --model.intermediate_size 128
--evaluation.episodes 30 --runtime.workers 1 --runtime.trackers [] --name small""".split()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A small Dark Room experiment, run by the console command in about half a minute on one core."""
    folder = tmp_path_factory.mktemp("small")
    done = run_python(["-m", "icrl", "run", "--config", str(ROOT / "configs/demo.yaml"), *SMALL], folder)
    assert done.returncode == 0, done.stderr
    return RunFolder(folder / "runs" / "small"), done.stdout, folder


def test_in_context_learning_emerges_on_held_out_tasks(small_run):
    """Three seeds gave -.04 to -.02 in the first episode and .93 to .96 in the last ten of 30."""
    folder, _, _ = small_run
    agents = json.loads(folder.summary.read_text())["agents"]
    held_out = agents["transformer"]["test"]["normalised_return"]
    assert held_out["first_episode"]["iqm"] < 0.2
    assert held_out["final_episodes"]["iqm"] > 0.8
    source = agents["q_learning"]["test"]["normalised_return"]
    assert held_out["area_under_curve"]["iqm"] > source["area_under_curve"]["iqm"] + 0.1  # it learns faster
    assert agents["random"]["test"]["normalised_return"]["final_episodes"]["iqm"] < 0.1
    assert agents["optimal"]["test"]["normalised_return"]["final_episodes"]["iqm"] > 0.99
    table = pd.read_parquet(folder.returns)
    curve = scores_array(table, "transformer", "test", "normalised_return", 30).mean(axis=(0, 1))
    assert np.corrcoef(np.arange(len(curve)), curve)[0, 1] > 0.6


def test_held_out_goals_are_not_among_the_training_goals(small_run):
    folder, _, _ = small_run
    train, test = (np.load(folder.data / f"tasks-{split}.npz")["goal"] for split in ("train", "test"))
    assert (len(train), len(test)) == (27, 7)
    assert not set(map(tuple, train)) & set(map(tuple, test))
    paths = np.load(folder.eval / "paths.npz")
    assert set(map(tuple, paths["task_goal"])) <= set(map(tuple, test))


def test_the_command_prints_its_results_and_the_next_command(small_run):
    _, stdout, working_folder = small_run
    assert "generate: 1,296 histories" in stdout
    assert "next: " not in stdout  # `icrl run` has run every stage
    assert f"report: {Path('runs/small/report.html')}" in stdout
    words = ["--config", str(ROOT / "configs/demo.yaml"), *SMALL]
    for verb, following in (("generate", "train"), ("train", "evaluate")):
        single = run_python(["-m", "icrl", verb, *words], working_folder).stdout
        assert f"next: icrl {following} " in single
        assert "--tasks.size 6" in single


def test_finished_stages_are_skipped_with_a_note_and_a_missing_report_is_made_again(small_run):
    folder, _, working_folder = small_run
    before = folder.summary.read_text()
    command = ["-m", "icrl", "run", "--config", str(ROOT / "configs/demo.yaml"), *SMALL]
    again = run_python(command, working_folder)
    assert again.stdout.count("complete for this config, skipped") == 3
    folder.report.unlink()
    assert "evaluate: complete" not in run_python(command, working_folder).stdout
    assert folder.report.exists()
    assert folder.summary.read_text() == before
    other = run_python([*command, "--evaluation.seeds", "3"], working_folder)
    assert other.returncode == 1
    assert "eval belongs to another config" in other.stderr
    assert folder.summary.read_text() == before


def test_the_run_folder_records_versions_and_info_describes_the_run(small_run):
    folder, _, working_folder = small_run
    text = folder.config.read_text()
    for package in ("torch", "transformers", "numpy"):
        assert re.search(rf"^# {package}: \d", text, re.MULTILINE)
    assert "# git: " in text
    info = run_python(["-m", "icrl", "info", str(folder.path)], working_folder)
    assert info.returncode == 0, info.stderr
    for expected in ("histories improve", "suggested: training.subsample", "350 of 350 updates", "transformer"):
        assert expected in info.stdout


def test_datasets_does_not_return_the_cached_rows_of_another_run(tmp_path):
    """`datasets` caches by the card's config name and file pattern, so the name must differ between runs."""
    seeds = []
    for seed in (0, 1):
        config = merged(TINY, {"name": f"seed-{seed}", "seed": seed, "output": str(tmp_path)})
        generate(validate(config))
        code = f"from datasets import load_dataset; d = load_dataset({str(tmp_path / f'seed-{seed}' / 'data')!r}, "
        done = run_python(["-c", code + "split='train'); print(d[0]['seed'])"], tmp_path, {"HF_HOME": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        seeds.append(done.stdout.split()[-1])
    assert seeds[0] != seeds[1]


def test_datasets_reads_the_data_folder_without_this_project(small_run, tmp_path):
    folder, _, _ = small_run
    code = f"""
import importlib.util, sys
sys.path.append({site.getsitepackages()[0]!r})
assert importlib.util.find_spec("data_gen") is None
import h5py, numpy
from datasets import load_dataset
for streaming in (False, True):
    data = load_dataset({str(folder.data.resolve())!r}, split="train", streaming=streaming).with_format("numpy")
    row = next(iter(data))
    with h5py.File({str(folder.data.resolve())!r} + "/train-00000-of-00004.h5") as file:
        for name in file:
            numpy.testing.assert_array_equal(row[name], file[name][0])
print(len(load_dataset({str(folder.data.resolve())!r}, split="train")))
"""
    done = run_python(["-S", "-I", "-c", code], tmp_path, {"HF_HOME": str(tmp_path / "hf")})
    assert done.stdout.strip() == "1296", done.stderr


def test_a_missing_or_half_written_run_folder_is_reported_in_one_line(icrl, tmp_path):
    missing = icrl("info", "runs/none")
    assert (missing.returncode, missing.stderr) == (
        1, "error: runs/none: is not a run folder: it has no config.yaml\n",
    )  # fmt: skip
    train = icrl("train", "--config", str(ROOT / "configs/demo.yaml"))
    assert train.returncode == 1
    assert train.stderr == (
        "error: runs/demo/data: the data has not been generated; run `icrl generate` with this config first\n"
    )
    (tmp_path / "runs/demo/data").mkdir(parents=True)
    (tmp_path / "runs/demo/data/info.json").write_text('{"schema_version": 1')
    for verb in ("generate", "train"):
        half = icrl(verb, "--config", str(ROOT / "configs/demo.yaml"))
        assert half.returncode == 1
        assert half.stderr.startswith("error: runs/demo/data/info.json cannot be read: ")
        assert half.stderr.count("\n") == 1


def test_a_full_disk_is_reported_in_one_line_and_a_second_call_finishes(tiny_file, tmp_path):
    """A limit on the file size stands in for a full disk: the same system calls fail, with another error number."""
    for verb, limit in (("generate", 1), ("train", 8), ("evaluate", 8)):
        words = ["-m", "icrl", verb, "--config", str(tiny_file)]
        limited = f"ulimit -f {limit}; exec {sys.executable} {' '.join(words)}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, env=environment, capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1, done.stderr
        assert len(errors) == 1, done.stderr
        assert "File too large" in errors[0], done.stderr
        assert "Traceback" not in done.stderr
        assert run_python(words, tmp_path).returncode == 0
    assert not [path for path in (tmp_path / "runs").rglob(".*") if path.name != ".lock"]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_the_extensions_shown_in_the_readme_run_and_are_short(tmp_path):
    """Writes each code block that begins with a file name to that file, and runs the experiment of these files."""
    files = {}
    for text in blocks(ROOT / "README.md", "python") + blocks(ROOT / "README.md", "yaml"):
        named = re.match(r"# (\w+\.(?:py|yaml))", text)
        if named:
            files[named.group(1)] = text
    assert set(files) == {"number_line.py", "habits.py", "return_weighted.py", "my_figures.py", "number_line.yaml"}
    for name, text in files.items():
        assert text.count("\n") < 40, name
        (tmp_path / name).write_text(text)
    fast = "--training.steps 20 --evaluation.episodes 5 --runtime.trackers [] --runtime.workers 1".split()
    done = run_python(["-m", "icrl", "run", "--config", "number_line.yaml", *fast], tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs/number_line/eval/summary.json").read_text())
    assert {"transformer", "habits:Habits", "random"} == set(summary["agents"])
    source = re.search(r"source, .*: (\S+) in the first tenth, (\S+) in the last tenth", done.stdout)
    assert float(source.group(2)) > float(source.group(1)) + 0.3  # the README's agent learns


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_the_other_python_code_in_the_docs_runs(page, small_run, tiny_file):
    working_folder = small_run[2]
    if page == "docs/studies.md":  # its code reads the study that it begins with
        axes = ["--axis", "training.learning_rate=1e-3,3e-3", "--axis", "model.context_episodes=2,3"]
        words = ["study", "--name", "lr_context", "--base", str(tiny_file), *axes]
        done = run_python(["-m", "icrl", *words], working_folder)
        assert done.returncode == 0, done.stderr
    found = [text for text in blocks(ROOT / page, "python") if not re.match(r"# \w+\.py", text)]
    for text in found:
        code = text.replace("runs/demo", "runs/small").replace("step-001000", "step-000350")
        done = run_python(["-c", code], working_folder)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_file_that_the_docs_name_exists(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(r"configs/[\w/]+\.yaml", text)
    for name in named:
        assert (ROOT / page).parent.joinpath(name).exists() or (ROOT / name).exists(), name
