"""Recurrent cores, GRU and LSTM: a hand-written gradient, and on a GPU cuDNN's where no sequence restarts.

Axes: T steps, B sequences, F inputs, H units, G gate values (3H for a GRU, 4H for an LSTM).
"""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from data_gen.meta.rl2.unrolled import UnrolledGRU, UnrolledLSTM, gru_step, lstm_step

Cell = Literal["gru", "lstm"]


class Core(nn.Module):
    """Base of the recurrent layers, whose state starts at zero.

    Args:
        inputs: F.
        units: H.
        longest: steps that memories should be able to span. It sets the initial biases: the gate that keeps the state
            has a bias drawn as log U(1, longest), so that units forget on time scales up to `longest` (Tallec and
            Ollivier 2018, "Can recurrent neural networks warp time?").
    """

    states: int
    """State values per unit."""
    layer: nn.GRU | nn.LSTM

    def __init__(self, inputs: int, units: int, longest: int) -> None:
        super().__init__()
        self.units = units
        self.layer = self.make_layer(inputs, units)
        _, matrix, input_bias, bias = self.weights
        with torch.no_grad():
            for rows in matrix.split(units):
                nn.init.orthogonal_(rows)
            input_bias.zero_()
            bias.zero_()
            self.keep_for(input_bias, torch.empty(units).uniform_(1, max(longest, 1)).log_())

    @property
    def weights(self) -> list[nn.Parameter]:
        """(G, F) input matrix, (G, H) recurrent matrix, and a (G,) bias for each of the two."""
        return self.layer.all_weights[0]

    @abstractmethod
    def make_layer(self, inputs: int, units: int) -> nn.GRU | nn.LSTM:
        """PyTorch's layer, which holds the parameters."""

    @abstractmethod
    def keep_for(self, bias: Tensor, kept: Tensor) -> None:
        """Writes `kept`, the (H,) bias of the gate that keeps the state, into the (G,) `bias`."""

    @abstractmethod
    def advance(self, products: Tensor, state: Tensor) -> Tensor:
        """One step: (B, G) products of the inputs, plus `input_bias`, and (B, states x H) state -> the next state."""

    @abstractmethod
    def unroll(self, inputs: Tensor, keep: Tensor | None) -> Tensor:
        """As `forward`, with the hand-written gradient."""

    def start(self, sequences: int) -> Tensor:
        """(B, states x H) initial state; the first H columns of a state are the core's output."""
        return torch.zeros(sequences, self.states * self.units, device=self.weights[0].device)

    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(B, F) inputs and the current state -> the next state; without gradients."""
        products = torch.addmm(self.input_bias(), inputs, self.weights[0].t())
        return self.advance(products, state)

    @abstractmethod
    def input_bias(self) -> Tensor:
        """(G,) bias that is added to the products of the inputs."""

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        """Outputs at all steps.

        Args:
            inputs: (T, B, F).
            keep: (T, B) 0 where a sequence restarts before this step and 1 elsewhere; None if no sequence restarts.

        Returns:
            (T, B, H).
        """
        if keep is None and inputs.is_cuda:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # full precision, as in acting
                outputs: Tensor = self.layer(inputs)[0]
            return outputs
        return self.unroll(inputs, keep)


class GRU(Core):
    """Gated recurrent unit (Cho et al. 2014) in PyTorch's form, with the reset gate after the recurrent product."""

    states = 1

    def make_layer(self, inputs: int, units: int) -> nn.GRU:
        return nn.GRU(inputs, units)

    def keep_for(self, bias: Tensor, kept: Tensor) -> None:
        bias[self.units : 2 * self.units] = kept

    def input_bias(self) -> Tensor:
        _, _, input_bias, bias = self.weights
        return input_bias + torch.cat([bias[: 2 * self.units], torch.zeros_like(bias[: self.units])])

    def advance(self, products: Tensor, state: Tensor) -> Tensor:
        after = torch.empty_like(state)
        recurrent = torch.empty_like(products)
        gru_step(products, state, self.weights[1].t(), self._hidden_bias(), recurrent, recurrent, after)
        return after

    def unroll(self, inputs: Tensor, keep: Tensor | None) -> Tensor:
        matrices = self.weights[:2]
        outputs: Tensor = UnrolledGRU.apply(inputs, *matrices, self.input_bias(), self._hidden_bias(), keep)
        return outputs

    def _hidden_bias(self) -> Tensor:
        return self.weights[3][2 * self.units :]


class LSTM(Core):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), without peepholes."""

    states = 2

    def make_layer(self, inputs: int, units: int) -> nn.LSTM:
        return nn.LSTM(inputs, units)

    def keep_for(self, bias: Tensor, kept: Tensor) -> None:
        bias[: self.units], bias[self.units : 2 * self.units] = -kept, kept

    def input_bias(self) -> Tensor:
        return self.weights[2] + self.weights[3]

    def advance(self, products: Tensor, state: Tensor) -> Tensor:
        after = torch.empty_like(state)
        units, matrix = self.units, self.weights[1].t()
        before, cell = state[:, :units], state[:, units:]
        lstm_step(products, before, cell, matrix, after[:, :units], after[:, units:], torch.empty_like(cell))
        return after

    def unroll(self, inputs: Tensor, keep: Tensor | None) -> Tensor:
        outputs: Tensor = UnrolledLSTM.apply(inputs, *self.weights[:2], self.input_bias(), keep)
        return outputs


CORES: dict[Cell, type[Core]] = {"gru": GRU, "lstm": LSTM}
