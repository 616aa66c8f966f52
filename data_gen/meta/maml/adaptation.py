"""Adaptation of policies by policy-gradient steps, on many tasks at once, through which autograd can differentiate.

From the first step on, every task has its own copy of the parameters. So adaptation is one computation over stacked
parameters (N, ...), with one batched product per layer. The loss of a task depends on that task's parameters alone, so
the gradient of the summed losses holds each task's own gradient.

Axes: N tasks, B samples per task, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_gen.agents.deep.distributions import ActionDistribution, Categorical, Gaussian
from data_gen.agents.deep.networks import MLP, Activation
from data_gen.meta.maml.segments import Samples

Parameters = Sequence[Tensor]
"""A policy's parameters for N tasks, (N, *shape) each."""


class Policy(nn.Module):
    """A multi-layer perceptron and an action distribution; adaptation starts from the module's parameters.

    Args:
        features: F.
        distribution: distribution of the actions.
        hidden_sizes, activation: hidden layers of the perceptron, and the function between them.
        output_gain: gain of the last matrix; with a small gain, the first actions depend little on the observation.
        device: device of the parameters.
    """

    def __init__(
        self,
        features: int,
        distribution: ActionDistribution,
        hidden_sizes: Sequence[int],
        activation: Activation,
        output_gain: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.distribution = distribution
        self.mlp = MLP((features, *hidden_sizes, distribution.outputs), activation)
        shapes = [*self.mlp.shapes, *distribution.shapes]
        self.initial = nn.ParameterList(torch.zeros(shape) for shape in shapes)
        matrices = self.initial[: len(self.mlp.shapes) : 2]
        for matrix in matrices:
            nn.init.xavier_uniform_(matrix)  # all else is zero, so a Gaussian starts with a deviation of 1
        with torch.no_grad():
            matrices[-1].mul_(output_gain)
        self.to(device)

    def stacked(self, num_tasks: int) -> list[Tensor]:
        """The initial parameters, repeated once per task; gradients flow to the module's own."""
        return [parameter.expand(num_tasks, *parameter.shape) for parameter in self.initial]

    def outputs(self, parameters: Parameters, features: Tensor) -> Tensor:
        """(N, B, F) features -> (N, B, outputs) of the perceptron."""
        return self.mlp(parameters[: len(self.mlp.shapes)], features)

    def free(self, parameters: Parameters) -> list[Tensor]:
        """The action distribution's parameters that do not depend on the observation."""
        return list(parameters[len(self.mlp.shapes) :])

    def log_prob(self, parameters: Parameters, outputs: Tensor, actions: Tensor) -> Tensor:
        """(N, B) log-probabilities of actions, summed over the parts of an action."""
        return self.distribution.log_prob_and_entropy(outputs, self.free(parameters), actions)[0]


def surrogate(policy: Policy, parameters: Parameters, samples: Samples) -> Tensor:
    """(N,) surrogate loss per task, -E[pi(a|s) / pi_sampling(a|s) A].

    Its gradient at the sampling parameters is the policy gradient. Its Hessian there is -E[A (s s^T + grad s)], with
    s = grad log pi: the product of scores accounts for the samples' dependence on the parameters. -E[log pi A] has the
    same gradient but lacks that product (Rothfuss et al. 2019, "ProMP", section 5; Foerster et al. 2018, "DiCE";
    Al-Shedivat et al. 2018).
    """
    log_prob = policy.log_prob(parameters, policy.outputs(parameters, samples.features), samples.actions)
    return -((log_prob - samples.log_prob).exp() * samples.advantages).mean(dim=1)


def adapt(
    policy: Policy, parameters: Parameters, samples: Samples, rate: float, second_order: bool = False
) -> list[Tensor]:
    """One gradient step per task on its surrogate (Finn et al. 2017, equation 1).

    Args:
        parameters: (N, ...) each, requiring gradients.
        samples: samples of the same tasks.
        rate: inner learning rate.
        second_order: differentiate through the gradient as well; first-order MAML (FOMAML) takes the gradient for a
            constant.
    """
    losses = surrogate(policy, parameters, samples)
    gradients = torch.autograd.grad(losses.sum(), list(parameters), create_graph=second_order)
    return [parameter - rate * gradient for parameter, gradient in zip(parameters, gradients, strict=True)]


def leaves_of(parameters: Parameters) -> list[Tensor]:
    """Detached copies of the parameters that require gradients."""
    return [parameter.detach().clone().requires_grad_() for parameter in parameters]


def divergence(
    distribution: ActionDistribution, old: tuple[Tensor, list[Tensor]], new: tuple[Tensor, list[Tensor]]
) -> Tensor:
    """(N, B) KL(old || new) of two action distributions, each given as (N, B, outputs) and its free parameters."""
    (old_outputs, old_free), (outputs, free) = old, new
    if isinstance(distribution, Gaussian):
        old_log_std, log_std = old_free[0], free[0]
        spread = ((2 * old_log_std).exp() + (old_outputs - outputs).square()) * (-2 * log_std).exp()
        return (log_std - old_log_std + 0.5 * (spread - 1)).sum(dim=-1)
    assert isinstance(distribution, Categorical)
    parts = zip(old_outputs.split(distribution.sizes, -1), outputs.split(distribution.sizes, -1), strict=True)
    kl = torch.zeros_like(outputs[..., 0])
    for before, after in parts:
        old_logs, logs = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
        kl = kl + (old_logs.exp() * (old_logs - logs)).sum(dim=-1)
    return kl
