"""Processes that start although the user's script has no `if __name__ == "__main__":` guard.

Python's new processes import the main module again. A script without the guard would then run once more in each of
them. Nothing of this project needs that module, unless the user's own classes are defined in it.
"""

import contextlib
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from icrl.support.interruption import starting_processes
from icrl.support.terminal import say

_GUARD = re.compile(rb"""__name__\s*==\s*["']__main__|["']__main__["']\s*==\s*__name__""")
_told: list[bool] = []


def can_start(*sent: Any) -> bool:
    """False if new processes cannot take `sent`, because that is defined in a script without a guard, or in a notebook.

    The user is told once. Raises any error of pickling.
    """
    if not _from_main(sent) or _main_is_guarded():
        return True
    if not _told:
        _told.append(True)
        say(
            "note: environments of this script are stepped in one process, since other processes cannot import it: put "
            'what runs under `if __name__ == "__main__":`, or your classes in a module of their own'
        )
    return False


@contextlib.contextmanager
def started(*sent: Any) -> Iterator[None]:
    """Within the block, new processes do not import the main module, unless `sent` comes from there.

    They never see Ctrl-C, and a signal to this process takes effect only after the block.
    """
    with starting_processes():
        if _from_main(sent):
            yield
        else:
            with _main_hidden():
                yield


def end_with_parent() -> None:
    """From now on, this process ends when the process that started it has ended. Nothing else would end an orphan."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(kept)


def _from_main(sent: Any) -> bool:
    return b"__main__" in bytes(ForkingPickler.dumps(sent))


def _main_is_guarded() -> bool:
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:  # python -m
        return True
    try:
        return _GUARD.search(Path(vars(main)["__file__"]).read_bytes()) is not None
    except (KeyError, OSError):  # a notebook, or the interactive interpreter
        return False
