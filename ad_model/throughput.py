"""Training speed against the machine: tokens a second, and the share of its matrix-multiply peak that they need."""

import ctypes
import sys
import time

import torch

_PEAK_SECONDS = 0.2


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measured floating-point operations a second of a large matrix product on `device`."""
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
    """Operations of a forward and backward pass a token: 6 a parameter, and causal attention over half the context."""
    return 6 * num_parameters + 6 * num_layers * hidden_size * context_length


def synchronize(device: torch.device) -> None:
    """Waits for the device's queue, so that a clock read next is right."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def keep_freed_memory() -> None:
    """Tells glibc to keep freed pages. Small models allocate and free the same large tensors in every update, and
    page faults then cost more than the products. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # constants of malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 2**28)
