"""Model-agnostic meta-learning: parameters from which one or a few policy-gradient steps solve a new task."""

from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.base import HiddenSizes
from data_gen.agents.deep.distributions import action_distribution
from data_gen.agents.deep.encoding import Encoder
from data_gen.agents.deep.networks import Activation
from data_gen.agents.sweep import Count, NotNegative, Positive, Share
from data_gen.meta.base import MetaLearner, TrainingTasks, load_optimiser_state, optimiser_state
from data_gen.meta.maml.adaptation import Policy, adapt, divergence, leaves_of, surrogate
from data_gen.meta.maml.adapting import AdaptingLearner, Collector
from data_gen.meta.maml.segments import Samples
from data_gen.meta.maml.trust_region import (
    FisherProduct,
    conjugate_gradients,
    flat,
    largest_step,
    line_search,
    unflat,
)
from data_gen.streams import Seeds
from icrl.config.components import component
from icrl.support.errors import UserError

_ROWS = 99  # purpose of the generator that draws samples for the Fisher matrix


@component
class MAML(MetaLearner):
    """MAML for reinforcement learning (Finn et al. 2017, algorithm 3), and FOMAML with `first_order`.

    The inner step is a policy-gradient step on a loss with the correct second derivative (`adaptation.surrogate`; the
    paper's loss lacks a term). Its advantages are over a linear baseline, fitted per task and inner step. The outer
    step is TRPO's, as in the paper, or PPO's, as in ProMP (Rothfuss et al. 2019) but without its penalty on inner
    divergences.

    Two of the paper's baselines are settings of this class: `inner_steps: 0` trains one policy on all tasks, which a
    lifetime then fine-tunes ("pretrained"), and `iterations: 0` keeps the initial parameters ("random").

    In a lifetime every learner starts from the meta-trained parameters, and takes a gradient step after every
    `test_trajectories` episodes' worth of steps. A gradient step to parameters that are not finite is discarded.
    """

    iterations: Annotated[int, Field(ge=0)] = 200
    """Iterations of meta-training; 0 keeps the initial parameters."""
    meta_batch: Annotated[int, Field(ge=2)] = 40
    """Tasks per iteration."""
    trajectories: Count = 20
    """Trajectories per task, before each inner step and after the last: full-length episodes' worth of steps, collected
    side by side. Where episodes end early, there are more episodes."""
    inner_steps: Annotated[int, Field(ge=0, le=5)] = 1
    """Gradient steps of adaptation that meta-training differentiates through."""
    inner_rate: Positive = 0.1
    first_order: bool = False
    """FOMAML: take the inner gradients for constants."""
    outer: Literal["trpo", "ppo"] = "trpo"
    kl_limit: Positive = 0.01
    """TRPO: limit of the mean KL(old || new) of the adapted policies, over tasks and samples."""
    cg_iterations: Count = 10
    """TRPO: iterations of conjugate gradients."""
    damping: NotNegative = 1e-3
    """TRPO: multiple of the identity that is added to the Fisher matrix."""
    fisher_share: Annotated[float, Field(gt=0, le=1)] = 0.025
    """TRPO: fraction of the samples that the Fisher matrix is estimated from; the line search uses all samples."""
    outer_rate: Positive = 1e-3
    """PPO: Adam's learning rate."""
    outer_epochs: Count = 5
    """PPO: updates per iteration, each on all samples as one batch."""
    clip_range: Positive = 0.3
    """PPO: clip range of the likelihood ratio."""
    output_gain: Positive = 1.0
    """Gain of the policy's last initial matrix (Xavier's). A small gain makes the first actions small. This keeps
    meta-training out of a local optimum in which the policy runs away and adaptation turns it around."""
    discount: Share = 0.99
    gae_lambda: Share = 1.0
    hidden_sizes: HiddenSizes = (100, 100)
    activation: Activation = "relu"

    actors: Count = 1
    """In a lifetime: environments per learner, all on its task. Has to divide `test_trajectories`."""
    test_trajectories: Count = 20
    """In a lifetime: full-length episodes' worth of steps before each gradient step, over all actors."""
    test_rate: Positive | None = None
    """In a lifetime: learning rate of the first gradient step; None for `inner_rate`."""
    later_rate: Share = 0.5
    """In a lifetime: learning rate of the later steps, as a fraction of the first; the authors halve it."""
    test_steps: Annotated[int, Field(ge=0)] | None = None
    """In a lifetime: gradient steps before the learner stops adapting; None for no limit."""
    greedy: bool = False
    """In a lifetime: take the most likely actions after the last of `test_steps`, when exploration has no use."""

    acting_only: ClassVar[frozenset[str]] = frozenset(
        {"actors", "test_trajectories", "test_rate", "later_rate", "test_steps", "greedy"}
    )

    def __post_init__(self) -> None:
        if self.test_trajectories % self.actors:
            raise ValueError(f"actors {self.actors} does not divide test_trajectories {self.test_trajectories}")
        if self.greedy and self.test_steps is None:
            raise ValueError("greedy takes effect after the last gradient step: set test_steps")

    # --- networks

    def build(self, spec: Spec) -> Policy:
        if spec.episode_length is None:
            raise UserError("maml: the length of an episode is unknown: wrap the environment in a time limit")
        self.episode_length = spec.episode_length
        features = Encoder(spec.observation_space, self.device).size
        distribution = action_distribution(spec.action_space, "maml", self.device)
        return Policy(features, distribution, self.hidden_sizes, self.activation, self.output_gain, self.device)

    @property
    def policy(self) -> Policy:
        """The networks as a `Policy`. Raises UserError before `set_up`."""
        return cast(Policy, self.trained_networks)

    # --- a lifetime

    def check(self, spec: Spec) -> None:
        """As `Agent.check`; also raises UserError if a lifetime is too short to act after a gradient step."""
        super().check(spec)
        steps, needed = spec.lived_steps or spec.planned_steps, self._segment_steps()
        if self.test_steps != 0 and steps <= needed:
            raise UserError(
                f"maml: the first gradient step comes after {needed:,} steps per actor, but a lifetime has {steps:,} "
                "steps: lengthen the lifetime, raise `actors`, or lower `test_trajectories`"
            )

    def begin(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        policy = self.policy
        self.life = AdaptingLearner(
            policy,
            lambda learners: [parameter.detach() for parameter in policy.stacked(learners)],
            self.actors,
            self._segment_steps(),
            self.discount,
            self.gae_lambda,
            self._test_rate,
            self.greedy,
        )
        self.life.reset(spec, num_envs, seeds)

    def act(self, observation: Any) -> NDArray[Any]:
        return self.life.act(observation)

    def observe(self, transition: Transition) -> None:
        self.life.observe(transition)

    def _segment_steps(self) -> int:
        return self.test_trajectories // self.actors * self.episode_length

    def _test_rate(self, gradient_step: int) -> float | None:
        if self.test_steps is not None and gradient_step >= self.test_steps:
            return None
        rate = self.inner_rate if self.test_rate is None else self.test_rate
        return rate * self.later_rate if gradient_step else rate

    # --- meta-training

    def begin_training(self, training: TrainingTasks) -> None:
        self.training = training
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=self.outer_rate)

    def training_state(self) -> dict[str, Tensor]:
        return optimiser_state(self.optimiser) if self.outer == "ppo" else {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        if self.outer == "ppo":
            load_optimiser_state(self.optimiser, state)

    def improve(self, iteration: int) -> dict[str, float]:
        """One iteration of algorithm 3, on `meta_batch` tasks.

        `return` is the mean return per episode of the adapted policies, `return_k` that after k inner steps.
        """
        # inner loop, all tasks at once: collect, advantages, adapt
        training = self.training
        rows = np.repeat(training.rows(self.meta_batch, iteration), self.trajectories)
        parameters = self.policy.stacked(self.meta_batch)
        points, samples, returns = [parameters], [], []
        for step in range(self.inner_steps + 1):
            collector = self.collect(rows, parameters, training.seeds(self.meta_batch, iteration, step))
            samples.append(self.process(collector))
            returns.append(collector.segment.mean_return())
            if step < self.inner_steps:
                parameters = self.adapt(parameters, samples[-1], self.outer == "trpo")
                points.append(parameters)
        # outer step: update of the initial parameters
        outer = self.trpo_step(points, samples, iteration) if self.outer == "trpo" else self.ppo_step(points, samples)
        # metrics
        names = ["return" if step == self.inner_steps else f"return_{step}" for step in range(len(returns))]
        steps = len(returns) * self.meta_batch * self.trajectories * self.episode_length
        return {
            "environment_steps": float(steps),
            **dict(zip(names, torch.stack(returns).tolist(), strict=True)),
            **outer,
        }

    def collect(self, rows: NDArray[np.int64], parameters: list[Tensor], seeds: Seeds) -> Collector:
        """A full segment of new episodes on the tasks at `rows`, each task with its own parameters."""
        values = [parameter.detach() for parameter in parameters]
        collector = Collector(
            self.policy, lambda _: values, self.trajectories, self.episode_length, self.discount, self.gae_lambda
        )
        self.training.live(collector, rows, self.episode_length, seeds)
        return collector

    def process(self, collector: Collector) -> Samples:
        """The collected segment as samples, with advantages."""
        return collector.samples()

    def adapt(self, parameters: list[Tensor], samples: Samples, differentiable: bool) -> list[Tensor]:
        """One inner step per task; unless `differentiable`, the result is detached from `parameters`."""
        if differentiable:
            return adapt(self.policy, parameters, samples, self.inner_rate, second_order=not self.first_order)
        return leaves_of(adapt(self.policy, leaves_of(parameters), samples, self.inner_rate))

    def adapted(self, parameters: list[Tensor], samples: list[Samples], differentiable: bool) -> list[Tensor]:
        """Parameters after all inner steps on given samples, off-policy by their likelihood ratio."""
        for inner in samples[: self.inner_steps]:
            parameters = self.adapt(parameters, inner, differentiable)
        return parameters

    def trpo_step(self, points: list[list[Tensor]], samples: list[Samples], iteration: int) -> dict[str, float]:
        """One TRPO update of the initial parameters.

        Args:
            points: parameters before each inner step and after the last, each computed from the previous one.
            samples: the samples collected at each of the points.
            iteration: determines the samples that the Fisher matrix is estimated from.

        Returns `kl`, the mean divergence of the adapted policies, and `step_scale`, the scale of the accepted step.

        Raises UserError if the direction is not finite.
        """
        # natural gradient
        gradient, loss = self.meta_gradient(points[-1], samples[-1])
        direction = self.natural_direction(points, samples, gradient, iteration)
        if not direction.isfinite().all():
            raise UserError(f"maml: meta-training diverged in iteration {iteration + 1}: lower inner_rate")

        # loss and divergence of the adapted policies, as a function of the initial parameters
        old = samples[-1].outputs, [parameter.detach() for parameter in self.policy.free(points[-1])]
        initial = list(self.policy.parameters())
        start = flat(initial).detach()

        def evaluate(point: Tensor) -> tuple[float, float]:
            stacked = [part.expand(self.meta_batch, *part.shape) for part in unflat(point, initial)]
            parameters = self.adapted(stacked, samples, differentiable=False)
            with torch.no_grad():
                outputs = self.policy.outputs(parameters, samples[-1].features)
                log_prob = self.policy.log_prob(parameters, outputs, samples[-1].actions)
                gain = ((log_prob - samples[-1].log_prob).exp() * samples[-1].advantages).mean()
                new = outputs, self.policy.free(parameters)
                kl = divergence(self.policy.distribution, old, new).mean()
            loss_and_kl = torch.stack([-gain, kl]).tolist()
            return loss_and_kl[0], loss_and_kl[1]

        # line search and update
        point, kl, scale = self.search(evaluate, start, direction, loss)
        with torch.no_grad():
            for parameter, part in zip(initial, unflat(point, initial), strict=True):
                parameter.copy_(part)
        return {"kl": kl, "step_scale": scale}

    def meta_gradient(self, adapted: list[Tensor], samples: Samples) -> tuple[Tensor, float]:
        """(P,) gradient of the adapted policies' mean loss with respect to the initial parameters, and that loss."""
        loss = surrogate(self.policy, adapted, samples).mean()
        return flat(torch.autograd.grad(loss, list(self.policy.parameters()))), loss.item()

    def natural_direction(
        self, points: list[list[Tensor]], samples: list[Samples], gradient: Tensor, iteration: int
    ) -> Tensor:
        """(P,) step against the natural gradient, as long as the trust region allows."""
        # the same random fraction of every task's and inner step's samples
        number = samples[0].advantages.shape[1]
        kept = max(1, round(self.fisher_share * number))
        chosen = torch.randperm(number, generator=self.training.generator(iteration, _ROWS))[:kept].to(gradient.device)
        subset = [part.rows(chosen) for part in samples]
        # conjugate gradients
        product = FisherProduct(self.policy, points, subset, self.inner_rate, not self.first_order, self.damping)
        direction = conjugate_gradients(product, -gradient, self.cg_iterations)
        return largest_step(product, direction, self.kl_limit)

    def search(self, evaluate: Any, start: Tensor, direction: Tensor, loss: float) -> tuple[Tensor, float, float]:
        """Runs `line_search` within the trust region."""
        return line_search(evaluate, start, direction, loss, self.kl_limit)

    def ppo_step(self, points: list[list[Tensor]], samples: list[Samples]) -> dict[str, float]:
        """Updates the initial parameters by several epochs of PPO on the adapted policies (ProMP, algorithm 1).

        Returns `kl`, the mean divergence of the adapted policies, and `gain`, the decrease of the loss.
        """
        # update
        last, losses = samples[-1], []
        for _ in range(self.outer_epochs):
            parameters = self.adapted(self.policy.stacked(self.meta_batch), samples, differentiable=True)
            loss, _ = self.clipped_loss(parameters, last)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            losses.append(loss.detach())
        # metrics of the adapted policies after the last epoch
        parameters = self.adapted(self.policy.stacked(self.meta_batch), samples, differentiable=False)
        with torch.no_grad():
            loss, outputs = self.clipped_loss(parameters, last)
        old = last.outputs, [parameter.detach() for parameter in self.policy.free(points[-1])]
        kl = divergence(self.policy.distribution, old, (outputs, self.policy.free(parameters))).mean()
        metrics = torch.stack([kl, losses[0] - loss]).tolist()
        return {"kl": metrics[0], "gain": metrics[1]}

    def clipped_loss(self, parameters: list[Tensor], samples: Samples) -> tuple[Tensor, Tensor]:
        """PPO's mean clipped loss (Schulman et al. 2017, equation 7), and (N, B, outputs) of the policies."""
        outputs = self.policy.outputs(parameters, samples.features)
        ratio = (self.policy.log_prob(parameters, outputs, samples.actions) - samples.log_prob).exp()
        clipped = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        return -torch.minimum(ratio * samples.advantages, clipped * samples.advantages).mean(), outputs
