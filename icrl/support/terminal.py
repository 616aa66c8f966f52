"""The terminal: the output, error messages and exit codes of commands."""

import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from icrl.support.errors import ENVIRONMENT_ERRNOS, ConfigError, UserError, shown
from icrl.support.interruption import exit_code, happened, ignore_signals, signals_raise

_IN_ASCII = str.maketrans("▁▂▃▄▅▆▇█", "_.-~=+*#")

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Kinds of characters that command a terminal, reverse a text or break a line, rather than show something."""

_LONGEST_LINE = 2000
"""Most characters of a line on standard error."""


def say(text: str) -> None:
    """Prints a line for the user; in a multi-process launch, only in the first process.

    Symbols that the stream cannot encode are replaced. If nobody reads the stream any more (`icrl info RUN | head -1`),
    the work continues and later lines are dropped.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        print(printable(text, getattr(sys.stdout, "encoding", None) or "utf-8"), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    sys.path.append(str(Path.cwd()))  # for the user's own components, named as module:Class
    with signals_raise():
        try:
            return _without_tracebacks(run)
        except KeyboardInterrupt as error:
            saved = f" ({error})" if str(error) else ""
            print(f"{happened(error)}{saved}; {remedy}", file=sys.stderr)
            return exit_code(error)


def _without_tracebacks(run: Callable[[], object]) -> int:
    try:
        run()
    except UserError as error:
        lines = printable(str(error), getattr(sys.stderr, "encoding", None) or "utf-8").splitlines()
        for line in lines if isinstance(error, ConfigError) else [" ".join(lines)]:
            half = _LONGEST_LINE // 2
            short = line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"
            print(f"error: {short}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"error: out of memory: {error}; use smaller values, or more data.shards", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in ENVIRONMENT_ERRNOS and not error.filename:
            raise
        where = f"{shown(error.filename, quoted=not str(error.filename).isprintable())}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        return 1
    return 0
