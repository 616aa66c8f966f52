"""Forwards `TasksComponent` to `icrl.config.sections`: model cards that were pushed earlier import it from here.

`configs` is no longer a package of this project. This file is installed as `configs/schema.py` without an `__init__.py`
beside it, so it is a part of the namespace package `configs` and never hides the user's own package.
"""

from icrl.config.sections import TasksComponent

__all__ = ["TasksComponent"]
