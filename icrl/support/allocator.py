"""Settings of the C library's memory allocator that suit small tensor programs."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Tells glibc to keep freed pages. Does nothing on other platforms.

    Small models allocate and free the same large tensors in every update. Page faults would then cost more than the
    matrix products.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # constants of malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 2**28)
