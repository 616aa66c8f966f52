"""Returns of the episodes in learning histories, from their rewards and episode ends."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def episode_returns(reward: NDArray[Any], ended: NDArray[np.bool_], num_episodes: int) -> NDArray[np.float64]:
    """Returns of the first `num_episodes` episodes, shape (histories, num_episodes); NaN where a history has fewer.

    Args:
        reward: (histories, steps).
        ended: (histories, steps) True if step t was the last of its episode. Steps after the last end do not count.
    """
    histories = len(reward)
    episode: NDArray[np.int64] = np.cumsum(ended, axis=1) - ended  # the episode that each step belongs to
    complete = ended.sum(axis=1)
    kept = episode < np.minimum(complete, num_episodes)[:, None]
    cell = episode + np.arange(histories)[:, None] * num_episodes
    total = np.bincount(cell[kept], weights=reward[kept], minlength=histories * num_episodes)
    returns: NDArray[np.float64] = total.reshape(histories, num_episodes).astype(np.float64)
    returns[np.arange(num_episodes) >= complete[:, None]] = np.nan
    return returns


def final_returns(reward: NDArray[Any], ended: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    """Mean return of the episodes that end in the last `share` of the steps, (histories,); NaN if no episode does.

    This mean shows the end of a lifetime even if episodes end early, where a fixed number of first episodes does not.

    Args:
        reward, ended: (histories, steps).
        share: fraction of the steps, above 0 and at most 1.
    """
    # Sums of rewards up to every step: the difference between two of them is what the episodes in between earned.
    steps = reward.shape[1]
    first = steps - max(1, round(share * steps))
    earned = np.concatenate([np.zeros((len(reward), 1)), np.cumsum(reward, axis=1, dtype=np.float64)], axis=1)
    end = np.where(ended, np.arange(1, steps + 1), 0)
    last, before = end.max(axis=1), end[:, :first].max(axis=1, initial=0)
    rows, count = np.arange(len(reward)), ended[:, first:].sum(axis=1)
    total = earned[rows, last] - earned[rows, before]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
