"""The Algorithm Distillation transformer: learning histories in, next actions out, one token an environment step.

Self-contained, as transformers' custom models are: torch and transformers alone, so that
`AutoModel.from_pretrained(folder, trust_remote_code=True)` works where this project is not installed.

The token of step t carries observation t and what step t-1 brought: its action, its reward, and whether an episode
ended. The head at that token predicts action t. One token a step, where the paper (Laskin et al. 2022) has three,
holds three times the history in the same context at a third of the cost. Encoders and head follow from the spaces.

Axes: B batch, T steps, F factors of an action, K values of a factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PreTrainedModel
from transformers.utils import ModelOutput

from .action_head_ad import ActionHead
from .configuration_ad import ADConfig
from .embeddings_ad import ObservationEmbedding, leaf_embedding

WITHIN_EPISODE, EPISODE_ENDED, LIFETIME_STARTS = 0, 1, 2
"""Values of `boundary`: what stands between step t-1 and step t. At a lifetime's start there is no step t-1: action
and reward are 0. After an episode's end they are the real last ones of that episode."""


@dataclass
class ADOutput(ModelOutput):
    """`loss` (): mean over B and T of the action's negative log-likelihood, if actions were given.
    `logits` (B, T, F, K): of the next action, float32; F is 1 for a Discrete space. `ADModel.sample` draws from them.
    `past_key_values`: the cache, if one is used.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None


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
        self.embed_observation = ObservationEmbedding(config.observation_space, width, config.observation_statistics)
        self.head = ActionHead(config.action_space, width, config.action_bins)
        self.embed_action = leaf_embedding(config.action_space, width)
        self.embed_reward = nn.Linear(1, width, bias=False)
        self.embed_boundary = nn.Embedding(3, width)
        self.backbone = AutoModel.from_config(backbone_config, attn_implementation=config._attn_implementation)
        self.backbone.set_input_embeddings(None)  # tokens come embedded; unused weights would stop DDP
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
    ) -> ADOutput:
        """Predicts the action of every step.

        Args:
            observation: (B, T, ...) observation of step t; for a Dict or Tuple space, such a tensor by each leaf's
                dotted path.
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
            + self.embed_reward(self.compressed(previous_reward)[..., None])
            + self.embed_boundary(boundary.long())
        )
        output = self.backbone(inputs_embeds=tokens, past_key_values=past_key_values, use_cache=use_cache)
        logits = self.head(output.last_hidden_state)
        loss = None if action is None else self.head.loss(logits, action)
        return ADOutput(loss=loss, logits=logits, past_key_values=output.past_key_values)

    def compressed(self, reward: Tensor) -> Tensor:
        """Rewards of any scale as numbers of about 1: sign(x) log(1 + |x|) of x = reward / `reward_scale`.

        Divided by their root mean square, usual rewards are about 1; the logarithm keeps rare large ones in reach.
        """
        scaled = reward.to(self.embed_reward.weight.dtype) / self.config.reward_scale
        return scaled.sign() * scaled.abs().log1p()

    def sample(self, logits: Tensor, uniform: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Draws one action for each row of `logits` (B, F, K): (B, ...) elements of the action space.

        Args:
            uniform: (B, F) the random numbers in [0, 1) to use; torch's own generator's without it.
            temperature: of the distribution; 0 takes the most likely action.
        """
        drawn = torch.rand(logits.shape[:2], device=logits.device) if uniform is None else uniform
        return self.head.sample(logits, drawn, temperature)


ADConfig.register_for_auto_class()
ADModel.register_for_auto_class("AutoModel")
