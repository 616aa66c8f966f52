"""A linear feature baseline: what return is to be expected from here, by ridge regression on this batch alone.

Policy gradients on many tasks need a value estimate of every task after every inner step. A network would have to be
trained for each; a regression on a few features of time and observation is one small solve for all tasks at once (Duan
et al. 2016, "Benchmarking Deep Reinforcement Learning for Continuous Control"; Finn et al. 2017, appendix A.2).
"""

import torch
from torch import Tensor

RIDGE = 1e-5
"""Added to the diagonal of the normal equations, as in the authors' code (rllab)."""

_OBSERVATION_LIMIT = 10.0  # observations are clipped to it, likewise
_TIME_SCALE = 100.0  # likewise


def baseline_features(features: Tensor, time: Tensor, is_number: Tensor) -> Tensor:
    """[s, s^2, t, t^2, t^3, 1] with t in hundreds of steps; the square of a one-hot vector says nothing new.

    Args:
        features: (N, B, F) observations as a network reads them.
        time: (N, B) steps since the episode's start.
        is_number: (F,) the features that are no part of a one-hot vector, which alone are squared.

    Returns:
        (N, B, K) in double precision, which the normal equations of powers of time need.
    """
    seen = features.double().clamp(-_OBSERVATION_LIMIT, _OBSERVATION_LIMIT)
    t = (time.double() / _TIME_SCALE).unsqueeze(-1)
    return torch.cat([seen, seen[..., is_number].square(), t, t.square(), t**3, torch.ones_like(t)], dim=-1)


def fit(inputs: Tensor, targets: Tensor, used: Tensor) -> Tensor:
    """Coefficients w that minimise |used (inputs w - targets)|^2 + RIDGE |w|^2, each task's its own.

    Args:
        inputs: (N, B, K) of `baseline_features`.
        targets: (N, B) discounted returns.
        used: (N, B) bool, the rows that count.

    Returns:
        (N, K); zeros for a task whose inputs are not finite.
    """
    rows = inputs * used.unsqueeze(-1)
    ridge = RIDGE * torch.eye(inputs.shape[2], dtype=inputs.dtype, device=inputs.device)
    normal = torch.bmm(rows.transpose(1, 2), rows) + ridge
    right = torch.bmm(rows.transpose(1, 2), targets.to(inputs.dtype).unsqueeze(-1))
    factor, failed = torch.linalg.cholesky_ex(normal)  # which waits for no device, and raises nothing for one of all
    found = torch.cholesky_solve(right, factor).squeeze(-1)
    return torch.where(failed.unsqueeze(1) == 0, found, torch.zeros_like(found))


def predict(inputs: Tensor, coefficients: Tensor) -> Tensor:
    """(N, B) expected returns of (N, B, K) features, in double precision."""
    return (inputs * coefficients.unsqueeze(1)).sum(dim=-1)
