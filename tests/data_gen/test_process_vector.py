"""Scalar environments stepped by processes: they behave as they do alone, and no process hangs or is left over."""

import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError

from data_gen.spaces import leaves, map_leaves
from data_gen.streams import make_seeds
from data_gen.tasks.adapted.process_vector import ExpertProcessVectorEnv, ProcessVectorEnv
from icrl.support.errors import UserError

BOX = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
OBSERVATION = gymnasium.spaces.Dict({"place": BOX, "rest": gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(9), BOX])})
ACTION = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
LENGTH = 6


class Drift(gymnasium.Env):
    """A point that drifts at random and terminates at random. `trouble` names a fault, mostly in the third step.

    The reward also depends on the previous action, which the environment keeps without a copy.
    """

    action_space = ACTION

    def __init__(self, strength: float = 1.0, trouble: str = "") -> None:
        if trouble == "constructor":
            raise TypeError("no such\nstrength")
        self.strength, self.trouble, self.steps = strength, trouble, 0
        self.observation_space = BOX if trouble == "space" else OBSERVATION

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.count = self.np_random.uniform(-1, 1, 2).astype(np.float32), 0
        self.before = np.zeros(2, np.float32)
        return ({"place": np.zeros(1)} if self.trouble == "shape" else self.seen()), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and self.trouble == "raises":
            raise RuntimeError("the motor\nbroke")
        if self.steps == 3 and self.trouble == "dies":
            os._exit(7)
        self.place = self.place + self.strength * action + self.np_random.normal(size=2).astype(np.float32)
        self.count += 1
        reward, self.before = float(self.place.sum() + self.before.sum()), action
        return self.seen(), reward, bool(self.np_random.random() < 0.1), False, {}

    def seen(self):
        return {"place": self.place, "rest": (self.count, -self.place)}

    def optimal_action(self):
        return np.sign(self.place)


@dataclass(frozen=True)
class Make:
    strength: float = 1.0
    trouble: str = ""

    def __call__(self):
        return Drift(self.strength, self.trouble)

    def __str__(self):
        return f"Drift {self.strength}"


MAKERS = [Make(strength) for strength in (0.0, 0.5, 1.0, 1.5, 2.0)]


def vector(makers=MAKERS, processes=2, kind=ProcessVectorEnv):
    return kind(makers, OBSERVATION, ACTION, LENGTH, processes)


def actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, len(MAKERS), 2)).astype(np.float32)


def collected(envs, steps: int = 40) -> list:
    """The results of every step, as arrays by dotted path."""
    record = [leaves(envs.reset(seed=[3, 4, 5, 6, 7])[0])]
    for action in actions(steps):
        observation, *rest, infos = envs.step(action)
        record.append({**leaves(observation), **leaves(tuple(rest)), **leaves(infos)})
    envs.close()
    return record


@pytest.mark.parametrize("processes", [0, 1, 2, 5])
def test_slots_behave_like_their_environments_alone(processes):
    record = collected(vector(processes=processes))
    ends = 0
    for slot, maker in enumerate(MAKERS):
        env = gymnasium.wrappers.TimeLimit(maker(), LENGTH)
        seen, _ = env.reset(seed=3 + slot)
        for step, action in enumerate([None, *actions(40)]):
            final = None
            if action is not None:
                seen, reward, terminated, truncated, _ = env.step(action[slot])
                truncated = truncated and not terminated
                assert [record[step][str(place)][slot] for place in range(3)] == [reward, terminated, truncated]
                if terminated or truncated:
                    ends += 1
                    final, (seen, _) = seen, env.reset()
                    assert record[step]["_final_obs"][slot]
            for path, leaf in leaves(seen).items():
                np.testing.assert_array_equal(record[step][path][slot], leaf)
            for path, leaf in leaves(final if final is not None else {}).items():
                np.testing.assert_array_equal(record[step][f"final_obs.{path}"][slot], leaf)
    assert ends > 20


def test_final_observations_cover_the_whole_batch_and_repeat_those_of_running_slots():
    for row in collected(vector()):
        if "_final_obs" in row:
            running_slots = ~row["_final_obs"]
            for path in leaves(OBSERVATION):
                np.testing.assert_array_equal(row[f"final_obs.{path}"][running_slots], row[path][running_slots])


