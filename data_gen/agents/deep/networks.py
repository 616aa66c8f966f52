"""Stacked networks, one per learner: a layer of all learners is one batched matrix product.

The parameters of a stack lie in one flat array (num_learners, size); the layers' matrices are views of the array. So an
update, a copy to a target network and a norm take a few operations over the array, however many layers there are. Axes
in comments: N learners, B rows (of a batch or of actors), F features.
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

_NARROW = 16  # with fewer outputs, a layer is faster as a `_NarrowLayer`

_FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu}


class Stack:
    """Parameters of several layers and their gradients, one row per learner.

    Args:
        num_learners: N, at least 2: for a stack of one, the matrix library takes another code path, and results differ
            in the last bits (`DeepLearner` gives a lone learner a twin).
        shapes: shapes of the parameters of one learner.
        device: device of the parameters.
    """

    def __init__(self, num_learners: int, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(num_learners, sum(sizes), device=device)
        """(N, size) all parameters."""
        self.gradient = torch.zeros_like(self.flat)
        """(N, size) gradient from the last call of `differentiate`."""
        self.parameters: list[Tensor] = []
        """Views of `flat`, one (N, *shape) tensor per shape."""
        for part, shape in zip(self.flat.split(sizes, dim=1), shapes, strict=True):
            self.parameters.append(part.view(num_learners, *shape).requires_grad_())

    def differentiate(self, losses: Tensor) -> None:
        """Sets `gradient` to every learner's own gradient.

        Learners share no parameters, so the gradient of the summed losses holds every learner's gradient.

        Args:
            losses: (N,) one loss per learner.
        """
        gradients = torch.autograd.grad(losses.sum(), self.parameters)
        torch.cat([part.reshape(len(part), -1) for part in gradients], dim=1, out=self.gradient)


class MLP:
    """Multi-layer perceptrons over some parameters of a stack, one per learner.

    Args:
        sizes: number of features of the input, the hidden layers and the output.
        activation: function between layers; not applied to the output.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation) -> None:
        self.sizes, self.activation = tuple(sizes), _FUNCTIONS[activation]
        self.shapes = [
            shape for inputs, outputs in itertools.pairwise(self.sizes) for shape in ((inputs, outputs), (1, outputs))
        ]
        """Shapes of a matrix and a bias per layer, as `Stack` takes them."""

    def __call__(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """(N, B, F) inputs -> (N, B, outputs) outputs.

        Args:
            parameters: one (N, *shape) tensor per shape of `shapes`.
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
            streams: one stream per learner.
            gains: one gain per layer, for orthogonal matrices and zero biases (Saxe et al. 2014), as is usual for
                policy gradients; None for uniform parameters in +-1 / sqrt(inputs), PyTorch's default.
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
    """`torch.baddbmm` for few outputs, such as a policy's or a value's.

    The matrix library is fast if the short side of a product is its rows, and five times slower if the short side is
    its columns. So the products here are transposed, worth a tenth of PPO's time for 256 learners of 64 x 64 networks.
    """

    @staticmethod
    def forward(ctx: Any, bias: Tensor, inputs: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, matrix)
        return torch.bmm(matrix.transpose(1, 2), inputs.transpose(1, 2)).transpose(1, 2) + bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, matrix = ctx.saved_tensors
        needs_bias, needs_inputs, needs_matrix = ctx.needs_input_grad
        transposed = matrix.transpose(1, 2)
        one_output = matrix.shape[2] == 1
        return (
            gradient.sum(dim=1, keepdim=True) if needs_bias else None,
            (gradient * transposed if one_output else torch.bmm(gradient, transposed)) if needs_inputs else None,
            torch.bmm(gradient.transpose(1, 2), inputs).transpose(1, 2) if needs_matrix else None,
        )


def _orthogonal(streams: SlotStreams, inputs: int, outputs: int, gain: float) -> Tensor:
    """Uniformly distributed (N, inputs, outputs) matrices with orthogonal rows or columns, whichever are fewer."""
    drawn = torch.from_numpy(streams.normal(max(inputs, outputs), min(inputs, outputs)))
    basis, triangle = torch.linalg.qr(drawn)
    # The QR decomposition leaves signs open; fixing them makes the distribution uniform.
    basis = basis * torch.diagonal(triangle, dim1=1, dim2=2).sign().unsqueeze(1)
    return gain * (basis if inputs >= outputs else basis.transpose(1, 2))


def uniform(streams: SlotStreams, device: torch.device, *shape: int) -> Tensor:
    """(N, *shape) uniform numbers in [0, 1] from each learner's stream, as float32."""
    return torch.from_numpy(streams.uniform(*shape).astype(np.float32)).to(device)


def normal(streams: SlotStreams, device: torch.device, *shape: int) -> Tensor:
    """(N, *shape) standard normal numbers from each learner's stream, as float32."""
    return torch.from_numpy(streams.normal(*shape).astype(np.float32)).to(device)


def softplus(values: Tensor) -> Tensor:
    """log(1 + exp(x)). On a CPU, the last bits of PyTorch's own depend on the position in the tensor."""
    return values.relu() + (1 + (-values.abs()).exp()).log()
