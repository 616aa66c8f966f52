"""MAML: gradients against finite differences, baseline and returns by hand, trust region, lifetimes, resuming."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError

from data_gen.agents.base import Spec
from data_gen.agents.deep.distributions import action_distribution
from data_gen.interaction import interact, spec_of
from data_gen.meta.base import TrainingTasks
from data_gen.meta.maml.adaptation import Policy, adapt, divergence, leaves_of, surrogate
from data_gen.meta.maml.linear_baseline import RIDGE, baseline_features, fit, predict
from data_gen.meta.maml.maml import MAML
from data_gen.meta.maml.segments import Samples, Segment, standardised
from data_gen.meta.maml.trust_region import (
    FisherProduct,
    conjugate_gradients,
    flat,
    largest_step,
    line_search,
    unflat,
)
from data_gen.streams import make_seeds
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.point_navigation import PointNavigation
from icrl.support.errors import UserError

CPU = torch.device("cpu")
TASKS, ROWS, FEATURES, RATE = 3, 40, 2, 0.3
BOX = spaces.Box(-1, 1, (2,))
PARTS = spaces.MultiDiscrete([3, 2])
ROOM = DarkRoom(size=3, episode_length=5)
TINY = {"meta_batch": 4, "trajectories": 3, "hidden_sizes": (8, 8), "fisher_share": 1.0}


def make_policy(space, activation="tanh"):
    """A policy in double precision with nonzero parameters: zero biases put a start state on a kink of the ReLU."""
    policy = Policy(FEATURES, action_distribution(space, "maml", CPU), (5, 20), activation, 1.0, CPU).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return policy


def make_samples(policy, space, sampling, tasks=TASKS, rows=ROWS):
    """Samples with actions of the parameters `sampling` in random states, and with random advantages."""
    features = torch.randn(tasks, rows, FEATURES, dtype=torch.float64)
    with torch.no_grad():
        outputs = policy.outputs(sampling, features)
        noise = torch.randn(tasks, rows, 2, dtype=torch.float64)
        noise = noise if isinstance(space, spaces.Box) else torch.rand_like(noise)
        actions = policy.distribution.sample(outputs, policy.free(sampling), noise)
        log_prob = policy.log_prob(sampling, outputs, actions)
    advantages = torch.randn(tasks, rows, dtype=torch.float64)
    return Samples(features, actions, advantages, outputs, log_prob)


def make_chain(policy, space, inner_steps, second_order=True):
    """Parameters before each inner step and after the last, and the samples that an iteration collects with each."""
    points, samples = [policy.stacked(TASKS)], []
    for _ in range(inner_steps):
        samples.append(make_samples(policy, space, points[-1]))
        points.append(adapt(policy, points[-1], samples[-1], RATE, second_order))
    return points, [*samples, make_samples(policy, space, points[-1])]


def adapted_from(policy, vector, samples, second_order=True):
    parameters = [part.expand(TASKS, *part.shape) for part in unflat(vector, list(policy.parameters()))]
    for inner in samples[:-1]:
        parameters = adapt(policy, parameters, inner, RATE, second_order)
    return parameters


def differences(function, point, step=1e-6):
    found = torch.empty_like(point)
    for index in range(len(point)):
        moved = torch.zeros_like(point)
        moved[index] = step
        found[index] = (function(point + moved) - function(point - moved)) / (2 * step)
    return found


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("space", [BOX, PARTS], ids=["box", "discrete"])
def test_the_meta_gradient_equals_finite_differences_and_the_first_order_gradient_does_not(space, inner_steps):
    torch.manual_seed(7)
    policy = make_policy(space, "relu")
    initial = list(policy.parameters())
    points, samples = make_chain(policy, space, inner_steps)
    found = flat(torch.autograd.grad(surrogate(policy, points[-1], samples[-1]).mean(), initial))

    def loss(vector):
        adapted = adapted_from(policy, vector.detach().requires_grad_(), samples)
        return surrogate(policy, adapted, samples[-1]).mean().detach()

    expected = differences(loss, flat(initial).detach())
    assert (found - expected).norm() < 1e-7 * expected.norm()

    vector = flat(initial).detach().requires_grad_()
    constant = adapted_from(policy, vector, samples, second_order=False)
    (fomaml,) = torch.autograd.grad(surrogate(policy, constant, samples[-1]).mean(), vector)
    leaf = leaves_of(constant)
    at_adapted = torch.autograd.grad(surrogate(policy, leaf, samples[-1]).mean(), leaf)
    torch.testing.assert_close(fomaml, flat([part.sum(dim=0) for part in at_adapted]))
    assert (fomaml - expected).norm() > 0.05 * expected.norm()


def test_ppos_clipped_loss_equals_a_loss_computed_by_hand():
    """Schulman et al. 2017, equation 7, number by number."""
    torch.manual_seed(1)
    agent = MAML(outer="ppo", clip_range=0.2)
    agent.networks = policy = make_policy(BOX)
    samples = make_samples(policy, BOX, leaves_of(policy.stacked(TASKS)))
    moved = leaves_of(part + 0.1 * torch.randn_like(part) for part in policy.stacked(TASKS))
    loss, outputs = agent.clipped_loss(moved, samples)
    ratio = (policy.log_prob(moved, outputs, samples.actions) - samples.log_prob).exp()
    total, sides = 0.0, set()
    for number, advantage in zip(ratio.flatten().tolist(), samples.advantages.flatten().tolist(), strict=True):
        bounded = min(max(number, 0.8), 1.2)
        total += min(number * advantage, bounded * advantage)
        sides.add((number < 0.8, number > 1.2, advantage > 0))
    assert len(sides) == 6  # all cases occur
    assert loss.item() == pytest.approx(-total / (TASKS * ROWS), rel=1e-10)
    start, _ = agent.clipped_loss(leaves_of(policy.stacked(TASKS)), samples)
    assert start.item() == pytest.approx(-samples.advantages.mean().item(), rel=1e-10)  # a ratio of 1


def test_the_inner_hessian_keeps_the_product_of_scores():
    """The Hessian is E[A (s s^T + grad s)]; that of -E[log pi A] would lack the first term."""
    torch.manual_seed(0)
    policy = make_policy(BOX)
    parameters = leaves_of(policy.stacked(1))
    samples = make_samples(policy, BOX, parameters, tasks=1, rows=6)

    def log_probs(vector):
        parts = unflat(vector, parameters)
        return policy.log_prob(parts, policy.outputs(parts, samples.features), samples.actions)[0]

    def loss(vector):
        return surrogate(policy, unflat(vector, parameters), samples).sum()

    vector = flat(parameters).detach()
    scores = torch.autograd.functional.jacobian(log_probs, vector)
    curvature = torch.autograd.functional.hessian(lambda v: (log_probs(v) * samples.advantages[0]).mean(), vector)
    products = torch.einsum("b,bi,bj->ij", samples.advantages[0], scores, scores) / 6
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, vector), -(products + curvature))
    assert products.norm() > 0.1 * curvature.norm()


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("space", [BOX, PARTS], ids=["box", "discrete"])
def test_fisher_products_equal_those_of_the_explicit_hessian(space, second_order):
    """The Hessian of the adapted policies' mean divergence by the initial parameters, through two inner steps."""
    torch.manual_seed(1)
    policy = make_policy(space)
    initial = list(policy.parameters())
    points, samples = make_chain(policy, space, 2, second_order)
    old = samples[-1].outputs, [part.detach() for part in policy.free(points[-1])]
    vector = flat(initial).detach()

    def mean_divergence(moved):
        if second_order:
            adapted = adapted_from(policy, moved, samples)
        else:  # the inner gradients are constants
            shift = [after.detach() - before.detach() for before, after in zip(points[0], points[-1], strict=True)]
            adapted = [part + by for part, by in zip(unflat(moved, initial), shift, strict=True)]
        new = policy.outputs(adapted, samples[-1].features), policy.free(adapted)
        return divergence(policy.distribution, old, new).mean()

    hessian = torch.autograd.functional.hessian(mean_divergence, vector)
    product = FisherProduct(policy, points, samples, RATE, second_order, damping=0.1)
    for _ in range(3):
        direction = torch.randn_like(vector)
        torch.testing.assert_close(product(direction), hessian @ direction + 0.1 * direction)


