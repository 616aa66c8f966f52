"""Layouts that are one task do not count as held-out tasks."""

import dataclasses
from array import array
from collections import deque
from types import MappingProxyType

import gymnasium
import numpy as np
import pytest
import torch

from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from icrl.support.errors import ConfigError


@dataclasses.dataclass(slots=True)
class Slots:
    goal: int


HELD = {
    "object": Slots,
    "tensor": lambda goal: torch.tensor([goal]),
    "deque": lambda goal: deque([goal]),
    "array": lambda goal: array("q", [goal]),
    "bytes": lambda goal: bytearray(str(goal).encode()),
    "mapping": lambda goal: MappingProxyType({"goal": goal}),
    "complex": complex,
    "objects": lambda goal: np.array([None] * 2000 + [goal], dtype=object),
}
"""Ways to hold a goal in an attribute."""


class Hidden(gymnasium.Env):
    """A goal that the first observation hides, one of `goals`, from the seed, or from nowhere."""

    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, goals=1000, draw="seed", held=None, render_mode=None):
        self.goals, self.draw, self.resets, self.own = goals, draw, 0, np.random.default_rng()
        self.held = HELD.get(held, int)
        self.render_mode = render_mode

    @property
    def metadata(self):
        return {"render_modes": ["rgb_array"] if self.draw == "picture" else []}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.resets = seed, self.resets + 1
        if self.draw in ("seed", "elsewhere"):
            self.goal = self.held((self.np_random if self.draw == "seed" else self.own).integers(self.goals).item())
        shown = int(self.own.integers(3)) if self.draw == "noise" else 0
        return shown, {}

    def step(self, action):
        return 0, 0.0, False, False, {}

    def render(self):
        return np.full((2, 2, 3), self.seed % 5, np.uint8)


gymnasium.register("faults/Hidden-v0", Hidden)


def family(layouts=40, vary=None, **kwargs):
    return GymnasiumTasks(env_id="faults/Hidden-v0", kwargs=kwargs, vary=vary or {}, layouts=layouts, episode_length=5)


def test_a_goal_that_only_the_state_holds_tells_layouts_apart(capsys):
    train, test = family().split(30, 10, 0)
    assert (len(train), len(test)) == (30, 10)
    assert capsys.readouterr().out == ""


def test_held_out_layouts_that_repeat_training_layouts_are_left_out_and_counted(capsys):
    made = family(goals=20)
    train, test = made.split(30, 10, 0)

    def goal(layout):
        env = Hidden(goals=20)
        env.reset(seed=int(layout))
        return env.goal

    assert len(train) == 30
    assert 0 < len(test) < 10
    assert not {goal(layout) for layout in test["layout"]} & {goal(layout) for layout in train["layout"]}
    assert f"{10 - len(test)} of 10 held-out tasks are left out" in capsys.readouterr().out
    again = made.split(30, 10, 0)[1]
    np.testing.assert_array_equal(again["layout"], test["layout"])


@pytest.mark.parametrize("held", [*HELD])
def test_a_goal_tells_layouts_apart_however_the_environment_holds_it(held):
    train, test = family(held=held, goals=10**6).split(30, 10, 0)
    assert (len(train), len(test)) == (30, 10)
    _, fewer = family(held=held, goals=20).split(30, 10, 0)
    assert len(fewer) < 10


@pytest.mark.parametrize("draw", ["none", "elsewhere"])
def test_an_environment_that_ignores_its_seed_has_no_layouts(draw):
    with pytest.raises(ConfigError, match="they are one task"):
        family(draw=draw).split(30, 10, 0)


def test_first_observations_that_do_not_follow_the_seed_are_refused():
    with pytest.raises(ConfigError, match="two resets with the seed"):
        family(draw="noise").split(30, 10, 0)


def test_a_picture_tells_layouts_apart_where_there_is_one():
    train, test = family(layouts=(0, 9), draw="picture").split(4, 6, 0)
    assert not set(test["layout"] % 5) & set(train["layout"] % 5)


def test_layouts_of_other_arguments_are_other_tasks():
    made = family(layouts=2, vary={"goals": [1, 2, 3, 4]}, draw="none")
    train, test = made.split(4, 4, 0)
    assert not set(test["goals"]) & set(train["goals"])


def test_empty_rooms_of_minigrid_are_one_task():
    pytest.importorskip("minigrid")
    made = GymnasiumTasks(
        env_id="minigrid:MiniGrid-Empty-5x5-v0",
        layouts=20,
        episode_length=9,
        wrappers=[{"name": "FilterObservation", "filter_keys": ["direction", "image"]}],
    )
    with pytest.raises(ConfigError, match="they are one task"):
        made.split(15, 5, 0)
