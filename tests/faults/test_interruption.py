"""Ctrl-C and SIGTERM: one line, a checkpoint where the stage has them, and nothing is left over."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from conftest import ROOT, run_python
from killing import killed_at
from safetensors.torch import load_file

from ad_model.train import train
from ad_model.training_log import TrainingLog, read_log
from data_gen.agents import Agent
from data_gen.generation.generate import generate
from data_gen.tasks.grids.dark_room import DarkRoom
from icrl.config.components import component
from icrl.config.loader import dump
from icrl.run.checkpoints import checkpoint_steps, last_checkpoint
from icrl.run.folder import run_folder
from icrl.support.errors import UserError
from icrl.support.interruption import Terminated, stop_requested
from icrl.support.processes import started
from icrl.support.terminal import reported

PLACES = (ROOT, ROOT / "tests" / "faults", ROOT / "tests")


@pytest.fixture
def default_signals():
    """Python's own handlers: background jobs of a shell ignore SIGINT, and children of nohup SIGHUP."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"),
                                                      (signal.SIGTERM, 143, "terminated"),
                                                      (signal.SIGHUP, 129, "terminated")])  # fmt: skip
def test_a_command_that_is_stopped_says_so_in_one_line(number, code, word, capsys):
    # Background jobs of a shell ignore SIGINT, so the test gives it Python's own handler.
    own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    earlier = signal.signal(number, own)
    try:
        assert reported(lambda: os.kill(os.getpid(), number)) == code
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, earlier)
    output = capsys.readouterr().err
    assert output == f"{word}; run the same command again, without --overwrite, to continue\n"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_a_library_answers_with_another_error_is_one_line(by, capsys, default_signals):
    """A module of C++ that is interrupted in its import says "initialization failed"."""

    def run():
        try:
            os.kill(os.getpid(), by)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    assert reported(run) == 128 + by
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_that_is_closed_does_not_end_what_nohup_protects(default_signals):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert reported(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    with stop_requested() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop


INTERRUPTED = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

class Interrupts:
    def find_spec(self, name, *_):
        if name == MODULE:
            os.kill(os.getpid(), BY)

atexit.register(os.kill, os.getpid(), signal.SIGINT)  # a second Ctrl-C, while the interpreter ends
sys.meta_path.insert(0, Interrupts())
sys.argv[1:] = ["run", "demo"]
from icrl.__main__ import main
main()
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["pydantic", "torch"])
def test_a_command_that_is_stopped_while_it_imports_says_one_line(module, by, tmp_path):
    program = INTERRUPTED.replace("MODULE", repr(module)).replace("BY", str(int(by)))
    done = run_python(["-c", program], tmp_path)
    assert done.returncode == 128 + by, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith("run the same command again, without --overwrite, to continue")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_training_that_is_stopped_saves_the_update_and_resumes_to_the_same_weights_and_log(
    number, tiny, monkeypatch, default_signals
):
    changes = {"training": {"steps": 9}, "runtime": {"checkpoint_every": 100, "log_every": 3}}
    whole, cut = tiny(name="whole", **changes), tiny(name="cut", **changes)
    for config in (whole, cut):
        generate(config)
    train(whole)
    monkeypatch.setattr("icrl.support.interruption._PATIENCE", 1e6)  # a slow machine may take longer to save
    real, calls = TrainingLog.add, []

    def add(self, losses):
        calls.append(1)
        if len(calls) == 5:  # between two lines of the log
            os.kill(os.getpid(), number)
        real(self, losses)

    AcceleratorState._reset_state(reset_partial_state=True)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "add", add)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Terminated, match=r"saved .*step-000005"):
            train(cut)
    assert checkpoint_steps(run_folder(cut).checkpoints) == [5]
    AcceleratorState._reset_state(reset_partial_state=True)
    train(cut)
    first, second = (load_file(last_checkpoint(run_folder(c).checkpoints) / "model/model.safetensors")
                     for c in (whole, cut))  # fmt: skip
    assert all((first[name] == second[name]).all() for name in first)
    logs = [[line["loss"] for line in read_log(run_folder(config).training_log)] for config in (whole, cut)]
    assert len(logs[0]) == 3 and logs[0] == logs[1]


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_the_second_of_two_signals_interrupts_neither_the_clean_up_nor_the_shutdown(number, word, tmp_path):
    script = f"""
import atexit, os, signal
from icrl.support.terminal import leave, reported
signal.signal(signal.SIGINT, signal.default_int_handler)

def run():
    try:
        os.kill(os.getpid(), {int(number)})
    finally:
        os.kill(os.getpid(), {int(number)})
        print("cleaned up")

atexit.register(lambda: os.kill(os.getpid(), {int(number)}))
leave(reported(run))
"""
    done = run_python(["-c", script], tmp_path)
    line = f"{word}; run the same command again, without --overwrite, to continue\n"
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "cleaned up\n", line)