def test_divergences_equal_pytorchs():
    torch.manual_seed(2)
    gaussian, categorical = (action_distribution(space, "maml", CPU) for space in (BOX, PARTS))
    means, deviations = torch.randn(2, 3, 7, 2), torch.randn(2, 3, 1, 2)
    found = divergence(gaussian, (means[0], [deviations[0]]), (means[1], [deviations[1]]))
    one, other = (torch.distributions.Normal(mean, log.exp()) for mean, log in zip(means, deviations, strict=True))
    torch.testing.assert_close(found, torch.distributions.kl_divergence(one, other).sum(dim=-1))
    logits = torch.randn(2, 3, 7, 5)
    found = divergence(categorical, (logits[0], []), (logits[1], []))
    parts = [
        torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=side) for side in part))
        for part in zip(*(side.split([3, 2], dim=-1) for side in logits), strict=True)
    ]
    torch.testing.assert_close(found, sum(parts))


def test_adaptation_of_a_task_does_not_depend_on_the_others():
    torch.manual_seed(3)
    policy = Policy(FEATURES, action_distribution(BOX, "maml", CPU), (100, 100), "relu", 1.0, CPU)
    double = make_policy(BOX)
    full = [part.float() for part in vars(make_samples(double, BOX, double.stacked(5), tasks=5, rows=50)).values()]
    samples = Samples(*full)
    alone = Samples(*(part[:2] for part in full))
    found = adapt(policy, policy.stacked(5), samples, RATE, second_order=True)
    pair = adapt(policy, policy.stacked(2), alone, RATE, second_order=True)
    for many, few in zip(found, pair, strict=True):
        assert torch.equal(many[:2], few)
        assert not torch.equal(many[0], many[1])


