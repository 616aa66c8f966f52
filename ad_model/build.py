"""A fresh transformer for an experiment's config, over the spaces of its tasks."""

import inspect
from typing import Any

import numpy as np
import torch
from transformers import CONFIG_MAPPING, set_seed

from ad_model.action_head_ad import ActionHead
from ad_model.configuration_ad import ADConfig
from ad_model.embeddings_ad import bounds, leaf_embedding, leaf_spaces
from ad_model.modeling_ad import ADModel
from ad_model.objectives.base import Objective
from ad_model.tokens import model_inputs, observation_columns
from data_gen.spaces import Space, one_line, to_json
from data_gen.storage.info import Statistics
from data_gen.tasks.base import TaskDistribution
from icrl.config.schema import ExperimentConfig, ModelConfig
from icrl.support.errors import ConfigError, did_you_mean

_OURS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
"""Keys of the backbone that are decided by other keys of `model`, or by the data."""


def build_model(
    config: ExperimentConfig,
    observation_space: dict[str, Any],
    action_space: dict[str, Any],
    episode_length: int,
    statistics: Statistics | None = None,
    heads: dict[str, int] | None = None,
) -> ADModel:
    """A transformer with fresh weights that follow from the seed `training`.

    Args:
        config: the experiment's config.
        observation_space, action_space: the spaces as plain values.
        episode_length: full length of an episode, in steps; the context is `model.context_episodes` of them.
        statistics: those of the training data, as the token cache has them. Without statistics, Box observations need
            bounds, which are scaled to -1 and 1.
        heads: the objective's own heads: the number of outputs per token, by name.

    Raises ConfigError for an unknown backbone, or for an option that the backbone does not have.
    """
    check_model(config.model)
    check_action_bins(action_space)
    set_seed(config.seed_for("training"))
    values: dict[str, Any] = {"observation_space": observation_space, "action_space": action_space}
    values |= statistics.model_dump() if statistics else {}
    try:
        return _model(config.model, context_length(config.model, episode_length), **values, heads=heads or {})
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def context_length(model: ModelConfig, episode_length: int) -> int:
    """Context length in steps, for episodes of `episode_length` steps. Raises ConfigError if steps would be cut."""
    steps = model.context_episodes * episode_length
    if abs(steps - round(steps)) > 1e-6 * steps or round(steps) < 1:
        raise ConfigError(
            f"model.context_episodes: {model.context_episodes} of {episode_length} steps are {steps:g} steps, which is "
            "not a whole number"
        )
    return round(steps)


def check_model(model: ModelConfig) -> None:
    """Builds the backbone with one layer and runs it on the CPU.

    Raises ConfigError if the backbone or an option is unknown, if the values do not fit together, or if the backbone is
    not causal: it would then read the answers off later tokens.
    """
    tiny = model.model_copy(update={"num_layers": 1})
    space = {"type": "Discrete", "n": 2, "start": 0}
    values = torch.tensor([[0, 1, 0]])
    inputs = {"previous_action": values, "previous_reward": values.float(), "boundary": values}
    other = torch.tensor([[0, 1, 1]])  # differs in the last step, which earlier predictions must not see
    try:
        tried = _model(tiny, 3, observation_space=space, action_space=space).eval()
        with torch.no_grad():
            first, second = (tried(observation=seen, **inputs).logits[:, :2] for seen in (values, other))
    except ConfigError:
        raise
    except Exception as error:  # transformers and its models may raise anything
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(
            f"model: transformers' {model.backbone!r} does not work with these settings: {why}"
        ) from error
    if not torch.equal(first, second):
        raise ConfigError(f"model.backbone: {model.backbone!r} is not causal: it sees later steps; choose a decoder")


def check_spaces(model: ModelConfig, distribution: TaskDistribution) -> None:
    """Raises ConfigError if the transformer cannot read the tasks' observations or predict their actions."""
    width = model.num_heads
    check_action_bins(to_json(distribution.action_space))
    try:
        ActionHead(to_json(distribution.action_space), width, model.action_bins)
        leaf_embedding(to_json(distribution.action_space), width)
        for leaf in leaf_spaces(to_json(distribution.observation_space)).values():
            leaf_embedding(leaf, width, {"mean": [0.0], "std": [1.0]})
    except ValueError as error:
        raise ConfigError(f"tasks: {error}") from error


def check_objective(config: ExperimentConfig, distribution: TaskDistribution) -> None:
    """Computes the objective's loss and its gradient on one made-up window with one layer.

    Raises ConfigError if the objective raises, or its loss is not a finite scalar with a gradient.
    """
    objective: Objective = config.training.objective.build()
    name = type(objective).__name__
    tiny = config.model.model_copy(update={"num_layers": 1})
    tokens, columns = _window(distribution)
    spaces = to_json(distribution.observation_space), to_json(distribution.action_space)
    boxes = {path: space for path, space in leaf_spaces(spaces[0]).items() if space["type"] == "Box"}
    try:
        heads = dict(objective.heads())
        for head, outputs in heads.items():
            if not head.isidentifier() or hasattr(torch.nn.ModuleDict, head) or type(outputs) is not int or outputs < 1:
                raise ValueError(f"heads: {head!r}: {outputs!r} must be a name and a whole number above 0")
        statistics = {"observation_statistics": {path: {"mean": [0.0], "std": [1.0]} for path in boxes}}
        values = {"observation_space": spaces[0], "action_space": spaces[1], **statistics}
        with torch.random.fork_rng(devices=[]):
            model = _model(tiny, 2, heads=heads, **values)
        loss = objective.loss(model, tokens, {column: columns[column] for column in objective.columns})
        if not isinstance(loss, torch.Tensor) or loss.shape or not loss.requires_grad or not bool(loss.isfinite()):
            raise ValueError(f"loss: returned {loss!r}, but a loss is a finite scalar tensor with a gradient")
        loss.backward()
    except KeyError as error:
        raise ConfigError(f"training.objective: {name} needs {error}, which a window does not have") from error
    except Exception as error:  # the user's own class may raise anything
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"training.objective: {name} does not work on one window: {why}") from error


