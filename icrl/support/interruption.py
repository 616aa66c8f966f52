"""Interruption by Ctrl-C (SIGINT), by SIGTERM, which schedulers send before they kill, and by SIGHUP, which comes when
the terminal is closed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

_PATIENCE = 4.0  # seconds to reach a point where a checkpoint can be written


_TERMINATING = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come. The program cleans up as after Ctrl-C."""

    number: int = signal.SIGTERM


@contextlib.contextmanager
def interruption_raises() -> Iterator[list[KeyboardInterrupt]]:
    """Within the block, SIGINT raises KeyboardInterrupt in the main thread, and SIGTERM and SIGHUP raise `Terminated`.

    Yields the list of what has been raised, since libraries may answer it with an error of their own: a module that is
    being imported says "initialization failed".
    """
    raised: list[KeyboardInterrupt] = []

    def interrupt(number: int, frame: Any) -> None:
        raised.append(_interruption(number))
        raise raised[-1]

    handled = dict.fromkeys(_TERMINATING, interrupt)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # background jobs of a shell ignore it
        handled[signal.SIGINT] = interrupt
    with _handled(handled):
        yield raised


def ignore_interruption() -> None:
    """From now on, nothing interrupts this process: it only ends, and a second Ctrl-C would print a traceback."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *_TERMINATING):
            signal.signal(number, signal.SIG_IGN)


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
    """Within the block, the first of these signals only makes the yielded `Stop` true, so that a loop can save.

    The signal is raised after all if the block has not ended after 4 seconds, or when a second one comes.
    """
    stop = Stop()

    def ask(number: int, frame: Any) -> None:
        if stop:
            raise stop.error  # type: ignore[misc]
        stop.error = _interruption(number)
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)

    def lose_patience(number: int, frame: Any) -> None:
        if stop:
            raise stop.error  # type: ignore[misc]

    with _handled({**dict.fromkeys((signal.SIGINT, *_TERMINATING), ask), signal.SIGALRM: lose_patience}):
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
    """Installs signal handlers for a block; only the main thread may.

    A SIGHUP that is ignored stays so: `nohup icrl run CONFIG` outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _interruption(number: int) -> KeyboardInterrupt:
    """The error for a signal."""
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    error = Terminated()
    error.number = number
    return error
