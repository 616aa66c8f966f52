"""Training speed relative to the machine: the measured peak of matrix products, and the operations per token."""

import time

import torch

_PEAK_SECONDS = 0.2  # time that the measurement takes


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product on `device`: the fastest of several."""
    size = 1024 if device.type == "cpu" else 8192
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    out = left @ right
    products, best, finish = 0, 0.0, time.perf_counter() + _PEAK_SECONDS
    while time.perf_counter() < finish or products < 3:
        synchronize(device)
        started = time.perf_counter()
        torch.matmul(left, right, out=out)
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
        products += 1
    return best


def flops_per_token(num_parameters: int, num_layers: int, hidden_size: int, context_length: int) -> float:
    """Floating-point operations per token of a forward and a backward pass.

    6 per parameter, plus those of causal attention, which covers half the context on average.
    """
    return 6 * num_parameters + 6 * num_layers * hidden_size * context_length


def synchronize(device: torch.device) -> None:
    """Waits until the device has emptied its queue, so that a clock read next is right."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
