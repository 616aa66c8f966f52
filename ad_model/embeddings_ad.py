"""What a step brings, as vectors of the transformer's width: an encoder for every kind of space, chosen by the space.

Part of the self-contained model: torch alone. Axes: B batch, T steps.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_LARGEST = 10.0
"""Standardised values are cut off here, so that a new task's outlier does not swamp the token."""

_CHANNELS = (16, 32, 64, 64, 64, 64)
_SMALLEST_SIDE = 3
"""Convolutions halve an image until its shorter side is no more than this."""


def leaf_spaces(space: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """The leaves of a space (plain values) by dotted path; a space that is neither Dict nor Tuple is its own, at ""."""
    if space["type"] not in ("Dict", "Tuple"):
        return {path: space}
    parts = space["spaces"].items() if space["type"] == "Dict" else enumerate(space["spaces"])
    found: dict[str, dict[str, Any]] = {}
    for name, part in parts:
        found |= leaf_spaces(part, f"{path}.{name}" if path else str(name))
    return found


def channel_axis(space: dict[str, Any]) -> int | None:
    """Which axis of an image Box holds its channels: its first or last, the shorter; None if it is not an image.

    A Box of three axes is an image, and so is one of two axes of bytes, with one channel (then -1 is returned).
    """
    shape = space.get("shape", ())
    if len(shape) == 3:
        return 0 if shape[0] < shape[2] else 2
    return -1 if len(shape) == 2 and space["dtype"] == "uint8" else None


class TableEmbedding(nn.Module):
    """Discrete and MultiDiscrete: a row of a table; of a MultiDiscrete, the sum of its parts' rows."""

    first_row: Tensor

    def __init__(self, space: dict[str, Any], width: int) -> None:
        super().__init__()
        sizes = flat(space["n"] if space["type"] == "Discrete" else space["nvec"])
        first_row = [sum(sizes[:place]) - start for place, start in enumerate(flat(space["start"]))]
        self.register_buffer("first_row", torch.tensor(first_row), persistent=True)
        self.table = nn.Embedding(sum(sizes), width)

    def forward(self, values: Tensor) -> Tensor:
        rows = values.long().reshape(*values.shape[:2], -1) + self.first_row
        return self.table(rows).sum(dim=2)


class VectorEmbedding(nn.Module):
    """A Box that is not an image: its numbers, standardised, through two layers."""

    mean: Tensor
    std: Tensor

    def __init__(self, space: dict[str, Any], width: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        size = math.prod(space["shape"])
        self.register_buffer("mean", torch.tensor(mean).expand(size).clone(), persistent=True)
        self.register_buffer("std", torch.tensor(std).expand(size).clone(), persistent=True)
        self.layers = nn.Sequential(nn.Linear(size, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, values: Tensor) -> Tensor:
        return self.layers(_standardised(values.reshape(*values.shape[:2], -1), self.mean, self.std))


class ImageEmbedding(nn.Module):
    """A Box that is an image: standardised by channel, halved by convolutions, flattened, so that places stay known."""

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
        batch, steps = values.shape[:2]
        images = values.reshape(batch * steps, *self.shape)
        if not self.channels_last:
            images = images.movedim(1, -1)
        images = _standardised(images, self.mean, self.std).movedim(-1, 1)
        return self.layers(images).reshape(batch, steps, -1)


def _standardised(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """In the statistics' type, which is that of the weights: they are moved together."""
    return ((values.to(mean.dtype) - mean) / std).clamp(-_LARGEST, _LARGEST)


def flat(values: Any) -> list[Any]:
    """A plain value, or nested lists of them, as one list."""
    return [leaf for part in values for leaf in flat(part)] if isinstance(values, list) else [values]


def bounds(space: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The lowest and the highest value of each of a Box's numbers. Raises ValueError if there is no bound somewhere."""
    size = math.prod(space["shape"])
    found = [flat(space.get(name)) for name in ("low", "high")]
    if any(value is None for bound in found for value in bound):
        raise ValueError(f"a Box of shape {space['shape']} without bounds cannot be scaled; give it bounds")
    low, high = (bound * (size // len(bound)) for bound in found)
    return low, high


def leaf_embedding(space: dict[str, Any], width: int, statistics: Mapping[str, Any] | None = None) -> nn.Module:
    """The encoder of one leaf space: (B, T, ...) -> (B, T, width).

    Args:
        statistics: `mean` and `std` of a Box, by element, or by channel for an image; without them, those that map
            its bounds to -1 and 1.

    Raises ValueError for a space that has none, and for a Box without statistics and bounds.
    """
    if space["type"] in ("Discrete", "MultiDiscrete"):
        return TableEmbedding(space, width)
    if space["type"] != "Box":
        raise ValueError(f"no encoder for a space of type {space['type']}")
    if statistics is None:
        low, high = bounds(space)
        if channel_axis(space) is not None:  # an image's bounds are the same everywhere
            low, high = [min(low)], [max(high)]
        pairs = list(zip(low, high, strict=True))
        statistics = {"mean": [(b + a) / 2 for a, b in pairs], "std": [(b - a) / 2 or 1.0 for a, b in pairs]}
    kind = VectorEmbedding if channel_axis(space) is None else ImageEmbedding
    return kind(space, width, statistics["mean"], statistics["std"])


class ObservationEmbedding(nn.Module):
    """An observation of any supported space: the sum of its leaves' embeddings."""

    def __init__(self, space: dict[str, Any], width: int, statistics: Mapping[str, Any]) -> None:
        super().__init__()
        spaces = leaf_spaces(space)
        self.paths = sorted(spaces)  # not in the space's order, which a config's way through JSON does not keep
        self.leaves = nn.ModuleList(leaf_embedding(spaces[path], width, statistics.get(path)) for path in self.paths)

    def forward(self, observation: Tensor | Mapping[str, Tensor]) -> Tensor:
        """(B, T, ...), or for a Dict or Tuple space such a tensor by each leaf's dotted path -> (B, T, width)."""
        values = {"": observation} if isinstance(observation, Tensor) else observation
        embedded = [leaf(values[path]) for path, leaf in zip(self.paths, self.leaves, strict=True)]
        return torch.stack(embedded).sum(dim=0) if len(embedded) > 1 else embedded[0]
