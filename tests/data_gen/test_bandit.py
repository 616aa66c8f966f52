"""The bandit family: priors, the shifted split, rewards, optima, and refusals."""

import gymnasium
import numpy as np
import pydantic
import pytest

import data_gen  # noqa: F401 - registers the environments
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.tabular.bandit import Bandit
from icrl.config.loader import validate
from icrl.support.errors import ConfigError, UserError


def pulled(bandit: Bandit, mean: list[float], arm: int, pulls: int, slots: int = 500) -> np.ndarray:
    """Rewards of pulling one arm of one bandit, (pulls, slots)."""
    envs = bandit.make_vec(Tasks({"mean": np.tile(mean, (slots, 1))}))
    envs.reset(seed=make_seeds(slots, 4))
    return np.stack([envs.step(np.full(slots, arm))[1] for _ in range(pulls)])


@pytest.mark.parametrize("arm", [0, 1, 2, 3])
def test_a_bernoulli_arm_pays_1_with_its_mean_as_probability(arm):
    mean = [0.0, 0.3, 0.85, 1.0]
    rewards = pulled(Bandit(arms=4), mean, arm, pulls=40)
    assert set(np.unique(rewards)) <= {0.0, 1.0}
    assert rewards.mean() == pytest.approx(mean[arm], abs=4 * np.sqrt(0.25 / rewards.size) if 0 < arm < 3 else 0)


@pytest.mark.parametrize(("noise", "std"), [(None, 1.0), (0.25, 0.25), (0.0, 0.0)])
def test_a_gaussian_arm_pays_its_mean_and_noise(noise, std):
    rewards = pulled(Bandit(arms=2, reward="gaussian", noise=noise), [-3.0, 2.0], arm=1, pulls=40)
    assert rewards.mean() == pytest.approx(2, abs=4 * std / np.sqrt(rewards.size))
    assert rewards.std() == pytest.approx(std, rel=0.03)


def test_rewards_differ_between_pulls_and_between_slots():
    rewards = pulled(Bandit(arms=2), [0.5, 0.5], arm=0, pulls=60)
    assert len(np.unique(rewards, axis=0)) > 50 and len(np.unique(rewards, axis=1)) > 50


def test_every_slot_has_its_own_arms():
    bandit = Bandit(arms=3, reward="gaussian", noise=0)
    mean = np.array([[1.0, 2, 3], [40, 50, 60], [700, 800, 900]])
    envs = bandit.make_vec(Tasks({"mean": mean}))
    envs.reset(seed=0)
    for actions in ([0, 1, 2], [2, 2, 0], [1, 0, 1]):
        np.testing.assert_array_equal(envs.step(np.array(actions))[1], mean[[0, 1, 2], actions])


@pytest.mark.parametrize("length", [1, 3])
def test_an_episode_terminates_with_its_last_pull(length):
    envs = Bandit(arms=2, episode_length=length).make_vec(Tasks({"mean": np.array([[0.2, 0.7]])}))
    envs.reset(seed=0)
    ends = [envs.step(np.array([0]))[2:4] for _ in range(3 * length)]
    assert [bool(terminated[0]) for terminated, _ in ends] == ([False] * (length - 1) + [True]) * 3
    assert not any(truncated[0] for _, truncated in ends)


def test_optimal_and_random_returns_follow_from_the_means():
    tasks = Tasks({"mean": np.array([[0.1, 0.9, 0.5], [0.4, 0.2, 0.3]])})
    bandit = Bandit(arms=3, episode_length=20)
    np.testing.assert_allclose(bandit.optimal_return(tasks), [18, 8])
    np.testing.assert_allclose(bandit.random_return(tasks), [10, 6])
    np.testing.assert_array_equal(bandit.make_vec(tasks).optimal_action(), [1, 0])


def test_the_uniform_priors_optimum_is_10_11ths_on_average():
    """10/11 is the expected maximum of ten uniform numbers."""
    tasks = Bandit().sample(40_000, seed=0)
    assert Bandit().optimal_return(tasks).mean() == pytest.approx(10 / 11, abs=0.002)
    assert tasks["mean"].min() >= 0 and tasks["mean"].max() <= 1


