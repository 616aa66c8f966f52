"""Bandit algorithms: indices against published values and plain loops, posteriors, conventions, refusals."""

import math

import gymnasium
import numpy as np
import pytest
from scipy import stats

from data_gen.agents.bandits.epsilon_greedy import EpsilonGreedy
from data_gen.agents.bandits.gittins import Gittins, gittins_indices
from data_gen.agents.bandits.thompson import OptimisticThompson, Thompson
from data_gen.agents.bandits.ucb1 import UCB1
from data_gen.agents.base import Spec, Transition
from data_gen.agents.posterior_sampling import beta, dirichlet, gamma
from data_gen.interaction import interact
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.tabular.bandit import Bandit
from icrl.support.errors import UserError

ONE_STATE = gymnasium.spaces.Discrete(1)


def started(agent, arms=3, learners=4, steps=50):
    agent.reset(Spec(ONE_STATE, gymnasium.spaces.Discrete(arms), steps), learners, make_seeds(learners, 0))
    return agent


def pulled(agent, arms, rewards):
    """Shows every learner the same arms and rewards."""
    learners = len(agent.row)
    nothing, over = np.zeros(learners, np.int64), np.ones(learners, bool)
    for arm, reward in zip(arms, rewards, strict=True):
        action, earned = np.full(learners, arm), np.full(learners, reward, np.float32)
        agent.observe(Transition(nothing, action, earned, over, ~over, nothing))
    return agent


def mean_reward(agent, bandit, pulls, tasks=500):
    drawn = bandit.sample(tasks, seed=3)
    return interact(agent, bandit.make_vec(drawn), pulls, make_seeds(tasks, 4)).reward.sum(axis=1).mean()


# The index of Beta(a, b) to four decimals: Gittins, Glazebrook and Weber 2011, "Multi-armed Bandit Allocation Indices".
@pytest.mark.parametrize(
    ("discount", "a", "b", "published"),
    [
        (0.9, 1, 1, 0.7029),
        (0.9, 2, 1, 0.8001),
        (0.9, 1, 2, 0.5001),
        (0.9, 2, 2, 0.6346),
        (0.9, 3, 3, 0.6010),
        (0.9, 10, 2, 0.8695),
        (0.99, 1, 1, 0.8699),
        (0.99, 2, 1, 0.9102),
    ],
)
def test_gittins_indices_equal_the_published_ones(discount, a, b, published):
    assert gittins_indices(1.0, 1.0, discount, 12)[a - 1, b - 1] == pytest.approx(published, abs=2e-4)


def test_a_gittins_index_is_the_best_ratio_of_discounted_reward_to_discounted_time():
    """Bisects the wage with a plain recursion over (a, b): another way to the same number, also for other priors."""
    discount, depth = 0.8, 60

    def gain(a, b, wage):
        value = {s: max(wage, (a + s) / (a + b + depth)) for s in range(depth + 1)}
        for pulled in reversed(range(depth)):
            mean = {s: (a + s) / (a + b + pulled) for s in range(pulled + 1)}
            go = {s: (1 - discount) * m + discount * (m * value[s + 1] + (1 - m) * value[s]) for s, m in mean.items()}
            value = {s: max(wage, v) for s, v in go.items()}
        return go[0] - wage

    for prior in ((1.0, 1.0), (0.5, 0.5), (3.0, 1.5)):
        table = gittins_indices(*prior, discount, 4)
        for s, f in ((0, 0), (2, 1), (0, 3)):
            low, high = 0.0, 1.0
            for _ in range(25):
                wage = (low + high) / 2
                low, high = (wage, high) if gain(prior[0] + s, prior[1] + f, wage) > 0 else (low, wage)
            assert table[s, f] == pytest.approx(low, abs=3e-4)


def test_a_gittins_table_holds_every_reachable_state_and_no_other():
    for discount in (0.5, 0.95):
        table = gittins_indices(1.0, 1.0, discount, 30)
        successes, failures = np.indices(table.shape)
        reachable = successes + failures < 30
        assert np.isfinite(table[reachable]).all()
        assert np.isnan(table[~reachable]).all()
        assert (table > (successes + 1) / (successes + failures + 2))[reachable].all()  # exploration has a value
        assert (np.diff(table, axis=0)[reachable[1:]] > 0).all()


