"""Fingerprints: for each stage, a short hash of everything that determines its result.

A finished stage stores its fingerprint. If it equals the config's fingerprint, the stage can be skipped. Otherwise the
stored result belongs to another config.
"""

from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.folder import SCHEMA_VERSION


def data_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that determines the learning histories."""
    data = config.data.model_dump(mode="json")
    for source in data["sources"]:
        source.pop("label", None)  # only a name for people
    if config.data.given is None:
        for key in ("repo", "folder", "streaming", "resident_shards"):
            del data[key]
    return fingerprint(SCHEMA_VERSION, config.seed, config.tasks, config.split, data)


def meta_fingerprint(config: ExperimentConfig, agent: AgentComponent) -> str:
    """Fingerprint of everything that determines the weights of `agent`, a meta-learner that `config` names."""
    ignored = {"label", "share", "record"} | agent.build().acting_only
    trained = {key: value for key, value in agent.model_dump(mode="json").items() if key not in ignored}
    return fingerprint(SCHEMA_VERSION, config.seed, config.tasks, config.split, trained)


def training_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that determines the trained weights."""
    return fingerprint(data_fingerprint(config), config.model, config.training)


def evaluation_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that determines the evaluation."""
    evaluation = config.evaluation.model_dump(mode="json")
    del evaluation["allow_seen_tasks"]  # decides whether there is a result, and not which
    return fingerprint(training_fingerprint(config), evaluation)
