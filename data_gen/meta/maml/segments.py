"""Segments of experience: the steps between two changes of a policy, prepared for a policy gradient.

Axes: N learners, each on its task, T steps, A actors, F features; B = T x A rows of a segment.

A segment has the same number of steps for all learners, so that they step together. Where episodes end early, the end
of the segment may cut off the last episode. The cut does not end that episode: its advantages bootstrap from the
baseline's value at the cut. The baseline is fitted on the steps of episodes that ended. In a lifetime the rest of the
cut episode begins the next segment, and its clock continues.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data_gen.agents.deep.advantages import gae
from data_gen.meta.maml.linear_baseline import baseline_features, fit, predict

_EPSILON = 1e-8  # added to the standard deviation of advantages


@dataclass(frozen=True)
class Samples:
    """Experience of a policy in a segment, with its advantages; arrays (N, B, ...)."""

    features: Tensor
    actions: Tensor
    advantages: Tensor
    """(N, B) advantages, standardised per learner."""
    outputs: Tensor
    """(N, B, outputs) of the policy network that acted."""
    log_prob: Tensor
    """(N, B) log-probabilities of the actions under the policy that acted."""

    def rows(self, numbers: Tensor) -> "Samples":
        """Every learner's rows at the (b,) indices `numbers`."""
        return Samples(*(array[:, numbers] for array in vars(self).values()))


class Segment:
    """A buffer of T steps, filled step by step and reused for the next T.

    Args:
        shape: (N, T, A).
        is_number: (F,) bool, from the encoder of observations.
        device: device of all tensors.
    """

    def __init__(self, shape: tuple[int, int, int], is_number: Tensor, device: torch.device) -> None:
        learners, self.length, actors = shape
        self.is_number = is_number.to(device)
        self.features = torch.empty(*shape, len(is_number), device=device)
        self.actions: Tensor | None = None  # of the distribution's own type
        self.outputs: Tensor | None = None
        self.rewards, self.time = torch.empty(shape, device=device), torch.empty(shape, device=device)
        self.ended = torch.empty(shape, dtype=torch.bool, device=device)
        self.clock = torch.zeros(learners, actors, device=device)
        self.steps = 0

    def acted(self, features: Tensor, outputs: Tensor, actions: Tensor) -> None:
        """Records the (N, A, ...) features, outputs and actions of a step, before it is taken."""
        if self.actions is None or self.outputs is None:
            self.actions, self.outputs = (
                torch.empty(*self.rewards.shape, part.shape[-1], dtype=part.dtype, device=part.device)
                for part in (actions, outputs)
            )
        step = self.steps
        self.features[:, step], self.outputs[:, step], self.actions[:, step] = features, outputs, actions
        self.time[:, step] = self.clock

    def came(self, rewards: Tensor, ended: Tensor) -> bool:
        """Records the (N, A) rewards and ends of episodes of the same step; returns True if the segment is full."""
        self.rewards[:, self.steps], self.ended[:, self.steps] = rewards, ended
        self.clock = (self.clock + 1) * ~ended
        self.steps += 1
        return self.steps == self.length

    def empty(self) -> None:
        """Begins the next segment; running episodes continue."""
        self.steps = 0

    def of_ended_episodes(self) -> Tensor:
        """(N, T, A) True for steps whose episode ended within the segment."""
        return self.ended.flip(1).cumsum(dim=1).flip(1) > 0

    def mean_return(self) -> Tensor:
        """Mean undiscounted return of the ended episodes of all learners, if the segment began with new episodes."""
        return (self.rewards * self.of_ended_episodes()).sum() / self.ended.sum()

    def advantages(self, arrived: Tensor, discount: float, gae_lambda: float) -> Tensor:
        """(N, T, A) advantages over the linear baseline, not standardised.

        A time limit ends an episode like any other end, as in the paper: returns are per episode, and time is a feature
        of the baseline.

        Args:
            arrived: (N, A, F) features of the observation after the last step.
            discount: discount of rewards.
            gae_lambda: lambda of generalised advantage estimation; 1 gives returns minus the baseline.
        """
        # discounted returns: without values and with lambda 1, advantages are returns
        zeros = torch.zeros_like(self.rewards)
        gamma = torch.full((len(zeros), 1), discount, device=zeros.device)
        lambda_one = torch.ones_like(gamma)
        returns = gae(self.rewards, zeros, zeros, self.ended, self.ended, gamma, lambda_one)
        # baseline, fitted per learner
        inputs = baseline_features(self.features.flatten(1, 2), self.time.flatten(1), self.is_number)
        coefficients = fit(inputs, returns.flatten(1), self.of_ended_episodes().flatten(1))
        values = predict(inputs, coefficients).to(zeros.dtype).view_as(zeros)
        last_values = predict(baseline_features(arrived, self.clock, self.is_number), coefficients).to(zeros.dtype)
        # generalised advantage estimation
        next_values = torch.cat([values[:, 1:], last_values.unsqueeze(1)], dim=1)
        gae_lambdas = torch.full_like(gamma, gae_lambda)
        return gae(self.rewards, values, next_values, self.ended, self.ended, gamma, gae_lambdas)


def standardised(advantages: Tensor) -> Tensor:
    """(N, B) advantages -> (N, B), with mean 0 and standard deviation 1 per learner."""
    deviation = advantages.std(dim=1, keepdim=True, correction=0)
    return (advantages - advantages.mean(dim=1, keepdim=True)) / (deviation + _EPSILON)
