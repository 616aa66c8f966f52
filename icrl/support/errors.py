"""Errors for people: one line that says where the problem is, what is wrong, and what to do.

Commands print the message of a `UserError` without a traceback and exit with its code. Any other exception is a bug of
this project and keeps its traceback.
"""

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """A problem that the user can fix: with a file, a folder, a checkpoint, a full disk. The command exits with 1."""

    exit_code = 1


class ConfigError(UserError):
    """One or more problems in a config, one per line. The command exits with 2."""

    exit_code = 2


def did_you_mean(name: object, valid: Iterable[object]) -> str:
    """`"; did you mean 'size'?"` if a valid name is close, else the list of valid names ("" without any)."""
    names = [str(item) for item in valid]
    near = difflib.get_close_matches(str(name)[:_MOST_SHOWN], names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; choose from {', '.join(names)}" if names else ""


_MOST_SHOWN = 120
"""Most characters of a value in an error message."""


def shown(value: object, quoted: bool = True) -> str:
    """A value for an error message: its `repr`, or text as it is, on one line, cut in its middle if it is long."""
    if isinstance(value, int) and abs(value) >= 10**_MOST_SHOWN:  # Python refuses to print integers of 4,300 digits
        return f"an integer of more than {_MOST_SHOWN} digits"
    text = repr(value) if quoted else str(value)
    text = text if text.isprintable() else " ".join(text.split())
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]} ... {text[-_MOST_SHOWN // 2 :]}"


ENVIRONMENT_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO),
}
"""Error numbers that the disk or its permissions cause, not the program."""