def _window(distribution: TaskDistribution) -> tuple[dict[str, Any], dict[str, Any]]:
    """A made-up window of two steps: tokens as the model takes them, and every column of a history, as tensors.

    Raises ConfigError for a space that Gymnasium cannot sample, such as a Box with bounds beyond 63 bits.
    """

    def steps(value: Any) -> Any:
        array = np.asarray(value)
        return torch.from_numpy(np.stack([array, array])[None])  # (1 window, 2 steps, ...)

    def sample(space: Space) -> Any:
        try:
            return space.sample()
        except ValueError as error:
            raise ConfigError(f"tasks: the space {one_line(space)} cannot be sampled: {error}") from error

    action, zeros = sample(distribution.action_space), torch.zeros(1, 2)
    seen = {name: steps(leaf) for name, leaf in observation_columns(sample(distribution.observation_space)).items()}
    results = {"previous_action": steps(action), "previous_reward": zeros, "boundary": zeros.long()}
    flags = torch.tensor([[False, True]])
    columns = {"action": steps(action), "optimal_action": steps(action), "reward": zeros}
    return model_inputs({**seen, **results}), {**columns, "terminated": flags, "truncated": ~flags}


def check_action_bins(space: dict[str, Any]) -> None:
    """Raises ConfigError if the range of a Box action, in the form of `to_json`, cannot be cut into bins."""
    if space["type"] != "Box":
        return
    advice = "give the environment the bounds of its usual actions, for instance by gymnasium.wrappers.TransformAction"
    try:
        low, high = (np.asarray(bound, np.float64) for bound in bounds(space))
    except ValueError as error:
        raise ConfigError(f"tasks: actions: {error}: {advice}") from error
    with np.errstate(over="ignore"):
        spans = high.astype(np.float32) - low.astype(np.float32)
    for number in np.flatnonzero(~np.isfinite(spans))[:1]:
        range_ = f"from {low[number]:g} to {high[number]:g}"
        raise ConfigError(f"tasks: action[{number}] has the range {range_}, which is not finite in float32: {advice}")


def _model(model: ModelConfig, context_length: int, **values: Any) -> ADModel:
    backbone = backbone_values(model, context_length)
    return ADModel(ADConfig(context_length=context_length, action_bins=model.action_bins, backbone=backbone, **values))


def backbone_values(model: ModelConfig, context_length: int) -> dict[str, Any]:
    """The transformers config of the backbone as plain values, from this project's names and `backbone_options`.

    transformers accepts unknown keys silently, so this function refuses them. Raises ConfigError.
    """
    if model.backbone not in CONFIG_MAPPING:
        near = did_you_mean(model.backbone, CONFIG_MAPPING)
        raise ConfigError(f"model.backbone: unknown backbone {model.backbone!r}{near}")
    config_class = CONFIG_MAPPING[model.backbone]
    known = set(inspect.signature(config_class.__init__).parameters) | set(config_class().to_dict())
    names = config_class.attribute_map
    # Backbones have different names for the same thing; only the names that this backbone knows are kept.
    wanted = {
        "vocab_size": 1,  # tokens come embedded
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_heads,
        "head_dim": model.hidden_size // model.num_heads,
        "intermediate_size": model.intermediate_size,
        "n_inner": model.intermediate_size,
        "max_position_embeddings": context_length,
        "attention_dropout": model.attention_dropout,
        "attn_pdrop": model.attention_dropout,
        "hidden_dropout": model.dropout,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
    }
    values = {names.get(key, key): value for key, value in wanted.items() if names.get(key, key) in known}
    if model.dropout and not values.keys() & {"hidden_dropout", "resid_pdrop"}:
        raise ConfigError(f"model.dropout: {model.backbone} has no residual dropout; set it to 0, or choose gpt2")
    if model.attention_dropout and not values.keys() & {"attention_dropout", "attn_pdrop"}:
        raise ConfigError(f"model.attention_dropout: {model.backbone} has no attention dropout; set it to 0")
    options = {names.get(key, key): value for key, value in model.backbone_options.items()}
    for key in options:
        if key not in known:
            near = did_you_mean(key, known)
            raise ConfigError(f"model.backbone_options.{key}: {model.backbone} has no such option{near}")
        if key in {names.get(name, name) for name in _OURS}:
            raise ConfigError(
                f"model.backbone_options.{key}: is set by another key of model, or by the data; leave it out"
            )
    return {"model_type": model.backbone, **config_class(**{**values, **options}).to_diff_dict()}


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: matrices decay, vectors (norms and biases) do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
