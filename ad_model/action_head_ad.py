"""The distribution over the next action: independent categorical factors, whatever the action space.

A Discrete action is one factor, a MultiDiscrete action has one factor per part, and a Box action has one per number.
The range of each number of a Box is cut into equal bins. That makes a piecewise constant density, which can be uniform
or precise. Part of the self-contained model: torch alone.

Axes: B batch, T steps, F factors, K values of a factor.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .embeddings_ad import bounds, check_size, flat


class ActionHead(nn.Module):
    """The policy head: logits of every factor, their loss, and actions drawn from them.

    Args:
        space: the action space as plain values.
        width: hidden size of the transformer.
        bins: number of values of each factor of a Box.

    Raises ValueError for any other space, and for a Box without bounds.
    """

    first: Tensor
    unreachable: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, space: dict[str, Any], width: int, bins: int) -> None:
        super().__init__()
        self.continuous = space["type"] == "Box"
        self.shape: list[int]
        # The factors: one per number of a Box, else one per part.
        if self.continuous:
            if not space["dtype"].startswith("float"):
                raise ValueError(f"an action space Box of {space['dtype']} has no action head; use a MultiDiscrete")
            check_size(bins * math.prod(space["shape"]), "logits", space)
            self.shape, sizes = list(space["shape"]), [bins] * math.prod(space["shape"])
            low, high = bounds(space)
            self.register_buffer("low", torch.tensor(low), persistent=True)
            self.register_buffer("high", torch.tensor(high), persistent=True)
            first = [0] * len(sizes)
        elif space["type"] in ("Discrete", "MultiDiscrete"):
            values = space["n"] if space["type"] == "Discrete" else space["nvec"]
            self.shape, sizes, first = _shape(values), flat(values), flat(space["start"])
        else:
            raise ValueError(f"an action space of type {space['type']} has no action head")
        # Every factor has as many logits as the largest one; the surplus is masked.
        self.bins = max(sizes, default=0)
        check_size(len(sizes) * self.bins, "logits", space)
        self.register_buffer("first", torch.tensor(first), persistent=True)
        self.register_buffer("unreachable", torch.arange(self.bins) >= torch.tensor(sizes)[:, None], persistent=True)
        self.linear = nn.Linear(width, len(sizes) * self.bins)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, F, K) logits, float32; -inf for values that a factor does not have."""
        logits = self.linear(hidden).float().unflatten(-1, self.unreachable.shape)
        return logits.masked_fill(self.unreachable, -torch.inf)

    def factors(self, action: Tensor) -> Tensor:
        """(B, T, ...) actions -> (B, T, F) the value of each factor, counted from 0."""
        values = action.flatten(2) if action.ndim > 2 else action[..., None]
        if not self.continuous:
            return values.long() - self.first
        position = ((values - self.low) / (self.high - self.low)).nan_to_num()  # NaN where low and high are equal
        return (position * self.bins).long().clamp(0, self.bins - 1)

    def loss(self, logits: Tensor, action: Tensor, reduction: Literal["mean", "none"] = "mean") -> Tensor:
        """Negative log-likelihood of the actions (for a Box, of their bins), summed over factors.

        Args:
            logits: (B, T, F, K).
            action: (B, T, ...).
            reduction: `mean` over B and T, or `none` for one value per step, (B, T).
        """
        target = self.factors(action)
        if reduction == "none":
            loss = nn.functional.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
            return loss.view(target.shape).sum(dim=-1)
        loss = nn.functional.cross_entropy(logits.flatten(0, 2), target.flatten())
        return loss * target.shape[-1]

    def sample(self, logits: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        """Draws actions by inverting the cumulative distribution function of each factor.

        Args:
            logits: (B, F, K).
            uniform: (B, F) random numbers in [0, 1). Within the probability mass of the drawn bin, the number also
                decides where a Box's action lies in that bin.
            temperature: temperature of the distribution; 0, or as little as no number of the logits' type, takes the
                most likely value, and for a Box the middle of its bin.

        Returns:
            (B, ...) actions: integers, or float32 for a Box.
        """
        if temperature < torch.finfo(logits.dtype).tiny:  # a quotient by less is NaN
            value = logits.argmax(dim=-1)
            inside = torch.full_like(uniform, 0.5)
        else:
            best = logits.amax(dim=-1, keepdim=True)
            probability = ((logits - best) / temperature).softmax(dim=-1)
            cumulative = probability.cumsum(dim=-1)
            below_one = uniform.clamp(max=1 - torch.finfo(uniform.dtype).eps)  # float32 may have rounded up to 1
            draw = (below_one * cumulative[..., -1])[..., None]
            last = (~self.unreachable).sum(dim=-1) - 1
            value = torch.minimum((cumulative <= draw).sum(dim=-1), last)
            own = probability.gather(-1, value[..., None])
            before = cumulative.gather(-1, value[..., None]) - own
            inside = ((draw - before) / own.clamp_min(torch.finfo(own.dtype).tiny))[..., 0].clamp(0, 1)
        if self.continuous:
            action = self.low + (value + inside) / self.bins * (self.high - self.low)
            action = action.clamp(self.low, self.high)
        else:
            action = value + self.first
        return action.reshape(len(logits), *self.shape)


def _shape(values: Any) -> list[int]:
    """The shape of nested lists."""
    return [len(values), *_shape(values[0])] if isinstance(values, list) else []
