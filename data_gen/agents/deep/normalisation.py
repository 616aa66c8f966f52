"""Running normalisation of observations and rewards, each learner by its own data."""

import torch
from torch import Tensor

_CLIP = 10.0  # as Stable-Baselines3's VecNormalize and OpenAI Baselines before it
_EPSILON = 1e-8


class RunningMoments:
    """Running mean and variance, by the parallel update of Chan, Golub and LeVeque (1979).

    Args:
        shape: (num_learners, ...) shape of the moments.
        device: device of the moments.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.variance = torch.ones(shape, dtype=torch.float64, device=device)
        self.count = 1e-4  # so small that the first values replace the initial variance of 1

    def add(self, values: Tensor) -> None:
        """Adds (num_learners, count, ...) values."""
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
    """Standardises the features that are numbers; parts of one-hot vectors are left unchanged.

    Args:
        num_learners: N.
        is_number: (F,) bool, `Encoder.is_number`.
        device: device of the features.
    """

    def __init__(self, num_learners: int, is_number: Tensor, device: torch.device) -> None:
        self._moments = RunningMoments((num_learners, len(is_number)), device)
        self._is_number = is_number.to(device)

    def add(self, features: Tensor) -> None:
        """Adds (N, actors, F) features of one step."""
        self._moments.add(features)

    def __call__(self, features: Tensor) -> Tensor:
        """(N, B, F) features, standardised by the running moments and clipped."""
        mean = torch.where(self._is_number, self._moments.mean, 0).to(torch.float32)
        scale = torch.where(self._is_number, self._moments.scale(), 1)
        return ((features - mean.unsqueeze(1)) / scale.unsqueeze(1)).clamp(-_CLIP, _CLIP)


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return, without shifting their mean.

    Args:
        discount: (N, 1) one discount per learner.
        actors: environments per learner.
    """

    def __init__(self, discount: Tensor, actors: int) -> None:
        self._discount = discount
        self._returns = torch.zeros(len(discount), actors, device=discount.device)
        self._moments = RunningMoments((len(discount),), discount.device)

    def add(self, rewards: Tensor, ended: Tensor) -> None:
        """Adds (N, actors) rewards of one step; `ended` is True where the step ended its episode."""
        self._returns = self._returns * self._discount + rewards
        self._moments.add(self._returns)
        self._returns = torch.where(ended, 0, self._returns)

    def scaled(self, rewards: Tensor) -> Tensor:
        """(N, B) rewards, divided by the running standard deviation of the return and clipped."""
        return (rewards / self._moments.scale().unsqueeze(1)).clamp(-_CLIP, _CLIP)
