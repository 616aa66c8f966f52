"""Interruption by Ctrl-C (SIGINT), by SIGTERM, which schedulers send before they kill, and by SIGHUP, which comes when
the terminal is closed."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

_PATIENCE, _PATIENCE_OF_A_LAUNCH = 4.0, 20.0
"""Seconds to reach a point where a checkpoint can be written. Launchers kill their processes after 30."""

_TERMINATING = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_STOPPING = (signal.SIGINT, *_TERMINATING)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come. The program cleans up as after Ctrl-C."""

    number: int = signal.SIGTERM


def happened(error: KeyboardInterrupt) -> str:
    """The word for an interruption."""
    return "terminated" if isinstance(error, Terminated) else "interrupted"


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code after an interruption: 128 and the number of the signal."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


class _Interrupter:
    """A signal handler. The first signal raises, the second is ignored, and the third ends the process at once.

    Launchers, schedulers and terminals send a signal twice, to a process and to its group. The second one would
    interrupt the clean-up after the first, and end in tracebacks and processes that are left over.
    """

    def __init__(self) -> None:
        self.came = 0
        self.raised: list[KeyboardInterrupt] = []

    def __call__(self, number: int, frame: Any, error: KeyboardInterrupt | None = None) -> None:
        self.came += 1
        error = error or _interruption(number)
        if self.came == 1:
            self.raised.append(error)
            raise error
        if self.came > 2:  # printing is not safe here: the clean-up may be printing, too
            with contextlib.suppress(OSError):
                os.write(2, f"{happened(error)} again: ended before the clean-up was done\n".encode())
            os._exit(exit_code(error))


@contextlib.contextmanager
def signals_raise() -> Iterator[list[KeyboardInterrupt]]:
    """Within the block, SIGINT raises KeyboardInterrupt in the main thread, and SIGTERM and SIGHUP raise `Terminated`.

    Each does so once. Yields the list of what has been raised, since libraries may answer it with an error of their
    own: a module that is being imported says "initialization failed". A SIGINT that is ignored, as in background jobs
    of a shell, or that a notebook handles, stays so.
    """
    interrupter = _Interrupter()
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with _handled({number: interrupter for number in _STOPPING if own or number != signal.SIGINT}):
        yield interrupter.raised


def ignore_signals() -> None:
    """From now on, these signals are ignored, because the process is about to end with its exit code."""
    if threading.current_thread() is threading.main_thread():
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)


class Stop:
    """Tells a loop whether it has been asked to stop."""

    def __init__(self) -> None:
        self.error: KeyboardInterrupt | None = None

    def __bool__(self) -> bool:
        return self.error is not None

    def leave(self, saved: object) -> NoReturn:
        """Ends the loop; `saved` names what has been saved, for the user."""
        error = self.error or Terminated()  # another process of the launch was asked to stop
        error.args = (f"saved {saved}",)
        raise error


@contextlib.contextmanager
def stop_requested(launched: bool = False) -> Iterator[Stop]:
    """Within the block, the first of these signals only makes the yielded `Stop` true, so that a loop can save.

    The signal is raised at the end of the block, if the loop has not done so, after a few seconds, or when a second
    comes. In a process that was `launched` beside others, the second is the launcher's, and the third raises.
    """
    stop, interrupter, came = Stop(), _Interrupter(), 0

    def ask(number: int, frame: Any) -> None:
        nonlocal came
        came += 1
        if came == 1:
            stop.error = _interruption(number)
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE_OF_A_LAUNCH if launched else _PATIENCE)
        elif came > 1 + launched:
            interrupter(number, frame, stop.error)

    def lose_patience(number: int, frame: Any) -> None:
        if stop:
            interrupter(number, frame, stop.error)

    with _handled({**dict.fromkeys(_STOPPING, ask), signal.SIGALRM: lose_patience}):
        try:
            yield stop
        finally:
            if stop:
                signal.setitimer(signal.ITIMER_REAL, 0)
    if stop.error is not None:  # it came too late for the loop, whose work is done; what follows must not begin
        raise stop.error


@contextlib.contextmanager
def starting_processes() -> Iterator[None]:
    """Processes that are started within the block never see Ctrl-C, which a terminal sends to all; their parent does.

    Children inherit the blocked signal, even before they have run a line of Python. A signal that comes to the parent
    takes effect at the end of the block: half of a message to a new process would be a traceback there.
    """
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)

    # Other threads do not block the signal, so Python's handler may run although this thread does.
    try:
        with _handled(dict.fromkeys(_STOPPING, note)), _sigint_blocked():
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
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
