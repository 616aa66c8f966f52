"""Advantage actor-critic: one gradient step per short rollout of several actors."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from data_gen.agents.deep.networks import Stack
from data_gen.agents.deep.on_policy import OnPolicy
from data_gen.agents.deep.optimisers import Optimiser, RMSprop
from icrl.config.components import component


def a2c_losses(
    log_prob: Tensor,
    entropy: Tensor,
    values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    value_coefficient: Tensor,
    entropy_coefficient: Tensor,
) -> Tensor:
    """-E[log pi(a|s) A] + c_v E[(R - V(s))^2] - c_h E[H(pi(.|s))], one loss per learner.

    Args:
        log_prob, entropy, values, advantages, returns: (N, B).
        value_coefficient, entropy_coefficient: (N,).
    """
    policy = -(log_prob * advantages).mean(dim=1)
    value = (returns - values).square().mean(dim=1)
    return policy + value_coefficient * value - entropy_coefficient * entropy.mean(dim=1)


@component
class A2C(OnPolicy):
    """A2C, the synchronous form of A3C (Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning").

    Defaults as in Stable-Baselines3: n-step returns over 5 steps, RMSprop, separate networks for policy and value.
    """

    rms_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    rms_epsilon: Annotated[float, Field(gt=0)] = 1e-5

    def make_optimiser(self, stack: Stack) -> Optimiser:
        return RMSprop(stack, self.rms_decay, self.rms_epsilon)

    def update(self) -> None:
        assert self.actions is not None
        log_prob, entropy, values = self.evaluate(self.features.flatten(1, 2), self.actions.flatten(1, 2))
        batch = self.batch(values.detach())
        self.descend(a2c_losses(log_prob, entropy, values, batch.advantages, batch.returns, **self.coefficient))
