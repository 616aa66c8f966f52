"""Proximal policy optimisation: epochs of minibatches per rollout, kept close to the policy that collected it."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_gen.agents.deep.networks import Stack
from data_gen.agents.deep.on_policy import OnPolicy
from data_gen.agents.deep.optimisers import Adam, Optimiser
from data_gen.agents.sweep import Count, PerLearner, Positive, Share
from icrl.config.components import component

_ADAM_EPSILON = 1e-5  # as in OpenAI Baselines and Stable-Baselines3
_ADVANTAGE_EPSILON = 1e-8


def ppo_losses(
    log_prob: Tensor,
    old_log_prob: Tensor,
    entropy: Tensor,
    values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    clip_range: Tensor,
    value_coefficient: Tensor,
    entropy_coefficient: Tensor,
) -> Tensor:
    """-E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)] + c_v E[(R - V(s))^2] - c_h E[H(pi(.|s))], one loss per learner.

    Schulman et al. 2017, equations 7 and 9, with rho = pi(a|s) / pi_old(a|s).

    Args:
        log_prob, old_log_prob, entropy, values, advantages, returns: (N, B).
        clip_range, value_coefficient, entropy_coefficient: (N,).
    """
    ratio, clip = (log_prob - old_log_prob).exp(), clip_range.unsqueeze(1)
    clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
    policy = -torch.minimum(ratio * advantages, clipped * advantages).mean(dim=1)
    value = (returns - values).square().mean(dim=1)
    return policy + value_coefficient * value - entropy_coefficient * entropy.mean(dim=1)


@component
class PPO(OnPolicy):
    """PPO (Schulman et al. 2017, "Proximal Policy Optimization Algorithms").

    As in Stable-Baselines3: advantages are normalised per minibatch, values are not clipped, and policy and value have
    separate networks. In every epoch, each learner draws its own minibatches without replacement.
    """

    rollout_steps: Count = 128
    learning_rate: PerLearner[Positive] = 3e-4
    gae_lambda: PerLearner[Share] = 0.95
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Rows per minibatch; divides rollout_steps x actors."""
    epochs: Count = 10
    clip_range: PerLearner[Positive] = 0.2
    normalise_advantages: bool = True

    def __post_init__(self) -> None:
        if self.rollout_steps * self.actors % self.batch_size:
            rows = f"rollout_steps x actors = {self.rollout_steps} x {self.actors}"
            raise ValueError(f"batch_size {self.batch_size} must divide {rows} = {self.rollout_steps * self.actors}")

    def make_optimiser(self, stack: Stack) -> Optimiser:
        self.clip = self.parameter("clip_range")
        return Adam(stack, _ADAM_EPSILON)

    def update(self) -> None:
        assert self.actions is not None
        # Advantages, and log-probabilities before the first update.
        with torch.no_grad():
            rows = self.features.flatten(1, 2), self.actions.flatten(1, 2)
            old_log_prob, _, values = self.evaluate(*rows)
            batch = self.batch(values)
        # Updates.
        count = batch.advantages.shape[1]
        for _ in range(self.epochs):
            order = torch.from_numpy(np.argsort(self.streams.uniform(count), axis=1)).to(self.device)
            for numbers in order.split(self.batch_size, dim=1):
                part = batch.rows(numbers)
                advantages = part.advantages
                if self.normalise_advantages:
                    deviation = advantages.std(dim=1, keepdim=True) + _ADVANTAGE_EPSILON
                    advantages = (advantages - advantages.mean(dim=1, keepdim=True)) / deviation
                log_prob, entropy, values = self.evaluate(part.features, part.actions)
                self.descend(
                    ppo_losses(
                        log_prob,
                        old_log_prob.gather(1, numbers),
                        entropy,
                        values,
                        advantages,
                        part.returns,
                        self.clip,
                        **self.coefficient,
                    )
                )
