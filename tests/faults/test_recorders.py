"""Recorders refuse at the step what `save_histories` would refuse later; files of recordings are checked."""

import os

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from data_gen.exchange.record_history import RecordHistory, RecordVectorHistory
from data_gen.exchange.recording import Recording
from icrl.support.errors import UserError

FIVE, THREE = Discrete(5), Discrete(3)


class Given(gymnasium.Env):
    """Gives one kind of result in every step."""

    def __init__(self, space=FIVE, action=THREE, observation=0, reward=0.0, flags=(False, False)):
        self.observation_space, self.action_space = space, action
        self.result = (observation, reward, *flags)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return *self.result, {}

    def __str__(self):
        return "Given-v0"


@pytest.mark.parametrize(
    ("env", "action", "message"),
    [
        (Given(), 3, r"action 3 .*Discrete\(3\)"),
        (Given(action=Discrete(3, start=-1)), 2, r"action 2 .*TransformAction\(env, lambda action: action \+ -1, Disc"),
        (Given(action=Box(-1, 1, (2,))), np.array([0, np.nan]), r"action\[1\] nan "),
        (Given(action=Box(-1, 1, (2,))), np.array([0, 1.5]), r"action\[1\] 1.5 "),
        (Given(observation=5), 0, "observation 5 "),
        (Given(observation=-1), 0, "observation -1 "),
        (Given(Box(-np.inf, np.inf, (1,)), observation=np.array([np.inf])), 0, r"observation\[0\] inf "),
        (Given(reward=np.nan), 0, "reward nan "),
        (Given(reward=1e300), 0, r"reward 1e\+300 "),
        (Given(flags=("no", False)), 0, "terminated.*boolean"),
        (Given(flags=(False, [True, False])), 0, r"truncated has shape \(2,\).*(boolean)?"),
        (Given(reward=np.array([1.0])), 0, r"reward has shape \(1,\), expected \(\)"),
        (Given(reward="1.0"), 0, "reward 1.0 .*is not a number"),
        (Given(Box(0, 1, (2,)), observation=np.zeros(3)), 0, r"observation has shape \(3,\), expected \(2,\)"),
        (Given(Dict(a=FIVE, b=FIVE), observation={"a": 0}), 0, "observation space has .*observation.b"),
        (Given(observation=9, flags=(True, False)), 0, "observation 9 "),
    ],
)
@pytest.mark.parametrize("vector", [False, True])
def test_a_value_that_saving_would_refuse_is_refused_at_its_step(env, action, message, vector):
    recorder = RecordHistory(env)
    if vector:
        if any(word in message for word in ("boolean", "shape", "number", "has .*")):
            pytest.skip("Gymnasium's vector environments raise an error of their own, or convert the value")
        if env.result[2] is True:
            pytest.skip("in SAME_STEP mode, the last observation of an episode is not among the observations")
        envs = SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)
        recorder, action = RecordVectorHistory(envs), np.asarray(action)[None]
    recorder.reset(seed=0)
    with pytest.raises(UserError, match=rf"Record(Vector)?History of .*, step 1.*{message}") as refusal:
        recorder.step(action)
    assert "\n" not in str(refusal.value)


def test_the_error_names_the_step():
    recorder = RecordHistory(Given())
    recorder.reset(seed=0)
    for _ in range(4):
        recorder.step(2)
    with pytest.raises(UserError, match=r"RecordHistory of Given-v0, step 5: action -1 "):
        recorder.step(-1)
    assert recorder.recording.steps == [4]


@pytest.fixture
def recorded(tmp_path):
    """The file of a recording of two slots, with histories of different lengths."""
    envs = SyncVectorEnv([Given, lambda: Given(flags=(True, False))], autoreset_mode=AutoresetMode.NEXT_STEP)
    recorder = RecordVectorHistory(envs)
    recorder.reset(seed=0)
    for _ in range(9):
        recorder.step(np.zeros(2, int))
    recorder.save(tmp_path / "two.h5")
    assert Recording.load(tmp_path / "two.h5").steps == [9, 5]
    return tmp_path / "two.h5"


def linked(file, folder):
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["reward"] = np.arange(14.0)
    del file["reward"]
    file["reward"] = h5py.ExternalLink(str(folder / "secret.h5"), "reward")


def other_lengths(file, folder):
    file["steps"][0] ^= 4  # a flipped bit moves the border between the histories


def declared(file, folder):
    del file["reward"]
    file.create_dataset("reward", (2**40,), np.float32, chunks=(2**20,))


def gigantic(file, folder):
    space = '{"type": "Box", "shape": [1099511627776], "dtype": "float32", "low": null, "high": null}'
    file.attrs["observation_space"] = space


def nested(file, folder):
    file.attrs["action_space"] = "[" * 30_000


@pytest.mark.parametrize("change", [linked, other_lengths, declared, gigantic, nested])
def test_a_recording_that_was_changed_is_refused_and_reads_no_other_file(recorded, tmp_path, change):
    with h5py.File(recorded, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(UserError, match=r"two\.h5: is not a recording, or is damaged") as refusal:
        Recording.load(recorded)
    assert "\n" not in str(refusal.value)


def test_a_pipe_in_the_place_of_a_recording_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(UserError, match="is not a regular file"):
        Recording.load(tmp_path / "pipe.h5")