def test_a_gittins_learner_scores_arms_by_their_rewards():
    agent = pulled(started(Gittins(discount=0.9), steps=3), [0, 0, 1, 2, 0], [1, 0, 0, 1, 1])  # longer than planned
    table = gittins_indices(1.0, 1.0, 0.9, 6)
    np.testing.assert_allclose(agent.scores(), [[table[2, 1], table[0, 1], table[1, 0]]] * 4, atol=1e-12)


def test_ucb1_scores_equal_scores_computed_by_hand():
    agent = pulled(started(UCB1(exploration=0.7)), [0, 0, 1], [1, 1, 0])
    width = [0.7 * math.sqrt(2 * math.log(4) / pulls) for pulls in (4, 3, 2)]
    np.testing.assert_allclose(agent.scores()[0], [3 / 4 + width[0], 1 / 3 + width[1], 1 / 2 + width[2]])
    assert (agent.act(None) == 0).all()


def test_ucb1_without_a_prior_pulls_every_arm_first():
    h = interact(
        UCB1(prior_pulls=0, exploration=0), Bandit(arms=6).make_vec(Bandit(arms=6).sample(20, 0)), 6, make_seeds(20, 0)
    )
    assert (np.sort(h.action, axis=1) == np.arange(6)).all()


def test_ties_are_broken_uniformly_or_for_the_first_arm():
    drawn = started(EpsilonGreedy(epsilon=0), arms=4, learners=4000).act(None)
    assert np.bincount(drawn).min() > 900
    agent = pulled(started(EpsilonGreedy(epsilon=0, ties="first"), arms=4), [0], [0])
    assert (agent.act(None) == 1).all()


def test_epsilon_is_the_share_of_random_pulls_and_may_differ_between_learners():
    agent = pulled(started(EpsilonGreedy(epsilon=0.4), arms=2, learners=4000), [1], [1])
    assert (agent.act(None) == 0).mean() == pytest.approx(0.2, abs=0.02)
    agent = pulled(started(EpsilonGreedy(epsilon=[0, 1]), arms=2, learners=4000), [1], [1])
    random = agent.threshold == 1
    assert (agent.act(None)[~random] == 1).all()
    assert (agent.act(None)[random] == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_thompson_draws_from_the_posterior():
    rewards = [1, 1, 0, 0]
    agent = pulled(started(Thompson(), arms=2, learners=50), [0, 0, 0, 1], rewards)
    drawn = agent.samples(200)
    assert stats.kstest(drawn[..., 0].ravel(), stats.beta(3, 2).cdf).pvalue > 0.01
    assert stats.kstest(drawn[..., 1].ravel(), stats.beta(1, 2).cdf).pvalue > 0.01
    normal = Thompson(posterior="normal", noise=2.0, prior_mean=0, prior_pulls=4)  # a prior of deviation 1
    drawn = pulled(started(normal, arms=2, learners=50), [0, 0], [3.0, 5.0]).samples(200)
    precision = 1 + 2 / 4
    mean = (3 + 5) / 4 / precision
    assert stats.kstest(drawn[..., 0].ravel(), stats.norm(mean, precision**-0.5).cdf).pvalue > 0.01
    assert stats.kstest(drawn[..., 1].ravel(), stats.norm(0, 1).cdf).pvalue > 0.01


def test_thompson_pulls_an_arm_with_its_probability_of_being_the_best():
    agent = pulled(started(Thompson(), arms=2, learners=20000), [0, 1, 1], [1, 0, 1])
    # P(X > Y) for X ~ Beta(2, 1), Y ~ Beta(2, 2): the integral of 2x (3x^2 - 2x^3) = 6/4 - 4/5.
    assert (agent.act(None) == 0).mean() == pytest.approx(0.7, abs=0.012)


@pytest.mark.parametrize("posterior", ["beta", "normal"])
def test_optimistic_thompson_uses_the_draw_of_highest_density(posterior):
    agent, twin = (
        pulled(started(OptimisticThompson(posterior=posterior, samples_per_step=7)), [0, 0, 1], [1, 1, 0]) for _ in "12"
    )
    drawn = twin.samples(7)
    if posterior == "beta":
        density = stats.beta([3, 1, 1], [1, 2, 1]).pdf(drawn).prod(axis=2)
    else:
        density = stats.norm([3 / 4, 1 / 3, 1 / 2], np.array([4, 3, 2]) ** -0.5).pdf(drawn).prod(axis=2)
    np.testing.assert_array_equal(agent.scores(), drawn[np.arange(4), density.argmax(axis=1)])


@pytest.mark.parametrize("shape", [0.05, 0.7, 1.0, 2.5, 400.0])
def test_gamma_variables_have_their_distribution(shape):
    drawn = gamma(SlotStreams(make_seeds(20, 1)), np.full((20, 30, 40), shape))
    assert stats.kstest(drawn.ravel(), stats.gamma(shape).cdf).pvalue > 0.01
    assert abs(np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1]) < 0.15


