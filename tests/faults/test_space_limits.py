"""Spaces of impossible size, and spaces with names or packages of elsewhere: refused first, with what to do."""

import sys
import types

import gymnasium
import numpy as np
import pytest
import torch
from conftest import TINY
from gymnasium import spaces

from ad_model.action_head_ad import ActionHead
from ad_model.build import check_objective, check_spaces
from ad_model.embeddings_ad import leaf_embedding
from data_gen.agents.base import TableIndex
from data_gen.agents.deep.encoding import Encoder
from data_gen.generation.checks import check_agent
from data_gen.spaces import storage_type, to_json
from data_gen.storage.columns import check_recordable
from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from data_gen.tasks.base import TaskDistribution
from data_gen.tasks.grids.dark_room import DarkRoom
from icrl.config.loader import make_tasks, validate
from icrl.config.schema import ModelConfig
from icrl.config.sections import AgentComponent
from icrl.support.errors import ConfigError, UserError

MOVE = spaces.Discrete(2)
FLAT = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    "space",
    [
        *(spaces.Box(-1, 1, (0,)), spaces.Dict(seen=FLAT, nothing=spaces.Box(-1, 1, (3, 0))), spaces.Dict({})),
        *(spaces.Tuple([]), spaces.Dict(inner=spaces.Dict({})), spaces.Discrete(2**62, start=2**62 + 5)),
        spaces.MultiDiscrete(np.zeros((0,), dtype=np.int64)),
        *(spaces.Box(-1, 1, (2,), np.longdouble), spaces.Dict(seen=FLAT, fine=spaces.Box(-1, 1, (2,), np.longdouble))),
    ],
    ids=str,
)
def test_a_space_whose_elements_cannot_be_recorded_is_refused_before_the_first_shard(space):
    with pytest.raises(UserError):
        check_recordable(space, MOVE)
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        with pytest.raises(UserError):
            check_recordable(FLAT, space)


class Huge(TaskDistribution):
    episode_length = 4

    def __init__(self, observation_space, action_space):
        self.spaces = observation_space, action_space

    observation_space = property(lambda self: self.spaces[0])
    action_space = property(lambda self: self.spaces[1])

    def make_vec(self, tasks):
        raise NotImplementedError


@pytest.mark.parametrize("space", [spaces.Discrete(2**33), spaces.MultiDiscrete([2, 2**33])], ids=str)
def test_a_table_beyond_memory_is_refused_with_the_limit(space):
    for pair in ((space, MOVE), (spaces.Dict(cell=space), MOVE), (FLAT, space)):
        with pytest.raises(ConfigError, match=r"8589934592.* needs .*; the limits are 1 and 16,777,216"):
            check_spaces(ModelConfig(), Huge(*pair))


def test_the_limit_of_a_table_is_above_what_is_used():
    leaf_embedding(to_json(spaces.Discrete(100_000)), 2)
    ActionHead(to_json(spaces.Discrete(50_000)), 2, 32)


def test_the_bins_of_a_large_action_are_refused_with_the_limit():
    with pytest.raises(ConfigError, match="logits"):
        check_spaces(ModelConfig(action_bins=2**16), Huge(FLAT, spaces.Box(-1, 1, (1000,))))


class HugeEnv:
    num_envs = 1
    metadata: dict = {}

    def __init__(self, observation_space, action_space):
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space, self.action_space, self.episode_length = observation_space, action_space, 4


