"""Policies that take policy-gradient steps, many tasks at once, and what of that can be differentiated again.

Every task has its own copy of the parameters from the first step on, so adaptation is one computation over stacked
parameters (N, ...), a batched product a layer, and autograd goes through it. Task i has no part in the gradient of
task j's loss; their sum falls apart.

Axes: N tasks, B samples of a task, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_gen.agents.deep.distributions import ActionDistribution, Categorical, Gaussian
from data_gen.agents.deep.networks import MLP, Activation
from data_gen.meta.maml.segments import Samples

Parameters = Sequence[Tensor]
"""Of N tasks: (N, *shape) for each of a policy's parameters."""


class Policy(nn.Module):
    """A multi-layer perceptron and an action distribution; the module's parameters are where adaptation starts.

    Args:
        features: F.
        distribution: of actions.
        hidden_sizes, activation: of the perceptron.
        output_gain: of its last matrix; with a small one, first actions follow from the observation only a little.
        device: where the parameters are.
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
            nn.init.xavier_uniform_(matrix)  # and zeros elsewhere, so that a Gaussian's first deviation is 1
        with torch.no_grad():
            matrices[-1].mul_(output_gain)
        self.to(device)

    def stacked(self, num_tasks: int) -> list[Tensor]:
        """The initial parameters once a task, connected to the module's own."""
        return [parameter.expand(num_tasks, *parameter.shape) for parameter in self.initial]

    def outputs(self, parameters: Parameters, features: Tensor) -> Tensor:
        """(N, B, outputs) of (N, B, F) features."""
        return self.mlp(parameters[: len(self.mlp.shapes)], features)

    def free(self, parameters: Parameters) -> list[Tensor]:
        """The parameters that do not depend on the observation."""
        return list(parameters[len(self.mlp.shapes) :])

    def log_prob(self, parameters: Parameters, outputs: Tensor, actions: Tensor) -> Tensor:
        """(N, B) log-probabilities, summed over the parts of an action."""
        return self.distribution.log_prob_and_entropy(outputs, self.free(parameters), actions)[0]


def surrogate(policy: Policy, parameters: Parameters, samples: Samples) -> Tensor:
    """(N,) -E[pi(a|s) / pi_sampling(a|s) A], a loss a task.

    Its gradient at the sampling parameters is the policy gradient, and its Hessian there keeps the product of scores,
    E[A (s s^T + grad s)], s = grad log pi: the samples' dependence on the parameters. -E[log pi A] has the same
    gradient and loses that term (Rothfuss et al. 2019, "ProMP", section 5; Foerster et al. 2018, "DiCE"; Al-Shedivat
    et al. 2018).
    """
    log_prob = policy.log_prob(parameters, policy.outputs(parameters, samples.features), samples.actions)
    return -((log_prob - samples.log_prob).exp() * samples.advantages).mean(dim=1)


def adapt(
    policy: Policy, parameters: Parameters, samples: Samples, rate: float, second_order: bool = False
) -> list[Tensor]:
    """One gradient step of every task on its surrogate (Finn et al. 2017, equation 1).

    Args:
        parameters: (N, ...) each, requiring gradients.
        samples: of these tasks.
        rate: the inner learning rate.
        second_order: whether the result depends on the parameters through the gradient too; first-order MAML (FOMAML)
            takes that for a constant.
    """
    losses = surrogate(policy, parameters, samples)
    gradients = torch.autograd.grad(losses.sum(), list(parameters), create_graph=second_order)
    return [parameter - rate * gradient for parameter, gradient in zip(parameters, gradients, strict=True)]


def leaves_of(parameters: Parameters) -> list[Tensor]:
    """The same values with nothing behind them, ready to be differentiated by."""
    return [parameter.detach().clone().requires_grad_() for parameter in parameters]


def divergence(
    distribution: ActionDistribution, old: tuple[Tensor, list[Tensor]], new: tuple[Tensor, list[Tensor]]
) -> Tensor:
    """(N, B) KL(old || new) of the action distributions, each given as (N, B, outputs) and its free parameters."""
    (old_outputs, old_free), (outputs, free) = old, new
    if isinstance(distribution, Gaussian):
        old_log_std, log_std = old_free[0], free[0]
        spread = ((2 * old_log_std).exp() + (old_outputs - outputs).square()) * (-2 * log_std).exp()
        return (log_std - old_log_std + 0.5 * (spread - 1)).sum(dim=-1)
    assert isinstance(distribution, Categorical)
    parts = zip(old_outputs.split(distribution.sizes, -1), outputs.split(distribution.sizes, -1), strict=True)
    found = torch.zeros_like(outputs[..., 0])
    for before, after in parts:
        old_logs, logs = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
        found = found + (old_logs.exp() * (old_logs - logs)).sum(dim=-1)
    return found
