"""A GRU and an LSTM over all steps, with hand-written back-propagation through time.

A small core spends its time on the overhead of many small operations, not on its matrix products. So the inputs of all
steps are multiplied at once, the values that a step keeps for its gradient overwrite the values that they were computed
from, the elementwise factors of the gradient are computed for several steps at once, and the gradient of each matrix is
a single product.

Axes: T steps, B sequences, F inputs, H units, G gate values (3H for a GRU, 4H for an LSTM).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_AT_ONCE = 2**16  # numbers per elementwise operation of the gradient: several steps that still fit in a cache
_NARROW = 32  # with fewer columns, a product on a CPU is up to ten times as fast if the columns are its rows


def _tanh_(values: Tensor) -> Tensor:
    """tanh in place, via the logistic function, which vectorises better: a quarter of the time on a CPU."""
    return values.mul_(2).sigmoid_().mul_(2).sub_(1)


def _products(inputs: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """(T, B, F) inputs -> (T, B, G) products with a (G, F) matrix, plus a (G,) bias."""
    steps, sequences, features = inputs.shape
    return torch.addmm(bias, inputs.reshape(-1, features), matrix.t()).view(steps, sequences, -1)


def _matrix_gradient(gradient: Tensor, inputs: Tensor) -> Tensor:
    """(T, B, G) gradients of products with (T, B, F) inputs -> (G, F) gradient of the matrix."""
    rows, columns = gradient.flatten(0, 1), inputs.flatten(0, 1)
    if inputs.shape[2] < _NARROW:
        return torch.mm(columns.t(), rows).t()
    return torch.mm(rows.t(), columns)


def _chunks(steps: int, step_size: int) -> list[slice]:
    """Slices of several steps each, from the last step to the first; `step_size` is the numbers per step."""
    length = max(1, _AT_ONCE // step_size)
    return [slice(max(0, last - length), last) for last in range(steps, 0, -length)]


def gru_step(
    gates: Tensor, before: Tensor, matrix: Tensor, bias: Tensor, recurrent: Tensor, hidden: Tensor, after: Tensor
) -> None:
    """One step of a GRU: h' = (1 - z) n + z h, where n = tanh(products of the inputs + r (W h + b)).

    Args:
        gates: (B, 3H) products of the inputs; holds r, z and n afterwards.
        before: (B, H) h.
        matrix: (H, 3H).
        bias: (H,) b.
        recurrent: (B, 3H) scratch space.
        hidden: (B, H or 3H); its last H columns hold W h + b afterwards.
        after: (B, H); holds h' afterwards.
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
    """A GRU over all steps: (T, B, F) inputs, a (G, F) and a (G, H) matrix, their biases -> (T, B, H) outputs.

    The first bias is (G,) and includes the part of the recurrent bias outside n; the second is (H,), the part inside n.
    `keep` as in `Core.forward`.
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
        # The state before each step: the previous output, unless sequences restart.
        states_before = None if keep is None else torch.zeros_like(outputs)
        recurrent, before, transposed = gates.new_empty(sequences, 3 * units), torch.zeros_like(outputs[0]), matrix.t()
        for step in range(steps):
            if states_before is not None and keep is not None and step:
                before = torch.mul(outputs[step - 1], keep[step].unsqueeze(1), out=states_before[step])
            gru_step(gates[step], before, transposed, bias, recurrent, hidden[step], outputs[step])
            before = outputs[step]
        ctx.save_for_backward(inputs, input_matrix, matrix, outputs)
        ctx.kept = gates, hidden, states_before, keep
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_matrix, matrix, outputs = ctx.saved_tensors
        gates, hidden, states_before, keep = ctx.kept
        del ctx.kept  # overwritten below, so there can be only one backward pass
        steps, sequences, units = outputs.shape
        carried = torch.zeros_like(outputs[0])
        total = torch.empty_like(carried)
        for part in _chunks(steps, sequences * units):
            # The gradient of each gate's product is the output's gradient times a factor: factors of several steps.
            reset, kept, new = gates[part].split(units, dim=2)
            before = _copy_before(outputs, states_before, part)
            keep_gate = kept.clone()
            new_factor = (1 - kept).mul_(new.square().neg_().add_(1))
            reset_factor = new_factor * hidden[part]
            reset_factor.mul_(reset).mul_(1 - reset)
            torch.mul(new_factor, reset, out=hidden[part])  # factor of the recurrent product inside n
            torch.mul(before.sub_(new).mul_(keep_gate), 1 - keep_gate, out=kept)
            reset.copy_(reset_factor)
            new.copy_(new_factor)
            # Back through time: every gate's factor, times the output's gradient, becomes its product's gradient.
            for step in reversed(range(part.start, part.stop)):
                torch.add(carried, gradient[step], out=total)
                gates[step].view(sequences, 3, units).mul_(total.unsqueeze(1))
                hidden[step].mul_(total)
                torch.mul(total, keep_gate[step - part.start], out=carried)
                carried.addmm_(gates[step, :, : 2 * units], matrix[: 2 * units])
                carried.addmm_(hidden[step], matrix[2 * units :])
                if keep is not None:
                    carried.mul_(keep[step].unsqueeze(1))
        matrix_gradient = torch.cat(
            [
                _matrix_gradient(part, states_before)
                if states_before is not None
                else _matrix_gradient(part[1:], outputs[:-1])
                for part in (gates[..., : 2 * units], hidden)
            ]
        )
        return (
            gates @ input_matrix if ctx.needs_input_grad[0] else None,
            _matrix_gradient(gates, inputs),
            matrix_gradient,
            gates.sum(dim=(0, 1)),
            hidden.sum(dim=(0, 1)),
            None,
        )


def _copy_before(outputs: Tensor, states_before: Tensor | None, part: slice) -> Tensor:
    """A copy of the states before the steps of `part`."""
    if states_before is not None:
        return states_before[part].clone()
    if part.start:
        return outputs[part.start - 1 : part.stop - 1].clone()
    return torch.cat([torch.zeros_like(outputs[:1]), outputs[: part.stop - 1]])


def lstm_step(
    gates: Tensor, before: Tensor, cell: Tensor, matrix: Tensor, after: Tensor, next_cell: Tensor, squashed: Tensor
) -> None:
    """One step of an LSTM: c' = f c + i g, h' = o tanh(c').

    Args:
        gates: (B, 4H) products of the inputs; holds i, f, g and o afterwards.
        before, cell: (B, H) h and c.
        matrix: (H, 4H).
        after, next_cell, squashed: (B, H); hold h', c' and tanh(c') afterwards.
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
    """An LSTM over all steps: (T, B, F) inputs, a (G, F) and a (G, H) matrix, a (G,) bias -> (T, B, H) outputs.

    `keep` as in `Core.forward`.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, input_matrix: Tensor, matrix: Tensor, input_bias: Tensor, keep: Tensor | None
    ) -> Tensor:
        steps, sequences, _ = inputs.shape
        units = matrix.shape[1]
        gates = _products(inputs, input_matrix, input_bias)
        # Index t + 1 of outputs and cells belongs to step t. With restarts, the states before each step are kept apart.
        outputs, cells = (gates.new_zeros(steps + 1, sequences, units) for _ in range(2))
        squashed = torch.empty_like(outputs[1:])
        states_before = None if keep is None else (torch.zeros_like(squashed), torch.zeros_like(squashed))
        transposed = matrix.t()
        for step in range(steps):
            before, cell = outputs[step], cells[step]
            if states_before is not None and keep is not None:
                before, cell = (
                    torch.mul(value, keep[step].unsqueeze(1), out=kept[step])
                    for value, kept in zip((before, cell), states_before, strict=True)
                )
            lstm_step(gates[step], before, cell, transposed, outputs[step + 1], cells[step + 1], squashed[step])
        saved = (outputs[:-1], cells[:-1]) if states_before is None else states_before
        ctx.save_for_backward(inputs, input_matrix, matrix)
        ctx.kept = gates, squashed, *saved, keep
        return outputs[1:].clone() if states_before is None else outputs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_matrix, matrix = ctx.saved_tensors
        gates, squashed, outputs_before, cells_before, keep = ctx.kept
        del ctx.kept  # overwritten below, so there can be only one backward pass
        steps, sequences, units = squashed.shape
        carried, carried_cell = torch.zeros_like(squashed[0]), torch.zeros_like(squashed[0])
        total = torch.empty_like(carried)
        for part in _chunks(steps, sequences * units):
            # Factors as in the GRU: those of i, f and g multiply the cell's gradient, that of o the output's gradient.
            let_in, kept, new, out = gates[part].split(units, dim=2)
            forget_gate = kept.clone()
            cell_factor = squashed[part].square().neg_().add_(1).mul_(out)
            in_factor = new * let_in * (1 - let_in)
            new.square_().neg_().add_(1).mul_(let_in)
            let_in.copy_(in_factor)
            torch.mul(cells_before[part] * forget_gate, 1 - forget_gate, out=kept)
            out.mul_(1 - out).mul_(squashed[part])
            for step in reversed(range(part.start, part.stop)):
                row = step - part.start
                torch.add(carried, gradient[step], out=total)
                carried_cell.addcmul_(total, cell_factor[row])
                gates[step, :, : 3 * units].view(sequences, 3, units).mul_(carried_cell.unsqueeze(1))
                gates[step, :, 3 * units :].mul_(total)
                carried_cell.mul_(forget_gate[row])
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
