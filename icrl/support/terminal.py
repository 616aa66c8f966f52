"""The terminal: the output, error messages and exit codes of commands."""

import contextlib
import errno
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from icrl.support.errors import ENVIRONMENT_ERRNOS, ConfigError, UserError, shown
from icrl.support.interruption import exit_code, happened, ignore_signals, signals_raise

_IN_ASCII = str.maketrans("▁▂▃▄▅▆▇█", "_.-~=+*#")

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Kinds of characters that command a terminal, reverse a text or break a line, rather than show something."""

_LONGEST_LINE = 2000
"""Most characters of a line on standard error."""


def say(text: str) -> None:
    """Prints a line for the user; in a multi-process launch, only in the first process.

    Symbols that the stream cannot encode are replaced. If nobody reads the stream any more (`icrl info RUN | head -1`,
    or a terminal that was closed), the work continues and later lines are dropped. Raises UserError if the stream is a
    file that cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        print(printable(text, getattr(sys.stdout, "encoding", None) or "utf-8"), flush=True)
    except OSError as error:
        _drop(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise UserError(f"standard output: cannot be written: {error.strerror or error}") from error


def printable(text: str, encoding: str) -> str:
    """The text in symbols that `encoding` has: bars become ASCII, and other symbols a question mark.

    Names in files from elsewhere may hold the control sequences of a terminal: these are shown as escapes, as \\x1b.
    """
    if not text.isprintable():
        hidden = {char for char in text if char not in "\n\t" and unicodedata.category(char) in _HIDDEN}
        text = text.translate({ord(char): ascii(char)[1:-1] for char in hidden})
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "replace").decode(encoding)


class _Messages:
    """Standard error, of which progress bars and messages are dropped when it cannot be written any more.

    So `icrl run demo 2>&1 | head -1` and a closed terminal end no work. Everything else is as in `stream`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _drop(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    """Within the block, standard error raises no errors, and no file takes the number of a closed standard stream.

    A library that prints to a closed stream (`2>&-`) would otherwise write into the file that has its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest free number
    before = sys.stderr
    if before is not None:
        sys.stderr = cast(TextIO, _Messages(before))
    try:
        yield
    finally:
        sys.stderr = before


def _drop(stream: TextIO) -> None:
    """Sends whatever is still written to `stream` nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code; in a multi-process launch, without shutting down the interpreter.

    PyTorch's communication threads may need the interpreter while it shuts down, or while a process group is destroyed.
    Finished runs sometimes hung forever. By now, all files and trackers are closed.
    """
    ignore_signals()  # a second Ctrl-C would interrupt the shutdown, with tracebacks and another exit code
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def reported(
    run: Callable[[], object], remedy: str = "run the same command again, without --overwrite, to continue"
) -> int:
    """Calls `run`, turns errors that the user can fix into lines on stderr, and returns the exit code.

    `remedy` says what to do after an interruption.
    """
    try:
        sys.path.append(str(Path.cwd()))  # for the user's own components, named as module:Class
    except OSError as error:
        print(f"error: the current folder cannot be read ({error.strerror}): change to another one", file=sys.stderr)
        return 1
    with _lasting_streams(), signals_raise() as raised:
        try:
            return _exit_code(run, raised)
        except KeyboardInterrupt as error:
            return _interrupted(error, remedy)
        except Exception as error:
            if raised:  # a library has answered the interruption with an error of its own
                return _interrupted(raised[0], remedy)
            if variable := _misread_variable(error):
                print(f"error: {variable}", file=sys.stderr)
                return 1
            raise


def _misread_variable(error: Exception) -> str:
    """A line about a variable of the environment that a library cannot read while it is imported; "" for other errors.

    Some libraries raise an error for a variable such as MPLBACKEND or HF_HUB_DOWNLOAD_TIMEOUT, without its name.
    """
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, ValueError) or "<module>" not in names:
        return ""
    text = " ".join(str(error).split())
    words = {name: rf"(?i)(?<!\w){re.escape(value)}(?!\w)" for name, value in os.environ.items() if len(value) > 1}
    read = ", ".join(name for name, word in words.items() if re.search(word, text))
    return f"{read}: cannot be read by a library ({shown(text, quoted=False)}); correct or unset it" if read else ""


def _exit_code(run: Callable[[], object], raised: list[KeyboardInterrupt]) -> int:
    """Calls `run`; the exit code of its success, or of a problem that the user can do something about."""
    try:
        run()
    except (UserError, MemoryError, OSError) as error:
        line, code = _problem(error)
        if raised or not code:
            raise
        lines = printable(line, getattr(sys.stderr, "encoding", None) or "utf-8").splitlines()
        for part in lines if isinstance(error, ConfigError) else [" ".join(lines)]:
            half = _LONGEST_LINE // 2
            short = part if len(part) <= _LONGEST_LINE else f"{part[:half]} ... {part[-half:]}"
            print(f"error: {short}", file=sys.stderr)
        return code
    return 0


def _interrupted(error: KeyboardInterrupt, remedy: str) -> int:
    """Tells the user about an interruption; returns the exit code."""
    saved = f" ({error})" if str(error) else ""
    print(f"{happened(error)}{saved}; {remedy}", file=sys.stderr)
    return exit_code(error)


def _problem(error: Exception) -> tuple[str, int]:
    """The lines that tell the user about an error, and the exit code; code 0 if the error is a bug of this project."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return f"out of memory: {error}; use smaller values, or more data.shards", 1
    if isinstance(error, OSError) and (error.errno in ENVIRONMENT_ERRNOS or error.filename):
        where = f"{shown(os.fsdecode(error.filename), quoted=False)}: " if error.filename else ""
        return f"{where}{error.strerror}", 1
    return "", 0
