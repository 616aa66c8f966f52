"""The frozen transformer as an agent: it improves from its context alone, its weights never change.

Window policy. One token a step goes in, and a key-value cache keeps the earlier ones. When the context is full, the
oldest half is forgotten, and the newer half is read again from position 0 in one pass; from then on the context grows
from half to full over and over. Every such context is a window as the model saw them in training (any run of steps,
loss at every position), so nothing is extrapolated, the cached logits are those of a recomputation, and it holds for
every backbone. A cache that drops single old steps is equal to a recomputation only for a model that was trained with
sliding attention, and one that recomputes the whole window at every step takes ten times as long and more.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ad_model.modeling_ad import EPISODE_ENDED, LIFETIME_STARTS, WITHIN_EPISODE, ADModel
from ad_model.windows import model_inputs
from data_gen.agents.base import Agent, Spec, Transition
from data_gen.spaces import column_name, leaves, null_element, storage_type, to_json
from data_gen.streams import Seeds, SlotStreams
from icrl.support.errors import UserError


class TransformerAgent(Agent):
    """Acts by sampling from the transformer's action distribution, given what has happened in its context.

    Args:
        model: the trained transformer, on the device to run on.
        temperature: of the action distribution; 0 takes the most likely action.
        cached: whether to keep keys and values, or to recompute the whole context at every step. For comparison.
    """

    def __init__(self, model: ADModel, temperature: float = 1.0, cached: bool = True) -> None:
        self.model, self.temperature, self.cached = model.eval(), temperature, cached

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        """Starts with an empty context. Raises UserError if the model was trained for other spaces."""
        config = self.model.config
        for name, space in (("observation", spec.observation_space), ("action", spec.action_space)):
            trained = getattr(config, f"{name}_space")
            if trained != to_json(space):
                raise UserError(f"the checkpoint's {name} space is {trained}, but the tasks' is {to_json(space)}")
        self.streams = SlotStreams(seeds)
        self.capacity, self.keep = config.context_length, config.context_length // 2
        self.length, self.in_cache = 0, 0
        action_shape, action_type = storage_type(spec.action_space)
        self.tokens = {
            **{
                column_name("observation", path): self._buffer(num_envs, *storage_type(space))
                for path, space in leaves(spec.observation_space).items()
            },
            "previous_action": self._buffer(num_envs, action_shape, action_type),
            "previous_reward": self._buffer(num_envs, (), np.dtype(np.float32)),
            "boundary": self._buffer(num_envs, (), np.dtype(np.uint8)),
        }
        self.cache = window_cache(self.model, self.capacity)
        # What the next token carries of the step before it; at a lifetime's start, nothing.
        self.before = {
            "previous_action": null_element(config.action_space, (num_envs, *action_shape), action_type),
            "previous_reward": np.zeros(num_envs, np.float32),
            "boundary": np.full(num_envs, LIFETIME_STARTS, np.uint8),
        }

    def act(self, observation: Any) -> NDArray[Any]:
        logits = self.logits(observation)
        uniform = torch.from_numpy(self.streams.uniform(logits.shape[1])).to(logits)
        return self.model.sample(logits, uniform, self.temperature).cpu().numpy()

    def observe(self, transition: Transition) -> None:
        ended = transition.terminated | transition.truncated
        self.before = {
            "previous_action": transition.action,
            "previous_reward": transition.reward,
            "boundary": np.where(ended, EPISODE_ENDED, WITHIN_EPISODE),
        }

    @torch.inference_mode()
    def logits(self, observation: Any) -> Tensor:
        """Adds the token of the present step to the context; (num_envs, F, K) logits of the next action."""
        if self.length == self.capacity:
            for tokens in self.tokens.values():
                tokens[:, : self.keep] = tokens[:, self.capacity - self.keep :].clone()
            self.length, self.in_cache = self.keep, 0
        seen = {column_name("observation", path): leaf for path, leaf in leaves(observation).items()}
        for name, values in {**seen, **self.before}.items():
            self.tokens[name][:, self.length] = torch.from_numpy(np.ascontiguousarray(values))
        self.length += 1
        if not self.cached:
            return self.model(**self._slice(0)).logits[:, -1]
        if self.in_cache == 0:
            self.cache.reset()
        output = self.model(**self._slice(self.in_cache), past_key_values=self.cache, use_cache=True)
        self.in_cache = self.length
        return output.logits[:, -1]

    def _slice(self, first: int) -> dict[str, Any]:
        return model_inputs({name: tokens[:, first : self.length] for name, tokens in self.tokens.items()})

    def _buffer(self, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        return torch.zeros((num_envs, self.capacity, *shape), dtype=kind, device=self.model.device)


class WindowLayer(DynamicLayer):
    """A layer's keys and values in memory that is allocated once; transformers' own grows by copying all of it."""

    keys: Tensor
    values: Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        batch, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(batch, heads, self.capacity, width)
        self.values = value_states.new_empty(batch, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length

    def reset(self) -> None:
        self.length = 0


def window_cache(model: ADModel, capacity: int) -> Cache:
    """A key-value cache for `capacity` steps."""
    layers: int = model.backbone.config.num_hidden_layers
    return Cache(layers=[WindowLayer(capacity) for _ in range(layers)])
