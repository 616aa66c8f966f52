"""Tabular algorithms: posteriors, plans and updates by hand and against plain loops; solutions of small problems."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from scipy.optimize import linprog

from data_gen.agents.base import Spec, Transition
from data_gen.agents.posterior_sampling import dirichlet
from data_gen.agents.tabular.actor_critic import ActorCritic, generalised_advantages
from data_gen.agents.tabular.beb import BEB
from data_gen.agents.tabular.epsilon_greedy import EpsilonGreedy
from data_gen.agents.tabular.model import value_iteration
from data_gen.agents.tabular.psrl import OPSRL, PSRL
from data_gen.agents.tabular.sarsa import Sarsa
from data_gen.agents.tabular.ucrl2 import UCRL2, optimistic_value
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.tabular.tabular_mdp import TabularMDP
from icrl.config.components import AGENTS, find_component
from icrl.support.errors import UserError

MODEL_BASED = ("beb", "mdp_epsilon_greedy", "opsrl", "psrl", "ucrl2")
DISCRETE = gymnasium.spaces.Discrete


def fresh(agent, num_envs=1, states=3, actions=2, horizon=4):
    """`agent` before its first step, with `num_envs` equal learners."""
    agent.reset(
        Spec(DISCRETE(states), DISCRETE(actions), 100, episode_length=horizon), num_envs, make_seeds(num_envs, 0)
    )
    return agent


def show(agent, state, action, reward, following, terminated=False, truncated=False):
    """Shows every learner of `agent` the same step."""
    every = len(agent.visits)
    columns = ((state, int), (action, int), (reward, float), (terminated, bool), (truncated, bool), (following, int))
    agent.observe(Transition(*(np.full(every, value, dtype=kind) for value, kind in columns)))


def planned(agent):
    """The action values of the first episode's plan, (learner, horizon, state, action)."""
    agent.act(np.zeros(len(agent.visits), dtype=int))
    return agent.q


def random_mdp(rng, learners=3, states=4, actions=2):
    """Mean rewards, and transition probabilities; their last column is the end of the episode."""
    weights = rng.exponential(size=(learners, states, actions, states + 1)) * (rng.random(states + 1) < 0.8)
    return rng.normal(size=(learners, states, actions)), weights / weights.sum(axis=-1, keepdims=True)


def test_posteriors_agree_with_a_computation_by_hand():
    agent = fresh(PSRL(prior_mean=1.0, prior_std=2.0, noise=0.5, concentration=0.3))
    for reward, following in ((2.0, 1), (3.0, 1), (2.5, 2)):
        show(agent, 0, 1, reward, following)
    show(agent, 2, 0, -1.0, 0, terminated=True)
    mean, std = agent.reward_posterior(np.array([0]))
    # The prior has precision 1/4 and each reward precision 4: (1/4 + 4 (2 + 3 + 2.5)) / (1/4 + 12).
    assert mean[0, 0, 1] == pytest.approx(30.25 / 12.25)
    assert std[0, 0, 1] == pytest.approx(12.25**-0.5)
    assert mean[0, 2, 0] == pytest.approx((0.25 - 4) / 4.25)
    assert (mean[0, 1], std[0, 1]) == (pytest.approx([1, 1]), pytest.approx([2, 2]))
    parameters = agent.dirichlet(np.array([0]))[0]
    np.testing.assert_allclose(parameters[0, 1], [0.3, 2.3, 1.3, 0])
    np.testing.assert_allclose(parameters[2, 0], [0.3, 0.3, 0.3, 1])
    np.testing.assert_allclose(parameters[1, 1], [0.3, 0.3, 0.3, 0])