def test_a_learners_gamma_variables_do_not_depend_on_the_others():
    seeds, shape = make_seeds(300, 2), np.random.default_rng(0).uniform(0.1, 4, (300, 31, 7))
    streams, alone = SlotStreams(seeds), SlotStreams(seeds[[7]])
    together = gamma(streams, shape)
    assert len(together.ravel()) > 2**15  # more than one block
    np.testing.assert_array_equal(together[[7]], gamma(alone, shape[[7]]))
    np.testing.assert_array_equal(gamma(streams, shape)[[7]], gamma(alone, shape[[7]]))  # the streams continue equally
    assert not np.isin(together, gamma(streams, shape)).any()


def test_beta_and_dirichlet_variables_have_their_moments():
    streams, concentration = SlotStreams(make_seeds(100, 3)), np.array([0.5, 2.0, 3.5])
    drawn = dirichlet(streams, np.broadcast_to(concentration, (100, 300, 3)))
    np.testing.assert_allclose(drawn.sum(axis=2), 1)
    wanted = stats.dirichlet(concentration)
    np.testing.assert_allclose(drawn.mean(axis=(0, 1)), wanted.mean(), atol=0.005)
    np.testing.assert_allclose(drawn.var(axis=(0, 1)), wanted.var(), atol=0.002)
    a, b = np.full((100, 300), 2.0), np.full((100, 300), 5.0)
    assert stats.kstest(beta(streams, a, b).ravel(), stats.beta(2, 5).cdf).pvalue > 0.01


def test_every_algorithm_beats_greedy_and_greedy_beats_chance():
    bandit = Bandit(arms=5)
    greedy = mean_reward(EpsilonGreedy(epsilon=0, ties="first"), bandit, 100)
    assert greedy > 70  # 50 by chance
    for agent in (UCB1(), OptimisticThompson(), Gittins(discount=0.95)):
        assert mean_reward(agent, bandit, 100) > greedy + 1.5


def test_gaussian_bandits_are_learned():
    bandit = Bandit(arms=5, reward="gaussian", prior="normal")
    learners = [UCB1(exploration=1.0), EpsilonGreedy(), Thompson(posterior="normal", prior_mean=0, prior_pulls=1)]
    for agent in learners:
        assert mean_reward(agent, bandit, 100) > 80  # 100 pulls of the best arm earn 116, random pulls 0


def test_actions_may_start_above_zero():
    agent = UCB1()
    agent.reset(Spec(ONE_STATE, gymnasium.spaces.Discrete(3, start=5), 10), 2, make_seeds(2, 0))
    pulled(agent, [6], [1])
    assert (agent.act(None) == 6).all()


@pytest.mark.parametrize("agent", [UCB1(), EpsilonGreedy(), Thompson(), OptimisticThompson(), Gittins()])
def test_spaces_of_other_problems_are_refused(agent):
    seeds, arms = make_seeds(2, 0), gymnasium.spaces.Discrete(3)
    for seen in (gymnasium.spaces.Discrete(2), gymnasium.spaces.MultiDiscrete([1])):
        with pytest.raises(UserError, match="is for bandits"):
            agent.reset(Spec(seen, arms, 10), 2, seeds)
    with pytest.raises(UserError, match="one action per arm"):
        agent.reset(Spec(ONE_STATE, gymnasium.spaces.MultiDiscrete([2, 2]), 10), 2, seeds)


def test_rewards_and_priors_that_do_not_fit_a_beta_posterior_are_refused():
    for agent in (Thompson(), OptimisticThompson(), Gittins()):
        with pytest.raises(UserError, match=r"rewards of 0 and 1, but got 0\.5"):
            pulled(started(agent), [0], [0.5])
    for agent in (Thompson, Gittins):
        with pytest.raises(ValueError, match="do not make a Beta prior"):
            agent(prior_mean=0)
        with pytest.raises(ValueError, match="do not make a Beta prior"):
            agent(prior_pulls=0)
    with pytest.raises(ValueError, match="posterior normal"):
        Thompson(noise=1.0)
    with pytest.raises(UserError, match="at most 2,000"):
        started(Gittins(), steps=10**5)
