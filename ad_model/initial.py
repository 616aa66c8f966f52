"""A warm start: training that begins with the weights of another model (`training.initial`).

The other model is loaded like any model from elsewhere, without the code beside its weights. Its spaces, its
architecture and its heads have to be those of the experiment, so that every weight keeps its meaning. For the same
reason, inputs are scaled by the statistics that the other model was trained with, and not by those of the new data:
with another mean and another unit, its embeddings would read other numbers than they have learned to read. What the
other model was trained on stays on record, so that an evaluation still refuses tasks that it has seen.
"""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ad_model.build import backbone_values, context_length
from ad_model.load import given_model, load_model
from ad_model.model_files import checked_config, weight_files
from ad_model.modeling_ad import ADModel
from ad_model.objectives.base import Objective
from data_gen.experiment import Experiment
from data_gen.spaces import to_json
from data_gen.storage.info import Statistics
from data_gen.tasks.same import joined_records, seen_in_record
from icrl.config.loader import fingerprint
from icrl.config.schema import ExperimentConfig
from icrl.support.errors import UserError
from icrl.support.files import sha256
from icrl.support.terminal import say

_KEY = "training.initial"


def initial_weights(config: ExperimentConfig) -> str | None:
    """Fingerprint of the weights that training starts from; None if they are random. Raises UserError."""
    if config.training.initial is None:
        return None
    return fingerprint([sha256(file) for file in weight_files(given_model(config.training.initial, key=_KEY))])


def check_initial(experiment: Experiment) -> None:
    """Raises UserError if the model to start from is missing or damaged, or differs from the experiment's."""
    if experiment.config.training.initial is not None:
        initial_model(experiment)


def initial_model(experiment: Experiment) -> ADModel:
    """The model of `training.initial`, on the CPU. Raises UserError if it is missing, damaged, or of another kind."""
    config, family = experiment.config, experiment.family
    place = given_model(str(config.training.initial), key=_KEY)
    theirs = checked_config(place)
    objective: Objective = config.training.objective.build()
    length = context_length(config.model, family.episode_length)
    own = {
        "observation space": to_json(family.observation_space),
        "action space": to_json(family.action_space),
        "heads": dict(objective.heads()),
        "context_length": length,
        "action_bins": config.model.action_bins,
        **_architecture(backbone_values(config.model, length)),
    }
    found = {
        "observation space": theirs.observation_space,
        "action space": theirs.action_space,
        "heads": theirs.heads,
        "context_length": theirs.context_length,
        "action_bins": theirs.action_bins,
        **_architecture(theirs.backbone),
    }
    for name, value in own.items():
        if found.get(name) != value:
            raise UserError(
                f"{_KEY}: {config.training.initial}: its {name} is {found.get(name)!r}, but this experiment's is "
                f"{value!r}; start from a model with the same spaces, model section and heads"
            )
    return load_model(place, "cpu")


def statistics_of(config: PreTrainedConfig) -> Statistics:
    """The scale of inputs that a model was trained with."""
    return Statistics.model_validate(
        {name: getattr(config, name) for name in ("reward_scale", "observation_statistics")}
    )


def join_tasks(experiment: Experiment, own: PreTrainedConfig, theirs: PreTrainedConfig) -> None:
    """Adds the other model's tasks to the records of a new model.

    Tells the user about validation tasks that the other model was trained on.
    """
    record, chosen = (getattr(theirs, f"{kind}_tasks", None) for kind in ("training", "validation"))
    tasks = experiment.validation_tasks
    seen = seen_in_record(experiment.family, tasks, record) if len(tasks) else 0
    if seen:
        say(
            f"warning: {_KEY}: {experiment.config.training.initial} was trained on {seen} of the {len(tasks)} "
            "validation tasks: validation will promise too much; give the seed and the split that it was trained with"
        )
    own.training_tasks = joined_records(record, own.training_tasks)
    if chosen is not None:
        own.validation_tasks = joined_records(chosen, own.validation_tasks)


def _architecture(backbone: dict[str, Any]) -> dict[str, Any]:
    """The options that decide a backbone's weights and their use, defaults included: not dropout, not versions."""
    values = AutoConfig.for_model(**backbone).to_dict()
    return {
        name: value
        for name, value in values.items()
        if "drop" not in name and "version" not in name and name not in ("dtype", "torch_dtype")
    }


def is_away(config: ExperimentConfig) -> bool:
    """True if the model to start from cannot be read at once: a folder that is gone, or a repository."""
    return config.training.initial is not None and not Path(config.training.initial).is_dir()