def test_psrl_draws_rewards_and_transitions_from_their_posteriors():
    agent = fresh(PSRL(prior_mean=1.0), num_envs=10_000, horizon=1)
    for _ in range(3):
        show(agent, 0, 1, 2.0, 1, truncated=True)
    drawn = planned(agent)[:, 0, 0, 1]  # with one step to go, an action is worth its mean reward
    assert drawn.mean() == pytest.approx(1.75, abs=0.015)  # (1 + 3 * 2) / 4
    assert drawn.std() == pytest.approx(0.5, abs=0.01)
    parameters = np.tile([4.0, 1.0, 0.5, 0.0], (10_000, 1))
    rows = dirichlet(SlotStreams(make_seeds(10_000, 1)), parameters)
    shares = parameters[0] / 5.5
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    np.testing.assert_allclose(rows.mean(axis=0), shares, atol=0.006)
    np.testing.assert_allclose(rows.var(axis=0), shares * (1 - shares) / 6.5, atol=0.002)
    assert (rows[:, 3] == 0).all()


def test_value_iteration_agrees_with_a_plain_loop():
    reward, transition = random_mdp(np.random.default_rng(0))
    q = value_iteration(reward, transition, 5)
    for learner in range(3):
        value = np.zeros(5)
        for step in (4, 3, 2, 1, 0):
            expected = np.zeros((4, 2))
            for state in range(4):
                for action in range(2):
                    expected[state, action] = reward[learner, state, action]
                    for following in range(4):  # the end, the fifth column, has the value 0
                        expected[state, action] += transition[learner, state, action, following] * value[following]
            np.testing.assert_allclose(q[learner, step], expected)
            value[:4] = expected.max(axis=1)


def test_opsrl_takes_the_highest_of_several_samples():
    """With one step left and no experience, values are means of the best of 1, 2, 5 normal numbers: 0, .564, 1.163."""
    for samples, expected in ((1, 0.0), (2, 0.564), (5, 1.163)):
        q = planned(fresh(OPSRL(samples=samples), num_envs=10_000, horizon=1))
        assert q[:, 0].mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.7, 1.3, 3.0])
def test_ucrl2_plans_with_the_best_transitions_within_its_confidence_set(distance):
    """Compared with a linear program over p and u >= |p - centre|, where the sum of u is at most the distance."""
    rng = np.random.default_rng(1)
    _, transition = random_mdp(rng, learners=4)
    value = np.concatenate([rng.normal(size=(4, 4)), np.zeros((4, 1))], axis=1)
    value[2, :4] = -np.abs(value[2, :4])  # the end, with the value 0, would be the best
    value[3, :4] = 0.5  # equal values
    found = optimistic_value(transition, np.full((4, 4, 2), distance), value)
    one = np.eye(5)
    bounds = [(0, 1)] * 10
    for learner, state, action in np.ndindex(found.shape):
        centre = transition[learner, state, action]
        best = linprog(
            -np.concatenate([value[learner], np.zeros(5)]),
            A_ub=np.block([[one, -one], [-one, -one], [np.zeros(5), np.ones(5)], [one[4:], np.zeros((1, 5))]]),
            b_ub=np.concatenate([centre, -centre, [distance], [centre[4]]]),  # the end gains no probability
            A_eq=np.concatenate([np.ones(5), np.zeros(5)])[None],
            b_eq=[1],
            bounds=bounds,
        )
        assert found[learner, state, action] == pytest.approx(-best.fun, abs=1e-8)


def test_ucrl2_adds_its_slack_to_the_rewards():
    agent = fresh(UCRL2(scaling=0.2, delta=0.1, prior_std=1e6), horizon=1)
    show(agent, 0, 1, 2.0, 1, truncated=True)
    show(agent, 0, 1, 3.0, 1, truncated=True)
    q = planned(agent)[0, 0]
    logarithm = np.log(2 * 3 * 2 * (3 + 1) / 0.1)  # the third episode
    assert q[0, 1] == pytest.approx(2.5 + 0.2 * np.sqrt(4 * logarithm / 2))
    assert q[1, 0] == pytest.approx(0.2 * np.sqrt(4 * logarithm))


def test_ucrl2_widens_its_transitions_by_the_number_of_states():
    """The plan's last two steps by hand, after a visit to state 2."""
    agent = fresh(UCRL2(scaling=0.05, prior_std=1e6, concentration=1e-9), horizon=2)
    show(agent, 0, 0, 0.0, 1)
    show(agent, 2, 0, 4.0, 2, truncated=True)
    q = planned(agent)[0]
    slack = 0.05 * np.sqrt(4 * np.log(2 * 3 * 2 * 3 / 0.05))
    values = np.array([slack, slack, 4 + slack])  # with one step left
    moved = slack * np.sqrt(3) / 2
    assert q[0, 0, 0] == pytest.approx(slack + values[1] + moved * (values[2] - values[1]))


