"""The frozen transformer as an agent. The agent improves from its context alone; the weights never change.

Window policy. Each step adds one token, and a key-value cache keeps the earlier tokens. When the context is full, the
oldest half is forgotten, and the newer half is read again from position 0 in one pass. From then on the context grows
from half to full over and over. Each of these contexts is a window as in training (any run of steps, loss at every
position). So nothing is extrapolated, cached logits equal recomputed ones, and the policy works with every backbone.
Two alternatives were rejected. A cache that drops single old steps equals a recomputation only for a model that was
trained with sliding attention. Recomputing the whole window at every step takes more than ten times as long.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ad_model.modeling_ad import ADModel, ADOutput
from ad_model.objectives.base import Objective
from ad_model.objectives.imitation import Imitation
from ad_model.tokens import Columns, first_result, model_inputs, next_result, observation_columns
from data_gen.agents.base import Agent, Spec, Transition
from data_gen.spaces import storage_type, to_json
from data_gen.streams import Seeds, SlotStreams
from icrl.support.errors import UserError


class TransformerAgent(Agent):
    """Agent that acts on the predictions of a transformer, from the context of its own lifetime.

    Args:
        model: the trained transformer, on the device to run on.
        temperature: temperature of the action distribution; 0 takes the most likely action.
        objective: decides how predictions become actions; by default they are sampled from the policy head.
        cached: keep keys and values; False recomputes the whole context at every step, for comparison.
    """

    def __init__(
        self,
        model: ADModel,
        temperature: float = 1.0,
        objective: Objective | None = None,
        cached: bool = True,
    ) -> None:
        self.model, self.temperature, self.cached = model.eval(), temperature, cached
        self.objective = objective or Imitation()
        if self.objective.heads() != model.config.heads:
            raise UserError(
                f"the model has the heads {model.config.heads}, but the objective {type(self.objective).__name__} acts "
                f"with {self.objective.heads()}: give the objective that the model was trained with"
            )

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        """Starts with an empty context. Raises UserError if the model was trained for other spaces than `spec` has."""
        config = self.model.config
        for name, space in (("observation", spec.observation_space), ("action", spec.action_space)):
            trained = getattr(config, f"{name}_space")
            if trained != to_json(space):
                raise UserError(f"the checkpoint's {name} space is {trained}, but the tasks' is {to_json(space)}")
        self.streams = SlotStreams(seeds)
        self.capacity, self.keep = config.context_length, config.context_length // 2
        self.length, self.in_cache = 0, 0
        # The result that the first token carries, and one buffer per token column, (num_envs, capacity, ...).
        action_shape, action_type = storage_type(spec.action_space)
        self.result = first_result(config.action_space, (num_envs, *action_shape), action_type)
        forms = {name: (values.shape[1:], values.dtype) for name, values in self.result.items()}
        seen = observation_columns(spec.observation_space)
        forms |= {name: storage_type(space) for name, space in seen.items()}
        self.tokens = {name: self._buffer(num_envs, *form) for name, form in forms.items()}
        self.cache = window_cache(self.model, self.capacity)

    @torch.inference_mode()
    def act(self, observation: Any) -> NDArray[Any]:
        output = self.predict(observation)
        assert output.logits is not None
        logits = output.logits[:, -1]
        heads = {name: values[:, -1] for name, values in (output.heads or {}).items()}
        uniform = torch.from_numpy(self.streams.uniform(logits.shape[1])).to(logits)
        actions = self.objective.act(self.model, logits, heads, uniform, self.temperature)
        expected = self.tokens["previous_action"]
        if not isinstance(actions, Tensor) or actions.shape != (len(expected), *expected.shape[2:]):
            form = tuple(actions.shape) if isinstance(actions, Tensor) else type(actions).__name__
            raise UserError(
                f"training.objective: {type(self.objective).__name__}.act returned {form}, but the actions of "
                f"{len(expected)} environments are a tensor of shape {(len(expected), *expected.shape[2:])}"
            )
        return actions.cpu().numpy()

    def observe(self, transition: Transition) -> None:
        ended = transition.terminated | transition.truncated
        self.result = next_result(transition.action, transition.reward, ended)

    @torch.inference_mode()
    def predict(self, observation: Any) -> ADOutput:
        """Adds the token of the current step to the context. Only the last position of the output counts."""
        if self.length == self.capacity:
            self.forget_oldest()
        for name, values in self.entering({**observation_columns(observation), **self.result}).items():
            self.tokens[name][:, self.length] = torch.from_numpy(np.ascontiguousarray(values))
        self.length += 1
        if not self.cached:
            return self.model(**self.inputs(0))
        if self.in_cache == 0:  # a new context: read all of its tokens
            self.cache.reset()
        output: ADOutput = self.model(**self.inputs(self.in_cache), past_key_values=self.cache, use_cache=True)
        self.in_cache = self.length
        return output

    def entering(self, token: Columns) -> Columns:
        """The token that enters the context at the current step, given the true one. Ablations change it."""
        return token

    def forget_oldest(self) -> None:
        """Makes room in a full context: forgets its oldest half."""
        for tokens in self.tokens.values():
            tokens[:, : self.keep] = tokens[:, self.capacity - self.keep :].clone()
        self.length, self.in_cache = self.keep, 0

    def inputs(self, first: int) -> dict[str, Any]:
        """The model's arguments for the tokens of the context from number `first` on."""
        return model_inputs({name: tokens[:, first : self.length] for name, tokens in self.tokens.items()})

    def _buffer(self, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        return torch.zeros((num_envs, self.capacity, *shape), dtype=kind, device=self.model.device)


class WindowLayer(DynamicLayer):
    """Keys and values of one layer, in memory that is allocated once; transformers' own layer grows by copying."""

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
