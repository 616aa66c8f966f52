"""Agents: independence of the slots, Q-learning against a scalar loop, oracles, random numbers."""

from contextlib import closing

import gymnasium
import numpy as np
import pytest

from data_gen.agents import TableIndex
from data_gen.agents.epsilon_annealed import EpsilonAnnealed
from data_gen.agents.optimal import Optimal
from data_gen.agents.random import Random
from data_gen.agents.tabular.q_learning import QLearning
from data_gen.interaction import interact, spec_of
from data_gen.meta.base import MetaLearner, TrainingTasks
from data_gen.returns import episode_returns
from data_gen.streams import SlotStreams, derive, make_seeds
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.point_navigation import PointNavigation
from data_gen.tasks.tabular.bandit import Bandit
from data_gen.tasks.tabular.tabular_mdp import TabularMDP
from icrl.config.components import AGENTS, find_component
from icrl.support.errors import UserError

ROOM = DarkRoom(size=4, episode_length=6, start="random")


MDP = TabularMDP(states=4, actions=3, episode_length=5)
BANDITS = {"bandit_epsilon_greedy", "gittins", "optimistic_thompson", "thompson", "ucb1"}
MODEL_BASED = {"beb", "mdp_epsilon_greedy", "opsrl", "psrl", "ucrl2"}
CONTINUOUS = {"sac"}
SMALL = {  # parameters with which a learner starts to learn within few steps
    "a2c": {"actors": 2},
    "actor_critic": {"actors": 2},
    "dqn": {"learning_starts": 20, "batch_size": 8, "target_every": 20},
    "maml": {"actors": 2, "trajectories": 2, "test_trajectories": 2, "meta_batch": 4, "hidden_sizes": (8, 8)},
    "pearl": {"hidden_sizes": (8, 8), "encoder_sizes": (8,), "updates": 2, "meta_batch": 4, "batch_size": 8},
    "ppo": {"actors": 2, "rollout_steps": 16, "batch_size": 8, "epochs": 2},
    "rl2": {"units": 8, "trials": 8, "minibatches": 2},
    "sac": {"learning_starts": 20, "batch_size": 8, "hidden_sizes": (8, 8)},
}


def ready(name, **parameters):
    """The agent, and if it is a meta-learner, after one iteration of meta-training."""
    agent = find_component(name, AGENTS)(**SMALL.get(name, {}) | parameters)
    if isinstance(agent, MetaLearner):
        tasks = family_for(name).split(8, 1, seed=0)[0]
        with closing(family_for(name).make_vec(tasks)) as envs:
            agent.start(TrainingTasks(family_for(name), tasks, spec_of(envs, 10), seed=0))
        agent.improve(0)
    return agent


def family_for(name):
    """A task family on which the agent `name` can act."""
    if name in BANDITS:
        return Bandit(arms=5)
    if name in MODEL_BASED:
        return MDP
    return PointNavigation(episode_length=10) if name in CONTINUOUS else ROOM


def collect(name, rows, steps, seed=0, **parameters):
    """Histories of learners on the tasks at `rows`, one history per actor; and the number of actors."""
    distribution, agent = family_for(name), ready(name, **parameters)
    tasks, seeds = distribution.split(8, 1, seed=0)[0], make_seeds(8, seed)
    envs = distribution.make_vec(tasks.take(np.repeat(rows, agent.actors)))
    return interact(agent, envs, steps, seeds[rows]), agent.actors


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_records_the_same_history_alone_and_among_many(name):
    together, actors = collect(name, np.arange(8), 120)
    for rows in ([5], [5, 2], [5, 0, 7]):
        few, _ = collect(name, np.array(rows), 120)
        for column, values in together.columns().items():
            np.testing.assert_array_equal(
                values[5 * actors : 6 * actors], few.columns()[column][:actors], err_msg=f"{column} of {rows}"
            )


@pytest.mark.parametrize("name", AGENTS)
def test_a_single_value_is_not_swept(name):
    assert find_component(name, AGENTS)(**SMALL.get(name, {})).swept() == []


@pytest.mark.parametrize("name", AGENTS)
def test_a_reset_forgets_everything(name):
    distribution, agent = family_for(name), ready(name)
    tasks, seeds = distribution.split(8, 1, seed=0)[0], make_seeds(8, 0)
    tasks = tasks.take(np.repeat(np.arange(8), agent.actors))
    first = interact(agent, distribution.make_vec(tasks), 90, seeds)
    again = interact(agent, distribution.make_vec(tasks), 90, seeds)
    np.testing.assert_array_equal(first.action, again.action)