def test_bebs_bonus_agrees_with_a_computation_by_hand():
    agent = fresh(BEB(beta=7.0, concentration=0.5), horizon=1)
    for _ in range(2):
        show(agent, 0, 1, 3.0, 1, truncated=True)
    q = planned(agent)[0, 0]
    assert q[0, 1] == pytest.approx(6 / 3 + 7 / (1 + 2 + 1.5))
    assert q[1, 0] == pytest.approx(7 / (1 + 1.5))


def test_equal_actions_are_drawn_uniformly_and_better_ones_always_taken():
    agent = fresh(EpsilonGreedy(epsilon=0.0), num_envs=30_000)
    values = np.tile([1.0, 0.0, 1.0, 1.0], (30_000, 1))
    chosen = agent.choose(values)
    np.testing.assert_allclose(np.bincount(chosen, minlength=4) / 30_000, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.01)
    assert (agent.choose(values + np.array([0, 1.5, 0, 0])) == 1).all()


def test_each_epsilon_greedy_learner_explores_with_its_own_epsilon():
    agent = fresh(EpsilonGreedy(epsilon=(0.0, 0.5)), num_envs=30_000)
    other = agent.choose(np.tile([1.0, 0.0], (30_000, 1))) == 1
    assert not other[agent.epsilons == 0].any()
    assert other[agent.epsilons == 0.5].mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", MODEL_BASED)
def test_a_learner_plans_only_at_the_start_of_its_own_episodes(name):
    agent_class = find_component(name, AGENTS)

    class Recorded(agent_class):
        def plan(self, learners, streams):
            self.planned[self.clock, learners] = True
            return super().plan(learners, streams)

        def act(self, observation):
            self.clock = self.clock + 1
            return super().act(observation)

    room = DarkRoom(size=3, start="random", reward="once", episode_length=6)
    tasks, agent = room.all_tasks(), Recorded()
    agent.clock, agent.planned = -1, np.zeros((60, len(tasks)), dtype=bool)
    h = interact(agent, room.make_vec(tasks), 60, make_seeds(len(tasks), 0))
    begins = np.concatenate([np.ones((len(tasks), 1), dtype=bool), h.ended[:, :-1]], axis=1)
    np.testing.assert_array_equal(agent.planned.T, begins)
    assert len(np.unique(begins, axis=0)) > 1  # the learners' episodes start at different times


def test_actions_follow_the_plan_by_the_step_and_the_state():
    mdp = TabularMDP(states=4, actions=3, episode_length=5)
    tasks = mdp.sample(6, seed=0)
    agent = EpsilonGreedy(epsilon=0.0, prior_mean=2.0)
    h = interact(agent, mdp.make_vec(tasks), 205, make_seeds(6, 0))
    for learner in range(6):
        for step in range(5):  # the last episode's plan is still stored
            best = agent.q[learner, step, h.observation[learner, 200 + step]]
            assert best[h.action[learner, 200 + step]] == best.max()
    assert (agent.q[:, 0] != agent.q[:, 4]).any()


@pytest.mark.parametrize("name", MODEL_BASED)
def test_model_based_learners_come_close_to_the_optimum(name):
    parameters = {
        "mdp_epsilon_greedy": {"prior_mean": 3.0, "epsilon": 0.0},
        "beb": {"beta": 20.0},
        "ucrl2": {"scaling": 0.3},
    }.get(name, {})
    mdp = TabularMDP(states=4, actions=3, episode_length=5)
    tasks = mdp.sample(60, seed=4)
    h = interact(find_component(name, AGENTS)(**parameters), mdp.make_vec(tasks), 5 * 120, make_seeds(60, 0))
    earned = episode_returns(h.reward, h.ended, 120).mean(axis=0)
    random, optimal = mdp.random_return(tasks).mean(), mdp.optimal_return(tasks).mean()
    assert earned[0] < random + 0.4 * (optimal - random)
    assert earned[-40:].mean() > random + 0.9 * (optimal - random)


