"""The Algorithm Distillation transformer: learning histories in, next actions out, one token per environment step.

Self-contained, as transformers' custom models are: torch and transformers alone, so that
`AutoModel.from_pretrained(folder, trust_remote_code=True)` works where this project is not installed.

The token of step t carries the observation of step t and the result of step t-1: its action, its reward, and a
boundary. The policy head at that token predicts the action of step t. Encoders and heads follow from the spaces.

Axes: B batch, T steps, F factors of an action, K values of a factor.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PreTrainedModel
from transformers.utils import ModelOutput

from .action_head_ad import ActionHead
from .configuration_ad import ADConfig
from .embeddings_ad import ObservationEmbedding, leaf_embedding


@dataclass
class ADOutput(ModelOutput):
    """The model's output.

    Attributes:
        loss: negative log-likelihood of the given actions: the mean over B and T, or (B, T) with `reduction="none"`.
        logits: (B, T, F, K) of the next action, float32; F is 1 for a Discrete space. `ADModel.sample` draws from them.
        heads: (B, T, outputs) of each head beside the policy head, by name, float32; None without other heads.
        past_key_values: the key-value cache, if one is used.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    heads: dict[str, Tensor] | None = None
    past_key_values: Cache | None = None


class ADPreTrainedModel(PreTrainedModel):
    """Declares the capabilities that transformers asks every model for."""

    config_class = ADConfig
    base_model_prefix = "ad"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True


class ADModel(ADPreTrainedModel):
    """Embeddings of a step, a causal transformer, and linear heads: the policy head, and those of the objective."""

    def __init__(self, config: ADConfig) -> None:
        super().__init__(config)
        backbone_config = config.backbone_config()
        width = backbone_config.hidden_size
        self.embed_observation = ObservationEmbedding(config.observation_space, width, config.observation_statistics)
        self.head = ActionHead(config.action_space, width, config.action_bins)
        self.embed_action = leaf_embedding(config.action_space, width)
        self.embed_reward = nn.Linear(1, width, bias=False)
        self.embed_boundary = nn.Embedding(3, width)
        self.backbone = AutoModel.from_config(backbone_config, attn_implementation=config._attn_implementation)
        self.backbone.set_input_embeddings(None)  # tokens come embedded; DDP refuses weights that get no gradient
        self.heads = nn.ModuleDict({name: nn.Linear(width, outputs) for name, outputs in config.heads.items()})
        self.post_init()

    def forward(
        self,
        observation: Tensor | Mapping[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        boundary: Tensor,
        action: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        reduction: Literal["mean", "none"] = "mean",
        first: Tensor | None = None,
    ) -> ADOutput:
        """Predicts the action of every step.

        Args:
            observation: (B, T, ...) observation of step t; for a Dict or Tuple space, one such tensor per leaf, by
                its dotted path.
            previous_action: (B, T, ...) action of step t-1.
            previous_reward: (B, T) reward of step t-1.
            boundary: (B, T) 0 within an episode, 1 after its end, 2 at the start of a lifetime.
            action: (B, T, ...) the action to predict at step t; if given, the output has a loss.
            past_key_values: key-value cache of the earlier steps.
            use_cache: return a key-value cache.
            reduction: reduction of the loss over B and T.
            first: (B,) the first step that each row sees, counted from the beginning of the cache. Earlier steps are
                hidden, and positions count from this one: the row's context begins here. By default, all are seen.
        """
        # One token per step, the sum of its parts' embeddings.
        tokens = (
            self.embed_observation(observation)
            + self.embed_action(previous_action)
            + self.embed_reward(self.compressed(previous_reward)[..., None])
            + self.embed_boundary(boundary.long())
        )
        seen = {} if first is None else self._beginning_at(first, tokens.shape[1], past_key_values)
        output = self.backbone(inputs_embeds=tokens, past_key_values=past_key_values, use_cache=use_cache, **seen)
        hidden = output.last_hidden_state
        logits = self.head(hidden)
        loss = None if action is None else self.head.loss(logits, action, reduction)
        heads = {name: head(hidden).float() for name, head in self.heads.items()} or None
        return ADOutput(loss=loss, logits=logits, heads=heads, past_key_values=output.past_key_values)

    def _beginning_at(self, first: Tensor, steps: int, past_key_values: Cache | None) -> dict[str, Tensor]:
        """Arguments of the backbone that hide the steps before `first`, (B,), and count positions from there."""
        before = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        position = torch.arange(before + steps, device=first.device) - first[:, None]
        arguments = {"attention_mask": (position >= 0).long()}
        if "position_ids" in inspect.signature(self.backbone.forward).parameters:
            arguments["position_ids"] = position[:, before:].clamp(min=0)
        return arguments

    def compressed(self, reward: Tensor) -> Tensor:
        """Rewards of any scale as numbers of about 1: sign(x) log(1 + |x|) of x = reward / `reward_scale`.

        Divided by their root mean square, typical rewards are about 1; the logarithm compresses rare large rewards.
        """
        scaled = reward.to(self.embed_reward.weight.dtype) / self.config.reward_scale
        return scaled.sign() * scaled.abs().log1p()

    def sample(self, logits: Tensor, uniform: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Draws one action per row of `logits`: (B, ...) elements of the action space.

        Args:
            logits: (B, F, K) of one step.
            uniform: (B, F) random numbers in [0, 1); by default drawn from torch's global generator.
            temperature: temperature of the distribution; 0 takes the most likely action.
        """
        drawn = torch.rand(logits.shape[:2], device=logits.device) if uniform is None else uniform
        return self.head.sample(logits, drawn, temperature)


ADConfig.register_for_auto_class()
ADModel.register_for_auto_class("AutoModel")