@pytest.mark.parametrize("reward", ["every_step", "once"])
def test_q_learning_agrees_with_a_scalar_loop(reward):
    """Replays each learner's recorded steps with the textbook update; most of its actions must be greedy."""
    room = DarkRoom(size=3, episode_length=5, reward=reward)
    tasks, seeds = room.all_tasks(), make_seeds(9, 1)
    agent = QLearning(step_size=0.3, discount=0.8, epsilon_start=0.5)
    steps = 100
    h = interact(agent, room.make_vec(tasks), steps, seeds)
    for learner in range(9):
        start = QLearning(step_size=0.3, discount=0.8, epsilon_start=0.5)
        interact(start, room.make_vec(tasks.take([learner])), 0, seeds[learner : learner + 1], planned_steps=steps)
        q = start.q.astype(np.float64)
        cell = h.observation[learner].astype(int) @ [3, 1]
        greedy = 0
        for t in range(steps):
            action, r = h.action[learner, t], h.reward[learner, t]
            greedy += int(np.argmax(q[cell[t]]) == action)
            there = room.next_cells()[cell[t], action]
            future = 0.0 if h.terminated[learner, t] else q[there].max()
            q[cell[t], action] += 0.3 * (r + 0.8 * future - q[cell[t], action])
        np.testing.assert_allclose(agent.q.reshape(9, 9, 5)[learner], q, atol=1e-5)
        # Epsilon falls from .5 to 0 over 60% of the lifetime, and one in five random actions is greedy.
        assert greedy > 0.6 * steps


def test_q_learning_solves_dark_room():
    room = DarkRoom()
    tasks = room.all_tasks()
    h = interact(QLearning(), room.make_vec(tasks), 3200, make_seeds(81, 0))
    scores = room.normalise(episode_returns(h.reward, h.ended, 160), tasks)
    assert scores[:, :5].mean() < 0.15
    assert scores[:, -10:].mean() > 0.93


def test_the_optimal_agent_scores_one_and_the_random_agent_zero():
    room = DarkRoom()
    tasks = room.all_tasks()
    scores = {}
    for agent in (Optimal(), Random()):
        h = interact(agent, room.make_vec(tasks), 400, make_seeds(81, 0))
        scores[type(agent).__name__] = room.normalise(episode_returns(h.reward, h.ended, 20), tasks)
    np.testing.assert_allclose(scores["Optimal"], 1)
    assert scores["Random"].mean() == pytest.approx(0, abs=0.02)


def test_histories_of_falling_noise_improve_from_random_to_optimal():
    room = DarkRoom()
    tasks = room.all_tasks()
    h = interact(EpsilonAnnealed(), room.make_vec(tasks), 2000, make_seeds(81, 0))
    scores = room.normalise(episode_returns(h.reward, h.ended, 100), tasks).mean(axis=0)
    assert scores[:5].mean() < 0.2
    assert scores[-5:].mean() > 0.9
    assert np.corrcoef(np.arange(100), scores)[0, 1] > 0.9


def test_an_oracle_without_an_optimal_policy_is_refused():
    class Unknown(type(ROOM.make_vec(ROOM.all_tasks()))):
        optimal_action = None

    with pytest.raises(UserError, match="does not know its optimal policy"):
        interact(Optimal(), Unknown(ROOM, ROOM.all_tasks()), 3, make_seeds(16, 0))


def test_a_table_index_numbers_every_element_once():
    index = TableIndex(DarkRoom(size=5).observation_space, "test")
    assert sorted(index(DarkRoom(size=5).cells())) == list(range(25)) == list(range(index.size))


def test_slot_streams_are_uniform_and_independent():
    streams = SlotStreams(make_seeds(200, 0))
    draws = streams.uniform(1000)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.histogram(draws, bins=10, range=(0, 1))[0].std() < 0.01 * draws.size / 10 * 3
    assert abs(np.corrcoef(draws[:50])[np.triu_indices(50, 1)]).max() < 0.15
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.01


def test_draws_of_other_slots_do_not_change_a_slots_stream():
    seeds = make_seeds(3, 1)
    together, alone = SlotStreams(seeds), SlotStreams(seeds[1:2])
    together.uniform_at(np.array([0, 2]), 5)
    np.testing.assert_array_equal(together.uniform(4)[1], alone.uniform(4)[0])
    np.testing.assert_array_equal(together.uniform_at(np.array([1])), alone.uniform())


def test_seeds_do_not_depend_on_their_number_and_differ_between_purposes():
    np.testing.assert_array_equal(make_seeds(5, 0, 1), make_seeds(9, 0, 1)[:5])
    assert len(np.unique(np.concatenate([derive(make_seeds(9, 0), purpose) for purpose in range(3)]))) == 27


def test_a_table_numbers_states_of_a_small_integer_type_without_overflow():
    index = TableIndex(gymnasium.spaces.MultiDiscrete([200, 200], dtype=np.uint8), "q_learning")
    states = np.array([[3, 4], [199, 199]], np.uint8)
    assert index(states).tolist() == [604, 39999]
    np.testing.assert_array_equal(index.elements(index(states)), states)


def test_a_space_too_large_for_a_table_is_refused():
    with pytest.raises(UserError, match="too many"):
        TableIndex(gymnasium.spaces.MultiDiscrete([256] * 8), "q_learning")
