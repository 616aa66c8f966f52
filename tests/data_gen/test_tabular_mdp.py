"""The tabular MDP family: its prior, its dynamics, and its optima against brute force."""

import itertools

import gymnasium
import numpy as np
import pydantic
import pytest

import data_gen  # noqa: F401 - registers the environments
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.tabular.tabular_mdp import TabularMDP
from icrl.support.errors import UserError


def policy_return(task: Tasks, policy: np.ndarray) -> float:
    """Expected return from state 0 of a policy of probabilities (step, state, action), without the code under test."""
    transition, reward = task["transition"][0].astype(float), task["reward"][0].astype(float)
    occupancy, total = np.eye(len(reward))[0], 0.0
    for chosen in policy:
        joint = occupancy[:, None] * chosen
        total += float((joint * reward).sum())
        occupancy = np.tensordot(joint, transition, axes=2)
    return total


def brute_force_optimum(task: Tasks, horizon: int) -> float:
    """The highest return of all deterministic policies, which may depend on the step."""
    states, actions = task["reward"].shape[1:]
    every = itertools.product(range(actions), repeat=horizon * states)
    return max(policy_return(task, np.eye(actions)[list(choice)].reshape(horizon, states, actions)) for choice in every)


@pytest.mark.parametrize(("states", "actions", "horizon"), [(2, 2, 3), (2, 3, 2), (3, 2, 2)])
def test_optimal_returns_agree_with_an_exhaustive_search_over_policies(states, actions, horizon):
    mdp = TabularMDP(states=states, actions=actions, episode_length=horizon)
    tasks = mdp.sample(8, seed=3)
    expected = [brute_force_optimum(tasks.take([task]), horizon) for task in range(8)]
    np.testing.assert_allclose(mdp.optimal_return(tasks), expected, rtol=1e-10)


def test_the_optimal_actions_form_the_best_policy():
    mdp = TabularMDP(states=4, actions=3, episode_length=5)
    tasks = mdp.sample(20, seed=3)
    actions = mdp.optimal_actions(tasks)
    assert actions.shape == (20, 5, 4)
    earned = [policy_return(tasks.take([task]), np.eye(3)[actions[task]]) for task in range(20)]
    np.testing.assert_allclose(mdp.optimal_return(tasks), earned, rtol=1e-10)
    assert (actions[:, 0] != actions[:, -1]).any()  # actions depend on the steps left


def test_random_returns_agree_with_those_of_the_uniform_policy():
    mdp = TabularMDP(states=4, actions=3, episode_length=5)
    tasks = mdp.sample(20, seed=5)
    expected = [policy_return(tasks.take([task]), np.full((5, 4, 3), 1 / 3)) for task in range(20)]
    np.testing.assert_allclose(mdp.random_return(tasks), expected, rtol=1e-10)


def test_optimal_policies_earn_218_in_ten_episodes_and_random_actions_100():
    """Figures for the paper's prior; the published random policy earns 100.1 (Duan et al. 2016, table 2)."""
    tasks = TabularMDP().sample(10_000, seed=0)  # standard errors of .22 and .15
    assert 10 * TabularMDP().optimal_return(tasks).mean() == pytest.approx(218.3, abs=0.9)
    assert 10 * TabularMDP().random_return(tasks).mean() == pytest.approx(100, abs=0.6)


def test_optima_do_not_depend_on_the_other_tasks():
    mdp = TabularMDP()
    tasks = mdp.sample(300, seed=1)  # more than one block of tasks
    rows = [0, 130, 131, 299]
    np.testing.assert_array_equal(
        np.concatenate([mdp.optimal_actions(tasks.take([row])) for row in rows]), mdp.optimal_actions(tasks)[rows]
    )
    for figure in (mdp.optimal_return, mdp.random_return):
        np.testing.assert_allclose([figure(tasks.take([row]))[0] for row in rows], figure(tasks)[rows], rtol=1e-12)


def test_the_environments_optimal_action_depends_on_the_step_and_the_state():
    mdp = TabularMDP(states=3, actions=4, episode_length=6)
    tasks = mdp.sample(50, seed=2)
    envs, table = mdp.make_vec(tasks), mdp.optimal_actions(tasks)
    state, _ = envs.reset(seed=make_seeds(50, 1))
    rng = np.random.default_rng(0)
    for step in range(14):
        np.testing.assert_array_equal(envs.optimal_action(), table[np.arange(50), step % 6, state])
        state = envs.step(rng.integers(4, size=50))[0]


