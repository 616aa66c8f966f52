"""Soft actor-critic: a stochastic policy that maximises return and entropy, learned from replayed transitions."""

import math
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from data_gen.agents.base import Spec
from data_gen.agents.deep.base import HiddenSizes
from data_gen.agents.deep.encoding import BoxScale
from data_gen.agents.deep.networks import MLP, Stack, normal, softplus, uniform
from data_gen.agents.deep.off_policy import Batch, OffPolicy
from data_gen.agents.deep.optimisers import Adam
from data_gen.agents.sweep import Count, NotNegative, PerLearner, Positive, Share
from data_gen.spaces import one_line
from data_gen.streams import SlotStreams, derive
from icrl.config.components import component
from icrl.support.errors import UserError

_LOG_STD = (-20.0, 2.0)
"""Range of the policy's log standard deviations, as in the authors' code."""
_CRITICS = 2


def squashed_gaussian(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions tanh(u), u ~ N(mean, std), and their log-probabilities (Haarnoja et al. 2018b, appendix C).

    Args:
        outputs: (N, B, 2 x parts) means and log standard deviations.
        noise: (N, B, parts) standard normal numbers.

    Returns:
        (N, B, parts) actions in [-1, 1] and (N, B) log-probabilities.
    """
    mean, log_std = outputs.chunk(2, dim=2)
    log_std = log_std.clamp(*_LOG_STD)
    u = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2), in a form that neither cancels nor overflows for large |u|
    stretch = 2 * (math.log(2) - u - softplus(-2 * u))
    return u.tanh(), (gaussian - stretch).sum(dim=2)


def critic_losses(q: Tensor, targets: Tensor) -> Tensor:
    """(1/2) sum_k E[(Q_k(s, a) - y)^2], one loss per learner (equation 5), of (N, 2, B) q and (N, B) targets."""
    return 0.5 * (q - targets.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


def critic_targets(
    rewards: Tensor, terminated: Tensor, discount: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor
) -> Tensor:
    """(N, B) y = r + discount (1 - terminated) (min_k Q'_k(s', a') - alpha log pi(a'|s')), a' ~ pi (equations 3, 5).

    Args:
        rewards, terminated, next_log_prob: (N, B).
        discount, alpha: (N, 1).
        next_q: (N, 2, B) Q' of the target networks.
    """
    value = torch.minimum(next_q[:, 0], next_q[:, 1]) - alpha * next_log_prob
    return rewards + discount * value * ~terminated


def actor_losses(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """E[alpha log pi(a|s) - min_k Q_k(s, a)] (equation 9), of (N, 2, B) q, (N, B) log_prob and (N, 1) alpha."""
    return (alpha * log_prob - torch.minimum(q[:, 0], q[:, 1])).mean(dim=1)


def temperature_losses(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """E[-log alpha (log pi(a|s) + target entropy)], of (N, 1) log_alpha and (N, B) log_prob.

    Equation 18 with log alpha in place of alpha, as in the authors' code.
    """
    return -(log_alpha * (log_prob + target_entropy)).mean(dim=1)


@component
class SAC(OffPolicy):
    """SAC (Haarnoja et al. 2018b, "Soft Actor-Critic Algorithms and Applications").

    As in Stable-Baselines3, with its defaults except for `buffer_size`: twin critics, random actions until learning
    starts, and target networks that follow in every update. All learners' critics are one stack of 2 N networks.
    """

    learning_rate: PerLearner[Positive] = 3e-4
    batch_size: Count = 256
    train_every: Count = 1
    tau: PerLearner[Share] = 0.005
    hidden_sizes: HiddenSizes = (256, 256)
    """Hidden layers of the actor and of each critic."""
    entropy_coefficient: Literal["auto"] | PerLearner[NotNegative] = "auto"
    """Coefficient of the entropy, alpha; `auto` learns it from 1, to bring the entropy to `target_entropy`."""
    target_entropy: float | None = None
    """Target of the policy's entropy in nats; by default, minus the number of parts of an action."""

    def __post_init__(self) -> None:
        if self.entropy_coefficient != "auto" and self.target_entropy is not None:
            raise ValueError(f"target_entropy {self.target_entropy} is for entropy_coefficient auto: remove either")

    def begin(self, spec: Spec) -> None:
        super().begin(spec)
        space, learners = spec.action_space, self.num_learners
        if not (isinstance(space, spaces.Box) and space.is_bounded()):
            raise UserError(f"sac needs Box actions with finite bounds, not {one_line(space)}")
        self.scale = BoxScale(space)
        # Networks: an actor, two critics and their targets, and a temperature.
        features, parts = self.encoder.size, self.scale.size
        self.actor = MLP((features, *self.hidden_sizes, 2 * parts), self.activation)
        self.policy = Stack(learners, self.actor.shapes, self.device)
        self.actor.initialise(self.policy.parameters, self.streams, gains=None)
        self.critic = MLP((features + parts, *self.hidden_sizes, 1), self.activation)
        self.critics, self.targets = (Stack(_CRITICS * learners, self.critic.shapes, self.device) for _ in range(2))
        critic_seeds = np.stack([derive(self.seeds, 1 + critic) for critic in range(_CRITICS)], axis=1).reshape(-1)
        self.critic.initialise(self.critics.parameters, SlotStreams(critic_seeds), gains=None)
        self.targets.flat.copy_(self.critics.flat)
        self.policy_optimiser, self.critic_optimiser = Adam(self.policy), Adam(self.critics)
        self.temperature = Stack(learners, [(1,)], self.device)  # log alpha
        self.temperature_optimiser = Adam(self.temperature)
        if self.entropy_coefficient != "auto":
            self.temperature.flat.copy_(self.parameter("entropy_coefficient", 1).log())
        self.entropy = -float(parts) if self.target_entropy is None else self.target_entropy
        self.critic_rate, self.critic_share = (_per_critic(values) for values in (self.rate, self.target_share))

    def random_actions(self) -> Tensor:
        return 2 * uniform(self.streams, self.device, self.actors, self.scale.size) - 1

    def policy_actions(self, features: Tensor) -> Tensor:
        noise = normal(self.streams, self.device, self.actors, self.scale.size)
        with torch.no_grad():
            return squashed_gaussian(self.actor(self.policy.parameters, features), noise)[0]

    def to_space(self, actions: Tensor) -> NDArray[Any]:
        return self.scale.to_space(actions)

    def update(self, batch: Batch) -> None:
        noise = normal(self.streams, self.device, 2, self.batch_size, self.scale.size)
        # Actions of the current policy, and the temperature.
        actions, log_prob = squashed_gaussian(self.actor(self.policy.parameters, batch.features), noise[:, 0])
        alpha = self.temperature.flat.exp()
        if self.entropy_coefficient == "auto":
            (log_alpha,) = self.temperature.parameters
            self.temperature.differentiate(temperature_losses(log_alpha, log_prob.detach(), self.entropy))
            self.temperature_optimiser.step(self.rate)
        # Critics.
        targets = self.soft_targets(batch, noise[:, 1], alpha)
        q = self.values(self.critics.parameters, batch.features, batch.actions)
        self.critics.differentiate(critic_losses(q, targets))
        self.critic_optimiser.step(self.critic_rate)
        # Actor: the updated critics value its actions, but get no gradient from that.
        q = self.values([parameter.detach() for parameter in self.critics.parameters], batch.features, actions)
        self.policy.differentiate(actor_losses(q, log_prob, alpha))
        self.policy_optimiser.step(self.rate)
        self.targets.flat.lerp_(self.critics.flat, self.critic_share)

    def soft_targets(self, batch: Batch, noise: Tensor, alpha: Tensor) -> Tensor:
        """(N, B) targets of the critics, given (N, B, parts) noise for the next actions and (N, 1) alpha."""
        with torch.no_grad():
            outputs = self.actor(self.policy.parameters, batch.next_features)
            actions, log_prob = squashed_gaussian(outputs, noise)
            next_q = self.values(self.targets.parameters, batch.next_features, actions)
            return critic_targets(batch.rewards, batch.terminated, self.gamma, next_q, log_prob, alpha)

    def values(self, parameters: list[Tensor], features: Tensor, actions: Tensor) -> Tensor:
        """(N, 2, B) Q of both critics for (N, B, F) features and (N, B, parts) actions."""
        q = self.critic(parameters, _per_critic(torch.cat([features, actions], dim=2)))
        return q.view(self.num_learners, _CRITICS, -1)


def _per_critic(values: Tensor) -> Tensor:
    """(N, ...) values per learner -> (2 N, ...) values per critic."""
    return values.unsqueeze(1).expand(-1, _CRITICS, *values.shape[1:]).flatten(0, 1)
