"""Learning histories from a user's own training loop: the record equals the environment's own record."""

import dataclasses
import pickle

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import Autoreset, NormalizeReward, TimeLimit

import data_gen  # noqa: F401 - registers the environments
from ad_model.token_cache import strand_order
from data_gen.exchange import record_history
from data_gen.exchange.record_history import RecordHistory, Recording, RecordVectorHistory, save_histories
from data_gen.spaces import space_from_json, to_json
from data_gen.storage.folder import load_info
from data_gen.storage.shards import read_shard
from data_gen.tasks.grids.dark_room import DarkRoom
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError

MODES = list(AutoresetMode)


class Counting(gymnasium.Env):
    """Observations are all different but share one array. The environment records its own steps.

    A step before a reset is the last of its episode: if the episode has not ended by itself, the reset truncates it.
    """

    def __init__(self, number: int = 0, space: gymnasium.Space | None = None) -> None:
        self.observation_space = spaces.Box(0, 2**30, (2,), np.int32)
        self.action_space = space or spaces.Discrete(1000)
        self.number, self.seen = number, np.zeros(2, np.int32)
        self.episodes, self.elapsed = 0, 0
        self.own_steps: list[tuple] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.own_steps and not any(self.own_steps[-1][3:]):
            self.own_steps[-1] = (*self.own_steps[-1][:3], False, True)
        self.episodes, self.elapsed = self.episodes + 1, 0
        return self._look(), {}

    def step(self, action):
        before, taken = self.seen.copy(), np.copy(action)
        self.elapsed += 1
        terminated = self.elapsed == 2 + (self.episodes + self.number) % 3 and self.episodes % 2 == 0
        truncated = self.elapsed == 3 + self.number
        reward = 0.1 * self.episodes + self.elapsed
        self.own_steps.append((before, taken, reward, terminated, truncated))
        return self._look(), reward, terminated, truncated, {}

    def _look(self):
        self.seen[:] = self.number * 10**6 + self.episodes * 1000 + self.elapsed, self.elapsed
        return self.seen


def as_columns(steps_taken: list[tuple]) -> dict[str, np.ndarray]:
    names = ("observation", "action", "reward", "terminated", "truncated")
    return {name: np.array(column) for name, column in zip(names, zip(*steps_taken, strict=True), strict=True)}


def check_equal(history, steps_taken: list[tuple]) -> None:
    expected = as_columns(steps_taken)
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        same = values.astype(np.float32) if name == "reward" else values
        np.testing.assert_array_equal(history[name], same, err_msg=name)


def policy(observation: np.ndarray) -> np.ndarray:
    return observation[..., 0] * 7 % 1000


def run_loop(env, steps: int) -> None:
    """A plain loop, as a user writes it."""
    observation, _ = env.reset(seed=0)
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(int(policy(observation)))
        if terminated or truncated:
            observation, _ = env.reset()


def run_vector_loop(envs, steps: int) -> None:
    """A loop over slots. The environment resets them itself unless its mode is DISABLED."""
    observation, _ = envs.reset(seed=0)
    for _ in range(steps):
        observation, _, terminated, truncated, _ = envs.step(policy(observation))
        ended = terminated | truncated
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and ended.any():
            observation, _ = envs.reset(options={"reset_mask": ended})


def counting(count: int, mode: AutoresetMode, copy: bool = False) -> tuple[SyncVectorEnv, list[Counting]]:
    inside = [Counting(number) for number in range(count)]
    makers = [lambda env=env: env for env in inside]
    return SyncVectorEnv(makers, copy=copy, autoreset_mode=mode), inside


