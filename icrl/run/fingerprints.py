"""Fingerprints: a short hash for each stage that changes with whatever changes the stage's result.

A finished stage carries its fingerprint. If the fingerprint equals the config's, the work can be skipped; otherwise it
belongs to another config.
"""

from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.folder import SCHEMA_VERSION


def data_fingerprint(config: ExperimentConfig) -> str:
    """Changes with whatever changes the learning histories."""
    data = config.data.model_dump(mode="json")
    for source in data["sources"]:
        source.pop("label", None)  # a label is for people alone
    if config.data.given is None:
        for key in ("repo", "folder", "streaming", "resident_shards"):
            del data[key]
    return fingerprint(SCHEMA_VERSION, config.seed, config.tasks, config.split, data)


def meta_fingerprint(config: ExperimentConfig, agent: AgentComponent) -> str:
    """Changes with whatever changes the weights of a meta-learner that `config` names."""
    ignored = {"label", "share", "record"} | agent.build().acting_only
    trained = {key: value for key, value in agent.model_dump(mode="json").items() if key not in ignored}
    return fingerprint(SCHEMA_VERSION, config.seed, config.tasks, config.split, trained)


def training_fingerprint(config: ExperimentConfig) -> str:
    """Changes with whatever changes the trained weights."""
    return fingerprint(data_fingerprint(config), config.model, config.training)


def evaluation_fingerprint(config: ExperimentConfig) -> str:
    """Changes with whatever changes the evaluation."""
    return fingerprint(training_fingerprint(config), config.evaluation)