@pytest.mark.parametrize("name", ["ppo", "a2c", "dqn", "sac", "q_learning", "sarsa", "actor_critic", "ucrl2", "psrl"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_agent_refuses_a_space_beyond_memory(name, which):
    pair = [spaces.Discrete(3), spaces.Discrete(2) if name != "sac" else FLAT]
    pair[which] = spaces.Discrete(2**44)
    with pytest.raises(ConfigError, match=r"^data\.sources\.0: "):
        check_agent("data.sources.0", AgentComponent(name=name), HugeEnv(*pair), 10**6, "cpu")


def test_networks_refuse_one_hot_vectors_beyond_memory():
    import torch

    with pytest.raises(UserError, match=r"8,589,934,592 features; the limits are 1 and"):
        Encoder(spaces.Discrete(2**33), torch.device("cpu"))


def test_a_space_of_the_old_package_is_named_as_such():
    module = types.ModuleType("gym.spaces")
    module.Discrete = type("Discrete", (), {"__module__": "gym.spaces", "__repr__": lambda self: "Discrete(4)"})
    with pytest.raises(UserError, match=r"Discrete\(4\) is a space of the package gym.*gymnasium.spaces"):
        to_json(module.Discrete())
    assert "gym" not in sys.modules


class Walker(gymnasium.Env):
    """Observations as dm_control names them."""

    def __init__(self, mission=False, seen=1.0):
        parts = {"walker/joints": spaces.Box(-1, 1, (3,)), "walker/height": spaces.Box(-1, 1, (1,))}
        self.observation_space = spaces.Dict(parts | ({"task": spaces.Text(4)} if mission else {}))
        self.action_space = spaces.Discrete(2)
        self.mission = mission

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        seen = {name: np.zeros(part.shape, np.float32) for name, part in self.observation_space.items() if part.shape}
        return seen | ({"task": "go"} if self.mission else {}), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize("mission", [False, True])
def test_the_wrappers_proposed_for_keys_with_a_slash_work(mission):
    gymnasium.register("Walker-v0", Walker)
    try:
        about = {
            "env_id": "Walker-v0",
            "kwargs": {"mission": mission},
            "vary": {"seen": [1.0, 2.0]},
            "episode_length": 3,
        }
        with pytest.raises(UserError) as caught:
            _ = GymnasiumTasks(**about).observation_space
        advice = str(caught.value)
        assert "{name: FlattenObservation}" in advice
        wrappers = [{"name": "FlattenObservation"}]
        if mission:
            assert "{name: FilterObservation, filter_keys: [walker/height, walker/joints]}, " in advice
            wrappers.insert(0, {"name": "FilterObservation", "filter_keys": ["walker/height", "walker/joints"]})
        assert GymnasiumTasks(**about, wrappers=wrappers).observation_space.shape == (4,)
    finally:
        del gymnasium.registry["Walker-v0"]


def test_layouts_are_not_listed_where_they_are_too_many():
    config = validate(
        {
            **TINY,
            "tasks": {"name": "gymnasium", "env_id": "CartPole-v1", "layouts": [0, 2147483646]},
            "split": {"train": 5, "test": 3},
        }
    )
    family = config.tasks.build()
    train, test = family.split(5, 3, 0)
    assert len({*train["layout"].tolist(), *test["layout"].tolist()}) == 8
    family.make_vec(train.take([0])).close()
    with pytest.raises(ConfigError, match="give numbers of tasks"):
        family.split(0.8, 0.2, 0)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a\0", "\ud800", "a\nb", "k" * 61, "\u4e2d" * 21, 3])
def test_a_key_that_cannot_name_a_column_and_its_files_is_refused_in_one_line(key):
    space = spaces.Dict([(key, spaces.Discrete(2))]) if isinstance(key, str) else spaces.Dict({key: spaces.Discrete(2)})
    with pytest.raises(UserError, match="cannot name a column") as caught:
        check_recordable(space, spaces.Discrete(2))
    assert len(str(caught.value).splitlines()) == 1


def test_elements_beyond_32_bits_have_a_type_that_torch_takes():
    shape, kind = storage_type(spaces.Discrete(3, start=2**62))
    assert shape == () and torch.from_numpy(np.zeros(2, kind)).dtype == torch.uint64


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple((spaces.Discrete(2),))], ids=str
)
def test_actions_of_several_parts_are_not_told_to_use_them(space):
    with pytest.raises(UserError) as caught:
        storage_type(space)
    assert "Dict and Tuple" not in str(caught.value)


def test_a_table_for_a_space_of_two_axes_is_refused_in_one_line():
    with pytest.raises(UserError, match="needs a Discrete or flat MultiDiscrete space") as caught:
        TableIndex(spaces.MultiDiscrete([[2, 3], [4, 5]]), "q_learning")
    assert len(str(caught.value).splitlines()) == 1


def test_a_space_that_cannot_be_sampled_is_not_the_objectives_fault(tiny):
    class Wide(DarkRoom):
        observation_space = spaces.Box(0, 2**63, (2,), np.uint64)

    with pytest.raises(ConfigError, match=r"tasks: the space Box.* cannot be sampled"):
        check_objective(tiny(), Wide())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("water_maze", {"pool_radius": 1e39, "speed": 1e39}), ("tabular_mdp", {"reward_mean": -1e39})],
)
def test_a_parameter_that_single_precision_cannot_hold_is_refused_with_the_limit(name, parameters):
    with pytest.raises(ConfigError, match=r"(less|greater) than or equal to -?1000000000 "):
        make_tasks(name, **parameters)