@pytest.mark.parametrize("reward", ["every_step", "once"])
def test_a_model_learns_where_episodes_end(reward):
    """A goal that ends the episode is worth 1 in total; a goal that does not is worth 1 per step."""
    room = DarkRoom(size=3, episode_length=6, reward=reward)
    tasks = room.all_tasks()
    agent = PSRL(prior_mean=0.2, prior_std=0.5, noise=0.1, concentration=0.1)
    h = interact(agent, room.make_vec(tasks), 600, make_seeds(len(tasks), 0))
    late = h.reward[:, -120:].sum(axis=1) / h.ended[:, -120:].sum(axis=1)
    expected = agent.q[:, 0, 4].max(axis=1)  # the value of the start, the middle cell
    assert (late / room.optimal_return(tasks)).mean() > 0.9
    # The plan is of a sampled model. Without the end of episodes the value would be 6.
    np.testing.assert_allclose(expected, room.optimal_return(tasks), rtol=0.5)


def test_psrl_earns_what_rl2s_authors_report():
    """Table 2, 10 episodes, prior mean 0: 138.1. The standard error is .9 there and 1.2 here."""
    mdp = TabularMDP()
    tasks = mdp.sample(500, seed=9)
    earned = interact(PSRL(), mdp.make_vec(tasks), 100, make_seeds(500, 9)).reward.sum(axis=1).mean()
    assert earned == pytest.approx(138.1, abs=3 * 1.5)


def test_sarsa_agrees_with_a_scalar_loop():
    class Recorded(Sarsa):
        def observe(self, transition):
            super().observe(transition)
            self.chosen.append(self.following.copy())

    room = DarkRoom(size=3, episode_length=5, reward="once")
    tasks = room.all_tasks()
    parameters = {"step_size": 0.3, "discount": 0.8, "epsilon_start": 0.5}
    agent = Recorded(**parameters)
    agent.chosen = []
    h = interact(agent, room.make_vec(tasks), 100, make_seeds(len(tasks), 1))
    first = Sarsa(**parameters)
    interact(first, room.make_vec(tasks), 0, make_seeds(len(tasks), 1), planned_steps=100)
    tables = first.q.reshape(len(tasks), 9, 5).astype(float)
    following = np.stack(agent.chosen, axis=1)
    for learner in range(len(tasks)):
        q = tables[learner]
        cell = h.observation[learner].astype(int) @ [3, 1]
        for t in range(100):
            action, there = h.action[learner, t], room.next_cells()[cell[t], h.action[learner, t]]
            future = 0.0 if h.terminated[learner, t] else q[there, following[learner, t]]
            q[cell[t], action] += 0.3 * (h.reward[learner, t] + 0.8 * future - q[cell[t], action])
            if t < 99 and not h.ended[learner, t]:
                assert h.action[learner, t + 1] == following[learner, t]  # the action of the update
        np.testing.assert_allclose(agent.q.reshape(len(tasks), 9, 5)[learner], q, atol=1e-5)


def test_advantages_agree_with_their_definition():
    """Sums over the remaining steps of the episode, computed in plain loops."""
    rng = np.random.default_rng(2)
    delta, ended, decay = rng.normal(size=(9, 3)), rng.random((9, 3)) < 0.3, np.array([0.0, 0.5, 0.9])
    found = generalised_advantages(delta, ended, decay)
    for actor in range(3):
        for step in range(9):
            total, later = 0.0, step
            while True:
                total += decay[actor] ** (later - step) * delta[later, actor]
                if later == 8 or ended[later, actor]:
                    break
                later += 1
            assert found[step, actor] == pytest.approx(total)