# --- baseline and returns


def test_the_linear_baseline_of_each_task_equals_a_least_squares_fit():
    rng = np.random.default_rng(4)
    inputs, targets, used = rng.normal(size=(3, 30, 4)), rng.normal(size=(3, 30)), rng.random((3, 30)) < 0.7
    found = fit(*(torch.from_numpy(part) for part in (inputs, targets, used))).numpy()
    for task in range(3):
        rows = np.concatenate([inputs[task][used[task]], np.sqrt(RIDGE) * np.eye(4)])
        right = np.concatenate([targets[task][used[task]], np.zeros(4)])
        np.testing.assert_allclose(found[task], np.linalg.lstsq(rows, right, rcond=None)[0], rtol=1e-8)
    assert predict(torch.from_numpy(inputs), torch.from_numpy(found)).shape == (3, 30)


def test_baseline_features_are_observations_squares_of_numbers_and_powers_of_time():
    found = baseline_features(
        torch.tensor([[[2.0, -20.0, 1.0]]]), torch.tensor([[50.0]]), torch.tensor([True, True, False])
    )
    assert found.flatten().tolist() == [2, -10, 1, 4, 100, 0.5, 0.25, 0.125, 1]


def filled(rewards, ended, features=None, clock=None):
    """A segment with one actor per learner, filled with (N, T) rewards and episode ends."""
    rewards, ended = torch.tensor(rewards), torch.tensor(ended)
    learners, steps = rewards.shape
    segment = Segment((learners, steps, 1), torch.tensor([True]), CPU)
    if clock is not None:
        segment.clock += clock
    for step in range(steps):
        seen = torch.zeros(learners, 1, 1) if features is None else features[:, step].view(learners, 1, 1)
        segment.acted(seen, torch.zeros(learners, 1, 1), torch.zeros(learners, 1, 1))
        full = segment.came(rewards[:, step : step + 1], ended[:, step : step + 1])
    assert full
    return segment


def test_returns_end_with_their_episode_and_are_bootstrapped_at_the_end_of_a_segment():
    """The segment cuts off the second learner's last episode, so the baseline's value at the cut is added."""
    torch.manual_seed(5)
    rewards = [[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0]]
    ended = [[False, True, False, True], [False, True, False, False]]
    features = torch.randn(2, 4)
    segment = filled(rewards, ended, features)
    assert segment.time[1].flatten().tolist() == [0, 1, 0, 1]
    assert segment.of_ended_episodes()[1].flatten().tolist() == [True, True, False, False]
    assert segment.mean_return().item() == pytest.approx((3 + 12 + 3) / 3)
    arrived = torch.full((2, 1, 1), 0.7)
    found = segment.advantages(arrived, discount=0.5, gae_lambda=1.0).squeeze(2)
    inputs = baseline_features(segment.features.flatten(1, 2), segment.time.flatten(1), segment.is_number)
    returns = torch.tensor([[2.0, 2.0, 8.0, 8.0], [2.0, 2.0, 0.0, 0.0]])
    coefficients = fit(inputs, returns, torch.tensor([[True] * 4, [True, True, False, False]]))
    ahead = baseline_features(arrived, torch.tensor([[0.0], [2.0]]), segment.is_number)
    cut = predict(ahead, coefficients)[1].item()
    returns[1, 2:] = torch.tensor([4 + 0.5 * (8 + 0.5 * cut), 8 + 0.5 * cut])
    torch.testing.assert_close(found, (returns - predict(inputs, coefficients)).float(), atol=1e-5, rtol=1e-5)


