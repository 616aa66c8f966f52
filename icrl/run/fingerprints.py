"""Fingerprints: for each stage, a short hash of everything that determines its result.

A finished stage stores its fingerprint. If it equals the config's fingerprint, the stage can be skipped. Otherwise the
stored result belongs to another config.

Of the four seeds, a stage's fingerprint has those that determine its result, by value: `seed: 1` and all four `seeds`
at 1 are the same config. So runs that differ in `seeds.training` share their data, and runs that differ in
`seeds.evaluation` share their model. Where all of a stage's seeds are one number, so is their part in the hash, as it
was when there was only one seed.
"""

from typing import Any

from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.config.training import TrainingConfig
from icrl.run.folder import SCHEMA_VERSION, TASK_FILES, run_folder
from icrl.support.files import sha256

_LATER_PARAMETERS = ("space_size",)
"""Parameters of task families that finished runs of earlier versions do not have. None means what these runs did."""

_LATER_EVALUATION_KEYS = ("ablations", "tasks")
"""Keys of `evaluation` that finished runs of earlier versions do not have. Empty, they change nothing."""

_LATER_TRAINING_KEYS = ("initial", "schedule", "decay_share")
"""Keys of `training` that finished runs of earlier versions do not have. At their defaults, they change nothing."""


def data_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that determines the learning histories."""
    data = config.data.model_dump(mode="json")
    for source in data["sources"]:
        source.pop("label", None)  # only a name for people
    if config.data.given is None:
        for key in ("repo", "folder", "streaming", "resident_shards"):
            del data[key]
    return fingerprint(SCHEMA_VERSION, *_split(config, _data_seeds(config)), data)


def meta_fingerprint(config: ExperimentConfig, agent: AgentComponent) -> str:
    """Fingerprint of everything that determines the weights of `agent`, a meta-learner that `config` names.

    Where the run takes the split of given data, that includes the training tasks in the run folder.
    """
    ignored = {"label", "share", "record"} | agent.build().acting_only
    trained = {key: value for key, value in agent.model_dump(mode="json").items() if key not in ignored}
    parts = [*_split(config, _seeds(config, "split", "data")), trained]
    if config.takes_given_split:
        tasks = run_folder(config).data / TASK_FILES[0]
        parts.append(sha256(tasks) if tasks.exists() else None)
    return fingerprint(SCHEMA_VERSION, *parts)


def training_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that determines the trained weights.

    Validation only watches. It has no part in the fingerprint, unless it can stop the training.
    """
    training = config.training.model_dump(mode="json")
    for key in _LATER_TRAINING_KEYS:
        if training[key] == TrainingConfig.model_fields[key].default:
            del training[key]
    seeds = _new_seed(config.seed_for("training"), _data_seeds(config))
    patience, every = config.validation.patience, config.validation.every
    stops = [] if patience is None else [{"patience": [validation_fingerprint(config), every, patience]}]
    return fingerprint(data_fingerprint(config), config.model, training, *seeds, *stops)


def validation_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything besides the weights that determines the result of one validation."""
    sizes = config.validation.model_dump(mode="json", include={"tasks", "seeds", "episodes"})
    seeds = [_data_seeds(config), config.seed_for("training")]
    return fingerprint(data_fingerprint(config), seeds, sizes, config.evaluation.temperature)


def meta_validation_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything besides the weights that determines the result of one validation in meta-training."""
    sizes = config.validation.model_dump(mode="json", include={"tasks", "seeds", "episodes"})
    return fingerprint(*_split(config, _seeds(config, "split", "data")), config.seed_for("data"), sizes)


def evaluation_fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that determines the evaluation."""
    evaluation = config.evaluation.model_dump(mode="json")
    del evaluation["allow_seen_tasks"]  # decides whether there is a result, and not which
    if config.evaluation.checkpoint == "last":
        evaluation["checkpoint"] = None  # as it was written before
    if not config.evaluation.validation_tasks:
        del evaluation["validation_tasks"]  # as before there were validation tasks
    for key in _LATER_EVALUATION_KEYS:
        if not evaluation[key]:
            del evaluation[key]
    seeds = _new_seed(config.seed_for("evaluation"), [*_data_seeds(config), config.seed_for("training")])
    return fingerprint(training_fingerprint(config), evaluation, *seeds)


def _data_seeds(config: ExperimentConfig) -> list[int]:
    """The seeds that determine the data and the split. Given data has a split of its own, or the config's."""
    return _seeds(config, "split", "data") if config.data.given is None else [config.seed_for("split")]


def _seeds(config: ExperimentConfig, *names: Any) -> list[int]:
    """The seeds called `names`, or a single one where all are equal."""
    seeds = [config.seed_for(name) for name in names]
    return seeds[:1] if len(set(seeds)) == 1 else seeds


def _new_seed(seed: int, known: list[int]) -> list[int]:
    """The seed, unless it equals all those that the hash has already, of which there is at least one."""
    return [] if {seed} == set(known) else [seed]


def _split(config: ExperimentConfig, seeds: list[int]) -> list[Any]:
    """The parts of a hash that determine the tasks: the seeds, the family, and the sizes of the split."""
    split = config.own_split.model_dump(mode="json")
    if split["validation"] == 0:
        del split["validation"]  # as before there were validation tasks
    sizes = [] if config.takes_given_split else [split]
    return [seeds[0] if len(seeds) == 1 else seeds, tasks_values(config), *sizes]


def tasks_values(config: ExperimentConfig) -> Any:
    """The config's `tasks` as plain values, without parameters of a later version that are not set."""
    return _without_later(config.tasks.model_dump(mode="json"))


def _without_later(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    kept = {key: value for key, value in values.items() if not (key in _LATER_PARAMETERS and value is None)}
    return {key: _without_later(value) for key, value in kept.items()}
