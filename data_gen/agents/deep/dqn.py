"""Deep Q-networks: one value per action, learned from replayed transitions."""

from typing import Annotated, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from data_gen.agents.base import Spec, TableIndex
from data_gen.agents.deep.networks import MLP, Stack
from data_gen.agents.deep.off_policy import Batch, OffPolicy
from data_gen.agents.deep.optimisers import Adam
from data_gen.agents.sweep import Count, PerLearner, Positive, Share
from data_gen.spaces import one_line
from icrl.config.components import component
from icrl.support.errors import UserError


def dqn_losses(q: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
    """E[huber(Q(s, a) - y)], one loss per learner.

    Args:
        q: (N, B, actions) Q(s, .).
        actions: (N, B, 1) numbers of the actions taken.
        targets: (N, B) y.
    """
    taken = q.gather(2, actions.long()).squeeze(2)
    return torch.nn.functional.smooth_l1_loss(taken, targets, reduction="none").mean(dim=1)


def dqn_targets(
    rewards: Tensor, terminated: Tensor, discount: Tensor, next_q: Tensor, choosing_q: Tensor | None = None
) -> Tensor:
    """(N, B) y = r + discount (1 - terminated) Q'(s', argmax_a Q''(s', a)).

    Args:
        rewards, terminated: (N, B).
        discount: (N, 1).
        next_q: (N, B, actions) Q'(s', .) of the target network.
        choosing_q: (N, B, actions) Q''(s', .) of the network that chooses the action: in Double DQN the learned network
            (van Hasselt et al. 2016, equation 4); None for the target network itself.
    """
    if choosing_q is None:
        value = next_q.amax(dim=2)
    else:
        value = next_q.gather(2, choosing_q.argmax(dim=2, keepdim=True)).squeeze(2)
    return rewards + discount * value * ~terminated


@component
class DQN(OffPolicy):
    """DQN (Mnih et al. 2015, "Human-level control through deep reinforcement learning"), or Double DQN.

    As in Stable-Baselines3, with its defaults except for `buffer_size`: Adam, gradients clipped by their norm, random
    actions until learning starts. Actions of several parts are numbered jointly. Every actor explores independently.
    """

    target_every: Count = 10_000
    """Steps between changes of the target network, summed over the actors."""
    epsilon_start: PerLearner[Share] = 1.0
    epsilon_end: PerLearner[Share] = 0.05
    epsilon_fraction: PerLearner[Annotated[float, Field(gt=0, le=1)]] = 0.1
    """Fraction of the lifetime over which epsilon falls linearly from start to end."""
    max_grad_norm: PerLearner[Positive] = 10.0
    double: bool = False
    """Double DQN: the learned network chooses the action, the target network values it (van Hasselt et al. 2016)."""

    @property
    def follows_plan(self) -> bool:
        return self.epsilon_start != self.epsilon_end

    def begin(self, spec: Spec) -> None:
        super().begin(spec)
        space = spec.action_space
        if not (
            isinstance(space, spaces.Discrete) or (isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1)
        ):
            raise UserError(f"dqn needs Discrete or flat MultiDiscrete actions, not {one_line(space)}")
        self.actions = TableIndex(spec.action_space, "dqn")
        self.network = MLP((self.encoder.size, *self.hidden_sizes, self.actions.size), self.activation)
        self.learned, self.target = (Stack(self.num_learners, self.network.shapes, self.device) for _ in range(2))
        self.network.initialise(self.learned.parameters, self.streams, gains=None)
        self.target.flat.copy_(self.learned.flat)
        self.optimiser, self.grad_norm = Adam(self.learned), self.parameter("max_grad_norm")
        self.start, self.end, self.fraction = (
            self.drawn(name, self.seeds) for name in ("epsilon_start", "epsilon_end", "epsilon_fraction")
        )

    def epsilon(self) -> NDArray[np.float64]:
        """(N,) current probability of a random action, per learner."""
        return self.start + np.minimum(1, self.progress / self.fraction) * (self.end - self.start)

    def random_actions(self) -> Tensor:
        return self._numbers(self.streams.uniform(self.actors) * self.actions.size)

    def policy_actions(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            greedy = self.network(self.learned.parameters, features).argmax(dim=2, keepdim=True)
        coin, epsilon = self.streams.uniform(self.actors), self.epsilon()[:, None]
        # Given coin < epsilon, coin / epsilon is uniform again: one draw per step is enough.
        at_random = coin / np.where(epsilon > 0, epsilon, 1) * self.actions.size
        explore = torch.from_numpy(coin < epsilon).to(self.device).unsqueeze(2)
        return torch.where(explore, self._numbers(np.minimum(at_random, self.actions.size - 1)), greedy.int())

    def to_space(self, actions: Tensor) -> NDArray[Any]:
        return self.actions.elements(actions.reshape(-1).cpu().numpy())

    def stepped(self, steps: int) -> None:
        if steps % max(1, self.target_every // self.actors) == 0:
            self.target.flat.lerp_(self.learned.flat, self.target_share)

    def update(self, batch: Batch) -> None:
        self.learned.differentiate(self.losses(batch))
        self.optimiser.step(self.rate, self.grad_norm)

    def losses(self, batch: Batch) -> Tensor:
        """(N,) losses of a minibatch."""
        with torch.no_grad():
            next_q = self.network(self.target.parameters, batch.next_features)
            choosing_q = self.network(self.learned.parameters, batch.next_features) if self.double else None
            targets = dqn_targets(batch.rewards, batch.terminated, self.gamma, next_q, choosing_q)
        return dqn_losses(self.network(self.learned.parameters, batch.features), batch.actions, targets)

    def _numbers(self, values: NDArray[np.float64]) -> Tensor:
        """(N, A) numbers -> (N, A, 1) action numbers, rounded down."""
        return torch.from_numpy(values.astype(np.int32)).to(self.device).unsqueeze(2)
