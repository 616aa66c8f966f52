"""The scale of normalised returns at its edges, and its zero, which depends on the task alone."""

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.control.acrobot import Acrobot
from data_gen.tasks.control.pendulum import Pendulum
from data_gen.tasks.points.point_navigation import PointNavigation
from data_gen.tasks.sets import TaskSet
from data_gen.tasks.vector import TaskVectorEnv
from eval.lifetimes import Lifetimes
from eval.results import returns_scale, scores_of
from icrl.config.components import component


@component
class Known(TaskDistribution):
    """Tasks that are their own random and optimal returns."""

    episode_length: int = 5
    observation_space = property(lambda self: Discrete(2))
    action_space = property(lambda self: Discrete(2))

    def make_vec(self, tasks):
        raise NotImplementedError

    def optimal_return(self, tasks):
        return tasks["best"]

    def random_return(self, tasks):
        return tasks["random"]


def known(*pairs):
    random, best = np.array(pairs, dtype=float).T
    return Tasks({"random": random, "best": best})


def lifetimes_of(returns):
    """Lifetimes of 12 episodes, 2 seeds, with the given return on each task."""
    episodes = np.tile(np.asarray(returns, dtype=float)[:, None, None], (1, 2, 12))
    unknown = np.full_like(episodes, np.nan)
    return Lifetimes(12, episodes, episodes.astype(int), episodes[:, :, -1], unknown, episodes, 1.0, 1, {})


def sets_of(family=None, **tasks):
    return [TaskSet(name, family or Known(), own) for name, own in tasks.items()]


def test_one_unknown_optimum_leaves_the_known_ones_of_its_split_in_place():
    tasks = known((0, 10), (0, np.nan), (0, 4))
    lives = {("source", "test"): lifetimes_of([5, 3, 2])}
    scale, meaning = returns_scale(sets_of(test=tasks), ["source"], lives)
    np.testing.assert_array_equal(scale["test"][1], [10, 3, 4])
    assert meaning.one["test"].startswith("the optimal policy's expected return")
    assert "on 1 of 3 tasks, the best source's mean return" in meaning.one["test"]
    assert meaning.known


def test_each_split_names_its_own_rule():
    splits = {"test": known((0, np.nan), (0, np.nan)), "train": known((0, 1))}
    lives = {("source", "test"): lifetimes_of([5, -1]), ("source", "train"): lifetimes_of([1])}
    _, meaning = returns_scale(sets_of(**splits), ["source"], lives)
    assert meaning.one["train"] == "the optimal policy's expected return on that task"
    assert meaning.one["test"].startswith("the best source's mean return")
    assert (meaning.known, meaning.unknown_tasks) == (False, {"test": 1, "train": 0})
    assert meaning.zero_error == {"test": 0, "train": 0}


@pytest.mark.parametrize(
    ("random", "best"),
    [(0, 5.6e-17), (0.5, 0.5 + 5.6e-17), (0.1 + 0.2, 0.3), (0.3, 0.1 + 0.2), (7, 7), (1e6, 1e6 + 1e-6), (2, 1),
     (0, np.inf), (-np.inf, 0), (-np.inf, np.inf)],
)  # fmt: skip
def test_a_span_that_is_zero_or_rounding_is_unknown_and_never_infinite(random, best):
    tasks = known((random, best), (0, 2))
    for scaled in (
        Known().normalise(np.array([[1.0, 0.5], [1.0, 0.5]]), tasks),
        scores_of(
            lifetimes_of([1, 1]),
            returns_scale(sets_of(test=tasks), [], {})[0]["test"],
        )["normalised_return"].episodes,
    ):
        assert np.isnan(scaled[0]).all()
        assert np.isfinite(scaled[1]).all() and (np.abs(scaled[1]) <= 1).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_a_small_or_large_scale_of_rewards_stays_a_scale(scale):
    np.testing.assert_allclose(Known().normalise(np.array([0.5 * scale]), known((0, scale))), [0.5])


@pytest.mark.parametrize("family", [Pendulum(), Acrobot(episode_length=60), PointNavigation(episode_length=10)])
def test_the_random_return_of_a_task_does_not_depend_on_its_company(family):
    tasks = family.sample(4, seed=0)
    together = family.random_return(tasks)
    np.testing.assert_array_equal(family.random_return(tasks.take([3]))[0], together[3])
    np.testing.assert_array_equal(family.random_return(tasks.take([2, 0, 2])), together[[2, 0, 2]])


def test_the_standard_error_of_a_simulated_zero_is_about_the_spread_of_other_seeds():
    family = Dice()
    tasks = Tasks({"sides": np.full(400, 6.0), "number": np.arange(400.0)})  # the same task by 400 different names
    mean, error = family.random_estimate(tasks)
    assert error == pytest.approx(mean.std(), rel=0.15)
    assert error == pytest.approx(np.full(400, 6 / np.sqrt(12 / 3 * 256)), rel=0.3)


def test_an_exact_zero_has_no_standard_error_and_a_simulated_one_is_told():
    tasks = known((0, 1), (0, 2))
    assert (Known().random_estimate(tasks)[1] == 0).all()
    family = Dice()
    tasks = Tasks({"sides": np.array([6.0, 8.0]), "number": np.arange(2.0)})
    lives = {("source", "test"): lifetimes_of([30, 40])}
    scale, meaning = returns_scale(sets_of(family, test=tasks), ["source"], lives)
    assert "estimated from simulated episodes" in meaning.zero["test"]
    assert meaning.zero_error["test"] == pytest.approx(
        np.sqrt(np.square(family.random_estimate(tasks)[1] / scale["test"][1]).mean())
    )


@component
class Dice(TaskDistribution):
    """Three throws per episode, whatever the agent does; each earns a uniform number below `sides`."""

    episode_length: int = 3
    observation_space = property(lambda self: Discrete(2))
    action_space = property(lambda self: Discrete(2))

    def make_vec(self, tasks):
        return DiceEnv(self, tasks)


class DiceEnv(TaskVectorEnv):
    def __init__(self, family, tasks):
        super().__init__(len(tasks), family.observation_space, family.action_space, family.episode_length)
        self.sides = tasks["sides"]

    def _restart(self, slots):
        pass

    def _advance(self, actions):
        return self.sides * self.streams.uniform(), np.zeros(self.num_envs, bool)

    def _observe(self):
        return np.zeros(self.num_envs, int)
