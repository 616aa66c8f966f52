"""A GRU and an LSTM over all steps, whose back-propagation through time is written out.

A small core's time goes into the overhead of many small operations and not into its products. So the products of the
inputs are one product for all steps, what a step keeps for its gradient overwrites what it was computed from, the
gradient's elementwise factors are made for several steps at once, and the gradients of the matrices are one product
each.

Axes: T steps, B sequences, F inputs, H units; G numbers of gates, 3H of a GRU and 4H of an LSTM.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_AT_ONCE = 2**16  # numbers in an elementwise operation of the gradient: several steps, and yet within a cache
_NARROW = 32  # columns, below which a product is up to ten times as fast on a CPU if they are its rows


def _tanh_(values: Tensor) -> Tensor:
    """tanh in place; by the logistic function, which is vectorised better: a quarter of the time on a CPU."""
    return values.mul_(2).sigmoid_().mul_(2).sub_(1)


def _products(inputs: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """(T, B, F) inputs -> (T, B, G) their products with a (G, F) matrix, and a bias."""
    steps, sequences, features = inputs.shape
    return torch.addmm(bias, inputs.reshape(-1, features), matrix.t()).view(steps, sequences, -1)


def _matrix_gradient(gradient: Tensor, inputs: Tensor) -> Tensor:
    """(T, B, G) gradients of products with (T, B, F) inputs -> (G, F) the gradient of the matrix."""
    rows, columns = gradient.flatten(0, 1), inputs.flatten(0, 1)
    if inputs.shape[2] < _NARROW:
        return torch.mm(columns.t(), rows).t()
    return torch.mm(rows.t(), columns)


def _chunks(steps: int, step_size: int) -> list[slice]:
    """The steps from the last to the first, several at once."""
    length = max(1, _AT_ONCE // step_size)
    return [slice(max(0, last - length), last) for last in range(steps, 0, -length)]


def gru_step(
    gates: Tensor, before: Tensor, matrix: Tensor, bias: Tensor, recurrent: Tensor, hidden: Tensor, after: Tensor
) -> None:
    """h' = (1 - z) n + z h, where n = tanh(products of the inputs + r (W h + b)).

    Args:
        gates: (B, 3H) products of the inputs; holds r, z and n afterwards.
        before: (B, H) h.
        matrix: (H, 3H).
        bias: (H,) b.
        recurrent: (B, 3H) space to work in.
        hidden: (B, H or 3H) its last H numbers hold W h + b afterwards.
        after: (B, H) holds h' afterwards.
    """
    units = before.shape[1]
    torch.mm(before, matrix, out=recurrent)
    reset_and_keep, new = gates[:, : 2 * units], gates[:, 2 * units :]
    reset_and_keep.add_(recurrent[:, : 2 * units]).sigmoid_()
    hidden = hidden[:, -units:]
    torch.add(recurrent[:, 2 * units :], bias, out=hidden)
    _tanh_(new.addcmul_(gates[:, :units], hidden))
    torch.lerp(new, before, gates[:, units : 2 * units], out=after)


class UnrolledGRU(torch.autograd.Function):
    """Outputs (T, B, H) of inputs (T, B, F), a (G, F) and a (G, H) matrix, their biases, and `keep` as `Core` takes it.

    The first bias is (G,), with the part of the second that is outside of n; the second (H,), inside.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        input_matrix: Tensor,
        matrix: Tensor,
        input_bias: Tensor,
        bias: Tensor,
        keep: Tensor | None,
    ) -> Tensor:
        steps, sequences, _ = inputs.shape
        units = matrix.shape[1]
        gates = _products(inputs, input_matrix, input_bias)
        outputs, hidden = gates.new_empty(steps, sequences, units), gates.new_empty(steps, sequences, units)
        # What each step starts from: the output before, unless sequences start anew.
        befores = None if keep is None else torch.zeros_like(outputs)
        recurrent, before, turned = gates.new_empty(sequences, 3 * units), torch.zeros_like(outputs[0]), matrix.t()
        for step in range(steps):
            if befores is not None and keep is not None and step:
                before = torch.mul(outputs[step - 1], keep[step].unsqueeze(1), out=befores[step])
            gru_step(gates[step], before, turned, bias, recurrent, hidden[step], outputs[step])
            before = outputs[step]
        ctx.save_for_backward(inputs, input_matrix, matrix, outputs)
        ctx.kept = gates, hidden, befores, keep
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_matrix, matrix, outputs = ctx.saved_tensors
        gates, hidden, befores, keep = ctx.kept
        del ctx.kept  # overwritten below: there is one backward pass
        steps, sequences, units = outputs.shape
        carried = torch.zeros_like(outputs[0])
        summed = torch.empty_like(carried)
        for part in _chunks(steps, sequences * units):
            # The gradient of every gate's product is the output's times a factor; the factors of several steps at once.
            reset, kept, new = gates[part].split(units, dim=2)
            before = _befores(outputs, befores, part)
            keeps = kept.clone()
            of_new = (1 - kept).mul_(new.square().neg_().add_(1))
            of_reset = of_new * hidden[part]
            of_reset.mul_(reset).mul_(1 - reset)
            torch.mul(of_new, reset, out=hidden[part])  # of the recurrent product inside n
            torch.mul(before.sub_(new).mul_(keeps), 1 - keeps, out=kept)
            reset.copy_(of_reset)
            new.copy_(of_new)
            for step in reversed(range(part.start, part.stop)):
                torch.add(carried, gradient[step], out=summed)
                gates[step].view(sequences, 3, units).mul_(summed.unsqueeze(1))
                hidden[step].mul_(summed)
                torch.mul(summed, keeps[step - part.start], out=carried)
                carried.addmm_(gates[step, :, : 2 * units], matrix[: 2 * units])
                carried.addmm_(hidden[step], matrix[2 * units :])
                if keep is not None:
                    carried.mul_(keep[step].unsqueeze(1))
        of_matrix = torch.cat(
            [
                _matrix_gradient(part, befores) if befores is not None else _matrix_gradient(part[1:], outputs[:-1])
                for part in (gates[..., : 2 * units], hidden)
            ]
        )
        return (
            gates @ input_matrix if ctx.needs_input_grad[0] else None,
            _matrix_gradient(gates, inputs),
            of_matrix,
            gates.sum(dim=(0, 1)),
            hidden.sum(dim=(0, 1)),
            None,
        )


