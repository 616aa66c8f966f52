"""The console command `icrl`, also as `python -m icrl`.

Imports take a second or more, so they happen where Ctrl-C is already answered in one line.
"""

import sys
from typing import NoReturn

from icrl.support.interruption import ignore_signals
from icrl.support.terminal import reported


def main() -> NoReturn:
    """Runs one command and ends the process with its exit code."""
    try:
        sys.exit(reported(_command))
    finally:
        ignore_signals()


def _command() -> None:
    from icrl.cli import main as command

    sys.exit(command())


if __name__ == "__main__":
    main()
