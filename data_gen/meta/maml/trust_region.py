"""Trust-region policy optimisation (Schulman et al. 2015, "TRPO") of the parameters that adaptation starts from.

The loss and the divergence are those of the *adapted* policies, as functions of the initial parameters (Finn et al.
2017, section 4.2). A step follows the natural gradient, found by conjugate gradients on products with the Fisher
matrix. It is shortened until the loss falls and the divergence is within the limit.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data_gen.meta.maml.adaptation import Parameters, Policy, divergence, leaves_of, surrogate
from data_gen.meta.maml.segments import Samples

_TRIES = 10  # most points that the line search evaluates
_SHORTEN = 0.5  # factor of a step after which the loss did not fall
_MARGIN = 0.95  # fraction of the limit that the line search aims at after a divergence above it


def flat(parameters: Parameters) -> Tensor:
    """(P,) all parameters as one vector."""
    return torch.cat([parameter.reshape(-1) for parameter in parameters])


def unflat(vector: Tensor, like: Parameters) -> list[Tensor]:
    """The inverse of `flat`: the parts of (P,) `vector` in the shapes of `like`."""
    parts = vector.split([parameter.numel() for parameter in like])
    return [part.view_as(parameter) for part, parameter in zip(parts, like, strict=True)]


class FisherProduct:
    """v -> mean_i J_i^T F_i J_i v + damping v: products with the Hessian of the adapted policies' mean divergence.

    F_i is the Fisher matrix of task i's adapted policy, and J_i = prod_k (I - rate H_ik) the Jacobian of its
    adaptation, where H_ik is the Hessian of the inner surrogate of step k. J_i^T F_i J_i is the whole Hessian of
    KL(old || new) at old = new, because the gradient of the divergence is zero there: no third derivative is needed.

    Args:
        policy: the policy that the parameters belong to.
        points: parameters of N tasks before each inner step and after the last.
        samples: samples of the inner steps, then of the adapted policies; a subset of their rows is enough.
        rate: inner learning rate.
        second_order: False to take the Jacobians for the identity, as FOMAML does.
        damping: multiple of the identity that is added.
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
        # gradients of the inner surrogates, for products with their Hessians
        self.inner: list[tuple[list[Tensor], tuple[Tensor, ...]]] = []
        for point, sample in zip(points[:-1], samples[:-1], strict=True):
            if second_order:
                parameters = leaves_of(point)
                loss = surrogate(policy, parameters, sample).sum()
                self.inner.append((parameters, torch.autograd.grad(loss, parameters, create_graph=True)))
        # gradient of the adapted policies' divergence, for products with the Fisher matrices
        self.adapted = leaves_of(points[-1])
        outputs, free = policy.outputs(self.adapted, samples[-1].features), policy.free(self.adapted)
        old = outputs.detach(), [parameter.detach() for parameter in free]
        mean = divergence(policy.distribution, old, (outputs, free)).mean(dim=1).sum()
        self.slope = torch.autograd.grad(mean, self.adapted, create_graph=True)

    def __call__(self, vector: Tensor) -> Tensor:
        """(P,) vector -> (P,) product."""
        shapes = [parameter[0] for parameter in self.adapted]
        vectors = [part.expand(self.num_tasks, *part.shape) for part in unflat(vector, shapes)]
        # J_i, then F_i, then J_i^T
        for parameters, gradients in self.inner:
            vectors = self._through(parameters, gradients, vectors)
        vectors = list(torch.autograd.grad(self.slope, self.adapted, vectors, retain_graph=True))
        for parameters, gradients in reversed(self.inner):  # a Hessian is its own transpose
            vectors = self._through(parameters, gradients, vectors)
        return flat([part.mean(dim=0) for part in vectors]) + self.damping * vector

    def _through(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], vectors: list[Tensor]) -> list[Tensor]:
        """(I - rate H_i) times each task's vector."""
        hessian_vectors = torch.autograd.grad(gradients, parameters, vectors, retain_graph=True)
        return [part - self.rate * other for part, other in zip(vectors, hessian_vectors, strict=True)]


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """An approximate solution x of A x = `right`, where `product` maps x to A x and A is positive definite."""
    solution, residual = torch.zeros_like(right), right.clone()
    direction, squared = residual.clone(), residual.dot(residual)
    for _ in range(iterations):
        product_direction = product(direction)
        # Once solved, the residual is zero: the clamp avoids 0 / 0 without waiting for the device.
        step_size = squared / direction.dot(product_direction).clamp_min(torch.finfo(right.dtype).tiny)
        solution += step_size * direction
        residual -= step_size * product_direction
        next_squared = residual.dot(residual)
        direction = residual + next_squared / squared.clamp_min(torch.finfo(right.dtype).tiny) * direction
        squared = next_squared
    return solution


def largest_step(product: Callable[[Tensor], Tensor], direction: Tensor, limit: float) -> Tensor:
    """The step along `direction` at which a quadratic model of the divergence reaches `limit`."""
    curvature = direction.dot(product(direction)).clamp_min(torch.finfo(direction.dtype).tiny)
    return direction * (2 * limit / curvature).sqrt()


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]], start: Tensor, step: Tensor, loss: float, limit: float
) -> tuple[Tensor, float, float]:
    """The first point start + scale step, with scale falling from 1, of lower loss and a divergence <= limit.

    Args:
        evaluate: point (P,) -> loss and divergence.
        start: (P,).
        step: (P,).
        loss: loss at the start.
        limit: limit of the divergence.

    Returns:
        That point, its divergence and its scale; the start, 0 and 0 if no point qualifies.
    """
    scale = 1.0
    for _ in range(_TRIES):
        point = start + scale * step
        new_loss, new_divergence = evaluate(point)
        if new_divergence <= limit and new_loss < loss:
            return point, new_divergence, scale
        # The divergence grows roughly with the square of the step. NaN compares false, so it halves the step.
        shrink = _MARGIN * (limit / new_divergence) ** 0.5 if limit < new_divergence < float("inf") else _SHORTEN
        scale *= max(shrink, 0.1)
    return start, 0.0, 0.0