def test_a_third_signal_ends_the_process_at_once(tmp_path):
    script = """
import os, signal
from icrl.support.terminal import leave, reported
signal.signal(signal.SIGINT, signal.default_int_handler)

def run():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        print("not reached")

leave(reported(run))
"""
    done = run_python(["-c", script], tmp_path)
    line = "interrupted again: ended before the clean-up was done\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", line)


def test_a_signal_while_processes_start_takes_effect_after_the_start():
    idle = threading.Event()
    thread = threading.Thread(target=idle.wait)
    thread.start()  # it does not block the signal, which therefore arrives here
    earlier, steps = signal.signal(signal.SIGINT, signal.default_int_handler), []
    try:
        with pytest.raises(KeyboardInterrupt), started():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("started")
        assert steps == ["started"]
    finally:
        signal.signal(signal.SIGINT, earlier)
        idle.set()
        thread.join()


def test_a_signal_that_comes_too_late_for_the_loop_is_not_lost():
    with pytest.raises(Terminated), stop_requested():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), stop_requested() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("not reached")


def test_a_loop_that_does_not_stop_is_interrupted_after_all(monkeypatch):
    monkeypatch.setattr("icrl.support.interruption._PATIENCE", 0.01)
    with pytest.raises(Terminated), stop_requested():
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])  # each worker sends it: often twice
def test_generation_that_is_stopped_says_one_line_and_leaves_no_process(by, tiny, tmp_path):
    config = tiny(data={"shards": 12}, runtime={"workers": 2})
    path = tmp_path / "cut.yaml"
    path.write_text(dump(config))
    # `killed_at` returns only when all processes have ended.
    done = killed_at(3, ["-m", "data_gen", "--config", str(path)], tmp_path, PLACES, by)
    assert done.returncode == (130 if by == signal.SIGINT else 143), done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line and "generate:" not in line]
    word = "interrupted" if by == signal.SIGINT else "terminated"
    assert lines == [f"{word}; run the same command again, without --overwrite, to continue"]
    again = run_python(["-m", "data_gen", "--config", str(path)], tmp_path)
    assert again.returncode == 0, again.stderr
    assert not list(run_folder(config).data.glob(".*"))


@component
class Stuck(DarkRoom):
    """A family in which one worker fails, while another would be busy for very long."""

    def make_vec(self, tasks):
        if (tasks["goal"] == self.all_tasks()["goal"][0]).all(axis=1).any() and len(tasks) > 1:
            raise UserError("this shard fails")
        if len(tasks) > 1:
            time.sleep(1e6)
        return super().make_vec(tasks)


@component
class Idle(Agent):
    """Does nothing."""

    def reset(self, spec, num_envs, seeds):
        self.num_envs = num_envs

    def act(self, observation):
        return np.zeros(self.num_envs, np.int64)


def test_an_error_of_one_worker_does_not_wait_for_the_others(tiny, tmp_path):
    config = tiny(
        tasks={"name": "test_interruption:Stuck", "size": 4, "episode_length": 6},
        data={"sources": [{"name": "test_interruption:Idle"}], "histories_per_task": 1, "shards": 2},
        split={"train": 15, "test": 1}, seed=1, runtime={"workers": 2},
    )  # fmt: skip
    path = tmp_path / "fails.yaml"
    path.write_text(dump(config))
    environment = {"PYTHONPATH": os.pathsep.join(map(str, PLACES))}
    done = run_python(["-m", "data_gen", "--config", str(path)], tmp_path, environment)
    assert done.returncode == 1, done.stderr
    assert "error: this shard fails" in done.stderr and "Traceback" not in done.stderr