def test_a_scalar_environment_records_the_same_as_a_loop_written_by_hand():
    plain, recorded = (gymnasium.make("CartPole-v1", max_episode_steps=12) for _ in range(2))
    recorded = RecordHistory(recorded)
    rng, steps_taken = np.random.default_rng(0), []
    observation, _ = plain.reset(seed=3)
    np.testing.assert_array_equal(recorded.reset(seed=3)[0], observation)
    for _ in range(200):
        action = int(rng.random() < 0.8)
        next_observation, *outcome = plain.step(action)[:4]
        assert recorded.step(action)[1:4] == tuple(outcome)
        steps_taken.append((observation, action, *outcome))
        observation = next_observation
        if outcome[1] or outcome[2]:
            observation, _ = plain.reset()
            np.testing.assert_array_equal(recorded.reset()[0], observation)
    history = recorded.recording.histories[0]
    check_equal(history, steps_taken)
    assert history["terminated"].sum() > 2 and history["truncated"].sum() > 2
    assert sum(values.itemsize * values[0].size for values in history.values()) == 23  # bytes per step
    assert recorded.recording.episode_limit == recorded.recording.longest_episode == 12


@pytest.mark.parametrize("mode", MODES)
def test_every_slot_records_the_steps_of_its_own_environment_in_every_autoreset_mode(mode, monkeypatch):
    monkeypatch.setattr(record_history, "_FIRST_STEPS", 4)  # so the record grows several times
    envs, inside = counting(3, mode)
    recorded = RecordVectorHistory(envs)
    run_vector_loop(recorded, 50)
    recording = recorded.recording
    for env, history in zip(inside, recording.histories, strict=True):
        check_equal(history, env.own_steps)
    reset_steps = [env.episodes - 1 if mode is AutoresetMode.NEXT_STEP else 0 for env in inside]
    assert recording.steps == [50 - count for count in reset_steps]
    assert recording.longest_episode == 5


