"""Values that environments and agents give: a wrong one is refused where it arises, before anything learns from it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, VectorEnv

from data_gen.agents import Agent
from data_gen.generation.generate import generate
from data_gen.interaction import interact
from data_gen.storage.folder import load_info
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.adapted.process_vector import ProcessVectorEnv
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.values import SpaceCheck
from icrl.config.components import component
from icrl.config.loader import make_agent, make_tasks
from icrl.run.folder import run_folder
from icrl.support.errors import UserError

PICTURE = Box(0, 255, (2, 2), np.uint8)

FIVE, THREE = Discrete(5), Discrete(3)


class Given(gymnasium.Env):
    """Gives these observations, rewards and flags, one after another."""

    def __init__(self, space=FIVE, observations=(0,), rewards=(0.0,), flags=((False, False),), **_):
        self.observation_space, self.action_space = space, Discrete(3)
        self.observations, self.rewards, self.flags, self.step_number = observations, rewards, flags, 0

    def _at(self, values, step):
        return values[min(step, len(values) - 1)]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._at(self.observations, self.step_number), {}

    def step(self, action):
        self.step_number += 1
        step = self.step_number
        observation, reward = self._at(self.observations, step), self._at(self.rewards, step - 1)
        return observation, reward, *self._at(self.flags, step - 1), {}

    def __call__(self):
        return self

    def __str__(self):
        return "Given-v0"


class Says(Agent):
    """Acts as told."""

    def __init__(self, *actions):
        self.actions = actions

    def reset(self, spec, num_envs, seeds):
        self.num_envs, self.steps = num_envs, 0

    def act(self, observation):
        self.steps += 1
        return np.asarray(self.actions[min(self.steps, len(self.actions)) - 1])


def stepped(env, steps=4):
    envs = ProcessVectorEnv([Given(env.observation_space), env], env.observation_space, env.action_space, 10, 0)
    return interact(Says([0, 0]), envs, steps, make_seeds(2, 0))


@pytest.mark.parametrize(
    ("space", "observations", "message"),
    [
        (PICTURE, (np.zeros((2, 2), np.uint8), np.full((2, 2), 0.5)), "step 1: observation.*0.5 .*float64.*Box"),
        (PICTURE, (np.full((2, 2), 0.5),), "reset: observation.*0.5 .*float64.*Box"),
        (PICTURE, (np.full((2, 2), -1),), "reset: observation.* -1 "),
        (Discrete(256), (0, 0, -1), r"step 2: observation.* -1 .*Discrete\(256\)"),
        (Discrete(5), (0, 7), r"step 1: observation.* 7 .*Discrete\(5\)"),
        (Discrete(5), (0, 1.5), "step 1: observation.* 1.5 "),
        (Discrete(5, start=-1), (-1, 0, 4), "step 2: observation.* 4 "),
        (MultiDiscrete([3, 4]), (np.array([2, 3]), np.array([1, 4])), r"step 1: observation\[1\].* 4 "),
        (MultiBinary(2), (np.array([0, 2], np.int8),), r"reset: observation\[1\].* 2 "),
        (Box(-1, 1, (3,)), (np.zeros(3, np.float32), np.array([0, 0, 1.5], np.float32)), r"step 1: .*\[2\].* 1.5 "),
        (Box(-np.inf, np.inf, (1,)), (np.array([np.nan], np.float32),), "reset: observation.* nan "),
        (Box(-np.inf, np.inf, (1,)), (np.array([np.inf], np.float32),), "reset: observation.* inf "),
        (Box(-np.inf, np.inf, (1,), np.float64), (np.array([1e300]),), r"reset: observation.* 1e\+300 "),
        (Box(-1, 1, (3,)), (np.zeros(3, np.float32), np.float32(0)), r"step 1: observation.*shape"),
    ],
)
def test_an_observation_that_is_not_in_its_space_is_refused_at_its_step(space, observations, message):
    quiet = [space.sample()] if observations[0] is None else observations
    envs = ProcessVectorEnv([Given(space, quiet)], space, Discrete(3), 10, processes=0)
    with pytest.raises(UserError, match=f"Given-v0.*{message}") as refusal:
        interact(Says([0]), envs, 4, make_seeds(1, 0))
    assert "\n" not in str(refusal.value)


def test_values_at_the_edge_of_their_space_pass_in_any_type_that_keeps_them():
    whole = [np.array([[0, 255], [1, 2]], kind) for kind in (np.uint8, np.int64, np.float32)]
    envs = ProcessVectorEnv([Given(PICTURE, whole)], PICTURE, Discrete(3), 10, processes=0)
    histories = interact(Says([2]), envs, 3, make_seeds(1, 0))
    np.testing.assert_array_equal(histories.observation[0], np.broadcast_to(whole[0], (3, 2, 2)))
    for values in (4, np.uint8(4), True):
        interact(Says([0]), ProcessVectorEnv([Given(observations=[values])], Discrete(5), Discrete(3), 9, 0), 2,
                 make_seeds(1, 0))  # fmt: skip
    unit = Box(0, 1, (1,), np.float64)  # rounding is not an error
    interact(Says([0]), ProcessVectorEnv([Given(unit, [np.array([1 + 1e-9])])], unit, Discrete(3), 9, 0), 2,
             make_seeds(1, 0))  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"rewards": (0.0, np.nan)}, "step 2: reward nan is not finite"),
        ({"rewards": (-np.inf,)}, "step 1: reward -inf is not finite"),
        ({"rewards": (1e300,)}, r"step 1: reward 1e\+300 is not finite in float32"),
        ({"flags": (("no", False),)}, "step 1: terminated 'no' is not a boolean"),
        ({"flags": ((False, False), (False, np.nan))}, "step 2: truncated nan is not a boolean"),
        ({"flags": ((2, False),)}, "step 1: terminated 2 is not a boolean"),
        ({"rewards": (0.0, "1.0")}, "step 2: reward '1.0' is not a number"),
        ({"rewards": (0.0, np.array([1.0]))}, r"step 2: reward array\(\[1.\]\) is not a number"),
        ({"rewards": (1j,)}, "step 1: reward 1j is not a number"),
    ],
)
def test_rewards_are_finite_and_flags_are_boolean(fault, message):
    with pytest.raises(UserError, match=f"Given-v0.*{message}"):
        stepped(Given(**fault))


def test_a_part_of_an_observation_that_is_missing_is_named_with_its_step():
    space = Dict(a=FIVE, b=Tuple((FIVE, THREE)))
    for wrong, column in (({"a": 0}, "b.0"), ({"a": 0, "b": (1,)}, "b.1"), (3, "a"), (None, "a")):
        env = Given(space, ({"a": 0, "b": (0, 0)}, wrong))
        envs = ProcessVectorEnv([env], space, Discrete(3), 10, processes=0)
        with pytest.raises(UserError, match=f"Given-v0, step 1: observation.{column} is missing: .*Error"):
            interact(Says([0]), envs, 4, make_seeds(1, 0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": 0, "b": (0, 0), "c": 1}, "observation has the part 'c', but its space has 'a', 'b'"),
        ({"a": 0, "b": (0, 0, 2)}, "observation.b has 3 parts, but its space has 0, 1"),
    ],
)
def test_a_part_of_an_observation_that_its_space_lacks_is_not_dropped(wrong, message):
    space, right = Dict(a=FIVE, b=Tuple((FIVE, THREE))), {"a": 0, "b": (0, 0)}
    for observations, step in (((right, wrong), "step 1"), ((wrong, right), "at the reset")):
        envs = ProcessVectorEnv([Given(space, observations)], space, Discrete(3), 10, processes=0)
        with pytest.raises(UserError, match=f"Given-v0, {step}: {message}; correct the environment"):
            interact(Says([0]), envs, 4, make_seeds(1, 0))
    envs = ProcessVectorEnv([Given(space, (right, wrong))], space, Discrete(3), 10, processes=0)
    interact(Says([0]), envs, 4, make_seeds(1, 0), check_values=False)


@pytest.mark.parametrize(
    ("name", "parameters", "column"),
    [
        ("ant", {"healthy_reward": 1e39}, "reward"),
        ("bandit", {"reward": "gaussian", "noise": 1e39}, "reward"),
        ("point_navigation", {"goal_range": 1e39}, "reward"),
        ("sparse_point_robot", {"radius": 1e39, "step": 1e39}, "observation"),
    ],
)
@pytest.mark.filterwarnings("error")  # a warning would be one more line about the same problem
def test_a_native_family_whose_parameters_are_too_large_is_not_recorded_as_infinite(name, parameters, column):
    family = make_tasks(name, **parameters)
    envs = family.make_vec(family.sample(2, 0))
    assert envs.native
    with pytest.raises(UserError, match=rf"slot \d, step [12]: {column} -?inf is not finite in float32; use smaller"):
        interact(make_agent("random"), envs, 3, make_seeds(2, 0))


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_agent_of_your_own_in_such_a_family_is_not_recorded_either():
    family = make_tasks("bandit", reward="gaussian", noise=1e39)
    with pytest.raises(UserError, match=r"step 1: reward -?inf is not finite in float32; use smaller"):
        interact(Says([0, 0]), family.make_vec(family.sample(2, 0)), 3, make_seeds(2, 0))


def test_the_last_observation_of_an_episode_is_checked_too():
    env = Given(observations=(0, 9, 0), flags=((True, False), (False, False)))
    with pytest.raises(UserError, match="step 1: observation 9"):
        stepped(env)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([3], r"step 2: action 3 .*Discrete\(3\).*Says"),
        ([-1], "step 2: action -1 "),
        ([0.5], "step 2: action 0.5 "),
        ([[0]], r"step 2: action.*shape \(1,\)"),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_an_action_that_is_not_in_its_space_is_refused_in_native_families_too(action, message, native):
    room = DarkRoom(size=3)
    envs = ProcessVectorEnv([Given()], Discrete(5), Discrete(3), 10, processes=0)
    if native:
        envs = room.make_vec(Tasks({"goal": np.array([[1, 2]])}))
        action, message = np.asarray(action) + (2 if action == [3] else 0), message.replace("3", "5")
    with pytest.raises(UserError, match=message):
        interact(Says([0], action), envs, 4, make_seeds(1, 0))


def test_a_family_of_your_own_is_checked_and_a_native_one_is_not():
    class Leaky(DarkRoom):
        def make_vec(self, tasks):
            envs = super().make_vec(tasks)

            class Wrong(type(envs)):
                def _observe(self):
                    return super()._observe() + 9

            envs.__class__ = Wrong
            return envs

    tasks = Tasks({"goal": np.array([[1, 2]])})
    with pytest.raises(UserError, match="slot 0, at the reset: observation"):
        interact(Says([0]), Leaky(size=3).make_vec(tasks), 2, make_seeds(1, 0))
    assert DarkRoom(size=3).make_vec(tasks).native
    assert not Leaky(size=3).make_vec(tasks).native


def test_any_vector_environment_is_checked():
    class Plain(VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        num_envs, single_observation_space, single_action_space = 1, Box(-1, 1, (1,)), Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.array([[2.0]]), {}

    envs = Plain()
    with pytest.raises(UserError, match=r"slot 0, at the reset: observation\[0\] 2.0 "):
        interact(Says([0]), envs, 2, make_seeds(1, 0))


def test_without_the_check_values_are_cast_as_they_always_were():
    env = Given(PICTURE, (np.full((2, 2), 0.5),), (np.nan,))
    envs = ProcessVectorEnv([env], PICTURE, Discrete(3), 10, processes=0)
    kept = interact(Says([0]), envs, 4, make_seeds(1, 0), check_values=False)
    assert not kept.observation.any() and np.isnan(kept.reward).all()


@component
class WrongRoom(DarkRoom):
    """A family of one's own whose rewards are not finite from the third step on."""

    def make_vec(self, tasks):
        envs = super().make_vec(tasks)
        advance, steps = envs._advance, []

        def wrong(actions):
            steps.append(1)
            rewards, terminated = advance(actions)
            return (rewards * (np.nan if len(steps) > 2 else 1), terminated)

        envs.__class__ = type("WrongVectorEnv", (type(envs),), {"_advance": lambda self, actions: wrong(actions)})
        return envs


@pytest.mark.parametrize("agent", ["q_learning", "random"])
def test_generation_names_the_task_and_keeps_no_shard(tiny, agent):
    config = tiny(tasks={"name": f"{__name__}:WrongRoom"}, data={"sources": [{"name": agent}]})
    with pytest.raises(UserError, match=r"training task \d+, step 3: reward nan is not finite"):
        generate(config)
    assert not run_folder(config).data_info.exists()
    assert not list(run_folder(config).data.glob("train-*.h5"))


def test_the_data_record_says_whether_values_were_checked(tiny):
    for checked in (True, False):
        config = tiny(name=f"checked-{checked}", runtime={"check_values": checked})
        generate(config)
        assert load_info(run_folder(config)).check_values is checked


@pytest.mark.parametrize(
    "space",
    [
        Discrete(7, start=-3),
        MultiDiscrete([2, 9]),
        MultiBinary(3),
        PICTURE,
        Box(-2, 3, (4,)),
        Box(-5, 5, (2,), np.int8),
    ],
)
def test_every_sample_of_a_space_passes_its_check(space):
    space.seed(0)
    assert SpaceCheck(space).fits(np.stack([space.sample() for _ in range(50)]))
