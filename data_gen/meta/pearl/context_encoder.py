"""The belief over a latent task variable: one Gaussian factor per transition, and the product of all factors (PEARL).

Axes: T tasks, C transitions per context, L dimensions of the latent variable z.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from data_gen.agents.deep.encoding import Encoder
from data_gen.agents.deep.networks import MLP, softplus
from data_gen.streams import SlotStreams

_LEAST_VARIANCE = 1e-7
"""Lower bound of a factor's variance, as in the authors' code."""

_BLOCK = 16
"""Rows per product in `StackedMLP.by_blocks`."""


class StackedMLP(nn.Module):
    """Several multi-layer perceptrons of one shape, run as one batched product; ReLU between layers.

    Weights are drawn uniformly in +-1 / sqrt(inputs), on the CPU, so that they do not depend on the device.

    Args:
        count: N, number of perceptrons.
        sizes: features of the input, of the hidden layers and of the output.
        device: device of the parameters.
    """

    def __init__(self, count: int, sizes: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self.layers = MLP(sizes, "relu")
        bounds = [1 / math.sqrt(size) for size in self.layers.sizes[:-1] for _ in range(2)]
        self.stack = nn.ParameterList(
            nn.Parameter(torch.empty(count, *shape).uniform_(-bound, bound).to(device))
            for shape, bound in zip(self.layers.shapes, bounds, strict=True)
        )

    def forward(self, inputs: Tensor, frozen: bool = False) -> Tensor:
        """(N, rows, F) -> (N, rows, outputs); with `frozen`, gradients reach the inputs but not the parameters."""
        return self.layers([parameter.detach() if frozen else parameter for parameter in self.stack], inputs)

    def by_blocks(self, rows: Tensor) -> Tensor:
        """(R, F) -> (R, outputs) of a stack of one network; the bits of a row do not depend on the other rows.

        The matrix library rounds differently for different numbers of rows. Here every product has the same number of
        rows, and there are always several products (see `data_gen/agents/deep/base.py`).
        """
        blocks = max(2, -(-len(rows) // _BLOCK))
        padded = pad(rows, (0, 0, 0, blocks * _BLOCK - len(rows))).view(blocks, _BLOCK, -1)
        outputs = self.layers([parameter.expand(blocks, -1, -1) for parameter in self.stack], padded)
        return outputs.reshape(blocks * _BLOCK, -1)[: len(rows)]


class ContextEncoder(StackedMLP):
    """A network that maps every transition to a Gaussian factor over z (Rakelly et al. 2019, equation 2).

    Args:
        features: F, numbers that describe a transition.
        hidden_sizes: widths of the hidden layers.
        latent_size: L.
        device: device of the parameters.
    """

    def __init__(self, features: int, hidden_sizes: Sequence[int], latent_size: int, device: torch.device) -> None:
        super().__init__(1, (features, *hidden_sizes, 2 * latent_size), device)

    def factors(self, transitions: Tensor) -> tuple[Tensor, Tensor]:
        """(..., F) transitions -> means and variances of their factors, each (..., L)."""
        outputs = self(transitions.reshape(1, -1, transitions.shape[-1])).reshape(*transitions.shape[:-1], -1)
        return self._gaussians(outputs)

    def factors_by_blocks(self, transitions: Tensor) -> tuple[Tensor, Tensor]:
        """As `factors`, for (R, F) transitions; the bits of a row do not depend on the other rows."""
        return self._gaussians(self.by_blocks(transitions))

    def posterior(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(T, C, F) contexts -> mean and variance of q(z | context), each (T, L)."""
        return product_of_gaussians(*self.factors(context))

    def _gaussians(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = outputs.chunk(2, dim=-1)
        return mean, softplus(spread).clamp_min(_LEAST_VARIANCE)


def product_of_gaussians(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """(..., C, L) means and variances of C Gaussians -> mean and variance of their normalised product, (..., L) each.

    Precisions add up, so the order of the factors does not matter. The prior is not one of the factors: the KL term of
    the loss pulls the whole product towards it.
    """
    precision = variances.reciprocal()
    variance = precision.sum(dim=-2).reciprocal()
    return variance * (precision * means).sum(dim=-2), variance


def kl_from_prior(mean: Tensor, variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, **summed** over tasks and dimensions: (T, L) -> ().

    The critics' loss is a mean, but this is a sum: the coefficients of the paper's table assume that combination.
    """
    return 0.5 * (mean.square() + variance - variance.log() - 1).sum()


def observation_features(encoder: Encoder, fields: dict[str, Tensor], name: str) -> Tensor:
    """(..., F) features of the `observation` or `next_observation` among transitions by field, chosen by `name`."""
    prefix = f"{name}."
    stored = {path.removeprefix(prefix): leaf for path, leaf in fields.items() if path.startswith(prefix)}
    return encoder.encode(stored)


def latent_noise(streams: SlotStreams, slots: NDArray[np.intp], like: Tensor) -> Tensor:
    """(len(slots), L) standard normal numbers from the streams of `slots`; device and L are those of `like`."""
    drawn = streams.normal_at(slots, like.shape[1]).astype(np.float32)
    return torch.from_numpy(drawn).to(like.device)
