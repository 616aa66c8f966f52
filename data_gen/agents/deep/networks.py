"""One network a learner, all of them stacked: a layer of all learners is one batched matrix product.

The parameters of a stack lie in one flat array (num_learners, size), of which the layers' matrices are views: an
optimiser's step, a copy to a target network and a norm are a few operations over that array, however many layers there
are. Axes in comments: N learners, B rows (of a batch or of actors), F features.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data_gen.streams import SlotStreams

Activation = Literal["tanh", "relu"]

_NARROW = 16  # outputs of a layer, below which `_NarrowLayer` is faster

_FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu}


class Stack:
    """Parameters of several layers, and their gradients, one row a learner.

    Args:
        num_learners: N, at least 2: a stack of one takes another code path of the matrix library, whose results differ
            in the last bits (`DeepLearner` gives a lone learner a twin).
        shapes: of the parameters of one learner.
        device: where they are.
    """

    def __init__(self, num_learners: int, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(num_learners, sum(sizes), device=device)
        """(N, size) all parameters."""
        self.gradient = torch.zeros_like(self.flat)
        """(N, size) what `differentiate` found."""
        self.parameters: list[Tensor] = []
        """(N, *shape) views of `flat`."""
        for part, shape in zip(self.flat.split(sizes, dim=1), shapes, strict=True):
            self.parameters.append(part.view(num_learners, *shape).requires_grad_())

    def differentiate(self, losses: Tensor) -> None:
        """Sets `gradient` to each learner's own: a sum of losses that share no parameters falls apart in its gradient.

        Args:
            losses: (N,) one a learner.
        """
        found = torch.autograd.grad(losses.sum(), self.parameters)
        torch.cat([part.reshape(len(part), -1) for part in found], dim=1, out=self.gradient)


class MLP:
    """Multi-layer perceptrons over some parameters of a stack.

    Args:
        sizes: features of the input, of the hidden layers and of the output.
        activation: between layers, none after the last.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation) -> None:
        self.sizes, self.activation = tuple(sizes), _FUNCTIONS[activation]
        self.shapes = [
            shape for inputs, outputs in itertools.pairwise(self.sizes) for shape in ((inputs, outputs), (1, outputs))
        ]
        """A matrix and a bias a layer, as `Stack` takes them."""

    def __call__(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """(N, B, F) -> (N, B, outputs).

        Args:
            parameters: (N, *shape) for each of `shapes`.
            inputs: (N, B, F).
        """
        hidden = inputs
        for layer in range(0, len(parameters), 2):
            if layer:
                hidden = self.activation(hidden)
            matrix, bias = parameters[layer], parameters[layer + 1]
            if matrix.shape[2] < _NARROW:
                hidden = _NarrowLayer.apply(bias, hidden, matrix)
            else:
                hidden = torch.baddbmm(bias, hidden, matrix)
        return hidden

    def initialise(self, parameters: Sequence[Tensor], streams: SlotStreams, gains: Sequence[float] | None) -> None:
        """Draws initial parameters from each learner's stream.

        Args:
            parameters: as for `__call__`.
            streams: (N,) streams.
            gains: one a layer for orthogonal matrices and zero biases (Saxe et al. 2014), as policy gradients take
                them; None for uniform ones in +-1 / sqrt(inputs), PyTorch's own.
        """
        with torch.no_grad():
            for layer, (matrix, bias) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
                if gains is not None:
                    matrix.copy_(_orthogonal(streams, *self.shapes[2 * layer], gain=gains[layer]))
                    bias.zero_()
                    continue
                bound = 1 / math.sqrt(self.sizes[layer])
                for parameter in (matrix, bias):
                    drawn = (2 * streams.uniform(*parameter.shape[1:]) - 1) * bound
                    parameter.copy_(torch.from_numpy(drawn))


class _NarrowLayer(torch.autograd.Function):
    """`torch.baddbmm` for few outputs, as those of a policy or a value.

    The matrix library is quick where the short side of a product is its rows, and five times slower where it is its
    columns; so the products here are transposed ones. A tenth of PPO's time for 256 learners of 64 x 64 networks.
    """

    @staticmethod
    def forward(ctx: Any, bias: Tensor, inputs: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, matrix)
        return torch.bmm(matrix.transpose(1, 2), inputs.transpose(1, 2)).transpose(1, 2) + bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, matrix = ctx.saved_tensors
        of_bias, of_inputs, of_matrix = ctx.needs_input_grad
        turned = matrix.transpose(1, 2)
        narrowest = matrix.shape[2] == 1
        return (
            gradient.sum(dim=1, keepdim=True) if of_bias else None,
            (gradient * turned if narrowest else torch.bmm(gradient, turned)) if of_inputs else None,
            torch.bmm(gradient.transpose(1, 2), inputs).transpose(1, 2) if of_matrix else None,
        )


def _orthogonal(streams: SlotStreams, inputs: int, outputs: int, gain: float) -> Tensor:
    """(N, inputs, outputs) matrices with orthogonal rows or columns, whichever are fewer, uniformly distributed."""
    drawn = torch.from_numpy(streams.normal(max(inputs, outputs), min(inputs, outputs)))
    basis, triangle = torch.linalg.qr(drawn)
    basis = basis * torch.diagonal(triangle, dim1=1, dim2=2).sign().unsqueeze(1)
    return gain * (basis if inputs >= outputs else basis.transpose(1, 2))


def uniform(streams: SlotStreams, device: torch.device, *shape: int) -> Tensor:
    """(N, *shape) uniform numbers in [0, 1] from each learner's stream, as float32."""
    return torch.from_numpy(streams.uniform(*shape).astype(np.float32)).to(device)


def normal(streams: SlotStreams, device: torch.device, *shape: int) -> Tensor:
    """(N, *shape) standard normal numbers from each learner's stream, as float32."""
    return torch.from_numpy(streams.normal(*shape).astype(np.float32)).to(device)


def softplus(values: Tensor) -> Tensor:
    """log(1 + exp(x)). PyTorch's own gives other last bits at other places of a tensor, on a CPU."""
    return values.relu() + (1 + (-values.abs()).exp()).log()
