"""The interaction loop: its records, and the environments that it accepts."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from data_gen.agents import Agent, Spec, Transition
from data_gen.interaction import interact
from data_gen.spaces import storage_type, to_json
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.grids.dark_room import DarkRoom
from icrl.config.components import component
from icrl.support.errors import UserError


@component
class Scripted(Agent):
    """Follows a fixed script of actions, and keeps the transitions that it is shown."""

    script: tuple[int, ...] = (4, 4, 2, 0, 3, 0)

    def reset(self, spec: Spec, num_envs: int, seeds: NDArray[Any]) -> None:
        self.seen: list[Transition] = []
        self.spec, self.num_envs = spec, num_envs

    def act(self, observation: NDArray[Any]) -> NDArray[Any]:
        return np.full(self.num_envs, self.script[len(self.seen) % len(self.script)])

    def observe(self, transition: Transition) -> None:
        self.seen.append(transition)


def test_a_hand_computed_history_is_recorded_step_by_step():
    room = DarkRoom(size=3, episode_length=3, start="center")
    envs = room.make_vec(Tasks({"goal": np.array([[1, 2], [2, 2]])}))
    agent = Scripted()
    h = interact(agent, envs, 6, make_seeds(2, 0))
    # right, right (wall), down | stay, left, stay: on goal (1, 2) twice, on goal (2, 2) once
    np.testing.assert_array_equal(h.observation[0], [[1, 1], [1, 2], [1, 2], [1, 1], [1, 1], [1, 0]])
    np.testing.assert_array_equal(h.action[0], [4, 4, 2, 0, 3, 0])
    np.testing.assert_array_equal(h.reward, [[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(h.truncated[0], [0, 0, 1, 0, 0, 1])
    assert not h.terminated.any()
    assert h.observation.dtype == h.action.dtype == np.uint8


def test_a_learner_sees_the_last_observation_of_an_episode_and_not_the_next_first_one():
    room = DarkRoom(size=3, episode_length=3, start="center")
    agent = Scripted()
    interact(agent, room.make_vec(Tasks({"goal": np.array([[0, 0]])})), 6, make_seeds(1, 0))
    np.testing.assert_array_equal(agent.seen[2].next_observation[0], [2, 2])  # where the third step led
    np.testing.assert_array_equal(agent.seen[3].observation[0], [1, 1])  # where the next episode begins


def test_termination_ends_the_episode_and_the_next_begins_at_the_start():
    room = DarkRoom(size=3, episode_length=3, start="center", reward="once")
    h = interact(Scripted(), room.make_vec(Tasks({"goal": np.array([[1, 2]])})), 6, make_seeds(1, 0))
    np.testing.assert_array_equal(h.terminated[0], [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(h.truncated[0], [0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(h.observation[0][:3], [[1, 1], [1, 1], [1, 1]])


def test_the_planned_lifetime_can_differ_from_the_steps_taken():
    room, agent = DarkRoom(), Scripted()
    interact(agent, room.make_vec(room.all_tasks()), 10, make_seeds(81, 0), planned_steps=500)
    assert agent.spec.planned_steps == 500


def test_next_step_autoreset_is_refused():
    envs = SyncVectorEnv([lambda: gymnasium.make("icrl/DarkRoom-v0")])
    with pytest.raises(UserError, match="needs autoreset_mode SAME_STEP"):
        interact(Scripted(), envs, 3, make_seeds(1, 0))


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (gymnasium.spaces.Discrete(5), (), np.uint8),
        (gymnasium.spaces.Discrete(300), (), np.uint16),
        (gymnasium.spaces.Discrete(3, start=-1), (), np.int8),
        (gymnasium.spaces.MultiDiscrete([9, 256]), (2,), np.uint8),
        (gymnasium.spaces.Box(-1, 1, (3,), np.float64), (3,), np.float32),
    ],
)
def test_spaces_are_stored_compactly(space, shape, dtype):
    assert storage_type(space) == (shape, np.dtype(dtype))


def test_an_unsupported_space_is_refused():
    with pytest.raises(UserError, match="cannot be recorded"):
        to_json(gymnasium.spaces.Text(3))
