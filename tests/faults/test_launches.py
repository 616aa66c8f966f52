"""A launch of two processes: both are stopped, or one of them dies, after an update of the first."""

import json
import re

import pytest
from conftest import ROOT, run_python

from data_gen.generation.generate import generate
from icrl.config.loader import dump
from icrl.run.checkpoints import checkpoint_steps, last_checkpoint
from icrl.run.folder import run_folder
from tests.faults.harness.startup import variables_that_run

# Every process tells its number; before the third line of the log, the first process sends the signal.
CODE = """
import os, signal, sys
def _hook(event, args):
    if event == "open" and str(args[0]).endswith("training_log.jsonl") and args[1] == "a":
        _opened.append(1)
        if len(_opened) == 3:
            for rank in os.environ["RANKS"].split():
                with open(os.path.join(os.environ["PIDS"], rank)) as file:
                    os.kill(int(file.read()), int(os.environ["SIGNAL"]))
_opened = []
if "RANK" in os.environ:
    with open(os.path.join(os.environ["PIDS"], os.environ["RANK"]), "w") as file:
        file.write(str(os.getpid()))
    if os.environ["RANK"] == "0":
        sys.addaudithook(_hook)
"""


@pytest.fixture
def launch(tiny, tmp_path):
    """A function that trains with two processes, of which `ranks` get a signal: stderr, and the run folder."""

    def launched(ranks, number):
        config = tiny(runtime={"checkpoint_every": 1000})
        generate(config)
        (tmp_path / "two.yaml").write_text(dump(config))
        words = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/multi_cpu.yaml")]
        words += ["--main_process_port", "0", "-m", "ad_model.train", "--config", "two.yaml"]
        variables = variables_that_run(CODE, tmp_path, PIDS=tmp_path, RANKS=ranks, SIGNAL=number)
        done = run_python(words, tmp_path, variables)
        assert done.returncode != 0
        return done.stderr, run_folder(config)

    return launched


def test_processes_that_are_stopped_save_the_same_update(launch):
    errors, folder = launch("1 0", 15)
    [step] = checkpoint_steps(folder.checkpoints)  # of the only checkpoint
    assert step in (3, 4)  # the update at whose log line they were asked, or the next one
    record = json.loads((last_checkpoint(folder.checkpoints) / "training.json").read_text())
    assert record["processes"] == 2
    assert {*re.findall(r"terminated \(saved .*step-00000(\d)\); run the same command again", errors)} == {str(step)}
    assert "train.py" not in errors  # in a traceback


def test_a_process_says_in_one_line_that_another_has_died(launch):
    errors, folder = launch("1", 9)
    assert checkpoint_steps(folder.checkpoints) == []
    assert errors.count("error: another process of this launch has ended") <= 1  # the launcher may be faster
    assert "train.py" not in errors  # in a traceback