def test_the_normal_prior_is_standard_normal():
    mean = Bandit(reward="gaussian", prior="normal").sample(20_000, seed=0)["mean"]
    assert mean.mean() == pytest.approx(0, abs=0.01) and mean.std() == pytest.approx(1, abs=0.01)


def good_sides(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True per task if odd arms lie in the upper half of [0, 1] and even arms in the lower half; and the reverse."""
    odd, even = mean[:, 1::2], mean[:, ::2]
    odd_good = (odd >= 0.5).all(axis=1) & (even <= 0.5).all(axis=1)
    return odd_good, (odd <= 0.5).all(axis=1) & (even >= 0.5).all(axis=1)


@pytest.mark.parametrize("arms", [2, 5, 10])
@pytest.mark.parametrize("reward", ["bernoulli", "gaussian"])
def test_good_arms_are_odd_in_95_percent_of_training_tasks_and_even_in_95_percent_of_held_out_ones(arms, reward):
    train, test = Bandit(arms=arms, reward=reward, prior="odd_arms").split(8000, 4000, seed=2)
    for tasks, share_odd in ((train, 0.95), (test, 0.05)):
        odd_good, even_good = good_sides(tasks["mean"])
        assert (odd_good ^ even_good).all()
        assert odd_good.mean() == pytest.approx(share_odd, abs=0.015)
        best_is_odd = tasks["mean"].argmax(axis=1) % 2 == 1
        np.testing.assert_array_equal(best_is_odd, odd_good)
    halves = np.where(train["mean"] > 0.5, train["mean"] - 0.5, train["mean"])
    assert halves.mean() == pytest.approx(0.25, abs=0.005) and halves.max() > 0.499  # uniform within each half


def test_the_shifted_split_is_disjoint_and_samples_are_like_training_tasks():
    bandit = Bandit(arms=2, prior="odd_arms")
    train, test = bandit.split(3000, 3000, seed=0)
    assert len(np.unique(np.concatenate([train.keys(), test.keys()]))) == 6000
    assert good_sides(bandit.sample(3000, seed=9)["mean"])[0].mean() > 0.9


def test_other_priors_do_not_shift():
    train, test = Bandit().split(4000, 4000, seed=2)
    assert good_sides(test["mean"])[1].mean() < 0.01
    assert train["mean"].mean() == pytest.approx(test["mean"].mean(), abs=0.01)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"arms": 1}, "greater than or equal to 2"),
        ({"prior": "normal"}, r"prior normal gives means outside \[0, 1\]"),
        ({"noise": 0.5}, "noise 0.5 is for Gaussian rewards"),
        ({"reward": "gaussian", "noise": -1}, "greater than or equal to 0"),
        ({"episode_length": 0}, "greater than or equal to 1"),
        ({"prior": "odd"}, "'uniform', 'normal' or 'odd_arms'"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        Bandit(**parameters)


def test_a_bad_bandit_in_a_config_is_reported_in_one_line():
    values = {"name": "x", "tasks": {"name": "bandit", "prior": "normal"}, "data": {"sources": ["random"]}}
    with pytest.raises(ConfigError, match="prior normal") as caught:
        validate(values)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("mean", [[0.5, 1.2], [-0.1, 0.5], [0.5, np.nan]])
def test_a_task_with_means_that_are_not_probabilities_is_refused(mean):
    with pytest.raises(UserError, match=r"outside \[0, 1\]|is not finite"):
        gymnasium.make("icrl/BernoulliBandit-v0", task={"mean": mean}, arms=2)


def test_a_task_with_another_number_of_arms_is_refused():
    with pytest.raises(UserError, match="10 arms"):
        Bandit().make_vec(Bandit(arms=9).sample(3, seed=0))


def test_a_share_of_infinitely_many_tasks_is_refused():
    with pytest.raises(ConfigError, match="give numbers of tasks"):
        Bandit(prior="odd_arms").split(0.8, 0.2, seed=0)
