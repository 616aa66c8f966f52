"""The terminal: what a command prints, how it reports errors, and how it ends."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from icrl.support.errors import ENVIRONMENT_ERRNOS, UserError


def say(text: str) -> None:
    """Prints for the person at the keyboard; under a multi-process launch, from the first process alone."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code; in a multi-process launch, without taking its interpreter apart.

    PyTorch's communication threads may want the interpreter while it is dismantled, or while a process group is
    destroyed; now and then a finished run then never ended. Files and trackers are closed by now.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def reported(run: Callable[[], object]) -> int:
    """Calls `run`, and turns what the user can mend into lines on stderr and an exit code."""
    sys.path.append(str(Path.cwd()))  # for components of the user's own, named as module:Class
    try:
        run()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command again, without --overwrite, to continue", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"error: out of memory: {error}; more data.shards make each of them smaller", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in ENVIRONMENT_ERRNOS and not error.filename:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        return 1
    return 0