@pytest.mark.parametrize("mode", MODES)
def test_one_recorder_per_slot_records_the_same_as_one_around_all_slots(mode):
    around = RecordVectorHistory(counting(3, mode, copy=True)[0])
    each = SyncVectorEnv(
        [lambda number=number: RecordHistory(Counting(number)) for number in range(3)], autoreset_mode=mode
    )
    run_vector_loop(around, 40)
    run_vector_loop(each, 40)
    for one, other in zip(around.recording.histories, each.get_attr("recording"), strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(other.histories[0][name], values)


def test_recordings_are_returned_from_worker_processes():
    envs = AsyncVectorEnv(
        [lambda number=number: RecordHistory(Counting(number)) for number in range(2)], context="fork"
    )
    run_vector_loop(envs, 30)
    recordings = envs.get_attr("recording")
    envs.close()
    for number, recording in enumerate(recordings):
        alone = Counting(number)
        run_loop(alone, recording.steps[0])
        check_equal(recording.histories[0], alone.own_steps)


def test_this_projects_vector_environments_are_recorded_step_by_step():
    family = DarkRoom(size=4, episode_length=6)
    tasks = family.sample(3, seed=1)
    plain, recorded = family.make_vec(tasks), RecordVectorHistory(family.make_vec(tasks))
    observation, _ = plain.reset(seed=5)
    recorded.reset(seed=5)
    steps_taken = []
    for step in range(20):
        action = (np.arange(3) + step) % 5
        next_observation, reward, terminated, truncated, _ = plain.step(action)
        recorded.step(action)
        steps_taken.append((observation, action, reward, terminated, truncated))
        observation = next_observation
    for slot, history in enumerate(recorded.recording.histories):
        check_equal(history, [tuple(part[slot] for part in step) for step in steps_taken])


def test_an_early_reset_truncates_and_a_reset_without_a_step_records_nothing():
    env = Counting()
    recorded = RecordHistory(env)
    for _ in range(3):
        recorded.reset(seed=0)  # as algorithms do at the start
    assert recorded.recording.steps == [0]
    recorded.step(1)
    before = recorded.recording
    recorded.reset()
    recorded.reset()
    recorded.step(2)
    history = recorded.recording.histories[0]
    np.testing.assert_array_equal(history["truncated"], [True, False])
    np.testing.assert_array_equal(history["terminated"], [False, False])
    np.testing.assert_array_equal(history["observation"][:, 0], [3000, 5000])
    np.testing.assert_array_equal(before.histories[0]["truncated"], [False])  # a snapshot


def test_a_terminated_episode_is_not_truncated_by_later_resets():
    recorded = RecordHistory(TimeLimit(Counting(number=1), 9))
    run_loop(recorded, 60)
    recorded.reset()
    recorded.reset()
    history = recorded.recording.histories[0]
    check_equal(history, recorded.unwrapped.own_steps)
    assert (history["terminated"] & ~history["truncated"]).any()


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_environment_can_be_reset_at_any_time(mode):
    envs, inside = counting(4, mode)
    recorded = RecordVectorHistory(envs)
    for steps in (4, 3, 2, 0, 9):  # each starts with a reset; slot 0's first episode ends at its third step
        run_vector_loop(recorded, steps)
    recorded.reset()
    for env, history in zip(inside, recorded.recording.histories, strict=True):
        check_equal(history, env.own_steps)
        assert history["truncated"].sum() >= 3


def test_a_masked_reset_truncates_only_its_slots_and_passes_the_mask_on():
    envs, inside = counting(3, AutoresetMode.DISABLED)
    recorded = RecordVectorHistory(envs)
    observation, _ = recorded.reset()
    recorded.step(policy(observation))
    options = {"reset_mask": np.array([False, True, False])}
    observation, _ = recorded.reset(options=options)
    assert [env.episodes for env in inside] == [1, 2, 1]
    recorded.step(policy(observation))
    histories = recorded.recording.histories
    np.testing.assert_array_equal([history["truncated"][0] for history in histories], [False, True, False])
    np.testing.assert_array_equal([history["observation"][1, 1] for history in histories], [1, 0, 1])


def test_a_step_outside_an_episode_is_refused():
    recorded = RecordHistory(Counting())
    with pytest.raises(UserError, match="no episode has begun"):
        recorded.step(0)
    recorded.reset()
    for _ in range(2):
        recorded.step(0)
    assert recorded.step(0)[3]
    with pytest.raises(UserError, match="the last one has ended; call reset"):
        recorded.step(0)
    envs, _ = counting(2, AutoresetMode.NEXT_STEP)
    with pytest.raises(UserError, match="slot 0: no episode has begun"):
        RecordVectorHistory(envs).step(np.zeros(2, int))
    inside = RecordHistory(Counting())
    observation, _ = (env := Autoreset(inside)).reset()
    for _ in range(20):
        observation, *_ = env.step(int(policy(observation)))
    check_equal(inside.recording.histories[0], inside.env.own_steps)
    with pytest.raises(UserError, match="put wrappers that reset automatically outside"):
        run_loop_without_resets(RecordHistory(Autoreset(Counting())), 20)


def run_loop_without_resets(env, steps: int) -> None:
    observation, _ = env.reset()
    for _ in range(steps):
        observation, *_ = env.step(int(policy(observation)))


def test_a_step_that_raises_records_nothing():
    class Failing(Counting):
        def step(self, action):
            if action == 999:
                raise RuntimeError("the simulator is gone")
            return super().step(action)

    recorded = RecordHistory(Failing())
    recorded.reset()
    recorded.step(5)
    with pytest.raises(RuntimeError, match="gone"):
        recorded.step(999)
    recorded.step(6)
    check_equal(recorded.recording.histories[0], recorded.env.own_steps)


def test_the_wrapper_records_its_own_environment_and_not_outer_wrappers():
    env = Counting()
    outside = NormalizeReward(RecordHistory(env))
    run_loop(outside, 20)
    check_equal(outside.env.recording.histories[0], env.own_steps)
    inside = RecordHistory(NormalizeReward(Counting()))
    run_loop(inside, 20)
    normalised, own = inside.recording.histories[0]["reward"], as_columns(inside.unwrapped.own_steps)["reward"]
    assert not np.isclose(normalised, own).any()


class Mixed(gymnasium.Env):
    """Random observations from every kind of space that can be recorded."""

    def __init__(self) -> None:
        place = spaces.Tuple((spaces.Discrete(300, start=-20), spaces.MultiDiscrete([3, 4], start=[5, 0])))
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (6, 5, 3), np.uint8),
                "place": place,
                "keys": spaces.MultiBinary(3),
                "speed": spaces.Box(-np.inf, np.array([1.0, np.inf]), (2,), np.float64),
            }
        )
        self.action_space = spaces.MultiDiscrete([2, 7])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.elapsed = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.elapsed += 1
        return self.observation_space.sample(), -1.5, False, self.elapsed == 7, {}


