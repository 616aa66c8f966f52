"""Scripts without a `__main__` guard, terminals with few symbols, and readers that have gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from data_gen.generation.generate import generate
from icrl.run.folder import run_folder
from icrl.support.terminal import printable

SCRIPT = """
import os
os.sched_getaffinity = lambda process: {0, 1}
import gymnasium, icrl
print("begins")
%s
from data_gen.agents.random import Random
from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
family = GymnasiumTasks("CartPole-v1", vary={"sutton_barto_reward": [True, False]}, episode_length=5, wrappers=%s)
for _ in range(2):
    envs = family.make_vec(family.sample(8, 0))
    histories = icrl.interact(Random(), envs, 7, icrl.make_seeds(8, 0))
print(histories.reward.shape, len(envs._processes))
"""
OWN = "class Own(gymnasium.Wrapper):\n    pass"


@pytest.mark.parametrize(
    ("own", "wrappers", "processes", "told"), [("", "[]", 2, 0), (OWN, '[{"name": "__main__:Own"}]', 0, 1)]
)
def test_a_script_without_a_guard_runs_once_and_to_its_end(own, wrappers, processes, told, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT % (own, wrappers))
    done = run_python(["script.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("note: ")] == ["begins", f"(8, 7) {processes}"]
    assert len(lines) == 2 + told


def test_a_script_without_a_guard_generates_with_workers(tmp_path, tiny_file):
    text = "import icrl\nicrl.generate(icrl.load_config('tiny.yaml', ['--runtime.workers=2']))\nprint('done')\n"
    (tmp_path / "script.py").write_text(text)
    done = run_python(["script.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


def test_symbols_that_a_terminal_lacks_are_replaced():
    assert printable("return ▁▃█ of é", "utf-8") == "return ▁▃█ of é"
    assert printable("return ▁▃█ of é", "latin-1") == "return _-# of é"
    assert printable("return ▁▃█ of é 丁", "ascii") == "return _-# of ? ?"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_info_works_in_any_encoding(encoding, tiny):
    config = tiny()
    generate(config)
    done = run_python(["-m", "icrl", "info", str(run_folder(config).path)], ROOT, {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert "data: " in done.stdout


def test_a_reader_that_has_gone_is_no_error(tiny):
    config = tiny()
    generate(config)
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "icrl", "info", str(run_folder(config).path)]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("streams", [("stderr",), ("stdout",), ("stdout", "stderr")], ids=lambda value: "+".join(value))
def test_no_work_is_lost_when_nobody_reads_any_more(streams, tiny_file):
    """`icrl run demo 2>&1 | head -1`, with the progress bars on the pipe, too."""
    reading, writing = os.pipe()
    os.close(reading)
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **dict.fromkeys(streams, writing)}
    words = [sys.executable, "-m", "icrl", "generate", "tiny.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, **given, env=environment, cwd=tiny_file.parent)
    os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in (done.stderr or b"")
    assert (tiny_file.parent / "runs/tiny/data/info.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_named_and_under_the_messages_is_no_error(tiny_file):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "icrl", "generate", "tiny.yaml"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=environment,
                              cwd=tiny_file.parent)  # fmt: skip
        lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line and "generate:" not in line]
        assert (done.returncode, lines) == (
            1, ["error: standard output: cannot be written: No space left on device"])  # fmt: skip
        assert subprocess.run([*words, "--overwrite"], stderr=full, env=environment, cwd=tiny_file.parent,
                              stdout=subprocess.DEVNULL).returncode == 0  # fmt: skip
        assert subprocess.run([*words, "--nothing", "1"], stderr=full, env=environment,
                              cwd=tiny_file.parent).returncode == 2  # fmt: skip


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    """Text that a library prints to a closed stream would be written into the file that has its number."""
    program = "import os, icrl.support.terminal as t; t.reported(lambda: os.write(3, str(os.dup(0)).encode()))"
    shell = f'{sys.executable} -c "{program}" 3>number <&- >&- 2>&-'
    subprocess.run(shell, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert int((tmp_path / "number").read_text()) > 3


def test_a_folder_that_was_deleted_under_the_shell_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    shell = f"cd gone && rmdir ../gone && {sys.executable} -m icrl tasks dark_room"
    done = subprocess.run(shell, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr == "error: the current folder cannot be read (No such file or directory): change to another one\n"
    )
