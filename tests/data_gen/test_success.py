"""Success of episodes: what each family calls one, what other environments report, and how it is recorded."""

import functools

import gymnasium
import numpy as np
import pytest
from test_tasks import made

from data_gen.agents.optimal import Optimal
from data_gen.agents.random import Random
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.streams import make_seeds
from data_gen.tasks.adapted.process_vector import ProcessVectorEnv
from data_gen.tasks.adapted.success import ReturnAbove
from icrl.support.errors import UserError

ARRIVED = {  # what a successful episode looks like in its return, by family
    "dark_room": lambda returns: returns > 0,
    "dark_room_random_start": lambda returns: returns == 1,
    "dark_room_diagonal": lambda returns: returns > 0,
    "dark_key_to_door": lambda returns: returns == 2,
    "grid_navi": lambda returns: returns > 15 * -0.1 + 0.5,
    "pixels": lambda returns: returns > 0,
    "sparse_point_robot": lambda returns: returns > 0,
    "water_maze": lambda returns: returns > 0,
    "windy_room": lambda returns: returns > 0,
}
NUM_TASKS, EPISODES = 6, 30


def outcomes(name: str, agent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Success at the end of each episode, return, and termination, of the first episodes of a lifetime each."""
    family = made(name)
    tasks = family.sample(NUM_TASKS, seed=3)
    steps = EPISODES * family.episode_length
    found = interact(agent, family.make_vec(tasks), steps, make_seeds(NUM_TASKS, 0), successes=True)
    count = int(found.ended.sum(axis=1).min())
    ends = [np.flatnonzero(row)[:count] for row in found.ended]
    success = np.array([row[end] for row, end in zip(found.success, ends, strict=True)])
    terminated = np.array([row[end] for row, end in zip(found.terminated, ends, strict=True)])
    assert np.isnan(found.success[~found.ended]).all()
    return success, episode_returns(found.reward, found.ended, count), terminated


@pytest.mark.parametrize("name", ARRIVED)
@pytest.mark.parametrize("agent", [Random, Optimal])
def test_an_episode_succeeds_if_it_arrives(name, agent):
    success, returns, _ = outcomes(name, agent())
    np.testing.assert_array_equal(success, ARRIVED[name](returns))
    if agent is Random and name != "sparse_point_robot":
        assert 0 < success.mean() < 1  # both kinds occur, one after the other
    if agent is Optimal and name not in ("windy_room", "dark_room_random_start"):
        assert success.all()  # the wind may keep an agent away, and a goal may be too far from a random start


@pytest.mark.parametrize("name", ["point_navigation", "acrobot"])
def test_an_episode_that_ends_at_its_goal_succeeds(name):
    success, _, terminated = outcomes(name, Random())
    np.testing.assert_array_equal(success, terminated)
    if name == "point_navigation":
        success, _, terminated = outcomes(name, Optimal())
        assert success.all() and terminated.all()


def test_a_family_that_does_not_say_what_success_is_has_none():
    success, _, _ = outcomes("tabular_mdp", Random())
    assert np.isnan(success).all()


def test_success_is_recorded_only_on_request_and_never_stored():
    family = made("dark_room")
    record = functools.partial(interact, Random(), family.make_vec(family.sample(2, seed=0)), 14, make_seeds(2, 0))
    assert record().success is None
    with_success = record(successes=True)
    assert with_success.success.shape == (2, 14)
    assert "success" not in with_success.columns()


def test_success_of_the_wrong_shape_is_refused(monkeypatch):
    family = made("dark_room")
    envs = family.make_vec(family.sample(2, seed=0))
    step = envs.step

    def wrong_step(actions):
        *values, infos = step(actions)
        return *values, {**infos, "success": np.zeros(3)}

    monkeypatch.setattr(envs, "step", wrong_step)
    with pytest.raises(UserError, match=r'infos\["success"\] has shape \(3,\); give one value per environment, \(2,\)'):
        interact(Random(), envs, 7, make_seeds(2, 0), successes=True)


class Chain(gymnasium.Env):
    """Five steps to the right; `info` reports in the third step, under `key`, if all actions so far were 1."""

    observation_space, action_space = gymnasium.spaces.Discrete(9), gymnasium.spaces.Discrete(2)

    def __init__(self, key: str = "success") -> None:
        self.key = key

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        return 0, {}

    def step(self, action):
        self.actions.append(int(action))
        info = {self.key: np.float64(all(self.actions))} if len(self.actions) == 3 else {}
        return len(self.actions), 1.0 if action else 0.0, len(self.actions) == 5, False, info


def chain(key: str = "success", above: float | None = None) -> gymnasium.Env:
    return Chain(key) if above is None else ReturnAbove(Chain(key), above)


def successes(makers, actions, processes: int = 0) -> list:
    """Success, in every slot, of an episode of the given actions, (slots, steps), and of a second episode of zeros."""
    envs = ProcessVectorEnv(makers, Chain.observation_space, Chain.action_space, 9, processes)
    envs.reset(seed=0)
    found = []
    for step in np.concatenate([np.transpose(actions), np.zeros((5, len(makers)), int)]):
        infos = envs.step(step)[4]
        if infos:
            found.append(infos["success"].tolist())
    envs.close()
    return found


@pytest.mark.parametrize("processes", [0, 2])
def test_what_an_environment_reports_in_any_step_of_an_episode_counts(processes):
    makers = [chain, functools.partial(chain, "is_success"), chain, chain]
    actions = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert successes(makers, actions, processes) == [[1, 1, 0, 0], [0, 0, 0, 0]]


def test_what_no_environment_reports_is_unknown():
    ((first, *_), _) = successes([functools.partial(chain, "won")], [[1] * 5])
    assert np.isnan(first)


def test_a_return_above_a_value_makes_a_success():
    makers = [functools.partial(chain, "success", 2)] * 2
    assert successes(makers, [[1, 0, 1, 0, 0], [0, 0, 1, 1, 1]]) == [[0, 1], [0, 0]]