def test_every_kind_of_space_is_stored_compactly_and_read_back_from_a_file(tmp_path):
    recorded, plain = RecordHistory(Mixed()), Mixed()
    observation, _ = plain.reset(seed=1)
    recorded.reset(seed=1)
    seen = []
    for step in range(30):
        seen.append(observation)
        observation, *_, truncated, _ = plain.step(None)
        recorded.step(np.array([step % 2, step % 7]))
        if truncated:
            (observation, _), _ = plain.reset(), recorded.reset()
    history = recorded.recording.histories[0]
    kinds = {
        "observation.image": "uint8",
        "observation.place.0": "int16",
        "observation.place.1": "uint8",
        "observation.keys": "uint8",
        "observation.speed": "float32",
        "action": "uint8",
        "reward": "float32",
        "terminated": "bool",
        "truncated": "bool",
    }
    assert {name: str(values.dtype) for name, values in history.items()} == kinds
    np.testing.assert_array_equal(history["observation.image"], [each["image"] for each in seen])
    np.testing.assert_array_equal(history["observation.place.0"], [each["place"][0] for each in seen])
    np.testing.assert_array_equal(history["observation.place.1"], [each["place"][1] for each in seen])
    np.testing.assert_allclose(history["observation.speed"], [each["speed"] for each in seen], rtol=1e-6)

    recorded.save(tmp_path / "mixed.h5")
    loaded, sent = Recording.load(tmp_path / "mixed.h5"), pickle.loads(pickle.dumps(recorded.recording))
    for other in (loaded, sent):
        assert (other.steps, other.longest_episode, other.episode_limit) == ([30], 7, None)
        for name, values in history.items():
            assert other.histories[0][name].dtype == values.dtype
            np.testing.assert_array_equal(other.histories[0][name], values)
    save_histories(tmp_path / "data", [recorded, loaded, sent])
    info = load_info(RunFolder(tmp_path))
    assert info.observation_space == to_json(plain.observation_space)
    columns = read_shard(tmp_path / "data" / info.shards[0].file)
    assert columns["observation.place.0"].dtype == np.int16
    np.testing.assert_array_equal(columns["observation.image"][0], history["observation.image"])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=-3),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, -4]]),
        spaces.Box(-1.5, np.inf, (2, 3), np.float32),
        spaces.Box(np.array([-np.inf, 0.1]), np.array([2.0, 3.0]), dtype=np.float64),
        spaces.Box(0, 255, (1, 2), np.uint8),
        spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
        spaces.Box(np.arange(4), np.arange(4) + 3, dtype=np.int16),
        spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, ())))}),
    ],
)
def test_a_space_is_rebuilt_from_its_plain_values(space):
    back = space_from_json(to_json(space))
    assert back == space and to_json(back) == to_json(space)


def test_bounds_of_a_large_box_fit_into_a_recordings_file(tmp_path):
    class Large(Counting):
        def __init__(self):
            super().__init__()
            high = np.arange(84 * 84, dtype=np.float32).reshape(84, 84)
            self.observation_space = spaces.Box(0, high, dtype=np.float32)

        def _look(self):
            return np.zeros((84, 84), np.float32)

    recorded = RecordHistory(Large())
    run_random_loop(recorded, 4)
    recorded.save(tmp_path / "large.h5")
    assert Recording.load(tmp_path / "large.h5").observation_space == recorded.observation_space


def run_random_loop(env, steps: int) -> None:
    env.reset(seed=0)
    for _ in range(steps):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0.5, 0.25]), r"0.5 \(of type float64\) is not in Box"),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([1, 256]), r"256 \(of type int64\) is not in Box"),
        (spaces.Discrete(5), -1, r"-1 \(of type int64\) is not in Discrete\(5\)"),
        (spaces.Box(0, 1, (2,)), np.zeros(3), r"has shape \(3,\), expected \(2,\)"),
        (spaces.Discrete(5), np.zeros(1, int), r"has shape \(1,\), expected \(\)"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": 0}, r"has \['observation.a'\], but this .*\['observation.b'\]"),
        (spaces.MultiDiscrete([3, 3]), (1, 1), "but this observation has .'observation.0', 'observation.1'"),
    ],
)
def test_observations_that_do_not_fit_their_space_are_refused(space, given, message):
    class Wrong(Counting):
        observation_space = space

        def __init__(self):
            super().__init__()
            self.observation_space = space

        def _look(self):
            return given

    with pytest.raises(UserError, match=message):
        RecordHistory(Wrong()).reset()


