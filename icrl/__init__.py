"""The public API of in-context-rl, the pipeline for in-context reinforcement learning.

Everything that scripts, notebooks and model cards need can be imported from this package. A name is imported on first
use, so `import icrl` is fast and does not load torch: reading a config or a data set does not need it.
"""

import importlib
from typing import Any

_FACE = {
    # configs
    "load_config": "icrl.config.loader",
    "component": "icrl.config.components",
    "UserError": "icrl.support.errors",
    "ConfigError": "icrl.support.errors",
    # stages
    "meta_train": "data_gen.meta.training",
    "generate": "data_gen.generation.generate",
    "train": "ad_model.train",
    "evaluate": "eval.evaluate",
    "write_report": "eval.report",
    "run_experiment": "icrl.cli",
    # runs
    "Experiment": "data_gen.experiment",
    "open_run": "data_gen.experiment",
    # tasks and agents
    "make_tasks": "icrl.config.loader",
    "make_agent": "icrl.config.loader",
    "make_objective": "icrl.config.loader",
    "TaskDistribution": "data_gen.tasks.base",
    "Tasks": "data_gen.tasks.base",
    "TaskVectorEnv": "data_gen.tasks.vector",
    "Agent": "data_gen.agents.base",
    "MetaLearner": "data_gen.meta.base",
    "Spec": "data_gen.agents.base",
    "Transition": "data_gen.agents.base",
    "SlotStreams": "data_gen.streams",
    "make_seeds": "data_gen.streams",
    "interact": "data_gen.interaction",
    "episode_returns": "data_gen.returns",
    # models
    "Objective": "ad_model.objectives.base",
    "load_model": "ad_model.load",
    "TransformerAgent": "ad_model.in_context",
    "load_summary": "eval.summary",
    # data from elsewhere
    "RecordHistory": "data_gen.exchange.record_history",
    "RecordVectorHistory": "data_gen.exchange.record_history",
    "Recording": "data_gen.exchange.recording",
    "save_histories": "data_gen.exchange.recording",
    "write_histories": "data_gen.storage.writing",
    "Recorded": "data_gen.storage.writing",
    "import_minari": "data_gen.exchange.minari_data",
    "export_minari": "data_gen.exchange.minari_export",
    "import_xland": "data_gen.exchange.xland",
}
"""The module that defines each name. `__init__.pyi` lists the same names for type checkers and editors."""

__all__ = [*_FACE, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a name of the public API on first use."""
    if name == "__version__":
        from importlib import metadata  # takes longer than the rest of this module

        return metadata.version("in-context-rl")
    if name not in _FACE:
        raise AttributeError(f"module 'icrl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
