"""Advantages in a rollout, across the ends of its episodes."""

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
    """Generalised advantage estimates (Schulman et al. 2016, equation 16); n-step returns minus values if lambda is 1.

    A time limit is not termination: a truncated episode is bootstrapped from the value of its last observation (Pardo
    et al. 2018). Only termination makes the future worth nothing. No advantage flows from one episode into the one
    before.

    Args:
        rewards: (N, T, ...) r_t.
        values: (N, T, ...) V(s_t).
        next_values: (N, T, ...) V of the observation after the action; at an episode's end, of that episode's last
            observation, not of the next episode's first.
        terminated: (N, T, ...) bool.
        ended: (N, T, ...) bool, terminated or truncated.
        discount: broadcasts to (N, ...).
        gae_lambda: broadcasts to (N, ...).

    Returns:
        (N, T, ...) advantages; adding `values` gives the lambda-returns.
    """
    deltas = rewards + discount.unsqueeze(1) * next_values * ~terminated - values
    carried = (discount * gae_lambda).unsqueeze(1) * ~ended
    advantages = torch.empty_like(deltas)
    # Backwards: each estimate adds the decayed estimate of the step after it.
    following = torch.zeros_like(deltas[:, 0])
    for step in reversed(range(deltas.shape[1])):
        following = deltas[:, step] + carried[:, step] * following
        advantages[:, step] = following
    return advantages