def test_environments_that_cannot_be_recorded_are_refused_at_once():
    with pytest.raises(UserError, match=r"Text.* cannot be recorded"):
        env = Counting()
        env.observation_space = spaces.Dict({"mission": spaces.Text(5)})
        RecordHistory(env)
    with pytest.raises(UserError, match=r"actions of Tuple.* cannot be recorded"):
        RecordHistory(Counting(space=spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))))
    envs, _ = counting(2, AutoresetMode.SAME_STEP)
    envs.metadata = {}
    with pytest.raises(UserError, match="its metadata has no valid autoreset_mode"):
        RecordVectorHistory(envs)


def recorders(*steps: int) -> list[RecordHistory]:
    made = [RecordHistory(Counting(number)) for number in range(len(steps))]
    for recorder, count in zip(made, steps, strict=True):
        run_loop(recorder, count)
    return made


def test_many_recorders_make_one_data_folder_with_histories_as_long_as_the_shortest(tmp_path):
    three = recorders(31, 25, 40)
    envs, inside = counting(2, AutoresetMode.NEXT_STEP)
    vector = RecordVectorHistory(envs)
    run_vector_loop(vector, 60)
    sources = [{"name": "ppo", "rate": rate} for rate in (0.1, 0.2, 0.1)] + [{"name": "dqn"}]
    saved = save_histories(
        tmp_path / "data",
        [*three, vector],
        sources=sources,
        seeds=[7, 8, 9, 2**64 - 1],
        task_numbers=[0, 1, 0, [2, 3]],
        shards=2,
    )
    info = load_info(RunFolder(tmp_path))
    assert saved.info == info
    steps_taken = [*(recorder.env.own_steps for recorder in three), *(env.own_steps for env in inside)]
    assert saved.steps_left_out == sum(len(steps) - 25 for steps in steps_taken)
    assert (info.num_histories, info.history_steps, info.episode_length) == (5, 25, 5)
    assert info.sources == [sources[0], sources[1], sources[3]]
    shards = [read_shard(tmp_path / "data" / shard.file) for shard in info.shards]
    assert [len(shard["reward"]) for shard in shards] == [3, 2]
    columns = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    for row, steps in enumerate(steps_taken):
        names = ("observation", "action", "reward", "terminated", "truncated")
        check_equal({name: columns[name][row] for name in names}, steps[:25])
    assert columns["source"].tolist() == [0, 1, 0, 2, 2]
    assert columns["task"].tolist() == [0, 1, 0, 2, 3]
    assert columns["actor"].tolist() == [0, 0, 0, 0, 1]
    assert columns["seed"].tolist() == [7, 8, 9, 2**64 - 1, 2**64 - 1]


def test_tokens_of_the_folder_carry_the_real_action_and_reward_across_episodes(tmp_path):
    (recorder,) = recorders(30)
    save_histories(tmp_path / "data", [recorder])
    info = load_info(RunFolder(tmp_path))
    shard = read_shard(tmp_path / "data" / info.shards[0].file)
    columns, lengths = strand_order(shard, 1, info.action_space)
    expected = as_columns(recorder.env.own_steps)
    assert lengths.tolist() == [30]
    np.testing.assert_array_equal(columns["observation"], expected["observation"])
    np.testing.assert_array_equal(columns["previous_action"][1:], expected["action"][:-1])
    np.testing.assert_allclose(columns["previous_reward"][1:], expected["reward"][:-1], rtol=1e-6)


