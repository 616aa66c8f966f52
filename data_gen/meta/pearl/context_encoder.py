"""The belief over a latent task variable: a network's factor for each transition, and their product (PEARL).

Axes: T tasks, C transitions of a context, L dimensions of the latent variable z.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from data_gen.agents.deep.networks import MLP, softplus

_LEAST_VARIANCE = 1e-7
"""Of a factor, as in the authors' code."""

_BLOCK = 16
"""Rows of a product in `StackedMLP.by_blocks`."""


class StackedMLP(nn.Module):
    """Several multi-layer perceptrons of one shape, run as one batched product; ReLU between layers.

    Weights are drawn on the CPU, so that they are the same whatever the device, uniformly in +-1 / sqrt(inputs).

    Args:
        count: N, how many.
        sizes: features of the input, of the hidden layers and of the output.
        device: where they are.
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
        """(N, rows, F) -> (N, rows, outputs); `frozen` lets gradients reach the inputs, but no parameter."""
        return self.layers([parameter.detach() if frozen else parameter for parameter in self.stack], inputs)

    def by_blocks(self, rows: Tensor) -> Tensor:
        """(R, F) -> (R, outputs) of the only network, with the same bits for a row whatever the other rows are.

        The matrix library rounds otherwise for other numbers of rows; here every product has as many, and there are
        always several (see `data_gen/agents/deep/base.py`).
        """
        blocks = max(2, -(-len(rows) // _BLOCK))
        padded = pad(rows, (0, 0, 0, blocks * _BLOCK - len(rows))).view(blocks, _BLOCK, -1)
        outputs = self.layers([parameter.expand(blocks, -1, -1) for parameter in self.stack], padded)
        return outputs.reshape(blocks * _BLOCK, -1)[: len(rows)]


class ContextEncoder(StackedMLP):
    """Gives every transition a Gaussian factor over z (Rakelly et al. 2019, equation 2).

    Args:
        features: numbers that a transition is described by.
        hidden_sizes: of its hidden layers.
        latent_size: L.
        device: where it is.
    """

    def __init__(self, features: int, hidden_sizes: Sequence[int], latent_size: int, device: torch.device) -> None:
        super().__init__(1, (features, *hidden_sizes, 2 * latent_size), device)

    def factors(self, transitions: Tensor) -> tuple[Tensor, Tensor]:
        """(..., F) transitions -> means and variances of their factors, each (..., L)."""
        outputs = self(transitions.reshape(1, -1, transitions.shape[-1])).reshape(*transitions.shape[:-1], -1)
        return self._gaussians(outputs)

    def factors_by_blocks(self, transitions: Tensor) -> tuple[Tensor, Tensor]:
        """The same of (R, F) transitions, with bits that do not depend on the other rows."""
        return self._gaussians(self.by_blocks(transitions))

    def posterior(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(T, C, F) contexts -> mean and variance of q(z | context), each (T, L)."""
        return product_of_gaussians(*self.factors(context))

    def _gaussians(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = outputs.chunk(2, dim=-1)
        return mean, softplus(spread).clamp_min(_LEAST_VARIANCE)


def product_of_gaussians(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the normalised product of C Gaussians, each (..., L), of (..., C, L) factors.

    Precisions add up, so the order of the factors does not matter, and the prior is no factor of its own: the KL term
    of the loss draws the whole product to it.
    """
    precision = variances.reciprocal()
    variance = precision.sum(dim=-2).reciprocal()
    return variance * (precision * means).sum(dim=-2), variance


def kl_from_prior(mean: Tensor, variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, **summed** over everything: (T, L) -> ().

    A sum over tasks and dimensions, where the critics' loss is a mean: the weights of the paper's table go with that.
    """
    return 0.5 * (mean.square() + variance - variance.log() - 1).sum()
