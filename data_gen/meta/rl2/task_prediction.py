"""An auxiliary head of RL2's meta-training: the task's numbers, predicted from the memory."""

from torch import Tensor, nn

_EPSILON = 1e-8


class TaskPrediction(nn.Module):
    """A linear prediction of the task's standardised numbers from the memory; discarded after meta-training.

    Args:
        units: H.
        numbers: (tasks, numbers) of some tasks, from which the means and deviations are estimated.
    """

    def __init__(self, units: int, numbers: Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(units, numbers.shape[1])
        nn.init.zeros_(self.head.bias)
        self.std: Tensor
        self.mean: Tensor
        self.register_buffer("std", numbers.std(dim=0, correction=0))
        self.register_buffer("mean", numbers.mean(dim=0))

    def standardised(self, numbers: Tensor) -> Tensor:
        """(tasks, numbers) -> (tasks, numbers) prediction targets."""
        return (numbers - self.mean) / (self.std + _EPSILON)