def _befores(outputs: Tensor, befores: Tensor | None, part: slice) -> Tensor:
    """A copy of what the steps of `part` started from."""
    if befores is not None:
        return befores[part].clone()
    if part.start:
        return outputs[part.start - 1 : part.stop - 1].clone()
    return torch.cat([torch.zeros_like(outputs[:1]), outputs[: part.stop - 1]])


def lstm_step(
    gates: Tensor, before: Tensor, cell: Tensor, matrix: Tensor, after: Tensor, next_cell: Tensor, squashed: Tensor
) -> None:
    """c' = f c + i g, h' = o tanh(c').

    Args:
        gates: (B, 4H) products of the inputs; holds i, f, g and o afterwards.
        before, cell: (B, H) h and c.
        matrix: (H, 4H).
        after, next_cell, squashed: (B, H) hold h', c' and tanh(c') afterwards.
    """
    units = before.shape[1]
    gates.addmm_(before, matrix)
    gates[:, : 2 * units].sigmoid_()
    gates[:, 3 * units :].sigmoid_()
    _tanh_(gates[:, 2 * units : 3 * units])
    let_in, kept, new, out = gates.split(units, dim=1)
    torch.mul(kept, cell, out=next_cell).addcmul_(let_in, new)
    squashed.copy_(next_cell)
    torch.mul(out, _tanh_(squashed), out=after)


class UnrolledLSTM(torch.autograd.Function):
    """Outputs (T, B, H) of inputs (T, B, F), a (G, F) and a (G, H) matrix, a (G,) bias, and `keep` as `Core` has it."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, input_matrix: Tensor, matrix: Tensor, input_bias: Tensor, keep: Tensor | None
    ) -> Tensor:
        steps, sequences, _ = inputs.shape
        units = matrix.shape[1]
        gates = _products(inputs, input_matrix, input_bias)
        # Row t + 1 of outputs and cells is step t's; with restarts, what a step starts from is kept apart.
        outputs, cells = (gates.new_zeros(steps + 1, sequences, units) for _ in range(2))
        squashed = torch.empty_like(outputs[1:])
        befores = None if keep is None else (torch.zeros_like(squashed), torch.zeros_like(squashed))
        turned = matrix.t()
        for step in range(steps):
            before, cell = outputs[step], cells[step]
            if befores is not None and keep is not None:
                before, cell = (
                    torch.mul(value, keep[step].unsqueeze(1), out=kept[step])
                    for value, kept in zip((before, cell), befores, strict=True)
                )
            lstm_step(gates[step], before, cell, turned, outputs[step + 1], cells[step + 1], squashed[step])
        started = (outputs[:-1], cells[:-1]) if befores is None else befores
        ctx.save_for_backward(inputs, input_matrix, matrix)
        ctx.kept = gates, squashed, *started, keep
        return outputs[1:].clone() if befores is None else outputs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_matrix, matrix = ctx.saved_tensors
        gates, squashed, outputs_before, cells_before, keep = ctx.kept
        del ctx.kept  # overwritten below: there is one backward pass
        steps, sequences, units = squashed.shape
        carried, carried_cell = torch.zeros_like(squashed[0]), torch.zeros_like(squashed[0])
        summed = torch.empty_like(carried)
        for part in _chunks(steps, sequences * units):
            let_in, kept, new, out = gates[part].split(units, dim=2)
            keeps = kept.clone()
            to_cell = squashed[part].square().neg_().add_(1).mul_(out)
            of_in = new * let_in * (1 - let_in)
            new.square_().neg_().add_(1).mul_(let_in)
            let_in.copy_(of_in)
            torch.mul(cells_before[part] * keeps, 1 - keeps, out=kept)
            out.mul_(1 - out).mul_(squashed[part])
            for step in reversed(range(part.start, part.stop)):
                row = step - part.start
                torch.add(carried, gradient[step], out=summed)
                carried_cell.addcmul_(summed, to_cell[row])
                gates[step, :, : 3 * units].view(sequences, 3, units).mul_(carried_cell.unsqueeze(1))
                gates[step, :, 3 * units :].mul_(summed)
                carried_cell.mul_(keeps[row])
                torch.mm(gates[step], matrix, out=carried)
                if keep is not None:
                    carried.mul_(keep[step].unsqueeze(1))
                    carried_cell.mul_(keep[step].unsqueeze(1))
        return (
            gates @ input_matrix if ctx.needs_input_grad[0] else None,
            _matrix_gradient(gates, inputs),
            _matrix_gradient(gates, outputs_before),
            gates.sum(dim=(0, 1)),
            None,
        )
