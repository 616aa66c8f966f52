"""Optimisers of stacked networks: every learner has its own learning rate, moments and gradient norm."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from data_gen.agents.deep.networks import Stack

_PART = 2**19
"""Number of parameters handled at once on a CPU, so that they stay in its cache during an update: 1.3 times as fast as
all at once, for 256 networks of 11,000 parameters."""

_LEAST = 1e-37
"""Lower bound of numbers under a square root. On some processors, square roots of zeros take up to ten times as long,
and one-hot features leave many zeros. Next to epsilon, the root of the bound is lost in rounding."""


class Optimiser(ABC):
    """Base of the optimisers: cuts a stack into parts of whole learners, and clips gradients."""

    def __init__(self, stack: Stack, num_moments: int) -> None:
        self.stack = stack
        self.moments = [torch.zeros_like(stack.flat) for _ in range(num_moments)]
        learners, size = stack.flat.shape
        at_once = stack.flat.device.type != "cpu"
        self._parts = 1 if at_once else max(1, min(learners // 2, learners * size // _PART))
        self.updates = 0

    def step(self, learning_rate: Tensor, max_grad_norm: Tensor | None = None) -> None:
        """Moves every learner's parameters along its `stack.gradient`.

        Args:
            learning_rate: (N,) learning rates.
            max_grad_norm: (N,) norms that longer gradients are scaled down to; None for no limit.
        """
        self.updates += 1
        cut = [
            tensor.tensor_split(self._parts)
            for tensor in (self.stack.flat, self.stack.gradient, learning_rate.unsqueeze(1), *self.moments)
        ]
        limits = [None] * self._parts if max_grad_norm is None else max_grad_norm.unsqueeze(1).tensor_split(self._parts)
        with torch.no_grad():
            for limit, parameters, gradient, rate, *moments in zip(limits, *cut, strict=True):
                if limit is not None:
                    norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
                    gradient.mul_((limit / (norm + 1e-6)).clamp_(max=1))
                self._move(parameters, gradient, rate, moments)

    @abstractmethod
    def _move(self, parameters: Tensor, gradient: Tensor, rate: Tensor, moments: list[Tensor]) -> None:
        """Moves a part's (n, size) parameters, given their gradients, (n, 1) learning rates and (n, size) moments."""


class Adam(Optimiser):
    """Adam (Kingma and Ba 2015)."""

    def __init__(self, stack: Stack, epsilon: float = 1e-8, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(stack, num_moments=2)
        self.epsilon, self.beta1, self.beta2 = epsilon, beta1, beta2

    def _move(self, parameters: Tensor, gradient: Tensor, rate: Tensor, moments: list[Tensor]) -> None:
        first, second = moments
        first.lerp_(gradient, 1 - self.beta1)
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        unbiased = (1 - self.beta2**self.updates) ** 0.5
        scale = second.clamp_min(_LEAST).sqrt_().div_(unbiased).add_(self.epsilon)
        parameters.addcdiv_(first * (rate / (1 - self.beta1**self.updates)), scale, value=-1)


class RMSprop(Optimiser):
    """RMSprop (Tieleman and Hinton 2012), as in PyTorch: epsilon outside the root."""

    def __init__(self, stack: Stack, decay: float = 0.99, epsilon: float = 1e-8) -> None:
        super().__init__(stack, num_moments=1)
        self.decay, self.epsilon = decay, epsilon

    def _move(self, parameters: Tensor, gradient: Tensor, rate: Tensor, moments: list[Tensor]) -> None:
        (square,) = moments
        square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        parameters.addcdiv_(gradient * rate, square.clamp_min(_LEAST).sqrt_().add_(self.epsilon), value=-1)