def test_observations_have_the_types_of_their_space_and_are_not_changed_by_later_steps():
    envs = vector()
    first, _ = envs.reset(seed=1)
    copy = map_leaves(np.copy, first)
    for action in actions(10):
        seen = envs.step(action)[0]
        assert envs.observation_space.contains(seen)
    for path, leaf in leaves(copy).items():
        np.testing.assert_array_equal(leaves(first)[path], leaf)
    assert isinstance(first["rest"], tuple)
    envs.close()


def test_a_reset_without_a_seed_continues_with_the_environments_own_generator():
    """A reset with new entropy would make lifetimes of the same seed differ."""
    first, second = vector(), vector(processes=0)
    for envs in (first, second):
        envs.reset(seed=5)
        envs.step(actions(1)[0])
    np.testing.assert_array_equal(first.reset()[0]["place"], second.reset()[0]["place"])
    first.close()


def test_one_seed_gives_every_slot_a_different_one_and_wide_seeds_are_accepted():
    envs = vector(processes=0)
    places = envs.reset(seed=1)[0]["place"]
    assert len(np.unique(places[:, 0])) == len(MAKERS)
    wide = envs.reset(seed=make_seeds(5, 2))[0]["place"]
    np.testing.assert_array_equal(envs.reset(seed=make_seeds(5, 2) & np.uint64(2**31 - 1))[0]["place"], wide)


def test_every_slots_expert_gives_its_optimal_action():
    envs = vector(kind=ExpertProcessVectorEnv)
    place = envs.reset(seed=1)[0]["place"]
    np.testing.assert_array_equal(envs.optimal_action(), np.sign(place))
    envs.close()
    assert not hasattr(vector(processes=0), "optimal_action")


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("raises", r"Drift 9.0: RuntimeError: the motor broke"),
        ("constructor", r"Drift 9.0: cannot be made: TypeError: no such strength"),
        ("space", r"Drift 9.0: has the observation space Box.*what varies must not change the spaces"),
        (
            "shape",
            r"Drift 9.0, at the reset: observation.place has shape \(1,\), but its space has \(2,\); correct the .*",
        ),
    ],
)
def test_an_environments_error_is_one_line_that_names_the_environment(processes, trouble, message):
    with pytest.raises(UserError) as caught:
        collected(vector([*MAKERS[:4], Make(9.0, trouble)], processes))
    assert re.fullmatch(message, str(caught.value))
    if processes and trouble == "raises":
        assert 'raise RuntimeError("the motor\\nbroke")' in caught.value.__notes__[0]  # the traceback, for its author


def test_a_process_that_dies_is_reported_and_ends_the_others():
    envs = vector([*MAKERS[:4], Make(9.0, "dies")])
    processes = envs._processes
    envs.reset(seed=0)
    with pytest.raises(UserError, match=r"^Drift 1.5: the process of this and other slots ended with code 7$"):
        for action in actions(5):
            envs.step(action)
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(ClosedEnvironmentError):
        envs.step(actions(1)[0])


def test_an_environment_that_cannot_be_sent_to_a_process_is_refused():
    with pytest.raises(UserError, match="cannot be sent to a process"):
        vector([lambda: Drift()] * 5)


@pytest.mark.parametrize("end", ["close", "forget"])
def test_processes_end_with_their_vector_environment(end):
    envs = vector()
    processes = envs._processes
    assert len(processes) == 2 and all(process.is_alive() for process in processes)
    if end == "close":
        envs.close()
    del envs
    assert not any(process.is_alive() for process in processes)


def test_processes_end_when_their_parent_is_killed():
    program = (
        "import signal\n"
        "from test_process_vector import vector\n"
        "if __name__ == '__main__':\n"
        "    envs = vector()\n"
        "    print(*(process.pid for process in envs._processes), flush=True)\n"
        "    signal.pause()\n"
    )
    script = Path(sys.modules[__name__].__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script), str(script.parent.parent)])}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2 and all(map(running, children))
        parent.send_signal(signal.SIGKILL)
        parent.stdout.read()  # ends once every process that has it open has ended
    assert not any(map(running, children))


def running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_process_of_a_pool_steps_all_slots_itself(monkeypatch):
    many = [Make(1.0)] * 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    alone = functools.partial(
        ProcessVectorEnv, observation_space=OBSERVATION, action_space=ACTION, episode_length=LENGTH
    )
    envs = alone(many)
    assert len(envs._processes) == 2  # eight slots are enough for two processes
    envs.close()
    assert not alone(many[:4])._processes
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert not alone(many)._processes
