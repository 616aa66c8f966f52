"""Running normalisation of observations and rewards, each learner's by what it has seen itself."""

import torch
from torch import Tensor

_CLIP = 10.0  # as Stable-Baselines3's VecNormalize and OpenAI Baselines before it
_EPSILON = 1e-8


class RunningMoments:
    """Mean and variance of all that came so far, by the parallel update of Chan, Golub and LeVeque (1979).

    Args:
        shape: (num_learners, ...) of the moments.
        device: where they are.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.variance = torch.ones(shape, dtype=torch.float64, device=device)
        self.count = 1e-4  # the variance of 1 is forgotten with the first values

    def add(self, values: Tensor) -> None:
        """Takes in (num_learners, count, ...) values."""
        count, values = values.shape[1], values.to(torch.float64)
        mean = values.mean(dim=1)
        variance = (values - mean.unsqueeze(1)).square().mean(dim=1)
        total, shift = self.count + count, mean - self.mean
        squares = self.variance * self.count + variance * count + shift.square() * (self.count * count / total)
        self.mean += shift * (count / total)
        self.variance, self.count = squares / total, total

    def scale(self) -> Tensor:
        """Standard deviations, as float32."""
        return (self.variance + _EPSILON).sqrt().to(torch.float32)


class ObservationScale:
    """Standardises those features that are numbers; parts of one-hot vectors stay.

    Args:
        num_learners: N.
        is_number: (F,) bool.
        device: where the features are.
    """

    def __init__(self, num_learners: int, is_number: Tensor, device: torch.device) -> None:
        self._moments = RunningMoments((num_learners, len(is_number)), device)
        self._is_number = is_number.to(device)

    def add(self, features: Tensor) -> None:
        """Takes in (N, actors, F) features of one step."""
        self._moments.add(features)

    def __call__(self, features: Tensor) -> Tensor:
        """(N, B, F) features, standardised by what came so far."""
        mean = torch.where(self._is_number, self._moments.mean, 0).to(torch.float32)
        scale = torch.where(self._is_number, self._moments.scale(), 1)
        return ((features - mean.unsqueeze(1)) / scale.unsqueeze(1)).clamp(-_CLIP, _CLIP)


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return so far; their mean stays.

    Args:
        discount: (N, 1) of each learner.
        actors: environments a learner.
    """

    def __init__(self, discount: Tensor, actors: int) -> None:
        self._discount = discount
        self._returns = torch.zeros(len(discount), actors, device=discount.device)
        self._moments = RunningMoments((len(discount),), discount.device)

    def add(self, rewards: Tensor, ended: Tensor) -> None:
        """Takes in (N, actors) rewards of one step, and whether it ended its episode."""
        self._returns = self._returns * self._discount + rewards
        self._moments.add(self._returns)
        self._returns = torch.where(ended, 0, self._returns)

    def scaled(self, rewards: Tensor) -> Tensor:
        """(N, B) rewards, divided by the deviation of what came so far."""
        return (rewards / self._moments.scale().unsqueeze(1)).clamp(-_CLIP, _CLIP)
