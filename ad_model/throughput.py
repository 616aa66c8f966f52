"""Training speed against the machine: tokens per second, and the part of its matrix-multiply peak that they need."""

import time

import torch

_PEAK_SECONDS = 0.2


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measured floating-point operations per second of a large matrix product on `device`."""
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
    """Operations per token of a forward and a backward pass:

    6 per parameter, and causal attention over half the context.
    """
    return 6 * num_parameters + 6 * num_layers * hidden_size * context_length


def synchronize(device: torch.device) -> None:
    """Waits for the device's queue, so that a clock that is read next is right."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
