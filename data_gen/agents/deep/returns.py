"""Returns and advantages of a rollout, across the ends of its episodes."""

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    discount: Tensor,
    gae_lambda: Tensor,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16); with lambda 1, n-step returns less values.

    A time limit is not an end of the world: an episode that it cuts off is bootstrapped from the value of its last
    observation (Pardo et al. 2018), and only termination makes the future worth nothing. No advantage flows from one
    episode into the one before it.

    Args:
        rewards: (N, T, ...) r_t.
        values: (N, T, ...) V(s_t).
        next_values: (N, T, ...) V of what the action led to, which at an episode's end is that episode's last
            observation and not the first of the next.
        terminated: (N, T, ...) bool.
        ended: (N, T, ...) bool, terminated or truncated.
        discount: broadcast to (N, ...).
        gae_lambda: likewise.

    Returns:
        (N, T, ...) advantages; adding `values` gives the lambda-returns.
    """
    deltas = rewards + discount.unsqueeze(1) * next_values * ~terminated - values
    carried = (discount * gae_lambda).unsqueeze(1) * ~ended
    advantages = torch.empty_like(deltas)
    following = torch.zeros_like(deltas[:, 0])
    for step in reversed(range(deltas.shape[1])):
        following = deltas[:, step] + carried[:, step] * following
        advantages[:, step] = following
    return advantages
