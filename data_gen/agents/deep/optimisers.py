"""Optimisers of stacked networks: every learner has a learning rate, moments and a gradient norm of its own."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from data_gen.agents.deep.networks import Stack

_PART = 2**19
"""Parameters handled at once on a CPU, so that an update's operations find them in its cache: 1.3 times as fast as all
at once for 256 networks of 11,000 parameters."""

_LEAST = 1e-37
"""Square roots of zeros, which one-hot features leave many of, take up to ten times as long on some processors. Beside
epsilon, the root of this is lost in rounding."""


class Optimiser(ABC):
    """Base: cuts a stack into parts of whole learners, and clips gradients."""

    def __init__(self, stack: Stack, num_moments: int) -> None:
        self.stack = stack
        self.moments = [torch.zeros_like(stack.flat) for _ in range(num_moments)]
        learners, size = stack.flat.shape
        whole = stack.flat.device.type != "cpu"
        self._parts = 1 if whole else max(1, min(learners // 2, learners * size // _PART))
        self.updates = 0

    def step(self, learning_rate: Tensor, max_grad_norm: Tensor | None = None) -> None:
        """Moves every learner's parameters along its `stack.gradient`.

        Args:
            learning_rate: (N,) of each learner.
            max_grad_norm: (N,) its gradient is scaled down to this norm if it is longer; None leaves it.
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
        """(n, size) parameters of a part, their gradients, (n, 1) learning rates and (n, size) moments."""


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
    """RMSprop (Tieleman and Hinton 2012), as PyTorch has it: epsilon outside the root."""

    def __init__(self, stack: Stack, decay: float = 0.99, epsilon: float = 1e-8) -> None:
        super().__init__(stack, num_moments=1)
        self.decay, self.epsilon = decay, epsilon

    def _move(self, parameters: Tensor, gradient: Tensor, rate: Tensor, moments: list[Tensor]) -> None:
        (square,) = moments
        square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        parameters.addcdiv_(gradient * rate, square.clamp_min(_LEAST).sqrt_().add_(self.epsilon), value=-1)
