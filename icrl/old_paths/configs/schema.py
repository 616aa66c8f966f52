"""A forwarder: model cards that were pushed import `TasksComponent` from here. It lives in `icrl.config.sections`.

`configs` is no longer a package of this project. This file is installed as `configs/schema.py` without an `__init__.py`
beside it, so that it is a part of the namespace `configs` and never hides a package of the user's own.
"""

from icrl.config.sections import TasksComponent

__all__ = ["TasksComponent"]
