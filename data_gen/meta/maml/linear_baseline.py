"""A linear feature baseline: expected returns, estimated by ridge regression on one batch alone.

Policy gradients on many tasks need a value estimate for every task after every inner step. A network would need
training for each of them. A regression on a few features of time and observation is one small solve for all tasks at
once (Duan et al. 2016, "Benchmarking Deep Reinforcement Learning for Continuous Control"; Finn et al. 2017, appendix
A.2).
"""

import torch
from torch import Tensor

RIDGE = 1e-5
"""Ridge term on the diagonal of the normal equations, as in the authors' code (rllab)."""

_OBSERVATION_LIMIT = 10.0  # observations are clipped to +-10, as in rllab
_TIME_SCALE = 100.0  # steps per unit of time, as in rllab


def baseline_features(features: Tensor, time: Tensor, is_number: Tensor) -> Tensor:
    """[s, s^2, t, t^2, t^3, 1] with t in hundreds of steps.

    Args:
        features: (N, B, F) observations in the form that a network reads.
        time: (N, B) steps since the start of the episode.
        is_number: (F,) True for features outside one-hot vectors. Only these are squared: a one-hot vector equals its
            square.

    Returns:
        (N, B, K) in double precision, which the normal equations need for the powers of time.
    """
    seen = features.double().clamp(-_OBSERVATION_LIMIT, _OBSERVATION_LIMIT)
    t = (time.double() / _TIME_SCALE).unsqueeze(-1)
    return torch.cat([seen, seen[..., is_number].square(), t, t.square(), t**3, torch.ones_like(t)], dim=-1)


def fit(inputs: Tensor, targets: Tensor, used: Tensor) -> Tensor:
    """Coefficients w that minimise |used (inputs w - targets)|^2 + RIDGE |w|^2, for each task separately.

    Args:
        inputs: (N, B, K) from `baseline_features`.
        targets: (N, B) discounted returns.
        used: (N, B) bool, True for the rows that count.

    Returns:
        (N, K); zeros for a task whose inputs are not finite.
    """
    rows = inputs * used.unsqueeze(-1)
    ridge = RIDGE * torch.eye(inputs.shape[2], dtype=inputs.dtype, device=inputs.device)
    normal = torch.bmm(rows.transpose(1, 2), rows) + ridge
    right = torch.bmm(rows.transpose(1, 2), targets.to(inputs.dtype).unsqueeze(-1))
    factor, failed = torch.linalg.cholesky_ex(normal)  # does not wait for the device, nor raise if one task fails
    coefficients = torch.cholesky_solve(right, factor).squeeze(-1)
    return torch.where(failed.unsqueeze(1) == 0, coefficients, torch.zeros_like(coefficients))


def predict(inputs: Tensor, coefficients: Tensor) -> Tensor:
    """(N, B, K) features -> (N, B) expected returns, in double precision."""
    return (inputs * coefficients.unsqueeze(1)).sum(dim=-1)