@pytest.mark.parametrize("concentration", [0.02, 0.5, 1.0, 3.0])
def test_transitions_are_dirichlet_distributed(concentration):
    """Compares means, variances and, for small concentrations above all, the largest probability of a row."""
    mdp = TabularMDP(states=5, concentration=concentration)
    transition = mdp.sample(4000, seed=1)["transition"]
    assert transition.dtype == np.float32 and transition.shape == (4000, 5, 5, 5)
    assert transition.min() >= 0
    np.testing.assert_allclose(transition.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(transition.mean(axis=(0, 1, 2)), 0.2, atol=0.006)
    np.testing.assert_allclose(transition.var(axis=(0, 1, 2)), 0.2 * 0.8 / (5 * concentration + 1), rtol=0.03)
    expected = np.random.default_rng(2).dirichlet(np.full(5, concentration), size=50_000).max(axis=1)
    quantiles = [0.1, 0.3, 0.5, 0.7, 0.9]
    largest = np.quantile(transition.max(axis=-1), quantiles)
    np.testing.assert_allclose(largest, np.quantile(expected, quantiles), atol=0.01)


def test_the_smallest_and_the_largest_concentration_give_distributions():
    for concentration, largest in ((1e-3, (0.99, 1)), (1e3, (0.1, 0.12))):
        transition = TabularMDP(concentration=concentration).sample(200, seed=1)["transition"]
        np.testing.assert_allclose(transition.sum(axis=-1), 1, atol=1e-5)
        assert largest[0] < np.median(transition.max(axis=-1)) <= largest[1]


def test_mean_rewards_follow_their_prior():
    reward = TabularMDP(reward_mean=-2, reward_std=0.5).sample(2000, seed=1)["reward"]
    assert reward.dtype == np.float32 and reward.shape == (2000, 10, 5)
    assert reward.mean() == pytest.approx(-2, abs=0.01) and reward.std() == pytest.approx(0.5, abs=0.01)


def random_steps(mdp: TabularMDP, task: Tasks, slots: int, steps: int) -> tuple[np.ndarray, ...]:
    """States, actions, rewards and next states of random actions in many slots of one task, each (steps, slots)."""
    envs, rng = mdp.make_vec(task.take(np.zeros(slots, int))), np.random.default_rng(0)
    state, _ = envs.reset(seed=make_seeds(slots, 8))
    rows = []
    for _ in range(steps):
        action = rng.integers(mdp.actions, size=slots)
        following, reward, *_, infos = envs.step(action)
        rows.append((state, action, reward, infos.get("final_obs", following)))
        state = following
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def test_transitions_and_rewards_have_the_tasks_frequencies_means_and_noise():
    mdp = TabularMDP(states=3, actions=2, noise=0.7)
    task = mdp.sample(1, seed=6)
    state, action, reward, following = random_steps(mdp, task, slots=2000, steps=40)
    for s, a in itertools.product(range(3), range(2)):
        here = (state == s) & (action == a)
        expected = task["transition"][0, s, a]
        found = np.bincount(following[here], minlength=3) / here.sum()
        np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / here.sum()))
        assert reward[here].mean() == pytest.approx(task["reward"][0, s, a], abs=4 * 0.7 / np.sqrt(here.sum()))
        assert reward[here].std() == pytest.approx(0.7, rel=0.05)


def test_episodes_start_in_state_0():
    mdp = TabularMDP(episode_length=4)
    state, *_ = random_steps(mdp, mdp.sample(1, seed=0), slots=5, steps=12)
    assert (state[::4] == 0).all()
    assert (state[1::4] != 0).any()


@pytest.mark.parametrize("uniform", [0.0, 0.4999, 0.5001, 1 - 2**-53])
def test_a_state_without_probability_is_never_reached(uniform, monkeypatch):
    """This also holds for a uniform number of 0 and for one that rounds to 1."""
    rows = np.array([[0, 0.5, 0, 0.5, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0.1, 0, 0, 0.9, 0]])
    mdp = TabularMDP(states=5, actions=5)
    transition = np.tile(rows.astype(np.float32), (5, 1, 1))[None]
    envs = mdp.make_vec(Tasks({"transition": transition, "reward": np.zeros((1, 5, 5), np.float32)}))
    envs.reset(seed=0)
    monkeypatch.setattr(envs.streams, "uniform", lambda: np.array([uniform]))
    for action, row in enumerate(rows):
        assert row[envs.step(np.array([action]))[0][0]] > 0


def test_every_slot_has_its_own_tables():
    mdp = TabularMDP(states=3, actions=2, noise=0)
    transition = np.zeros((3, 3, 2, 3), np.float32)
    transition[[0, 1, 2], :, :, [0, 1, 2]] = 1  # slot i always leads to state i
    reward = np.arange(18, dtype=np.float32).reshape(3, 3, 2)
    envs = mdp.make_vec(Tasks({"transition": transition, "reward": reward}))
    envs.reset(seed=0)
    np.testing.assert_array_equal(envs.step(np.array([0, 1, 0]))[1], reward[[0, 1, 2], [0, 0, 0], [0, 1, 0]])
    state, earned, *_ = envs.step(np.array([1, 1, 0]))
    np.testing.assert_array_equal(state, [0, 1, 2])
    np.testing.assert_array_equal(earned, reward[[0, 1, 2], [0, 1, 2], [1, 1, 0]])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"states": 1}, "greater than or equal to 2"),
        ({"actions": 1}, "greater than or equal to 2"),
        ({"reward_std": 0}, "greater than 0"),
        ({"noise": -1}, "greater than or equal to 0"),
        ({"concentration": 0}, "greater than or equal to 0.001"),
        ({"reward_mean": np.nan}, "finite"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        TabularMDP(**parameters)


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.5, -0.5], [np.nan, 1]])
def test_a_task_with_rows_that_are_not_distributions_is_refused(row):
    transition = np.tile(row, (2, 2, 1))
    with pytest.raises(UserError, match="not a probability distribution"):
        task = {"transition": transition, "reward": np.zeros((2, 2))}
        gymnasium.make("icrl/TabularMDP-v0", task=task, states=2, actions=2)


def test_a_task_of_another_size_or_without_finite_rewards_is_refused():
    with pytest.raises(UserError, match="10 states and 5 actions need"):
        TabularMDP().make_vec(TabularMDP(states=4).sample(2, seed=0))
    tasks = TabularMDP().sample(2, seed=0)
    tasks["reward"][1, 0, 0] = np.inf
    with pytest.raises(UserError, match="reward is not finite"):
        TabularMDP().make_vec(tasks)
