"""Two learners with an adaptable policy: one only collects a segment, the other adapts after every segment."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.base import DeepLearner
from data_gen.agents.deep.distributions import most_likely
from data_gen.meta.maml.adaptation import Policy, adapt, leaves_of
from data_gen.meta.maml.segments import Samples, Segment, standardised


class Collector(DeepLearner):
    """Collects one segment with given parameters, which differ between learners.

    Args:
        policy: the policy that the parameters belong to.
        parameters: number of learners -> their parameters, (N, ...) each.
        actors: environments per learner, all on its task.
        length: steps of a segment, T.
        discount, gae_lambda: discount and lambda of the segment's advantages.
    """

    def __init__(
        self,
        policy: Policy,
        parameters: Callable[[int], list[Tensor]],
        actors: int,
        length: int,
        discount: float,
        gae_lambda: float,
    ) -> None:
        self.policy, self.make_parameters, self.actors, self.length = policy, parameters, actors, length
        self.discount, self.gae_lambda = discount, gae_lambda

    def begin(self, spec: Spec) -> None:
        self.parameters = self.make_parameters(self.num_learners)
        shape = self.num_learners, self.length, self.actors
        self.segment = Segment(shape, self.encoder.is_number, self.device)
        self.full = False

    def choose(self, observation: Any) -> NDArray[Any]:
        distribution = self.policy.distribution
        features = self.encoder(observation).view(self.num_learners, self.actors, -1)
        with torch.no_grad():
            outputs = self.policy.outputs(self.parameters, features)
            if self.greedy():
                actions = most_likely(distribution, outputs)
            else:
                noise = distribution.noise(self.streams, self.actors)
                actions = distribution.sample(outputs, self.policy.free(self.parameters), noise)
        if not self.full:
            self.segment.acted(features, outputs, actions)
        return distribution.to_space(actions)

    def greedy(self) -> bool:
        """True if the learners now take the most likely actions."""
        return False

    def learn(self, transition: Transition) -> None:
        if self.full:
            return
        rewards = self.rows(transition.reward.astype(np.float32, copy=False))
        self.full = self.segment.came(rewards, self.rows(transition.terminated | transition.truncated))
        if self.full:
            self.arrived = self.encoder(transition.next_observation).view(self.num_learners, self.actors, -1)

    def samples(self) -> Samples:
        """The full segment as samples for a policy gradient."""
        segment = self.segment
        assert segment.actions is not None and segment.outputs is not None
        advantages = segment.advantages(self.arrived, self.discount, self.gae_lambda)
        actions, outputs = segment.actions.flatten(1, 2), segment.outputs.flatten(1, 2)
        with torch.no_grad():
            log_prob = self.policy.log_prob(self.parameters, outputs, actions)
        features = segment.features.flatten(1, 2)
        return Samples(features, actions, standardised(advantages.flatten(1)), outputs, log_prob)


class AdaptingLearner(Collector):
    """Takes a gradient step after every segment, until `rate` gives None.

    Args:
        policy, parameters, actors, length, discount, gae_lambda: as in `Collector`.
        rate: index of a gradient step, from 0 -> its learning rate; None after the last step.
        greedy_end: take the most likely actions after the last step.
    """

    def __init__(
        self,
        policy: Policy,
        parameters: Callable[[int], list[Tensor]],
        actors: int,
        length: int,
        discount: float,
        gae_lambda: float,
        rate: Callable[[int], float | None],
        greedy_end: bool = False,
    ) -> None:
        super().__init__(policy, parameters, actors, length, discount, gae_lambda)
        self.rate, self.greedy_end = rate, greedy_end

    def begin(self, spec: Spec) -> None:
        super().begin(spec)
        self.gradient_steps, self.full = 0, self.rate(0) is None

    def greedy(self) -> bool:
        return self.greedy_end and self.full

    def learn(self, transition: Transition) -> None:
        collecting = not self.full
        super().learn(transition)
        rate = self.rate(self.gradient_steps)
        if not (collecting and self.full) or rate is None:
            return
        # inner step
        adapted = adapt(self.policy, leaves_of(self.parameters), self.samples(), rate)
        # A learner whose step is not finite keeps its parameters, and does not affect the others.
        finite = torch.stack([part.detach().flatten(1).isfinite().all(dim=1) for part in adapted]).all(dim=0)
        self.parameters = [
            torch.where(finite.view(-1, *[1] * (part.dim() - 1)), part.detach(), before)
            for part, before in zip(adapted, self.parameters, strict=True)
        ]
        # next segment
        self.gradient_steps += 1
        self.segment.empty()
        self.full = self.rate(self.gradient_steps) is None
