"""Three sets of tasks that never meet: training, validation and held-out tasks."""

import itertools

import numpy as np
import pytest
from test_tasks import CASES, made

from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.point_navigation import PointNavigation
from data_gen.tasks.splits import split_tasks
from icrl.config.components import component
from icrl.config.splits import SplitConfig
from icrl.support.errors import ConfigError
from tests.faults.test_layouts import Hidden
from tests.faults.test_layouts import family as layouts


def split(family, train=0.8, validation=None, test=0.2, seed=0):
    return split_tasks(family, train, validation, test, seed)


def sizes(splits):
    return tuple(map(len, splits))


def assert_apart(splits):
    for one, other in itertools.combinations(splits, 2):
        assert not np.isin(one.keys(), other.keys()).any()


@component
class Limits(PointNavigation):
    """An unbounded family whose tasks repeat: there are only `values` of them."""

    values: int = 20

    def sample(self, num_tasks, seed):
        rng = np.random.default_rng(seed)
        return Tasks({"goal": np.stack([rng.integers(self.values, size=num_tasks) / self.values] * 2, axis=1)})


@pytest.mark.parametrize("case", CASES)
def test_validation_tasks_meet_neither_other_set_and_leave_the_held_out_tasks_as_they_were(case):
    family = made(case)
    finite = family.all_tasks() is not None
    asked = (0.8, None, 0.2) if finite else (50, 20, 30)
    splits = split(family, *asked, seed=3)
    train, test = family.split(asked[0], asked[2], seed=3)
    assert_apart(splits)
    np.testing.assert_array_equal(splits.test.keys(), test.keys())
    assert np.isin(splits.train.keys(), train.keys()).all()
    if not finite:
        assert sizes(splits) == (50, 20, 30)
        np.testing.assert_array_equal(splits.train.keys(), train.keys())
    for again, tasks in zip(split(family, *asked, seed=3), splits, strict=True):
        np.testing.assert_array_equal(again.keys(), tasks.keys())


def test_a_finite_family_sets_a_tenth_of_its_training_side_aside():
    assert sizes(split(DarkRoom())) == (59, 6, 16)  # the demo
    assert sizes(split(DarkRoom(size=4))) == (12, 1, 3)
    assert sizes(split(DarkRoom(size=2), 0.5, None, 0.5)) == (1, 1, 2)
    other = [split(DarkRoom(), seed=seed).validation["goal"].tolist() for seed in range(2)]
    assert other[0] != other[1]


def test_tasks_that_are_left_over_are_taken_before_training_tasks():
    assert sizes(split(DarkRoom(), 0.5, None, 0.2)) == (41, 4, 16)
    assert sizes(split(DarkRoom(), 60, 5, 16)) == (60, 5, 16)
    assert sizes(split(DarkRoom(), 0.8, 10, 0.2)) == (55, 10, 16)
    assert sizes(split(DarkRoom(), 0.7, 0.1, 0.2)) == (57, 8, 16)


def test_a_number_of_training_tasks_is_kept_whatever_is_left_over():
    assert sizes(split(DarkRoom(), 64, None, 16)) == (64, 1, 16)
    assert sizes(split(DarkRoom(), 65, None, 16)) == (65, 0, 16)
    with pytest.raises(ConfigError, match=r"split\.validation 2: asks for 2 tasks .* has only 1 more: lower"):
        split(DarkRoom(), 64, 2, 16)


def test_no_validation_tasks_are_the_split_of_two_sets():
    for family, asked in ((DarkRoom(), (0.8, 0.2)), (PointNavigation(), (30, 10))):
        splits = split(family, asked[0], 0, asked[1])
        for tasks, before in zip((splits.train, splits.test), family.split(*asked, seed=0), strict=True):
            np.testing.assert_array_equal(tasks.keys(), before.keys())
        assert not len(splits.validation) and {*splits.validation} == {*splits.train}


def test_an_unbounded_family_draws_64_more():
    assert sizes(split(PointNavigation(), 30, None, 10)) == (30, 64, 10)
    with pytest.raises(ConfigError, match=r"split\.validation 0\.1: PointNavigation is unbounded"):
        split(PointNavigation(), 30, 0.1, 10)


