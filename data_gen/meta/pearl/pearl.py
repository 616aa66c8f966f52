"""PEARL: soft actor-critic conditioned on a belief over the task, meta-trained off-policy on many tasks.

Axes: T tasks of a meta-batch, B rows per task, R = T x B rows, C transitions per context, L dimensions of the latent
variable z.
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
from data_gen.meta.pearl.context_encoder import latent_noise, observation_features, product_of_gaussians
from data_gen.meta.pearl.pearl_updates import FIGURES, Batch, PearlNetworks, PearlUpdates
from data_gen.meta.pearl.soft_actions import soft_actions
from data_gen.meta.pearl.task_collection import Collector, LatentActor, RandomActor, prior_belief, transition_fields
from data_gen.meta.pearl.task_replay import Sampler, TaskReplay
from data_gen.returns import episode_returns
from data_gen.streams import Seeds, SlotStreams, derive
from icrl.config.components import component
from icrl.support.errors import UserError

_DRAWN_AT_ONCE = 16
"""Updates whose random numbers are drawn together: few enough to stay small, enough that drawing costs nothing."""
_INITIAL, _PRIOR, _POSTERIOR, _UPDATES = range(4)  # purposes of an iteration's seeds

Whole = Annotated[int, Field(ge=0)]

_LEAST_ALPHA = 1e-35
"""Alpha in place of an `entropy_coefficient` of 0, so that its logarithm is finite."""


@component
class PEARL(MetaLearner):
    """PEARL (Rakelly et al. 2019, "Efficient Off-Policy Meta-RL via Probabilistic Context Variables").

    An iteration collects episodes on some training tasks, first with z from the prior, then with z from the posterior
    given those first episodes. Then it makes `updates` updates from the replay memories of all tasks. In a lifetime, z
    is drawn for every episode: from the prior in the first episodes, and then from the posterior given the lifetime so
    far.

    As in the paper and the authors' code (katerakelly/oyster): the KL term is a sum over tasks and dimensions beside a
    mean over transitions; the encoder's gradients come from the critics and the KL alone, and z is detached for the
    policy and the targets; contexts come from a task's latest episodes with z from the prior, batches from all of its
    transitions. Differences: target critics replace the value network and its target (Haarnoja et al. 2018b), the
    policy's outputs have no regulariser, and the episodes of a collection run side by side. Expectations over Discrete
    actions are exact (Christodoulou 2019).
    """

    iterations: Count = 500
    latent_size: Annotated[Count, Field(le=2**12)] = 5
    hidden_sizes: HiddenSizes = (300, 300, 300)
    """Hidden layers of the policy and of each critic."""
    encoder_sizes: HiddenSizes = (200, 200, 200)
    """Hidden layers of the context encoder."""
    next_observation_in_context: bool = False
    """Show the encoder the next observation as well; tasks that differ in their dynamics need it."""
    kl_weight: NotNegative = 0.1
    """Coefficient of the KL divergence from the prior, summed over tasks and dimensions, beside the critics' mean
    loss."""

    tasks_per_iteration: Count = 5
    """Training tasks that collect per iteration."""
    initial_episodes: Count = 10
    """Episodes with random actions on every task that has a memory, before the first update."""
    initial_hold: Count = 1
    """Steps for which each of those random actions is held; long holds find rewards far from the start."""
    prior_episodes: Count = 2
    """Episodes with z from the prior, on each task that collects. They are its context until it collects again."""
    posterior_episodes: Whole = 3
    """Episodes with z from the posterior given the prior episodes."""
    posterior_in_context: bool = False
    """Add the posterior episodes to the context."""
    resident_tasks: Count = 256
    """Maximum number of tasks with a memory. If there are more training tasks, a new one replaces the earliest."""
    buffer_size: Count = 10_000
    """Most recent transitions that are kept per task."""

    updates: Count = 2000
    """Updates per iteration."""
    meta_batch: Count = 16
    """Tasks per update, at most as many as have a memory."""
    batch_size: Count = 256
    """Transitions per task for the policy and the critics."""
    context_size: Count = 100
    """Transitions per task for the encoder, drawn with replacement."""
    learning_rate: Positive = 3e-4
    discount: Share = 0.99
    tau: Share = 0.005
    """Fraction of the way that target parameters move towards the learned ones per update."""
    reward_scale: Positive = 5.0
    """Factor of the rewards that the critics learn."""
    context_reward_scale: Positive = 1.0
    """Factor of the rewards that the encoder reads. Rare rewards among one-hot observations need more than 1 to stand
    out from the noise of z before anything is learned."""
    entropy_coefficient: Literal["auto"] | NotNegative = 1.0
    """Coefficient of the entropy beside the scaled reward, alpha; `auto` learns alpha, starting at 1, so that the
    entropy approaches `target_entropy`."""
    target_entropy: float | None = None
    """Target of the entropy, in nats. None for minus the number of parts of a Box action, or half of the largest
    entropy of a Discrete action."""

    exploration_episodes: Whole = 2
    """Episodes at the start of a lifetime with z from the prior."""
    context_capacity: Count = 2000
    """Most recent transitions of a lifetime that its posterior uses."""
    deterministic: bool = True
    """Act in a lifetime with the policy's mean or most likely action, as the authors evaluate."""

    acting_only: ClassVar[frozenset[str]] = frozenset({"exploration_episodes", "context_capacity", "deterministic"})

    def __post_init__(self) -> None:
        if self.entropy_coefficient != "auto" and self.target_entropy is not None:
            raise ValueError(f"target_entropy {self.target_entropy} has no effect: set entropy_coefficient to auto")

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
        """The networks as `PearlNetworks`."""
        assert isinstance(self.networks, PearlNetworks)
        return self.networks

    # --- a lifetime

    def begin(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        self.streams = SlotStreams(derive(seeds, 0))
        self.episodes, self.steps = np.zeros(num_envs, dtype=np.int64), 0
        # Factors, not transitions: the networks are frozen, so each transition is encoded only once.
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
        # belief: the factor of this transition
        fields = transition_fields(self.encoder, self.seen, self.taken, transition)
        position = self.steps % self.context_capacity
        with torch.no_grad():
            means, variances = self.nets.encoder.factors_by_blocks(self.described(fields))
        self.factor_means[:, position], self.factor_variances[:, position] = means, variances
        self.steps += 1
        # a new z for every new episode
        ended = np.flatnonzero(transition.terminated | transition.truncated)
        if len(ended):
            self.episodes[ended] += 1
            self._new_latents(ended)

    def _new_latents(self, slots: NDArray[np.intp]) -> None:
        """Draws z for the episodes that begin in `slots`, from the prior or, after exploration, from the posterior."""
        filled = min(self.steps, self.context_capacity)
        index = torch.from_numpy(slots).to(self.device)
        mean, variance = prior_belief(len(slots), self.latent_size, self.device)
        if filled:
            posterior = product_of_gaussians(self.factor_means[index, :filled], self.factor_variances[index, :filled])
            informed = torch.from_numpy(self.episodes[slots] >= self.exploration_episodes).to(self.device).unsqueeze(1)
            mean, variance = torch.where(informed, posterior[0], mean), torch.where(informed, posterior[1], variance)
        self.latents[index] = mean + variance.sqrt() * latent_noise(self.streams, slots, mean)

    def described(self, fields: dict[str, Tensor]) -> Tensor:
        """(..., values) transitions by field -> (..., F) inputs of the context encoder."""
        rewards = self.context_reward_scale * fields["reward"]
        parts = [
            observation_features(self.encoder, fields, "observation"),
            self.actions.encode(fields["action"]),
            rewards,
        ]
        if self.next_observation_in_context:
            parts.append(observation_features(self.encoder, fields, "next_observation"))
        return torch.cat(parts, dim=-1)

    # --- meta-training

    def begin_training(self, training: TrainingTasks) -> None:
        """As `MetaLearner.begin_training`. Raises UserError if a task collects more than its memory holds."""
        self.training = training
        # the transitions of one collection must fit into a task's memory
        length = training.distribution.episode_length
        episodes = max(self.initial_episodes, self.prior_episodes + self.posterior_episodes)
        if episodes * length > self.buffer_size:
            raise UserError(
                f"pearl: a task collects {episodes} episodes of {length} steps at a time, but buffer_size is "
                f"{self.buffer_size}: raise buffer_size to at least {episodes * length}, or collect fewer episodes"
            )
        self.replay = TaskReplay(min(self.resident_tasks, len(training.tasks)), self.buffer_size, self.device)
        # temperature: learned, or fixed
        target_entropy = None
        if self.entropy_coefficient == "auto":
            target_entropy = self.actions.target_entropy if self.target_entropy is None else self.target_entropy
        else:
            with torch.no_grad():
                self.nets.log_alpha.fill_(float(np.log(max(self.entropy_coefficient, _LEAST_ALPHA))))
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
        """Collects on some tasks, then updates the networks from all memories.

        `return` is the mean return per posterior episode of the tasks that collected (per prior episode if
        `posterior_episodes` is 0), and `prior_return` that per prior episode.
        """
        # collect
        collected = self.collect(iteration)
        # update
        return collected | self.learn(iteration)

    def collect(self, iteration: int) -> dict[str, float]:
        """Adds new transitions to the memories. Returns the steps made and the returns."""
        steps = 0
        # before the first update: random actions on every task that has a memory
        if iteration == 0:
            tasks = self.training.rows(self.replay.places, iteration)
            actor: Collector = RandomActor(self.encoder, self.actions, self.initial_hold)
            fields, _ = self._play(tasks, self.initial_episodes, actor, iteration, _INITIAL)
            self.replay.add(self.replay.admit(tasks), fields, context=True)
            steps += fields["reward"].numel()
        # episodes with z from the prior, which are the new context
        tasks = self.training.rows(min(self.tasks_per_iteration, self.replay.places), iteration)
        places = self.replay.admit(tasks)
        belief = prior_belief(len(tasks), self.latent_size, self.device)
        context, prior_return = self._play_with(belief, tasks, self.prior_episodes, iteration, _PRIOR)
        figures = {"return": prior_return, "prior_return": prior_return}
        steps += context["reward"].numel()
        self.replay.add(places, context, context=True)
        # episodes with z from the posterior given that context
        if self.posterior_episodes:
            with torch.no_grad():
                belief = self.nets.encoder.posterior(self.described(context))
            added, figures["return"] = self._play_with(belief, tasks, self.posterior_episodes, iteration, _POSTERIOR)
            steps += added["reward"].numel()
            self.replay.add(places, added, context=False)
            if self.posterior_in_context:
                self.replay.extend_context(places, added["reward"].shape[1])
        return {"environment_steps": float(steps), **figures}

    def _play_with(
        self, belief: tuple[Tensor, Tensor], tasks: NDArray[np.int64], episodes: int, iteration: int, purpose: int
    ) -> tuple[dict[str, Tensor], float]:
        """Runs the policy with z drawn from each task's belief, (tasks, L) means and variances; returns as `_play`."""
        mean, variance = (part.repeat_interleave(episodes, dim=0) for part in belief)
        actor = LatentActor(self.encoder, self.actions, self.nets.policy, mean, variance)
        return self._play(tasks, episodes, actor, iteration, purpose)

    def _play(
        self, tasks: NDArray[np.int64], episodes: int, actor: Collector, iteration: int, purpose: int
    ) -> tuple[dict[str, Tensor], float]:
        """Runs an actor in `episodes` environments per task, side by side, for as many steps as a full-length episode.

        Returns (tasks, transitions, values) by field, and the mean return per episode.
        """
        training, length = self.training, self.training.distribution.episode_length
        seeds = training.seeds(len(tasks) * episodes, iteration, purpose)
        history = training.live(actor, np.repeat(tasks, episodes), length, seeds)
        fields = {name: values.view(len(tasks), episodes * length, -1) for name, values in actor.fields().items()}
        return fields, float(episode_returns(history.reward, history.ended, 1).mean())

    def learn(self, iteration: int) -> dict[str, float]:
        """Makes `updates` updates and returns mean metrics; reads nothing from the device before the last update."""
        sampler, total = self.replay.sampler(), torch.zeros(len(FIGURES), device=self.device)
        for batch in self._batches(sampler, iteration):
            total += self.updating.update(batch)
        means = (total / self.updates).tolist()
        return {**dict(zip(FIGURES, means, strict=True)), "alpha": float(self.nets.log_alpha.detach().exp())}

    def _batches(self, sampler: Sampler, iteration: int) -> Iterator[Batch]:
        """The batches of an iteration, one per update."""
        seed = int(self.training.seeds(1, iteration, _UPDATES)[0] >> np.uint64(1))
        generator = torch.Generator(self.device).manual_seed(seed)
        tasks = min(self.meta_batch, sampler.residents)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=self.device)

        for start in range(0, self.updates, _DRAWN_AT_ONCE):
            # random numbers of several updates
            count = min(_DRAWN_AT_ONCE, self.updates - start)
            all_places = sampler.places(uniform(count, sampler.residents), tasks)
            in_context, in_memory = uniform(count, tasks, self.context_size), uniform(count, tasks, self.batch_size)
            latent = torch.randn(count, tasks, self.latent_size, generator=generator, device=self.device)
            action = self.actions.noise(generator, count, 2, tasks * self.batch_size)
            # a batch per update, from the tasks' contexts and from all of their transitions
            for number, places in enumerate(all_places):
                context = sampler.context(places, in_context[number])
                rows = sampler.transitions(places, in_memory[number])
                yield self._batch(context, rows, latent[number], action[number])

    def _batch(
        self, context: dict[str, Tensor], rows: dict[str, Tensor], latent_noise: Tensor, action_noise: Tensor
    ) -> Batch:
        """A batch of a (T, C, values) context and (T, B, values) transitions, both by field."""
        return Batch(
            self.described(context),
            observation_features(self.encoder, rows, "observation").flatten(0, 1),
            rows["action"].flatten(0, 1),
            rows["reward"].flatten(),
            rows["terminated"].flatten(),
            observation_features(self.encoder, rows, "next_observation").flatten(0, 1),
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