@pytest.mark.parametrize("reward", ["every_step", "once"])
def test_the_actor_critic_agrees_with_a_scalar_loop(reward):
    room = DarkRoom(size=3, episode_length=4, start="random", reward=reward)
    tasks, actors, length = room.all_tasks().take([0, 2, 5]), 2, 6
    agent = ActorCritic(
        actors=actors, rollout_steps=length, actor_step=0.7, critic_step=0.4, discount=0.8, gae_lambda=0.6,
        entropy_bonus=0.1, initial_value=0.5,
    )  # fmt: skip
    h = interact(agent, room.make_vec(tasks.take(np.repeat(np.arange(3), actors))), 10 * length, make_seeds(3, 0))
    for learner in range(3):
        values, preferences = np.full(9, 0.5), np.zeros((9, 5))
        for start in range(0, 10 * length, length):
            visits, errors, gradients = np.zeros(9), np.zeros(9), np.zeros((9, 5))
            policy = np.exp(preferences) / np.exp(preferences).sum(axis=1, keepdims=True)
            for row in range(learner * actors, (learner + 1) * actors):
                advantage = 0.0
                for t in reversed(range(start, start + length)):
                    cell, action = int(h.observation[row, t].astype(int) @ [3, 1]), h.action[row, t]
                    there = room.next_cells()[cell, action]
                    future = 0.0 if h.terminated[row, t] else values[there]  # a time limit is bootstrapped
                    delta = h.reward[row, t] + 0.8 * future - values[cell]
                    advantage = delta + (0 if h.ended[row, t] else 0.8 * 0.6 * advantage)
                    visits[cell] += 1
                    errors[cell] += advantage
                    gradients[cell] += advantage * (np.eye(5)[action] - policy[cell])
            for cell in np.flatnonzero(visits):
                values[cell] += 0.4 * errors[cell] / visits[cell]
                jacobian = np.diag(policy[cell]) - np.outer(policy[cell], policy[cell])
                entropy_gradient = jacobian @ (-np.log(policy[cell]) - 1)
                preferences[cell] += 0.7 * (gradients[cell] / visits[cell] + 0.1 * entropy_gradient)
        np.testing.assert_allclose(agent.values.reshape(3, 9)[learner], values, rtol=1e-9)
        policy = np.exp(preferences) / np.exp(preferences).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(agent.policy.reshape(3, 9, 5)[learner], policy, rtol=1e-9)


def test_sarsa_solves_dark_room():
    room = DarkRoom()
    tasks = room.all_tasks()
    h = interact(Sarsa(), room.make_vec(tasks), 4000, make_seeds(len(tasks), 0))
    scores = room.normalise(episode_returns(h.reward, h.ended, 200), tasks)
    assert scores[:, :5].mean() < 0.15
    assert scores[:, -10:].mean() > 0.9


def test_the_actor_critic_solves_dark_room():
    room = DarkRoom()
    tasks = room.all_tasks()
    slots = tasks.take(np.repeat(np.arange(len(tasks)), 4))
    h = interact(ActorCritic(), room.make_vec(slots), 2000, make_seeds(len(tasks), 0))
    scores = room.normalise(episode_returns(h.reward, h.ended, 100), slots)
    assert scores[:, :5].mean() < 0.2
    assert scores[:, -10:].mean() > 0.95


@pytest.mark.parametrize("name", MODEL_BASED)
def test_planning_without_a_known_episode_length_is_refused(name):
    spec = Spec(DISCRETE(3), DISCRETE(2), 100)
    with pytest.raises(UserError, match="known episode_length"):
        find_component(name, AGENTS)().reset(spec, 1, make_seeds(1, 0))


def test_a_model_of_too_many_states_and_a_table_over_a_box_are_refused():
    spec = Spec(DISCRETE(10_000), DISCRETE(2), 100, episode_length=5)
    with pytest.raises(UserError, match="10,000 states and 2 actions are too many"):
        PSRL().reset(spec, 1, make_seeds(1, 0))
    box = dataclasses.replace(spec, observation_space=gymnasium.spaces.Box(0, 1, (2,)))
    for name in (*MODEL_BASED, "sarsa", "actor_critic"):
        with pytest.raises(UserError, match="needs a Discrete or flat MultiDiscrete space"):
            find_component(name, AGENTS)().reset(box, 4, make_seeds(4, 0))
