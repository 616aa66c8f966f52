"""Mean returns per block of steps, in the benchmark of meta-learners."""

import numpy as np

from benchmarks.meta_learning import block_returns


def test_a_lifetime_counts_once_however_many_episodes_it_has():
    reward = np.array([[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]], float)
    ended = np.array([[0, 0, 1, 0, 0, 1], [1, 1, 1, 0, 1, 1]], bool)
    # First block: returns 6, and 1, 1, 1. Second block: returns 15, and 2, 1.
    assert block_returns(reward, ended, 3) == [(6 + 1) / 2, (15 + 1.5) / 2]


def test_a_block_without_a_finished_episode_has_no_mean_return():
    reward, ended = np.ones((2, 4)), np.zeros((2, 4), bool)
    ended[0, 3] = True
    assert block_returns(reward, ended, 2) == [None, 4.0]
