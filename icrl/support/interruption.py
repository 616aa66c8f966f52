"""Interruption by Ctrl-C (SIGINT) and by SIGTERM, which schedulers send before they kill."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

_PATIENCE = 4.0  # seconds to reach a point where a checkpoint can be written


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. The program cleans up as after Ctrl-C."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within the block, SIGTERM raises `Terminated` in the main thread."""
    with _handled({signal.SIGTERM: _terminate}):
        yield


class Stop:
    """Tells a loop whether it has been asked to stop."""

    def __init__(self) -> None:
        self.error: KeyboardInterrupt | None = None

    def __bool__(self) -> bool:
        return self.error is not None

    def leave(self, saved: object) -> NoReturn:
        """Ends the loop; `saved` names what has been saved, for the user."""
        assert self.error is not None
        self.error.args = (f"saved {saved}",)
        raise self.error


@contextlib.contextmanager
def stop_requested() -> Iterator[Stop]:
    """Within the block, the first SIGINT or SIGTERM only makes the yielded `Stop` true, so that a loop can save.

    The signal is raised after all if the block has not ended after 4 seconds, or when a second one comes.
    """
    stop = Stop()

    def ask(number: int, frame: Any) -> None:
        if stop:
            raise stop.error  # type: ignore[misc]
        stop.error = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)

    def lose_patience(number: int, frame: Any) -> None:
        if stop:
            raise stop.error  # type: ignore[misc]

    with _handled({signal.SIGINT: ask, signal.SIGTERM: ask, signal.SIGALRM: lose_patience}):
        try:
            yield stop
        finally:
            if stop:
                signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def children_ignore_sigint() -> Iterator[None]:
    """Processes that are started within the block never see Ctrl-C, which a terminal sends to all; their parent does.

    Children inherit the blocked signal, even before they have run a line of Python.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _handled(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Installs signal handlers for a block; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _terminate(number: int, frame: Any) -> None:
    raise Terminated
