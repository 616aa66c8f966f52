"""Encoders of observations and actions into vectors of the transformer's width: one encoder per kind of space.

Part of the self-contained model: torch alone. Axes: B batch, T steps.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_LARGEST = 10.0
"""Standardised values are clipped to this size, so that an outlier of a new task does not dominate the token."""

_CHANNELS = (16, 32, 64, 64, 64, 64)
"""Output channels of the convolutions, first to last."""

_SMALLEST_SIDE = 3
"""Convolutions halve an image until its shorter side has at most this many pixels."""


MOST_ROWS = 2**24
"""Most rows of a table, inputs of a layer, or logits per step. A larger space is refused before it is allocated."""


def check_size(count: int, what: str, space: dict[str, Any]) -> None:
    """Raises ValueError if `count`, the number of `what` that a space needs, is 0 or beyond what is allocated."""
    if not 0 < count <= MOST_ROWS:
        text = ", ".join(f"{key} {str(value)[:60]}" for key, value in space.items() if key in ("n", "nvec", "shape"))
        raise ValueError(f"a {space['type']} with {text} needs {count:,} {what}; the limits are 1 and {MOST_ROWS:,}")


def leaf_spaces(space: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """The leaves of a space (plain values) by dotted path; a space other than Dict or Tuple is its own leaf, at ""."""
    if space["type"] not in ("Dict", "Tuple"):
        return {path: space}
    parts = space["spaces"].items() if space["type"] == "Dict" else enumerate(space["spaces"])
    spaces: dict[str, dict[str, Any]] = {}
    for name, part in parts:
        spaces |= leaf_spaces(part, f"{path}.{name}" if path else str(name))
    return spaces


def channel_axis(space: dict[str, Any]) -> int | None:
    """Axis of an image Box that holds the channels: the shorter of the first and the last; None if it is not an image.

    A Box with three axes is an image. A Box of bytes with two axes is an image with one channel; -1 stands for that.
    """
    shape = space.get("shape", ())
    if len(shape) == 3:
        return 0 if shape[0] < shape[2] else 2
    return -1 if len(shape) == 2 and space["dtype"] == "uint8" else None


class TableEmbedding(nn.Module):
    """Encoder of Discrete and MultiDiscrete: a row of a table; for a MultiDiscrete, the sum of one row per part."""

    first_row: Tensor

    def __init__(self, space: dict[str, Any], width: int) -> None:
        super().__init__()
        sizes = flat(space["n"] if space["type"] == "Discrete" else space["nvec"])
        check_size(sum(sizes), "rows of a table", space)
        first_row = [sum(sizes[:part]) - start for part, start in enumerate(flat(space["start"]))]
        self.register_buffer("first_row", torch.tensor(first_row), persistent=True)
        self.table = nn.Embedding(sum(sizes), width)

    def forward(self, values: Tensor) -> Tensor:
        """(B, T, ...) -> (B, T, width)."""
        rows = values.long().reshape(*values.shape[:2], -1) + self.first_row
        return self.table(rows).sum(dim=2)


class VectorEmbedding(nn.Module):
    """Encoder of a Box that is not an image: standardised numbers through two layers."""

    mean: Tensor
    std: Tensor

    def __init__(self, space: dict[str, Any], width: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        size = math.prod(space["shape"])
        self.register_buffer("mean", torch.tensor(mean).expand(size).clone(), persistent=True)
        self.register_buffer("std", torch.tensor(std).expand(size).clone(), persistent=True)
        self.layers = nn.Sequential(nn.Linear(size, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, values: Tensor) -> Tensor:
        """(B, T, ...) -> (B, T, width)."""
        return self.layers(_standardised(values.reshape(*values.shape[:2], -1), self.mean, self.std))


class ImageEmbedding(nn.Module):
    """Encoder of an image: standardised per channel, halved by convolutions, then flattened to keep positions apart."""

    mean: Tensor
    std: Tensor

    def __init__(self, space: dict[str, Any], width: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        axis = channel_axis(space)
        shape = [*space["shape"], 1] if axis == -1 else list(space["shape"])
        self.channels_last = axis != 0
        channels, *sides = [shape[2], *shape[:2]] if self.channels_last else shape
        self.register_buffer("mean", torch.tensor(mean).expand(channels).clone(), persistent=True)
        self.register_buffer("std", torch.tensor(std).expand(channels).clone(), persistent=True)
        layers: list[nn.Module] = []
        for out in _CHANNELS:
            if layers and min(sides) <= _SMALLEST_SIDE:
                break
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GELU()]
            channels, sides = out, [-(-side // 2) for side in sides]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(sides), width))
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """(B, T, ...) -> (B, T, width)."""
        batch, steps = values.shape[:2]
        images = values.reshape(batch * steps, *self.shape)
        if not self.channels_last:
            images = images.movedim(1, -1)
        images = _standardised(images, self.mean, self.std).movedim(-1, 1)
        return self.layers(images).reshape(batch, steps, -1)


def _standardised(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardised values in the dtype of the statistics, which are buffers and so have the dtype of the weights."""
    return ((values.to(mean.dtype) - mean) / std).clamp(-_LARGEST, _LARGEST)


