"""Scripts without a `__main__` guard, terminals with few symbols, and readers that have gone."""

import os
import subprocess
import sys

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