def test_a_family_whose_tasks_repeat_gives_the_validation_tasks_that_it_has():
    for values, expected in ((200, 64), (50, 20), (30, 0)):
        splits = split(Limits(values=values), 20, None, 10)
        assert sizes(splits) == (20, expected, 10)
        assert_apart(splits)
        assert len(np.unique(splits.validation.keys())) == expected
    with pytest.raises(ConfigError, match="has only 20 more"):
        split(Limits(values=50), 20, 21, 10)


@component
class Shifted(DarkRoom):
    """A family of a user with a split of two sets: trains on the left half of the room, and tests on the right."""

    def split(self, train, test, seed):
        every = self.all_tasks()
        left = every.take(np.flatnonzero(every["goal"][:, 1] < 4))
        right = every.take(np.flatnonzero(every["goal"][:, 1] > 4))
        order = np.random.default_rng(seed).permutation(len(left))
        if train > len(left):
            raise ValueError("a user's own error")
        return left.take(order[: int(train)]), right.take(slice(int(test)))


def test_a_users_split_into_two_sets_keeps_working_and_validation_tasks_are_like_its_training_tasks():
    splits = split(Shifted(), 20, None, 10)
    assert sizes(splits) == (20, 2, 10)
    assert_apart(splits)
    assert (splits.validation["goal"][:, 1] < 4).all()
    assert sizes(split(Shifted(), 36, None, 10)) == (36, 0, 10)  # all of the left half


def test_validation_tasks_have_the_prior_of_training_tasks_where_held_out_tasks_are_shifted():
    splits = split(made("shifted_bandit"), 2000, 2000, 2000)
    odd = [tasks["mean"][:, 1::2].mean() for tasks in splits]
    assert odd[0] > 0.6 and odd[1] > 0.6 and odd[2] < 0.4


def test_a_split_that_does_not_return_two_sets_is_refused_in_one_line(monkeypatch):
    for result in ((1, 2), DarkRoom().all_tasks(), [DarkRoom().all_tasks()] * 3):
        monkeypatch.setattr(DarkRoom, "split", lambda self, train, test, seed, result=result: result)
        with pytest.raises(ConfigError, match=r"^tasks: DarkRoom\.split returned .*: return two Tasks, .*$"):
            split(DarkRoom())


def test_training_tasks_that_repeat_are_set_aside_together(monkeypatch):
    every = DarkRoom().all_tasks()
    twice = every.take([*range(10), *range(10)])
    monkeypatch.setattr(TaskDistribution, "split", lambda self, train, test, seed: (twice, every.take([50])))
    monkeypatch.setattr(DarkRoom, "more_tasks", lambda self, train, *_: train.take(slice(0)))
    splits = split(DarkRoom(), 0.5, 3, 0.2)
    assert sizes(splits) == (14, 3, 1)
    assert_apart(splits)


def test_validation_layouts_that_repeat_other_layouts_are_left_out_and_counted(capsys):
    splits = split(layouts(goals=20), 20, 10, 10)

    def goals(tasks):
        found = set()
        for layout in tasks["layout"]:
            env = Hidden(goals=20)
            env.reset(seed=int(layout))
            found.add(env.goal)
        return found

    train, validation, test = map(goals, splits)
    assert 0 < len(splits.validation) < 10
    assert not train & validation and not test & validation and not train & test
    assert f"{10 - len(splits.validation)} of 10 validation tasks are left out" in capsys.readouterr().out


def test_a_range_of_integers_and_a_list_have_validation_tasks():
    ranged = GymnasiumTasks(env_id="CartPole-v1", vary={"length": {"low": 1, "high": 40}}, episode_length=6)
    listed = GymnasiumTasks(env_id="CartPole-v1", vary={"length": [*range(1, 41)]}, episode_length=6)
    for family, asked in ((ranged, (20, 5, 10)), (listed, (0.5, 5, 10))):
        splits = split(family, *asked)
        assert sizes(splits) == (20, 5, 10)
        assert_apart(splits)


def test_the_defaults_of_the_config_are_those_of_the_split():
    defaults = SplitConfig()
    assert (defaults.train, defaults.validation, defaults.test) == (0.8, None, 0.2)
