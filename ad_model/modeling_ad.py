"""The Algorithm Distillation transformer: learning histories in, next actions out, one token an environment step.

Self-contained, as transformers' custom models are: torch and transformers alone, so that
`AutoModel.from_pretrained(folder, trust_remote_code=True)` works where this project is not installed.

The token of step t carries observation t and what step t-1 brought: its action, its reward, and whether an episode
ended. The head at that token predicts action t. One token a step, where the paper (Laskin et al. 2022) has three,
holds three times the history in the same context at a third of the cost.

Axes: B batch, T steps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_ad import ADConfig

WITHIN_EPISODE, EPISODE_ENDED, LIFETIME_STARTS = 0, 1, 2
"""Values of `boundary`: what stands between step t-1 and step t. At a lifetime's start there is no step t-1: action
and reward are 0. After an episode's end they are the real last ones of that episode."""


@dataclass
class ADOutput(ModelOutput):
    """`loss` (): mean over B and T of the action's negative log-likelihood, if actions were given.
    `logits` (B, T, actions): of the next action, float32.
    `past_key_values`: the cache, if one is used.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None


class SpaceEmbedding(nn.Module):
    """Embeds elements of a space: (B, T, ...) -> (B, T, width). A MultiDiscrete is the sum of its parts' embeddings."""

    first_row: Tensor

    def __init__(self, space: dict[str, Any], width: int) -> None:
        super().__init__()
        self.kind: str = space["type"]
        self.table: nn.Linear | nn.Embedding
        if self.kind == "Box":
            self.table = nn.Linear(int(torch.Size(space["shape"]).numel()), width)
            return
        if self.kind not in ("Discrete", "MultiDiscrete"):
            raise ValueError(f"no embedding for a space of type {self.kind}")
        sizes = [space["n"]] if self.kind == "Discrete" else space["nvec"]
        starts = [space["start"]] if self.kind == "Discrete" else space["start"]
        first_row = [sum(sizes[:place]) - start for place, start in enumerate(starts)]
        self.register_buffer("first_row", torch.tensor(first_row), persistent=True)
        self.table = nn.Embedding(sum(sizes), width)

    def forward(self, values: Tensor) -> Tensor:
        if self.kind == "Box":
            return self.table(values.flatten(2).to(self.table.weight.dtype))
        rows = values.long().reshape(*values.shape[:2], -1) + self.first_row
        return self.table(rows).sum(dim=2)


class ADPreTrainedModel(PreTrainedModel):
    """What transformers asks of every model of this kind."""

    config_class = ADConfig
    base_model_prefix = "ad"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True


class ADModel(ADPreTrainedModel):
    """Embeddings of a step, a causal transformer, and a linear head over the actions."""

    def __init__(self, config: ADConfig) -> None:
        super().__init__(config)
        backbone_config = config.backbone_config()
        width = backbone_config.hidden_size
        if config.action_space["type"] != "Discrete":
            raise ValueError(f"no action head for a space of type {config.action_space['type']}")
        self.embed_observation = SpaceEmbedding(config.observation_space, width)
        self.embed_action = SpaceEmbedding(config.action_space, width)
        self.embed_reward = nn.Linear(1, width, bias=False)
        self.embed_boundary = nn.Embedding(3, width)
        self.backbone = AutoModel.from_config(backbone_config, attn_implementation=config._attn_implementation)
        self.backbone.set_input_embeddings(None)  # tokens come embedded; unused weights would stop DDP
        self.head = nn.Linear(width, config.action_space["n"])
        self.first_action = config.action_space["start"]
        self.post_init()

    def forward(
        self,
        observation: Tensor,
        previous_action: Tensor,
        previous_reward: Tensor,
        boundary: Tensor,
        action: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> ADOutput:
        """Predicts the action of every step.

        Args:
            observation: (B, T, ...) observation of step t.
            previous_action: (B, T, ...) action of step t-1.
            previous_reward: (B, T) reward of step t-1.
            boundary: (B, T) one of WITHIN_EPISODE, EPISODE_ENDED, LIFETIME_STARTS.
            action: (B, T, ...) what was done at step t; with it the output has a loss, over all positions.
            past_key_values: cache of the steps before these.
            use_cache: whether to fill a cache.
        """
        tokens = (
            self.embed_observation(observation)
            + self.embed_action(previous_action)
            + self.embed_reward(previous_reward[..., None].to(self.embed_reward.weight.dtype))
            + self.embed_boundary(boundary.long())
        )
        output = self.backbone(inputs_embeds=tokens, past_key_values=past_key_values, use_cache=use_cache)
        logits = self.head(output.last_hidden_state).float()
        loss = None
        if action is not None:
            target = action.long() - self.first_action
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        return ADOutput(loss=loss, logits=logits, past_key_values=output.past_key_values)


ADConfig.register_for_auto_class()
ADModel.register_for_auto_class("AutoModel")