def test_an_episodes_clock_continues_in_the_next_segment():
    segment = filled([[0.0, 0.0]], [[True, False]])
    segment.empty()
    segment.acted(*(torch.zeros(1, 1, 1) for _ in range(3)))
    assert segment.time[0, 0, 0] == 1


def test_standardised_advantages_have_mean_0_and_deviation_1_per_task():
    found = standardised(torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]]))
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std(dim=1, correction=0), torch.ones(2))


# --- trust region


def test_conjugate_gradients_solve_the_system_and_stay_at_the_solution():
    torch.manual_seed(6)
    root = torch.randn(6, 6, dtype=torch.float64)
    matrix, right = root @ root.T + torch.eye(6), torch.randn(6, dtype=torch.float64)
    solution = torch.linalg.solve(matrix, right)
    for iterations in (6, 30):
        found = conjugate_gradients(lambda vector: matrix @ vector, right, iterations)
        torch.testing.assert_close(found, solution)
    step = largest_step(lambda vector: matrix @ vector, solution, limit=0.3)
    assert (0.5 * step @ matrix @ step).item() == pytest.approx(0.3)
    assert not conjugate_gradients(lambda vector: matrix @ vector, 0 * right, 5).any()


def test_the_line_search_keeps_to_the_limit_and_reduces_the_loss():
    start, step = torch.zeros(1), torch.ones(1)
    point, kl, scale = line_search(lambda p: (-p.item(), 4 * p.item() ** 2), start, step, 0.0, limit=1.0)
    assert 0.4 < point.item() < 0.5 and kl <= 1.0 and scale == pytest.approx(point.item())
    point, _, scale = line_search(lambda p: ((p.item() - 0.2) ** 2, 0.0), start, step, 0.04, limit=1.0)
    assert scale == 0.25
    point, _, scale = line_search(lambda p: (p.item(), 0.0), start, step, 0.0, limit=1.0)
    assert scale == 0 and torch.equal(point, start)
    point, _, scale = line_search(lambda p: (float("nan"),) * 2, start, step, 0.0, limit=1.0)
    assert scale == 0 and torch.equal(point, start)


# --- meta-training


def training_on(distribution, seed=0, num_tasks=20):
    tasks, _ = (
        distribution.split(num_tasks, 1, seed) if distribution.all_tasks() is None else distribution.split(6, 1, seed)
    )
    spec = Spec(
        distribution.observation_space, distribution.action_space, 100, episode_length=distribution.episode_length
    )
    return TrainingTasks(distribution, tasks, spec, seed)


def started(training, **changes):
    agent = MAML(**{**TINY, **changes})
    agent.start(training)
    return agent


def vector_of(agent):
    return flat(list(agent.networks.parameters())).detach().clone()


@pytest.mark.parametrize("distribution", [PointNavigation(episode_length=10), ROOM], ids=["box", "discrete"])
def test_a_meta_update_keeps_to_the_limit_and_improves_the_surrogate(distribution):
    seen = []

    class Watched(MAML):
        def search(self, evaluate, start, direction, loss):
            found = super().search(evaluate, start, direction, loss)
            seen.append((loss, *evaluate(found[0]), evaluate(start)))
            return found

    agent = Watched(**{**TINY, "inner_steps": 2, "kl_limit": 0.003, "activation": "tanh"})
    agent.start(training_on(distribution))
    for iteration in range(3):
        before = vector_of(agent)
        figures = agent.improve(iteration)
        loss, new_loss, kl, at_start = seen[-1]
        assert at_start == pytest.approx((loss, 0), abs=1e-6)
        assert new_loss < loss
        assert 0.0003 < kl <= 0.003
        assert figures["kl"] == pytest.approx(kl)
        assert (vector_of(agent) != before).float().mean() > 0.9
    assert figures["environment_steps"] == 3 * 4 * 3 * distribution.episode_length


