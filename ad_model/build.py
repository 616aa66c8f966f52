"""From an experiment's config to a fresh transformer over the spaces of its tasks."""

import inspect
from typing import Any

import torch
from transformers import CONFIG_MAPPING, set_seed

from ad_model.configuration_ad import ADConfig
from ad_model.modeling_ad import ADModel
from configs.errors import ConfigError, did_you_mean
from configs.schema import ExperimentConfig, ModelConfig


def build_model(config: ExperimentConfig, info: dict[str, Any]) -> ADModel:
    """A transformer with fresh weights that follow from `config.seed`.

    Args:
        info: the data's info.json, for its spaces and episode length.

    Raises ConfigError for an unknown backbone or an option that it does not have.
    """
    context_length = config.model.context_episodes * info["episode_length"]
    set_seed(config.seed)
    try:
        return ADModel(
            ADConfig(
                observation_space=info["observation_space"],
                action_space=info["action_space"],
                context_length=context_length,
                backbone=backbone_values(config.model, context_length),
            )
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def check_model(model: ModelConfig) -> None:
    """Raises ConfigError if transformers has no such backbone, or the backbone no such option."""
    backbone_values(model, context_length=1)


def backbone_values(model: ModelConfig, context_length: int) -> dict[str, Any]:
    """The transformers config of the backbone as plain values, from this project's names and `backbone_options`.

    transformers accepts unknown keys in silence, so they are refused here.
    """
    if model.backbone not in CONFIG_MAPPING:
        raise ConfigError(
            f"model.backbone: unknown backbone {model.backbone!r}{did_you_mean(model.backbone, CONFIG_MAPPING)}"
        )
    config_class = CONFIG_MAPPING[model.backbone]
    known = set(inspect.signature(config_class.__init__).parameters) | set(config_class().to_dict())
    names = config_class.attribute_map
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
    for key in model.backbone_options:
        if names.get(key, key) not in known:
            raise ConfigError(
                f"model.backbone_options.{key}: {model.backbone} has no such option{did_you_mean(key, known)}"
            )
    options: dict[str, Any] = {**values, **model.backbone_options}
    config = config_class(**options)
    if not hasattr(config, "hidden_size"):
        raise ConfigError(f"model.backbone: {model.backbone!r} is not a decoder that reads embeddings")
    return {"model_type": model.backbone, **config.to_diff_dict()}


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, vectors (norms and biases) do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
