"""A baseline is not judged by a schedule that was made for a longer lifetime than the one it has."""

import numpy as np
import pandas as pd
import pytest

from ad_model.train import train
from data_gen.agents.bandits.ucb1 import UCB1
from data_gen.agents.deep.dqn import DQN
from data_gen.agents.deep.ppo import PPO
from data_gen.agents.epsilon_annealed import EpsilonAnnealed
from data_gen.agents.random import Random
from data_gen.agents.tabular.q_learning import QLearning
from data_gen.agents.tabular.sarsa import Sarsa
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.streams import make_seeds
from eval.evaluate import evaluate
from eval.summary import load_summary
from eval.summary_text import describe
from icrl.run.purpose import Purpose


def evaluated(config):
    generate(config)
    train(config)
    evaluate(config)
    experiment = Experiment(config)
    return experiment, pd.read_parquet(experiment.folder.returns), load_summary(experiment.folder)


def test_a_learner_with_a_schedule_is_shown_as_in_the_data_and_planned_for_this_lifetime(tiny):
    baselines = [{"name": "random"}, {"name": "q_learning", "label": "constant", "epsilon_end": 0.3}]
    experiment, table, summary = evaluated(tiny(evaluation={"baselines": baselines, "train_tasks": 0}))
    assert list(summary.agents) == ["transformer", "q_learning", "q_learning (over 3)", "random", "constant"]
    assert summary.training_steps["q_learning (over 3)"] == 0
    assert "over 3: schedules planned for these 3 episodes" in describe(summary)
    tasks = experiment.test_tasks.take(slice(3))
    for name, episodes in (("q_learning", 24), ("q_learning (over 3)", 3)):
        envs = experiment.family.make_vec(tasks.take(np.repeat(np.arange(3), 2)))
        seeds = make_seeds(6, 0, Purpose.EVALUATION)
        lived = interact(QLearning(), envs, experiment.lived_steps, seeds, planned_steps=episodes * 6)
        rows = table[table["agent"] == name].sort_values(["task", "seed", "episode"])
        expected = episode_returns(lived.reward, lived.ended, 3).ravel()
        np.testing.assert_array_equal(rows["return"], expected)


@pytest.mark.parametrize("label", ["q_learning (over 3)", "transformer", "q_learning"])
def test_a_label_that_is_already_a_name_hides_no_agent(tiny, label):
    baselines = [{"name": "random", "label": label}, {"name": "q_learning", "label": f"{label}_2"}]
    _, _, summary = evaluated(tiny(evaluation={"baselines": baselines, "train_tasks": 0}))
    names = list(summary.agents)
    assert names[:3] == ["transformer", "q_learning", "q_learning (over 3)"]
    assert len(names) == 6  # the two baselines, and the second also with its schedule planned for 3 episodes


def test_a_lifetime_as_long_as_the_datas_has_one_line_per_learner(tiny):
    _, _, summary = evaluated(tiny(data={"episodes": 12}, evaluation={"episodes": 12, "train_tasks": 0}))
    assert list(summary.agents) == ["transformer", "q_learning", "random", "optimal"]


@pytest.mark.parametrize(
    ("agent", "follows"),
    [(QLearning(), True), (Sarsa(), True), (DQN(), True), (EpsilonAnnealed(), True),
     (PPO(final_learning_rate=0.0), True), (QLearning(epsilon_end=0.3), False),
     (PPO(), False), (UCB1(), False), (Random(), False)],
)  # fmt: skip
def test_an_agent_says_whether_it_follows_a_schedule_over_its_planned_lifetime(agent, follows):
    assert agent.follows_plan is follows
