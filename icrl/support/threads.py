"""Threads of libraries that fail, and whose errors are reported elsewhere."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet_threads(known: Callable[[threading.ExceptHookArgs], bool]) -> Iterator[None]:
    """Within the block, errors that end a thread print no traceback if `known` is true of them."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not known(args):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
