"""The networks of PEARL and their update: the losses, and which loss trains which network.

Axes: T tasks of a meta-batch, B rows per task, R = T x B rows, C transitions per context, L dimensions of the latent
variable z.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_gen.agents.deep.sac import critic_losses, temperature_losses
from data_gen.meta.pearl.context_encoder import ContextEncoder, StackedMLP, kl_from_prior
from data_gen.meta.pearl.soft_actions import SoftActions

_CRITICS = 2

FIGURES = ("critic_loss", "kl", "actor_loss", "entropy", "value")
"""Metrics of `PearlUpdates.update`: losses, the KL summed over the meta-batch, and the policy's entropy and value."""


class PearlNetworks(nn.Module):
    """Context encoder, policy, critics, target critics and temperature.

    Args:
        features: numbers that describe an observation.
        transition: numbers that describe a transition.
        actions: policy and values for the action space.
        latent_size: L.
        hidden_sizes: hidden layers of the policy and of each critic.
        encoder_sizes: hidden layers of the context encoder.
        device: device of the parameters.
    """

    def __init__(
        self,
        features: int,
        transition: int,
        actions: SoftActions,
        latent_size: int,
        hidden_sizes: tuple[int, ...],
        encoder_sizes: tuple[int, ...],
        device: torch.device,
    ) -> None:
        super().__init__()
        seen = features + latent_size
        critic = (seen + actions.critic_inputs, *hidden_sizes, actions.critic_outputs)
        self.encoder = ContextEncoder(transition, encoder_sizes, latent_size, device)
        self.policy = StackedMLP(1, (seen, *hidden_sizes, actions.policy_outputs), device)
        self.critics, self.targets = (StackedMLP(_CRITICS, critic, device) for _ in range(2))
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros((), device=device))


@dataclass(frozen=True)
class Batch:
    """Data of one update: contexts and transitions of T tasks, and noise."""

    context: Tensor
    """(T, C, F) inputs of the context encoder."""
    states: Tensor
    """(R, F) features of observations; the rows of a task are neighbours."""
    actions: Tensor
    """(R, parts)."""
    rewards: Tensor
    """(R,)."""
    terminated: Tensor
    """(R,) bool."""
    next_states: Tensor
    """(R, F)."""
    latent_noise: Tensor
    """(T, L)."""
    action_noise: Tensor
    """(2, R, numbers): for the next states, then for the states."""


class PearlUpdates:
    """Updates of the networks, in which the host reads nothing from the device.

    Args:
        networks: the networks to train.
        actions: policy and values for the action space.
        learning_rate: learning rate of all optimisers.
        discount, tau, reward_scale, kl_weight: as in `PEARL`.
        target_entropy: entropy that the temperature aims at; None keeps the temperature fixed.
    """

    def __init__(
        self,
        networks: PearlNetworks,
        actions: SoftActions,
        learning_rate: float,
        discount: float,
        tau: float,
        reward_scale: float,
        kl_weight: float,
        target_entropy: float | None,
    ) -> None:
        self.networks, self.actions, self.target_entropy = networks, actions, target_entropy
        self.discount, self.tau, self.reward_scale, self.kl_weight = discount, tau, reward_scale, kl_weight
        # The encoder learns with the critics, from their loss and the KL.
        learned = {
            "critics": [*networks.encoder.parameters(), *networks.critics.parameters()],
            "policy": [*networks.policy.parameters()],
            "temperature": [networks.log_alpha],
        }
        self.optimisers = {
            name: torch.optim.Adam(parameters, learning_rate, fused=True) for name, parameters in learned.items()
        }

    def update(self, batch: Batch) -> Tensor:
        """One update of the encoder and the critics, the policy, the temperature, and the target critics.

        Returns the `FIGURES`, on the device.
        """
        networks, alpha = self.networks, self.networks.log_alpha.detach().exp()
        # encoder and critics
        critic_loss, kl, latents = self.critic_loss(batch, alpha)
        self._step("critics", critic_loss + self.kl_weight * kl)
        # policy
        actor_loss, log_prob = self.actor_loss(batch, latents, alpha)
        self._step("policy", actor_loss)
        # temperature
        if self.target_entropy is not None:
            log_alpha, log_probs = networks.log_alpha.view(1, 1), log_prob.detach().unsqueeze(0)
            self._step("temperature", temperature_losses(log_alpha, log_probs, self.target_entropy).sum())
        # target critics
        with torch.no_grad():
            torch._foreach_lerp_([*networks.targets.stack], [*networks.critics.stack], self.tau)
            # metrics
            entropy = -log_prob.mean()
            value = -actor_loss - alpha * entropy
            return torch.stack([critic_loss, kl, actor_loss, entropy, value]).detach()

    def critic_loss(self, batch: Batch, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The critics' loss, mean over transitions and summed over critics; the KL; and z detached, (R, L).

        The targets also use the detached z. Only this loss and the KL train the encoder.
        """
        # z from the posterior given the context, with gradients to the encoder; the same z for all rows of a task
        mean, variance = self.networks.encoder.posterior(batch.context)
        latents = mean + variance.sqrt() * batch.latent_noise
        latents = latents.repeat_interleave(len(batch.states) // len(latents), dim=0)
        detached = latents.detach()
        # soft Bellman error
        targets = self.soft_targets(batch, detached, alpha)
        states = torch.cat([batch.states, latents], dim=1)
        q = self.actions.taken_values(self.networks.critics, states, batch.actions)
        # Twice SAC's loss: the authors' loss has no factor of one half, and their KL coefficient assumes that.
        return 2 * critic_losses(q.unsqueeze(0), targets.unsqueeze(0)).sum(), kl_from_prior(mean, variance), detached

    def soft_targets(self, batch: Batch, latents: Tensor, alpha: Tensor) -> Tensor:
        """(R,) targets y = scale r + discount (1 - terminated) V'(s', z), where V' is from the target critics."""
        with torch.no_grad():
            states = torch.cat([batch.next_states, latents], dim=1)
            outputs = self.networks.policy(states.unsqueeze(0))
            noise = batch.action_noise[0]
            value, _ = self.actions.soft_value(self.networks.targets, states, outputs, noise, alpha)
            return self.reward_scale * batch.rewards + self.discount * value * ~batch.terminated

    def actor_loss(self, batch: Batch, latents: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the mean soft value, and (R,) E[log pi]; gradients reach the policy, not the critics."""
        states = torch.cat([batch.states, latents], dim=1)
        outputs, noise = self.networks.policy(states.unsqueeze(0)), batch.action_noise[1]

        def critics(inputs: Tensor) -> Tensor:
            return self.networks.critics(inputs, frozen=True)

        value, log_prob = self.actions.soft_value(critics, states, outputs, noise, alpha)
        return -value.mean(), log_prob

    def _step(self, name: str, loss: Tensor) -> None:
        """One update by the optimiser `name`, of its own parameters only."""
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        # Unlike `torch.autograd.grad`, this gives gradients the strides of their parameters, as Adam needs on CUDA.
        torch.autograd.backward(loss, inputs=optimiser.param_groups[0]["params"])
        optimiser.step()
