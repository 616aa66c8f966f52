"""Configuration: the typed schema of an experiment, its loader, and the run folder that a config names."""

from configs.components import component
from configs.errors import ConfigError, UserError
from configs.loader import load_config
from configs.schema import ExperimentConfig

__all__ = ["ConfigError", "ExperimentConfig", "UserError", "component", "load_config"]
