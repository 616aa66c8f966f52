"""The C library's memory allocator, told what suits small tensor programs."""

import ctypes
import sys


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