def flat(values: Any) -> list[Any]:
    """A plain value, or nested lists of them, as one list."""
    return [leaf for part in values for leaf in flat(part)] if isinstance(values, list) else [values]


def bounds(space: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The lowest and the highest value of each number of a Box. Raises ValueError if a bound is missing."""
    size = math.prod(space["shape"])
    stated = [flat(space.get(name)) for name in ("low", "high")]
    if any(value is None for bound in stated for value in bound):
        raise ValueError(f"a Box of shape {space['shape']} without bounds cannot be scaled; give it bounds")
    low, high = (bound * (size // len(bound)) for bound in stated)
    return low, high


def leaf_embedding(space: dict[str, Any], width: int, statistics: Mapping[str, Any] | None = None) -> nn.Module:
    """The encoder of one leaf space: (B, T, ...) -> (B, T, width).

    Args:
        space: the leaf as plain values.
        width: hidden size of the transformer.
        statistics: `mean` and `std` of a Box, per element, or per channel for an image; None takes those that map the
            bounds to -1 and 1.

    Raises ValueError for a space without an encoder, and for a Box with neither statistics nor bounds.
    """
    if space["type"] in ("Discrete", "MultiDiscrete"):
        return TableEmbedding(space, width)
    if space["type"] != "Box":
        raise ValueError(f"a space of type {space['type']} has no encoder")
    check_size(math.prod(space["shape"]), "inputs", space)
    if statistics is None:
        low, high = bounds(space)
        if channel_axis(space) is not None:  # one pair of bounds for the whole image
            low, high = [min(low)], [max(high)]
        pairs = list(zip(low, high, strict=True))
        statistics = {"mean": [(b + a) / 2 for a, b in pairs], "std": [(b - a) / 2 or 1.0 for a, b in pairs]}
    kind = VectorEmbedding if channel_axis(space) is None else ImageEmbedding
    return kind(space, width, statistics["mean"], statistics["std"])


class ObservationEmbedding(nn.Module):
    """Encoder of an observation of any supported space: the sum of the embeddings of its leaves."""

    def __init__(self, space: dict[str, Any], width: int, statistics: Mapping[str, Any]) -> None:
        super().__init__()
        spaces = leaf_spaces(space)
        self.paths = sorted(spaces)  # the space's own order does not survive JSON
        self.leaves = nn.ModuleList(leaf_embedding(spaces[path], width, statistics.get(path)) for path in self.paths)

    def forward(self, observation: Tensor | Mapping[str, Tensor]) -> Tensor:
        """(B, T, ...) -> (B, T, width). For a Dict or Tuple space, takes one tensor per leaf, by its dotted path."""
        values = {"": observation} if isinstance(observation, Tensor) else observation
        embedded = [leaf(values[path]) for path, leaf in zip(self.paths, self.leaves, strict=True)]
        return torch.stack(embedded).sum(dim=0) if len(embedded) > 1 else embedded[0]