def test_the_episode_length_is_the_specs_limit_or_the_longest_episode(tmp_path):
    def length(name: str, recorder, **options) -> int:
        return save_histories(tmp_path / name, [recorder], **options).info.episode_length

    cart = RecordHistory(gymnasium.make("CartPole-v1"))
    run_random_loop(cart, 60)
    assert length("spec", cart) == 500
    unlimited = RecordHistory(gymnasium.make("CartPole-v1").unwrapped)  # its spec has no limit
    unlimited.reset(seed=0)
    for _ in range(6):
        unlimited.step(0)
    assert length("unlimited", unlimited) == 6
    assert length("given", unlimited, episode_length=8) == 8
    four = dataclasses.replace(unlimited.recording, episode_limit=4)
    assert length("more than the spec", four) == 6
    assert length("seen", recorders(20)[0]) == 3
    with pytest.raises(UserError, match="episode_length 2: an episode of 3 steps has been recorded"):
        length("short", recorders(20)[0], episode_length=2)


def test_recorders_that_do_not_fit_together_are_refused(tmp_path):
    two = recorders(20, 30)
    tasks = DarkRoom(size=3).sample(2, seed=0)
    other = RecordHistory(gymnasium.make("CartPole-v1"))
    run_random_loop(other, 20)
    cases = [
        ([], {}, "recorders: the list is empty"),
        ([*two, RecordHistory(Counting())], {}, "recorder 2 has a history with 0 steps"),
        (two, {"steps": 25}, "recorder 0 has a history with 20 steps, fewer than the requested 25"),
        ([two[0], other], {}, "recorder 1 has the observation_space Box.*, and recorder 0 has Box"),
        ([gymnasium.wrappers.RecordEpisodeStatistics(two[0])], {}, "recorder 0 is a RecordEpisodeStatistics"),
        (two, {"seeds": [1]}, "seeds: got 1 values for 2 recorders"),
        (two, {"task_numbers": [0, [1, 2]]}, "task_numbers: recorder 1 has 1 slots"),
        (two, {"seeds": [1, -2]}, "seeds: -2 of recorder 1 is not an integer that can be stored"),
        (two, {"task_numbers": [0, 0.5]}, "task_numbers: 0.5 of recorder 1 is not an integer"),
        (two, {"train_tasks": tasks}, "task_numbers: give the row of train_tasks for each recorder"),
        (two, {"train_tasks": tasks, "task_numbers": [0, 2]}, "task 2: must be 0 or more and below 2"),
        (two, {"sources": {"rate": 1}}, "has no name"),
        (two, {"sources": {"name": "ppo", "policy": object()}}, "contains values that JSON cannot store"),
    ]
    for given, options, message in cases:
        with pytest.raises(UserError, match=message):
            save_histories(tmp_path / "data", given, **options)
        assert not any(tmp_path.iterdir()), message
    save_histories(tmp_path / "data", two)
    with pytest.raises(UserError, match="already exists"):
        save_histories(tmp_path / "data", two)
    assert save_histories(tmp_path / "data", two, steps=10, overwrite=True).steps_left_out == 30


def test_slots_of_different_lengths_are_read_back_from_a_file(tmp_path):
    envs, inside = counting(3, AutoresetMode.NEXT_STEP)
    recorded = RecordVectorHistory(envs)
    run_vector_loop(recorded, 30)
    recorded.save(tmp_path / "three.h5")
    loaded = Recording.load(tmp_path / "three.h5")
    assert loaded.steps == [len(env.own_steps) for env in inside]
    for env, history in zip(inside, loaded.histories, strict=True):
        check_equal(history, env.own_steps)


def test_a_recording_file_is_complete_or_absent_and_an_invalid_one_is_named(tmp_path):
    (recorder,) = recorders(20)
    with pytest.raises(UserError, match="nothing has been recorded yet"):
        RecordHistory(Counting()).save(tmp_path / "empty.h5")
    path = tmp_path / "runs" / "one.h5"
    recorder.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["one.h5"]
    with pytest.raises(UserError, match="file not found"):
        Recording.load(tmp_path / "two.h5")
    content = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "strange.h5", "w") as file:
        file["reward"] = np.zeros(3)
    for name in ("cut", "text", "strange"):
        with pytest.raises(UserError, match=f"{name}.h5: is not a recording, or is damaged"):
            Recording.load(tmp_path / f"{name}.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = "1"
    with pytest.raises(UserError, match="has schema version 1, expected"):
        Recording.load(path)
