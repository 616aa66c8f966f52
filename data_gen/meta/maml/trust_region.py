"""Trust-region policy optimisation (Schulman et al. 2015, "TRPO") of parameters from which policies are adapted.

The loss and the divergence are those of the *adapted* policies, as functions of the parameters that adaptation starts
from (Finn et al. 2017, section 4.2). A step goes along the natural gradient, found by conjugate gradients on products
with the Fisher matrix, and is shortened until the loss falls and the divergence is within the limit.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data_gen.meta.maml.adaptation import Parameters, Policy, divergence, leaves_of, surrogate
from data_gen.meta.maml.segments import Samples

_TRIES = 10  # of the line search
_SHORTEN = 0.5  # where the loss did not fall
_MARGIN = 0.95  # of the limit, that the line search aims at once the divergence is known


def flat(parameters: Parameters) -> Tensor:
    """All numbers in one vector (P,)."""
    return torch.cat([parameter.reshape(-1) for parameter in parameters])


def unflat(vector: Tensor, like: Parameters) -> list[Tensor]:
    """The inverse of `flat`: parts of (P,) `vector` in the shapes of `like`."""
    parts = vector.split([parameter.numel() for parameter in like])
    return [part.view_as(parameter) for part, parameter in zip(parts, like, strict=True)]


class FisherProduct:
    """v -> mean_i J_i^T F_i J_i v + damping v: the Hessian of the mean divergence of the adapted policies.

    F_i is the Fisher matrix of task i's adapted policy and J_i = prod_k (I - rate H_ik) the Jacobian of its adaptation,
    with H_ik the Hessian of the inner surrogate of step k. That product is all of the Hessian of KL(old || new) at
    old = new, where the divergence's own gradient is zero, so that no third derivative is needed.

    Args:
        policy: whose parameters these are.
        points: N tasks' parameters before each inner step, and after the last one.
        samples: the inner steps' samples and then those of the adapted policies; some rows of them will do.
        rate: the inner learning rate.
        second_order: whether adaptation's Jacobian is more than the identity.
        damping: of the matrix.
    """

    def __init__(
        self,
        policy: Policy,
        points: Sequence[Parameters],
        samples: Sequence[Samples],
        rate: float,
        second_order: bool,
        damping: float,
    ) -> None:
        self.rate, self.damping, self.num_tasks = rate, damping, len(points[0][0])
        self.inner: list[tuple[list[Tensor], tuple[Tensor, ...]]] = []
        for point, sample in zip(points[:-1], samples[:-1], strict=True):
            if second_order:
                parameters = leaves_of(point)
                loss = surrogate(policy, parameters, sample).sum()
                self.inner.append((parameters, torch.autograd.grad(loss, parameters, create_graph=True)))
        self.adapted = leaves_of(points[-1])
        outputs, free = policy.outputs(self.adapted, samples[-1].features), policy.free(self.adapted)
        old = outputs.detach(), [parameter.detach() for parameter in free]
        mean = divergence(policy.distribution, old, (outputs, free)).mean(dim=1).sum()
        self.slope = torch.autograd.grad(mean, self.adapted, create_graph=True)

    def __call__(self, vector: Tensor) -> Tensor:
        """(P,) -> (P,)."""
        shapes = [parameter[0] for parameter in self.adapted]
        moved = [part.expand(self.num_tasks, *part.shape) for part in unflat(vector, shapes)]
        for parameters, gradients in self.inner:
            moved = self._through(parameters, gradients, moved)
        moved = list(torch.autograd.grad(self.slope, self.adapted, moved, retain_graph=True))
        for parameters, gradients in reversed(self.inner):  # a Hessian is its own transpose
            moved = self._through(parameters, gradients, moved)
        return flat([part.mean(dim=0) for part in moved]) + self.damping * vector

    def _through(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], moved: list[Tensor]) -> list[Tensor]:
        """(I - rate H_i) times each task's vector."""
        curved = torch.autograd.grad(gradients, parameters, moved, retain_graph=True)
        return [part - self.rate * other for part, other in zip(moved, curved, strict=True)]


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """An approximate solution x of A x = `right`, with `product` x -> A x of a positive definite matrix."""
    solution, residual = torch.zeros_like(right), right.clone()
    direction, squared = residual.clone(), residual.dot(residual)
    for _ in range(iterations):
        turned = product(direction)
        # A residual of zero, solved, must not divide by zero; there is no need to ask the device for that.
        length = squared / direction.dot(turned).clamp_min(torch.finfo(right.dtype).tiny)
        solution += length * direction
        residual -= length * turned
        following = residual.dot(residual)
        direction = residual + following / squared.clamp_min(torch.finfo(right.dtype).tiny) * direction
        squared = following
    return solution


def largest_step(product: Callable[[Tensor], Tensor], direction: Tensor, limit: float) -> Tensor:
    """`direction` in the length at which the divergence, were it quadratic, comes to `limit`."""
    curvature = direction.dot(product(direction)).clamp_min(torch.finfo(direction.dtype).tiny)
    return direction * (2 * limit / curvature).sqrt()


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]], start: Tensor, step: Tensor, loss: float, limit: float
) -> tuple[Tensor, float, float]:
    """The first point start + scale step, with scale falling from 1, that has less loss and a divergence <= limit.

    Args:
        evaluate: point (P,) -> loss and divergence.
        start: (P,).
        step: (P,).
        loss: at the start.
        limit: of the divergence.

    Returns:
        That point, its divergence and its scale; the start, 0 and 0 where there is none.
    """
    scale = 1.0
    for _ in range(_TRIES):
        point = start + scale * step
        new_loss, new_divergence = evaluate(point)
        if new_divergence <= limit and new_loss < loss:
            return point, new_divergence, scale
        # The divergence grows with the square of the step, or thereabouts. NaN compares false, and halves the step.
        shrink = _MARGIN * (limit / new_divergence) ** 0.5 if limit < new_divergence < float("inf") else _SHORTEN
        scale *= max(shrink, 0.1)
    return start, 0.0, 0.0
