"""Fingerprints: a short hash for each stage that changes with whatever changes the stage's result.

A finished stage carries its fingerprint. Equal fingerprints mean that the work can be skipped, others that it belongs to
another config.
"""

from typing import Any

from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.folder import SCHEMA_VERSION


def data_fingerprint(config: ExperimentConfig) -> str:
    """Changes with whatever changes the learning histories."""
    data = config.data.model_dump(mode="json")
    for source in data["sources"]:
        source.pop("label", None)  # which is for people
    if config.data.given is None:
        for key in ("repo", "folder", "streaming", "resident_shards"):
            del data[key]
    return fingerprint(SCHEMA_VERSION, config.seed, config.tasks, config.split, data)


def meta_fingerprint(config: ExperimentConfig, agent: AgentComponent) -> str:
    """Changes with whatever changes the weights of a meta-learner that `config` names."""
    ignored = {"label", "weight", "record"} | agent.build().acting_only
    trained = {key: value for key, value in agent.model_dump(mode="json").items() if key not in ignored}
    return fingerprint(SCHEMA_VERSION, config.seed, config.tasks, config.split, trained)


def training_fingerprint(config: ExperimentConfig) -> str:
    """Changes with whatever changes the trained weights."""
    return fingerprint(data_fingerprint(config), config.model, config.training)


def evaluation_fingerprint(config: ExperimentConfig) -> str:
    """Changes with whatever changes the evaluation."""
    return fingerprint(training_fingerprint(config), config.evaluation)


def data_identity(info: dict[str, Any]) -> str:
    """Changes with every byte of the data; `info` is its info.json."""
    return fingerprint(info["fingerprint"], [shard["sha256"] for shard in info["shards"]])
