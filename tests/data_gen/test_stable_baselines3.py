"""Learning histories from other libraries' training loops, and the code of the docs page about them."""

import json
import re
from functools import partial

import gymnasium
import numpy as np
import pytest
from accelerate.state import AcceleratorState
from gymnasium import spaces
from test_record_history import Counting, check_equal

from data_gen.exchange.record_history import RecordHistory
from icrl import cli
from tests.conftest import ROOT

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize  # noqa: E402

SMALL = {"n_steps": 8, "policy_kwargs": {"net_arch": [4]}, "seed": 0, "device": "cpu"}
PAGE = ROOT / "docs" / "record_history.md"


def test_stable_baselines3_is_recorded_step_by_step_without_its_terminal_observations():
    """Stable-Baselines3's VecEnv resets in the last step of an episode, and normalises the learner's observations."""
    envs = VecNormalize(make_vec_env(Counting, n_envs=3, wrapper_class=RecordHistory))
    model = sb3.A2C("MlpPolicy", envs, **SMALL)
    model.learn(3 * 48)
    model.learn(3 * 8, reset_num_timesteps=False)  # continues the run
    model.learn(3 * 8)  # starts again: the open episodes are truncated
    inside = [env.unwrapped for env in envs.venv.envs]
    for number, recording in enumerate(envs.get_attr("recording")):
        assert recording.steps == [64]
        check_equal(recording.histories[0], inside[number].own_steps)
    assert envs.norm_obs and envs.norm_reward


@pytest.mark.parametrize("outside", [True, False])
def test_an_action_is_recorded_as_the_environment_received_it(outside):
    """Stable-Baselines3 clips the samples of its Gaussian policy. A Monitor may be inside or outside."""
    env = Counting(space=spaces.Box(-0.01, 0.01, (2,)))
    recorded = RecordHistory(env if outside else Monitor(env))
    envs = DummyVecEnv([lambda: Monitor(recorded) if outside else recorded])
    sb3.PPO("MlpPolicy", envs, batch_size=8, n_epochs=1, **SMALL).learn(32)
    history = recorded.recording.histories[0]
    check_equal(history, env.own_steps)
    assert history["action"].dtype == np.float32 and np.abs(history["action"]).max() == np.float32(0.01)


def test_an_off_policy_learners_separate_evaluation_is_not_recorded():
    env, other = Counting(space=spaces.Discrete(5)), Counting(space=spaces.Discrete(5))
    recorded = RecordHistory(env)
    callback = sb3.common.callbacks.EvalCallback(Monitor(other), eval_freq=10, n_eval_episodes=2, verbose=0)
    settings = {"buffer_size": 50, "learning_starts": 10, "batch_size": 4, "policy_kwargs": {"net_arch": [4]}}
    sb3.DQN("MlpPolicy", recorded, seed=0, device="cpu", **settings).learn(40, callback=callback)
    assert recorded.recording.steps == [40] and len(other.own_steps) > 8
    check_equal(recorded.recording.histories[0], env.own_steps)


def test_recordings_are_returned_from_the_processes_of_a_subproc_vec_env():
    envs = SubprocVecEnv([partial(recorded_counting, number) for number in range(2)], start_method="fork")
    sb3.A2C("MlpPolicy", envs, **SMALL).learn(2 * 24)
    recordings = envs.get_attr("recording")
    envs.close()
    for number, recording in enumerate(recordings):
        alone = Counting(number)
        alone.reset()
        for action in recording.histories[0]["action"]:
            if any(alone.step(action)[2:4]):
                alone.reset()
        check_equal(recording.histories[0], alone.own_steps)
        assert recording.steps == [24]


def recorded_counting(number: int) -> RecordHistory:
    return RecordHistory(Counting(number))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A function that runs a file of the page in a temporary folder, with replacements that make it small."""
    monkeypatch.chdir(tmp_path)
    files = dict(re.findall(r"^```\w+\n# (\w+\.\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))

    def run(name: str, *replaced: tuple[str, str]) -> None:
        text = files[name]
        for old, new in replaced:
            assert old in text, old
            text = text.replace(old, new)
        if name.endswith(".yaml"):
            (tmp_path / name).write_text(text)
        else:
            exec(compile(text, name, "exec"), {"__name__": "__main__"})

    run.names = list(files)
    return run


def test_the_pages_example_trains_and_evaluates_a_transformer(page, tmp_path, capsys):
    page("record_runs.py", ("8, 200", "2, 16"), ('"size": 5', '"size": 3'), ('"batch_size": 80', '"batch_size": 20'))
    assert capsys.readouterr().out == "16 histories, 0 steps left out\n"
    page(
        "recorded.yaml",
        ("size: 5", "size: 3"),
        ("context_episodes: 10", "context_episodes: 2"),
        ("subsample: 10", "subsample: 4"),
    )
    small = "--training.steps 4 --evaluation.episodes 3 --evaluation.seeds 2 --runtime.trackers [] --model.num_layers 1"
    AcceleratorState._reset_state(reset_partial_state=True)
    assert cli.main(["run", "--config", "recorded.yaml", *small.split()]) == 0
    out = capsys.readouterr().out
    assert "generate: 16 histories, 2,560 steps, from dark_room_sb3" in out
    assert "normalised return (0 random, 1 optimal)" in out
    summary = json.loads((tmp_path / "runs/recorded/eval/summary.json").read_text())
    assert set(summary["agents"]) == {"transformer", "random", "optimal"}
    assert cli.main(["generate", "--config", "recorded.yaml", "--seed", "1", "--name", "leak"]) == 2
    assert "held-out tasks are among the data's training tasks" in capsys.readouterr().err


def test_the_pages_runs_in_separate_processes_are_combined(page, tmp_path, capsys, monkeypatch):
    for seed, steps in ((3, "300"), (4, "200")):
        monkeypatch.setattr("sys.argv", ["one_run.py", str(seed)])
        page("one_run.py", ("20_000", steps))
    page("combine.py")
    assert capsys.readouterr().out == "200 steps each, 100 left out\n"
    assert json.loads((tmp_path / "cart_pole_data/info.json").read_text())["episode_length"] == 500


def test_the_pages_other_loops_run(page):
    assert page.names == ["record_runs.py", "recorded.yaml", "one_run.py", "combine.py", "clean_rl.py", "torch_rl.py"]
    page("clean_rl.py", ("500", "60"))


def test_the_pages_torchrl_loop_runs_and_records_the_collected_steps(page):
    torchrl = pytest.importorskip("torchrl.envs")
    page("torch_rl.py", ("500", "60"))
    recorded = RecordHistory(gymnasium.make("CartPole-v1", max_episode_steps=15))
    rollout = torchrl.GymWrapper(recorded).rollout(60, break_when_any_done=False)
    history = recorded.recording.histories[0]
    np.testing.assert_array_equal(history["observation"], rollout["observation"].numpy())
    np.testing.assert_array_equal(history["action"], rollout["action"].numpy().argmax(axis=-1))
    np.testing.assert_array_equal(history["truncated"], rollout["next", "truncated"].numpy()[:, 0])