@pytest.mark.parametrize("outer", ["trpo", "ppo"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(outer):
    training = training_on(PointNavigation(episode_length=10))
    settings = {"outer": outer, "inner_steps": 2}
    whole = started(training, **settings)
    figures = [whole.improve(iteration) for iteration in range(4)]
    first = started(training, **settings)
    for iteration in range(2):
        first.improve(iteration)
    weights, state = copy.deepcopy(first.networks.state_dict()), copy.deepcopy(first.training_state())
    second = MAML(**{**TINY, **settings})
    second.set_up(training.spec)
    second.begin_training(training)
    second.networks.load_state_dict(weights)
    second.load_training_state(state)
    assert [second.improve(iteration) for iteration in (2, 3)] == figures[2:]
    assert torch.equal(vector_of(second), vector_of(whole))
    assert not torch.equal(vector_of(first), vector_of(whole))


@pytest.mark.parametrize("outer", ["trpo", "ppo"])
def test_first_order_changes_the_update_unless_there_are_no_inner_steps(outer):
    training = training_on(PointNavigation(episode_length=10))
    for inner_steps, same in ((1, False), (0, True)):
        pair = [started(training, outer=outer, inner_steps=inner_steps, first_order=flag) for flag in (False, True)]
        for agent in pair:
            agent.improve(0)
        assert torch.equal(*(vector_of(agent) for agent in pair)) == same


def test_first_order_equals_second_order_if_the_inner_surrogate_is_flat(monkeypatch):
    """With inner advantages of zero, every second derivative is zero, and so is the adaptation."""
    training = training_on(PointNavigation(episode_length=10))
    collect = MAML.process

    def blind(self, collector):
        samples = collect(self, collector)
        self.calls = getattr(self, "calls", -1) + 1
        return samples if self.calls % 2 else Samples(**{**vars(samples), "advantages": 0 * samples.advantages})

    monkeypatch.setattr(MAML, "process", blind)
    pair = [started(training, first_order=flag) for flag in (False, True)]
    for agent in pair:
        agent.improve(0)
    torch.testing.assert_close(*(vector_of(agent) for agent in pair), atol=1e-6, rtol=1e-5)


# --- lifetimes


def run_lifetime(agent, distribution, tasks, steps, seeds):
    envs = distribution.make_vec(tasks.take(np.repeat(np.arange(len(tasks)), agent.actors)))
    return interact(agent, envs, steps, seeds)


@pytest.mark.parametrize(
    "distribution", [PointNavigation(episode_length=5, tolerance=0.1), ROOM], ids=["box", "discrete"]
)
def test_a_learner_has_the_same_lifetime_alone_and_among_others(distribution):
    training = training_on(distribution)
    agent = started(training, actors=2, test_trajectories=4, test_rate=0.5, hidden_sizes=(50, 50))
    tasks, seeds = training.tasks.take([0, 1, 2, 3, 4]), make_seeds(5, 1)
    together = run_lifetime(agent, distribution, tasks, 40, seeds)
    moved = [part.clone() for part in agent.life.parameters]
    assert agent.life.gradient_steps == 4
    assert not torch.equal(moved[0][0], moved[0][1])
    alone = run_lifetime(agent, distribution, tasks.take([1]), 40, seeds[1:2])
    np.testing.assert_array_equal(alone.action, together.action[2:4])
    for part, many in zip(agent.life.parameters, moved, strict=True):
        assert torch.equal(part[0], many[1])


def test_later_gradient_steps_have_half_the_rate_and_stop_after_test_steps(monkeypatch):
    training = training_on(PointNavigation(episode_length=5))
    rates = []
    monkeypatch.setattr(
        "data_gen.meta.maml.adapting.adapt",
        lambda policy, parameters, samples, rate: rates.append(rate) or adapt(policy, parameters, samples, rate),
    )
    agent = started(training, test_trajectories=2, test_rate=0.4, test_steps=3)
    run_lifetime(agent, training.distribution, training.tasks, 60, make_seeds(20, 1))
    assert rates == [0.4, 0.2, 0.2]
    agent = started(training, test_trajectories=2, inner_rate=0.3, test_steps=0)
    run_lifetime(agent, training.distribution, training.tasks, 60, make_seeds(20, 1))
    assert len(rates) == 3
    start = vector_of(agent)
    assert torch.equal(flat([part[0] for part in agent.life.parameters]), start)


def test_adaptation_in_a_lifetime_equals_a_gradient_step_by_hand():
    """The first update of a lifetime equals `adapt` on the observed steps, with returns from plain loops."""
    distribution = PointNavigation(episode_length=6)
    training = training_on(distribution)
    agent = started(training, test_trajectories=3, inner_rate=0.2)
    seen = []

    class Watched(MAML):
        def observe(self, transition):
            seen.append(transition)
            super().observe(transition)

    watched = Watched(**{**TINY, "test_trajectories": 3, "inner_rate": 0.2})
    watched.start(training)
    run_lifetime(watched, distribution, training.tasks.take([0, 1]), 18, make_seeds(2, 3))
    run_lifetime(agent, distribution, training.tasks.take([0, 1]), 18, make_seeds(2, 3))
    assert torch.equal(agent.life.parameters[0], watched.life.parameters[0])
    rewards = np.array([transition.reward for transition in seen]).T.reshape(2, 3, 6)
    returns = np.zeros((2, 3, 6))
    for step in reversed(range(6)):
        returns[..., step] = rewards[..., step] + (0.99 * returns[..., step + 1] if step < 5 else 0)
    positions = np.array([transition.observation for transition in seen]).swapaxes(0, 1)
    life = watched.life
    for learner in range(2):
        time = np.tile(np.arange(6) / 100, 3)[:, None]
        rows = np.concatenate(
            [positions[learner], positions[learner] ** 2, time, time**2, time**3, np.ones_like(time)], 1
        )
        target = returns[learner].reshape(-1)
        ridge = np.concatenate([rows, np.sqrt(RIDGE) * np.eye(8)])
        weights = np.linalg.lstsq(ridge, np.concatenate([target, np.zeros(8)]), rcond=None)[0]
        advantages = target - rows @ weights
        advantages = (advantages - advantages.mean()) / advantages.std()
        start = [parameter.detach().clone().requires_grad_() for parameter in watched.networks.parameters()]
        hidden = torch.from_numpy(positions[learner])
        for layer in range(0, 6, 2):
            hidden = (hidden if layer == 0 else hidden.relu()) @ start[layer] + start[layer + 1]
        policy = torch.distributions.Independent(torch.distributions.Normal(hidden, start[6].exp()), 1)
        actions = life.segment.actions[learner].flatten(0, 1)
        loss = -(policy.log_prob(actions) * torch.from_numpy(advantages).float()).mean()
        gradients = torch.autograd.grad(loss, start)
        for parameter, gradient, after in zip(start, gradients, life.parameters, strict=True):
            torch.testing.assert_close(after[learner], (parameter - 0.2 * gradient).detach(), atol=1e-4, rtol=1e-3)


def test_too_short_lifetimes_and_unknown_horizons_are_refused():
    agent = MAML(**TINY, test_trajectories=10, actors=2)
    envs = ROOM.make_vec(ROOM.all_tasks().take([0, 0]))
    agent.check(spec_of(envs, 26))
    with pytest.raises(UserError, match="25 steps"):
        agent.check(spec_of(envs, 25))  # the gradient step would come at the end of the lifetime
    with pytest.raises(UserError, match="episode"):
        agent.check(Spec(BOX, BOX, 1000))
    with pytest.raises(ValueError, match="does not divide"):
        MAML(test_trajectories=10, actors=3)
    with pytest.raises(UserError, match="maml"):
        agent.check(Spec(BOX, spaces.Text(3), 1000, episode_length=5))


def test_an_agent_without_iterations_acts_with_random_weights():
    agent = started(training_on(ROOM), iterations=0)
    assert run_lifetime(agent, ROOM, ROOM.all_tasks(), 100, make_seeds(9, 0)).reward.shape == (9, 100)


def test_a_learner_with_an_exploding_step_keeps_finite_parameters_and_acts_on():
    agent = started(training_on(ROOM), iterations=0, test_rate=1e38, later_rate=1.0)
    h = run_lifetime(agent, ROOM, ROOM.all_tasks(), 100, make_seeds(9, 0))
    assert h.reward.shape == (9, 100)
    assert all(part.isfinite().all() for part in agent.life.parameters)


def test_diverged_meta_training_is_reported():
    agent = started(training_on(ROOM), inner_steps=2, inner_rate=1e30)
    with pytest.raises(UserError, match="diverged in iteration 1: lower inner_rate"):
        agent.improve(0)


def test_a_greedy_learner_explores_until_its_last_gradient_step_only():
    training = training_on(PointNavigation(episode_length=5))
    agent = started(training, test_trajectories=2, test_steps=1, greedy=True)
    tasks = training.tasks.take(np.zeros(2, int))  # the same task twice
    history = run_lifetime(agent, training.distribution, tasks, 20, make_seeds(2, 1))
    assert not np.array_equal(history.action[0, :10], history.action[1, :10])  # the seeds differ
    with torch.no_grad():
        features = torch.from_numpy(history.observation[:, 10:])
        means = agent.policy.outputs(agent.life.parameters, features)
    np.testing.assert_allclose(history.action[:, 10:], means.clamp(-1, 1).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValidationError, match="set test_steps"):
        MAML(greedy=True)
