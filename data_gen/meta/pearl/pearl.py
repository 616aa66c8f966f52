"""PEARL: soft actor-critic whose networks are told what is believed of the task, learned off-policy from many tasks.

Axes: T tasks of a meta-batch, B rows of a task, R = T x B rows, C transitions of a context, L of the latent variable z.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.base import HiddenSizes
from data_gen.agents.deep.encoding import Encoder
from data_gen.agents.sweep import Count, NotNegative, Positive, Share
from data_gen.meta.base import MetaLearner, TrainingTasks, load_optimiser_state, optimiser_state
from data_gen.meta.pearl.context_encoder import product_of_gaussians
from data_gen.meta.pearl.pearl_updates import FIGURES, Batch, PearlNetworks, PearlUpdates
from data_gen.meta.pearl.soft_actions import soft_actions
from data_gen.meta.pearl.task_collection import (
    Collector,
    LatentActor,
    RandomActor,
    latent_noise,
    prior_belief,
    transition_fields,
)
from data_gen.meta.pearl.task_replay import Sampler, TaskReplay
from data_gen.returns import episode_returns
from data_gen.streams import Seeds, SlotStreams, derive
from icrl.config.components import component
from icrl.support.errors import UserError

_DRAWN_AT_ONCE = 16
"""Updates whose random numbers are drawn together: few enough to stay small, and enough that drawing costs nothing."""
_INITIAL, _PRIOR, _POSTERIOR, _UPDATES = range(4)  # what an iteration's seeds are for

Whole = Annotated[int, Field(ge=0)]

_NO_WEIGHT = 1e-35
"""Entropy of weight 0 has this one, whose logarithm is a number."""


@component
class PEARL(MetaLearner):
    """PEARL (Rakelly et al. 2019, "Efficient Off-Policy Meta-RL via Probabilistic Context Variables").

    An iteration collects episodes on some training tasks, first with z from the prior and then from the posterior over
    those, and then makes `updates` updates from the memories of all. In a lifetime, z comes from the prior for the
    first episodes, and after that from the posterior over what the lifetime has seen, anew for every episode.

    As in the paper and the authors' code (katerakelly/oyster): the KL term is a sum over tasks and dimensions beside a
    mean over transitions; the encoder's gradients come from the critics and the KL alone, and z is detached for the
    policy and the targets; contexts come from what a task collected last, with z from the prior, batches from
    everything. Different: target critics in place of a value network and its target (Haarnoja et al. 2018b), no
    regulariser on the policy's outputs, and a collection's episodes run side by side. Discrete actions have exact
    expectations (Christodoulou 2019).
    """

    iterations: Count = 500
    latent_size: Count = 5
    hidden_sizes: HiddenSizes = (300, 300, 300)
    """Of the policy and of each critic."""
    encoder_sizes: HiddenSizes = (200, 200, 200)
    """Of the context encoder."""
    next_observation_in_context: bool = False
    """Shows the encoder what an action led to; tasks that differ in their dynamics need it."""
    kl_weight: NotNegative = 0.1
    """Of the KL divergence from the prior, summed over tasks and dimensions, beside the critics' mean loss."""

    tasks_per_iteration: Count = 5
    """Training tasks that collect in an iteration."""
    initial_episodes: Count = 10
    """On every task that has a memory, before the first update, with random actions."""
    initial_hold: Count = 1
    """Steps for which each of those random actions is kept; long ones find rewards far from the start."""
    prior_episodes: Count = 2
    """With z from the prior, on each task that collects: its context until it collects again."""
    posterior_episodes: Whole = 3
    """With z from the posterior over those."""
    posterior_in_context: bool = False
    """Whether these become context, too."""
    resident_tasks: Count = 256
    """Tasks that have a memory at a time. With more training tasks, one that collects replaces the oldest."""
    buffer_size: Count = 10_000
    """Last transitions that are kept of each of them."""

    updates: Count = 2000
    """In an iteration."""
    meta_batch: Count = 16
    """Tasks in an update, at most those that have a memory."""
    batch_size: Count = 256
    """Transitions of each of them for the policy and the critics."""
    context_size: Count = 100
    """Transitions of each of them for the encoder, drawn with replacement."""
    learning_rate: Positive = 3e-4
    discount: Share = 0.99
    tau: Share = 0.005
    """How far target parameters move towards the learned ones in an update."""
    reward_scale: Positive = 5.0
    """Times the reward, in what the critics learn."""
    context_reward_scale: Positive = 1.0
    """Times the reward, in what the encoder reads. Rare rewards among one-hot observations need more than 1 to stand
    out of the noise of z before anything is learned."""
    entropy_coefficient: Literal["auto"] | NotNegative = 1.0
    """Weight of entropy beside the scaled reward, alpha; `auto` learns it from 1, for entropy `target_entropy`."""
    target_entropy: float | None = None
    """Nats; none is minus the number of parts of a Box action, and half of what is possible for a Discrete one."""

    exploration_episodes: Whole = 2
    """Episodes at a lifetime's start with z from the prior."""
    context_capacity: Count = 2000
    """Last transitions of a lifetime that its posterior takes in."""
    deterministic: bool = True
    """Lifetimes act with the policy's mean or likeliest action, as the authors evaluate."""

    acting_only: ClassVar[frozenset[str]] = frozenset({"exploration_episodes", "context_capacity", "deterministic"})

    def __post_init__(self) -> None:
        if self.entropy_coefficient != "auto" and self.target_entropy is not None:
            raise ValueError(f"target_entropy {self.target_entropy} is what entropy_coefficient auto aims at: drop one")

    def build(self, spec: Spec) -> PearlNetworks:
        self.encoder = Encoder(spec.observation_space, self.device)
        self.actions = soft_actions(spec.action_space, "pearl", self.device)
        transition = self.encoder.size * (2 if self.next_observation_in_context else 1) + self.actions.features + 1
        return PearlNetworks(
            self.encoder.size,
            transition,
            self.actions,
            self.latent_size,
            self.hidden_sizes,
            self.encoder_sizes,
            self.device,
        )

    @property
    def nets(self) -> PearlNetworks:
        """The networks, by their type."""
        assert isinstance(self.networks, PearlNetworks)
        return self.networks

    # --- a lifetime

    def begin(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.streams = SlotStreams(derive(seeds, 0))
        self.episodes, self.steps = np.zeros(num_envs, dtype=np.int64), 0
        # Factors and not transitions: the networks are frozen, so each has to be encoded but once.
        shape = (num_envs, self.context_capacity, self.latent_size)
        self.factor_means, self.factor_variances = (torch.empty(shape, device=self.device) for _ in range(2))
        self.latents = torch.empty(num_envs, self.latent_size, device=self.device)
        self._new_latents(np.arange(num_envs))

    def act(self, observation: Any) -> NDArray[Any]:
        self.seen = self.encoder.stored(observation)
        with torch.no_grad():
            inputs = torch.cat([self.encoder.encode(self.seen), self.latents], dim=1)
            outputs = self.nets.policy.by_blocks(inputs)
            self.taken = self.actions.sample(outputs.unsqueeze(0), None if self.deterministic else self.streams)
        return self.actions.to_space(self.taken)

    def observe(self, transition: Transition) -> None:
        fields = transition_fields(self.encoder, self.seen, self.taken, transition)
        place = self.steps % self.context_capacity
        with torch.no_grad():
            means, variances = self.nets.encoder.factors_by_blocks(self.described(fields))
        self.factor_means[:, place], self.factor_variances[:, place] = means, variances
        self.steps += 1
        ended = np.flatnonzero(transition.terminated | transition.truncated)
        if len(ended):
            self.episodes[ended] += 1
            self._new_latents(ended)

    def _new_latents(self, slots: NDArray[np.intp]) -> None:
        """Draws z for the episodes that begin in `slots`."""
        filled = min(self.steps, self.context_capacity)
        place = torch.from_numpy(slots).to(self.device)
        mean, variance = prior_belief(len(slots), self.latent_size, self.device)
        if filled:
            posterior = product_of_gaussians(self.factor_means[place, :filled], self.factor_variances[place, :filled])
            informed = torch.from_numpy(self.episodes[slots] >= self.exploration_episodes).to(self.device).unsqueeze(1)
            mean, variance = torch.where(informed, posterior[0], mean), torch.where(informed, posterior[1], variance)
        self.latents[place] = mean + variance.sqrt() * latent_noise(self.streams, slots, mean)

    def described(self, fields: dict[str, Tensor]) -> Tensor:
        """(..., values) transitions by field -> (..., F) as the encoder reads them."""
        rewards = self.context_reward_scale * fields["reward"]
        parts = [self._features(fields, "observation"), self.actions.encode(fields["action"]), rewards]
        if self.next_observation_in_context:
            parts.append(self._features(fields, "next_observation"))
        return torch.cat(parts, dim=-1)

    def _features(self, fields: dict[str, Tensor], name: str) -> Tensor:
        prefix = f"{name}."
        stored = {path.removeprefix(prefix): leaf for path, leaf in fields.items() if path.startswith(prefix)}
        return self.encoder.encode(stored)

    # --- meta-training

    def begin_training(self, training: TrainingTasks) -> None:
        self.training = training
        length = training.distribution.episode_length
        episodes = max(self.initial_episodes, self.prior_episodes + self.posterior_episodes)
        if episodes * length > self.buffer_size:
            raise UserError(
                f"pearl: a task collects {episodes} episodes of {length} steps at a time, but buffer_size is "
                f"{self.buffer_size}: raise buffer_size to at least {episodes * length}, or collect fewer episodes"
            )
        self.replay = TaskReplay(min(self.resident_tasks, len(training.tasks)), self.buffer_size, self.device)
        target_entropy = None
        if self.entropy_coefficient == "auto":
            target_entropy = self.actions.target_entropy if self.target_entropy is None else self.target_entropy
        else:
            with torch.no_grad():
                self.nets.log_alpha.fill_(float(np.log(max(self.entropy_coefficient, _NO_WEIGHT))))
        self.updating = PearlUpdates(
            self.nets,
            self.actions,
            self.learning_rate,
            self.discount,
            self.tau,
            self.reward_scale,
            self.kl_weight,
            target_entropy,
        )

    def improve(self, iteration: int) -> dict[str, float]:
        """`return` is of posterior episodes of the tasks that collected, of prior ones where there are none."""
        collected = self.collect(iteration)
        return collected | self.learn(iteration)

    def collect(self, iteration: int) -> dict[str, float]:
        """Gives the memories new transitions."""
        steps = 0
        if iteration == 0:
            tasks = self.training.rows(self.replay.places, iteration)
            actor: Collector = RandomActor(self.encoder, self.actions, self.initial_hold)
            fields, _ = self._play(tasks, self.initial_episodes, actor, iteration, _INITIAL)
            self.replay.add(self.replay.admit(tasks), fields, context=True)
            steps += fields["reward"].numel()
        tasks = self.training.rows(min(self.tasks_per_iteration, self.replay.places), iteration)
        places = self.replay.admit(tasks)
        belief = prior_belief(len(tasks), self.latent_size, self.device)
        context, prior_return = self._play_with(belief, tasks, self.prior_episodes, iteration, _PRIOR)
        figures = {"return": prior_return, "prior_return": prior_return}
        steps += context["reward"].numel()
        self.replay.add(places, context, context=True)
        if self.posterior_episodes:
            with torch.no_grad():
                belief = self.nets.encoder.posterior(self.described(context))
            more, figures["return"] = self._play_with(belief, tasks, self.posterior_episodes, iteration, _POSTERIOR)
            steps += more["reward"].numel()
            self.replay.add(places, more, context=False)
            if self.posterior_in_context:
                self.replay.extend_context(places, more["reward"].shape[1])
        return {"environment_steps": float(steps), **figures}

    def _play_with(
        self, belief: tuple[Tensor, Tensor], tasks: NDArray[np.int64], episodes: int, iteration: int, purpose: int
    ) -> tuple[dict[str, Tensor], float]:
        """`_play` of the policy, with z drawn from each task's belief, (tasks, L) means and variances."""
        mean, variance = (part.repeat_interleave(episodes, dim=0) for part in belief)
        actor = LatentActor(self.encoder, self.actions, self.nets.policy, mean, variance)
        return self._play(tasks, episodes, actor, iteration, purpose)

    def _play(
        self, tasks: NDArray[np.int64], episodes: int, actor: Collector, iteration: int, purpose: int
    ) -> tuple[dict[str, Tensor], float]:
        """Lets an actor live `episodes` episodes' time on each task, side by side.

        Returns (tasks, transitions, values) by field, and the mean return of an episode.
        """
        training, length = self.training, self.training.distribution.episode_length
        seeds = training.seeds(len(tasks) * episodes, iteration, purpose)
        history = training.live(actor, np.repeat(tasks, episodes), length, seeds)
        fields = {name: values.view(len(tasks), episodes * length, -1) for name, values in actor.fields().items()}
        return fields, float(episode_returns(history.reward, history.ended, 1).mean())

    def learn(self, iteration: int) -> dict[str, float]:
        """`updates` updates; nothing is read from the device before the last."""
        sampler, total = self.replay.sampler(), torch.zeros(len(FIGURES), device=self.device)
        for batch in self._batches(sampler, iteration):
            total += self.updating.update(batch)
        means = (total / self.updates).tolist()
        return {**dict(zip(FIGURES, means, strict=True)), "alpha": float(self.nets.log_alpha.detach().exp())}

    def _batches(self, sampler: Sampler, iteration: int) -> Iterator[Batch]:
        """An iteration's batches."""
        seed = int(self.training.seeds(1, iteration, _UPDATES)[0] >> np.uint64(1))
        generator = torch.Generator(self.device).manual_seed(seed)
        tasks = min(self.meta_batch, sampler.residents)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=self.device)

        for start in range(0, self.updates, _DRAWN_AT_ONCE):
            count = min(_DRAWN_AT_ONCE, self.updates - start)
            all_places = sampler.places(uniform(count, sampler.residents), tasks)
            of_context, of_batch = uniform(count, tasks, self.context_size), uniform(count, tasks, self.batch_size)
            latent = torch.randn(count, tasks, self.latent_size, generator=generator, device=self.device)
            action = self.actions.noise(generator, count, 2, tasks * self.batch_size)
            for number, places in enumerate(all_places):
                context = sampler.context(places, of_context[number])
                rows = sampler.transitions(places, of_batch[number])
                yield self._batch(context, rows, latent[number], action[number])

    def _batch(
        self, context: dict[str, Tensor], rows: dict[str, Tensor], latent_noise: Tensor, action_noise: Tensor
    ) -> Batch:
        """From (T, C, values) and (T, B, values) by field."""
        return Batch(
            self.described(context),
            self._features(rows, "observation").flatten(0, 1),
            rows["action"].flatten(0, 1),
            rows["reward"].flatten(),
            rows["terminated"].flatten(),
            self._features(rows, "next_observation").flatten(0, 1),
            latent_noise,
            action_noise,
        )

    def training_state(self) -> dict[str, Tensor]:
        state = {f"replay.{name}": values for name, values in self.replay.state().items()}
        for name, optimiser in self.updating.optimisers.items():
            state |= optimiser_state(optimiser, name)
        return state

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        replay = {name.removeprefix("replay."): values for name, values in state.items() if name.startswith("replay.")}
        self.replay.load(replay)
        for name, optimiser in self.updating.optimisers.items():
            load_optimiser_state(optimiser, state, name)
