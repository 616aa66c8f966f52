"""Segments of experience: the steps between two changes of a policy, and what a policy gradient needs of them.

Axes: N learners, each on its task, T steps, A actors, F features; B = T x A rows of a segment.

A segment has as many steps for everybody, so that all learners step together. Where episodes end early, the last one
may be cut off by the segment's end, which is no end of the episode: its returns go on with the baseline's value of
where it was cut. The baseline is fitted on the steps of the episodes that did end. In a lifetime the rest of that
episode begins the next segment, and its clock goes on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data_gen.agents.deep.returns import gae
from data_gen.meta.maml.linear_baseline import baseline_features, fit, predict

_EPSILON = 1e-8  # beside the standard deviation of advantages


@dataclass(frozen=True)
class Samples:
    """What a policy did in a segment and how that was rated; arrays (N, B, ...)."""

    features: Tensor
    actions: Tensor
    advantages: Tensor
    """Standardised, each learner's over its own rows."""
    outputs: Tensor
    """Of the policy network that acted."""
    log_prob: Tensor
    """Of the actions, under the policy that acted."""

    def rows(self, numbers: Tensor) -> "Samples":
        """The rows at (b,) `numbers` of every learner."""
        return Samples(*(array[:, numbers] for array in vars(self).values()))


class Segment:
    """Takes up steps as they come, T of them, and then the next T.

    Args:
        shape: (N, T, A).
        is_number: (F,) bool, as the encoder of observations has it.
        device: where everything is.
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
        """(N, A, ...) of one step, before it is taken."""
        if self.actions is None or self.outputs is None:
            self.actions, self.outputs = (
                torch.empty(*self.rewards.shape, part.shape[-1], dtype=part.dtype, device=part.device)
                for part in (actions, outputs)
            )
        step = self.steps
        self.features[:, step], self.outputs[:, step], self.actions[:, step] = features, outputs, actions
        self.time[:, step] = self.clock

    def came(self, rewards: Tensor, ended: Tensor) -> bool:
        """(N, A) rewards and ends of episodes, of the same step; returns whether the segment is full."""
        self.rewards[:, self.steps], self.ended[:, self.steps] = rewards, ended
        self.clock = (self.clock + 1) * ~ended
        self.steps += 1
        return self.steps == self.length

    def empty(self) -> None:
        """Begins the next segment; episodes that run go on."""
        self.steps = 0

    def of_ended_episodes(self) -> Tensor:
        """(N, T, A) bool: steps whose episode ended within the segment."""
        return self.ended.flip(1).cumsum(dim=1).flip(1) > 0

    def mean_return(self) -> Tensor:
        """Mean undiscounted return of the episodes that ended, over all learners; of segments that begin with one."""
        return (self.rewards * self.of_ended_episodes()).sum() / self.ended.sum()

    def advantages(self, arrived: Tensor, discount: float, gae_lambda: float) -> Tensor:
        """(N, T, A) advantages over the linear baseline, not standardised.

        A time limit is an end like any other, as in the paper: returns are those of an episode, and the baseline knows
        the time.

        Args:
            arrived: (N, A, F) features of what the last step led to.
            discount: of rewards.
            gae_lambda: 1 gives returns less the baseline.
        """
        none = torch.zeros_like(self.rewards)
        gamma = torch.full((len(none), 1), discount, device=none.device)
        all_ahead = torch.ones_like(gamma)
        returns = gae(self.rewards, none, none, self.ended, self.ended, gamma, all_ahead)
        inputs = baseline_features(self.features.flatten(1, 2), self.time.flatten(1), self.is_number)
        coefficients = fit(inputs, returns.flatten(1), self.of_ended_episodes().flatten(1))
        values = predict(inputs, coefficients).to(none.dtype).view_as(none)
        last = predict(baseline_features(arrived, self.clock, self.is_number), coefficients).to(none.dtype)
        next_values = torch.cat([values[:, 1:], last.unsqueeze(1)], dim=1)
        gae_lambdas = torch.full_like(gamma, gae_lambda)
        return gae(self.rewards, values, next_values, self.ended, self.ended, gamma, gae_lambdas)


def standardised(advantages: Tensor) -> Tensor:
    """(N, B) values with mean 0 and standard deviation 1 in every row."""
    deviation = advantages.std(dim=1, keepdim=True, correction=0)
    return (advantages - advantages.mean(dim=1, keepdim=True)) / (deviation + _EPSILON)
