"""A2C and PPO: advantages by hand, updates against plain unbatched references, sweeps, normalisation, learning."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.a2c import A2C
from data_gen.agents.deep.advantages import gae
from data_gen.agents.deep.distributions import action_distribution
from data_gen.agents.deep.encoding import BoxScale, Encoder
from data_gen.agents.deep.networks import MLP, Stack
from data_gen.agents.deep.normalisation import ObservationScale, RewardScale
from data_gen.agents.deep.optimisers import Adam, RMSprop
from data_gen.agents.deep.ppo import PPO
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.spaces import leaves
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.control.cart_pole import CartPole
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.point_navigation import PointNavigation
from icrl.config.components import AGENTS, find_component
from icrl.support.errors import UserError

CPU = torch.device("cpu")
ROOM = DarkRoom(size=3, episode_length=5)
TINY = {"actors": 3, "hidden_sizes": (8, 8), "learning_rate": 0.01}


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


def flags(*values):
    return torch.tensor(values).reshape(1, -1, 1)


def advantages(rewards, values, next_values, terminated, ended, discount, gae_lambda):
    numbers = [torch.tensor([[number]], dtype=torch.float64) for number in (discount, gae_lambda)]
    return gae(rewards, values, next_values, terminated, ended, *numbers).flatten().tolist()


def test_gae_bootstraps_a_time_limit_and_stops_at_termination():
    """Four steps: a time limit cuts off the second at a state of value 5, and the third terminates."""
    found = advantages(
        column(1, 2, 3, 4),
        column(10, 20, 30, 40),
        column(20, 5, 99, 50),  # the value after termination, 99, must not count
        flags(False, False, True, False),
        flags(False, True, True, False),
        discount=0.5,
        gae_lambda=0.8,
    )
    delta = [1 + 0.5 * 20 - 10, 2 + 0.5 * 5 - 20, 3 - 30, 4 + 0.5 * 50 - 40]
    assert found == pytest.approx([delta[0] + 0.5 * 0.8 * delta[1], *delta[1:]])


def test_lambda_1_gives_n_step_returns_and_lambda_0_one_step_returns():
    steps = column(1, 1, 1), column(3, 4, 5), column(4, 5, 6), flags(*[False] * 3), flags(*[False] * 3)
    n_step = advantages(*steps, discount=0.9, gae_lambda=1.0)
    value = [1 + 0.9 * (1 + 0.9 * (1 + 0.9 * 6)), 1 + 0.9 * (1 + 0.9 * 6), 1 + 0.9 * 6]
    assert n_step == pytest.approx([value[0] - 3, value[1] - 4, value[2] - 5])
    assert advantages(*steps, discount=0.9, gae_lambda=0.0) == pytest.approx([1.6, 1.5, 1.4])


class Recorder:
    """An agent that records another agent's initial parameters and its transitions."""

    def __init__(self, agent):
        self.agent, self.actors, self.transitions, self.first = agent, agent.actors, [], None

    def reset(self, spec, num_envs, seeds):
        self.agent.reset(spec, num_envs, seeds)
        self.first = self.agent.stack.flat.clone()

    def act(self, observation):
        return self.agent.act(observation)

    def observe(self, transition):
        self.transitions.append(transition)
        self.agent.observe(transition)


class Reference(torch.nn.Module):
    """One learner's networks as plain `torch.nn` modules."""

    def __init__(self, agent, learner, flat, free):
        super().__init__()
        sizes = agent.encoder.size, *agent.hidden_sizes
        outputs = agent.distribution.outputs

        def network(last):
            layers = []
            for inputs, width in itertools.pairwise(sizes):
                layers += [torch.nn.Linear(inputs, width), torch.nn.Tanh()]
            return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], last))

        self.policy, self.value = network(outputs), network(1)
        values = flat[learner]
        for module in [*self.policy, *self.value]:
            if isinstance(module, torch.nn.Linear):
                count = module.weight.numel()
                with torch.no_grad():
                    module.weight.copy_(values[:count].view(module.in_features, -1).T)
                    module.bias.copy_(values[count : count + module.out_features])
                values = values[count + module.out_features :]
        self.log_std = torch.nn.Parameter(values.clone()) if free else None

    def flat(self):
        parts = []
        for module in [*self.policy, *self.value]:
            if isinstance(module, torch.nn.Linear):
                parts += [module.weight.T.reshape(-1), module.bias]
        return torch.cat([*parts, self.log_std] if self.log_std is not None else parts).detach()

    def distribution(self, features):
        if self.log_std is None:
            return torch.distributions.Categorical(logits=self.policy(features))
        return torch.distributions.Independent(torch.distributions.Normal(self.policy(features), self.log_std.exp()), 1)


def loop_returns(network, encoder, transitions, rows, discount, gae_lambda):
    """Advantages and returns of the environments at `rows`, in plain loops over environments and steps."""
    found = np.zeros((len(transitions), len(rows)))
    values = np.zeros_like(found)
    for index, row in enumerate(rows):
        carried = 0.0
        for step in reversed(range(len(transitions))):
            t = transitions[step]
            with torch.no_grad():
                value = network.value(encoder(t.observation[row : row + 1])).item()
                after = network.value(encoder(t.next_observation[row : row + 1])).item()
            delta = t.reward[row] + (0 if t.terminated[row] else discount * after) - value
            ended = t.terminated[row] or t.truncated[row]
            carried = delta + (0 if ended else discount * gae_lambda * carried)
            found[step, index], values[step, index] = carried, value
    return torch.tensor(found), torch.tensor(found + values)


@pytest.mark.parametrize("kind", ["terminates", "time limit", "box"])
@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_an_update_equals_that_of_a_plain_single_learner(algorithm, kind):
    """Replays one learner's rollout through torch.nn, torch.distributions, torch.optim and loops over steps."""
    settings = dict(TINY, discount=0.9, gae_lambda=0.8, entropy_coefficient=0.03, rollout_steps=12)
    room = {
        "terminates": DarkRoom(size=3, episode_length=5, reward="once"),
        "time limit": DarkRoom(size=3, episode_length=5),
        "box": PointNavigation(episode_length=5),
    }[kind]
    if algorithm == "ppo":
        settings |= {"batch_size": 36, "epochs": 3}
    agent = Recorder(find_component(algorithm, AGENTS)(**settings))
    tasks, learner = room.split(4, 1, seed=0)[0], 2
    envs = room.make_vec(tasks.take(np.repeat(np.arange(4), 3)))
    seen = []
    envs_step = envs.step
    envs.step = lambda actions: (seen.append(np.array(actions)), envs_step(actions))[1]
    interact(agent, envs, 12, make_seeds(4, 3))
    deep, transitions = agent.agent, agent.transitions
    free = bool(deep.distribution.shapes)
    network = Reference(deep, learner, agent.first, free)
    rows = range(3 * learner, 3 * learner + 3)
    found, returns = loop_returns(network, deep.encoder, transitions, rows, 0.9, 0.8)
    features = torch.stack([deep.encoder(t.observation[rows[0] : rows[0] + 3]) for t in transitions]).flatten(0, 1)
    actions = deep.actions[learner].flatten(0, 1)
    if not free:
        actions = actions.squeeze(-1)
        np.testing.assert_array_equal(actions, np.concatenate([a[rows[0] : rows[0] + 3] for a in seen]))
    found, returns = found.flatten(), returns.flatten()
    with torch.no_grad():
        old = network.distribution(features).log_prob(actions)
    if algorithm == "a2c":
        optimiser = torch.optim.RMSprop(network.parameters(), 0.01, alpha=0.99, eps=1e-5)
    else:
        optimiser = torch.optim.Adam(network.parameters(), 0.01, eps=1e-5)
        found = (found - found.mean()) / (found.std() + 1e-8)
    for _ in range(1 if algorithm == "a2c" else 3):  # one minibatch per epoch, so the order does not matter
        policy = network.distribution(features)
        log_prob = policy.log_prob(actions)
        ratio = (log_prob - old).exp()
        gain = log_prob * found if algorithm == "a2c" else torch.min(ratio * found, ratio.clamp(0.8, 1.2) * found)
        value_loss = torch.nn.functional.mse_loss(network.value(features).squeeze(-1), returns.float())
        loss = -gain.mean() + 0.5 * value_loss - 0.03 * policy.entropy().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimiser.step()
    torch.testing.assert_close(deep.stack.flat[learner], network.flat(), atol=2e-4, rtol=1e-3)
    assert (deep.stack.flat[learner] - agent.first[learner]).abs().max() > 0.005


def test_ppo_uses_every_row_of_a_rollout_once_per_epoch():
    seen = []

    class Watched(PPO):
        def evaluate(self, features, actions):
            seen.append(features.clone())
            return super().evaluate(features, actions)

    agent = Watched(actors=2, rollout_steps=6, batch_size=4, epochs=2, hidden_sizes=(4,))
    room = DarkRoom(size=5, start="random", episode_length=50)
    interact(agent, room.make_vec(room.all_tasks().take([0, 0, 1, 1])), 6, make_seeds(2, 0))
    whole, minibatches = seen[0], seen[1:]
    assert len(minibatches) == 6
    for epoch in (minibatches[:3], minibatches[3:]):
        for learner in range(2):
            rows = sorted(torch.cat(epoch, dim=1)[learner].tolist())
            assert rows == sorted(whole[learner].tolist())
    assert not torch.equal(torch.cat(minibatches[:3], 1), torch.cat(minibatches[3:], 1))


def test_a_batch_size_that_does_not_divide_the_rollout_is_refused():
    with pytest.raises(Exception, match=r"batch_size 7 must divide rollout_steps x actors = 5 x 8 = 40"):
        PPO(rollout_steps=5, batch_size=7)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_a_sweep_in_one_batch_equals_single_runs(algorithm):
    settings = dict(TINY, rollout_steps=8) | ({"batch_size": 12, "epochs": 2} if algorithm == "ppo" else {})
    cls, seeds, tasks = find_component(algorithm, AGENTS), make_seeds(6, 0), ROOM.all_tasks()
    rows = np.repeat(np.arange(6), 3)
    swept = cls(**settings | {"learning_rate": (0.001, 0.05), "discount": {"low": 0.5, "high": 0.99}})
    together = interact(swept, ROOM.make_vec(tasks.take(rows)), 64, seeds)
    rates, discounts = swept.drawn("learning_rate", swept.seeds), swept.drawn("discount", swept.seeds)
    assert set(rates) == {0.001, 0.05}
    for learner in range(6):
        one = cls(**settings | {"learning_rate": rates[learner], "discount": discounts[learner]})
        alone = interact(one, ROOM.make_vec(tasks.take([learner] * 3)), 64, seeds[learner : learner + 1])
        np.testing.assert_array_equal(alone.action, together.action[3 * learner : 3 * learner + 3])


def test_the_learning_rate_falls_to_its_final_value():
    agent = A2C(**TINY | {"final_learning_rate": 0.0}, rollout_steps=5)
    rates = []

    class Watched(RMSprop):
        def step(self, learning_rate, max_grad_norm=None):
            rates.append(learning_rate[0].item())

    agent.make_optimiser = lambda stack: Watched(stack)
    interact(agent, ROOM.make_vec(ROOM.all_tasks().take(np.repeat(np.arange(2), 3))), 50, make_seeds(2, 0))
    np.testing.assert_allclose(rates, 0.01 * (1 - np.arange(5, 51, 5) / 50), rtol=1e-5)


@pytest.mark.parametrize("pair", [(Adam, torch.optim.Adam), (RMSprop, torch.optim.RMSprop)])
def test_optimisers_equal_pytorchs_with_one_rate_and_norm_per_learner(pair):
    ours, theirs = pair
    rng = torch.Generator().manual_seed(0)
    stack = Stack(3, [(4, 2), (1, 2)], CPU)
    stack.flat.copy_(torch.randn(3, 10, generator=rng))
    plain = [stack.flat[learner].clone().requires_grad_() for learner in range(3)]
    rates, norms = torch.tensor([0.1, 0.01, 0.2]), torch.tensor([0.5, 100.0, 2.0])
    optimiser = ours(stack)
    references = [theirs([p], rate) for p, rate in zip(plain, rates.tolist(), strict=True)]
    for _ in range(5):
        gradient = torch.randn(3, 10, generator=rng)
        stack.gradient.copy_(gradient)
        optimiser.step(rates, norms)
        for learner, reference in enumerate(references):
            plain[learner].grad = gradient[learner].clone()
            torch.nn.utils.clip_grad_norm_([plain[learner]], norms[learner].item())
            reference.step()
    torch.testing.assert_close(stack.flat, torch.stack([p.detach() for p in plain]), atol=1e-5, rtol=1e-4)


def test_splitting_an_optimisers_update_into_parts_changes_nothing(monkeypatch):
    def moved():
        stack = Stack(7, [(5, 3)], CPU)
        optimiser = Adam(stack)
        for _ in range(3):
            stack.gradient.copy_(torch.arange(105).view(7, 15) / 50)
            optimiser.step(torch.full((7,), 0.1), torch.full((7,), 1.0))
        return stack.flat

    whole = moved()
    monkeypatch.setattr("data_gen.agents.deep.optimisers._PART", 40)
    torch.testing.assert_close(moved(), whole, rtol=0, atol=0)


def test_networks_of_a_stack_are_independent():
    mlp = MLP((3, 4, 2), "tanh")
    stack = Stack(3, mlp.shapes, CPU)
    mlp.initialise(stack.parameters, SlotStreams(make_seeds(3, 0)), [1.0, 1.0])
    inputs = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0))
    stack.differentiate(mlp(stack.parameters, inputs).square().mean(dim=(1, 2)) * torch.tensor([1.0, 0.0, 1.0]))
    assert stack.gradient[1].abs().max() == 0
    assert (stack.gradient[0] != 0).all()
    first = torch.tanh(inputs[2] @ stack.parameters[0][2] + stack.parameters[1][2])
    torch.testing.assert_close(
        mlp(stack.parameters, inputs)[2], first @ stack.parameters[2][2] + stack.parameters[3][2]
    )


def test_initial_matrices_are_orthogonal_and_depend_only_on_the_learner():
    mlp = MLP((6, 4, 9), "tanh")
    stacks = [Stack(count, mlp.shapes, CPU) for count in (4, 2)]
    for stack in stacks:
        mlp.initialise(stack.parameters, SlotStreams(make_seeds(len(stack.flat), 0)), [2.0, 0.5])
    torch.testing.assert_close(stacks[0].flat[:2], stacks[1].flat, rtol=0, atol=0)
    first, _, second, bias = stacks[0].parameters
    identity = torch.eye(4).expand(4, 4, 4)
    torch.testing.assert_close(first.transpose(1, 2) @ first, 4 * identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(second @ second.transpose(1, 2), 0.25 * identity, atol=1e-5, rtol=0)
    assert bias.abs().max() == 0


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(3),
        spaces.Box(-2, 4, (2,), np.float32),
    ],
)
def test_action_distributions_equal_pytorchs_and_give_elements_of_the_space(space):
    distribution = action_distribution(space, "test", CPU)
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 4000, distribution.outputs, generator=rng) * 0.7
    outputs[:] = outputs[:, :1]  # the same distribution in every row
    free = [torch.full((2, *shape), -0.5) for shape in distribution.shapes]
    actions = distribution.sample(outputs, free, distribution.noise(SlotStreams(make_seeds(2, 0)), 4000))
    log_prob, entropy = distribution.log_prob_and_entropy(outputs, free, actions)
    if free:
        plain = torch.distributions.Independent(torch.distributions.Normal(outputs, free[0].exp()), 1)
        torch.testing.assert_close(log_prob, plain.log_prob(actions))
        torch.testing.assert_close(entropy, plain.entropy())
        torch.testing.assert_close(actions.mean(dim=1), outputs[:, 0], atol=0.05, rtol=0)
        torch.testing.assert_close(actions.std(dim=1), torch.full((2, 2), -0.5).exp(), atol=0.03, rtol=0)
    else:
        parts = [torch.distributions.Categorical(logits=part) for part in outputs.split(distribution.sizes, dim=-1)]
        expected = sum(part.log_prob(actions[..., index]) for index, part in enumerate(parts))
        torch.testing.assert_close(log_prob, expected)
        torch.testing.assert_close(entropy, sum(part.entropy() for part in parts))
        for index, part in enumerate(parts):
            shares = torch.nn.functional.one_hot(actions[..., index], distribution.sizes[index]).float().mean(dim=1)
            torch.testing.assert_close(shares, part.probs[:, 0], atol=0.03, rtol=0)
    for action in distribution.to_space(actions[:, :50]):
        assert space.contains(action)


def test_outputs_from_minus_1_to_1_map_to_the_bounds_of_a_box():
    scale = BoxScale(spaces.Box(np.array([-0.1, 0.0, -np.inf]), np.array([0.1, 4.0, np.inf]), dtype=np.float64))
    given = torch.tensor([[-1.0, -1, -1], [0, 0, 0], [0.5, 1, 7], [3, -3, 70]])
    expected = [[-0.1, 0, -1], [0, 2, 0], [0.05, 4, 7], [0.1, 0, 70]]
    np.testing.assert_allclose(scale.to_space(given), expected)


def test_observations_become_features():
    space = spaces.Dict(
        image=spaces.Box(0, 255, (1, 2), np.uint8),
        at=spaces.MultiDiscrete([2, 3]),
        key=spaces.Discrete(2, start=1),
        speed=spaces.Box(-np.inf, np.inf, (1,), np.float64),
    )
    encoder = Encoder(space, CPU)
    observation = {
        "image": np.array([[[0, 255]]], np.uint8),
        "at": np.array([[1, 2]]),
        "key": np.array([2]),
        "speed": np.array([[-3.5]]),
    }
    by_leaf = {"at": [0, 1, 0, 0, 1], "image": [0, 1], "key": [0, 1], "speed": [-3.5]}
    assert encoder(observation)[0].tolist() == [value for path in leaves(space) for value in by_leaf[path]]
    number = {"at": [False] * 5, "image": [True] * 2, "key": [False] * 2, "speed": [True]}
    assert encoder.is_number.tolist() == [value for path in leaves(space) for value in number[path]]
    kept = encoder.stored(observation)
    assert kept["image"].dtype == torch.uint8
    torch.testing.assert_close(encoder.encode(kept), encoder(observation))


def test_running_normalisation_equals_that_of_all_data_so_far():
    rng = np.random.default_rng(0)
    seen = rng.normal(3, [[[2.0, 5.0, 1.0]], [[1.0, 0.1, 9.0]]], (30, 2, 4, 3)).astype(np.float32)
    scale = ObservationScale(2, torch.tensor([True, True, False]), CPU)
    for step in seen:
        scale.add(torch.from_numpy(step))
    every = seen.transpose(1, 0, 2, 3).reshape(2, -1, 3)
    expected = (seen[0] - every.mean(1)[:, None]) / every.std(1)[:, None]
    expected[..., 2] = np.clip(seen[0][..., 2], -10, 10)  # an entry of a one-hot vector stays
    np.testing.assert_allclose(scale(torch.from_numpy(seen[0])), expected, atol=2e-3)

    rewards, ended = rng.normal(size=(40, 2, 3)), rng.random((40, 2, 3)) < 0.2
    scaled = RewardScale(torch.tensor([[0.9], [0.5]]), 3)
    running, returns = np.zeros((2, 3)), []
    for reward, end in zip(rewards, ended, strict=True):
        running = running * [[0.9], [0.5]] + reward
        returns.append(running.copy())
        scaled.add(torch.from_numpy(reward), torch.from_numpy(end))
        running[end] = 0
    deviation = np.stack(returns).transpose(1, 0, 2).reshape(2, -1).std(axis=1)
    found = scaled.scaled(torch.from_numpy(rewards[-1]))
    np.testing.assert_allclose(found, rewards[-1] / deviation[:, None], rtol=1e-3)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_a_learner_solves_a_small_room_and_reaches_a_point(algorithm):
    """With several actors, and with normalised observations and rewards for the point."""
    settings = {"actors": 8, "learning_rate": 3e-3, "entropy_coefficient": 0.005, "hidden_sizes": (32, 32)}
    settings |= {"rollout_steps": 16, "batch_size": 64, "epochs": 4} if algorithm == "ppo" else {"rollout_steps": 8}
    scaled = settings | {"normalise_observations": True, "normalise_rewards": True}
    for room, given in ((DarkRoom(size=5, episode_length=10), settings), (PointNavigation(episode_length=10), scaled)):
        tasks = room.split(8, 1, seed=1)[0].take(np.repeat(np.arange(8), 8))
        h = interact(find_component(algorithm, AGENTS)(**given), room.make_vec(tasks), 1200, make_seeds(8, 0))
        scores = room.normalise(episode_returns(h.reward, h.ended, 120), tasks)
        assert np.median(scores[:, -20:].mean(axis=1)) > 0.75, room


def test_a_space_without_a_policy_is_refused():
    spec = Spec(spaces.Discrete(2), spaces.Text(3), planned_steps=10)
    with pytest.raises(UserError, match="ppo has no policy for actions of Text"):
        PPO().reset(spec, 16, make_seeds(2, 0))
    with pytest.raises(UserError, match="networks cannot read observations of Text"):
        PPO().reset(Spec(spaces.Text(3), spaces.Discrete(2), planned_steps=10), 16, make_seeds(2, 0))


def test_a_cut_off_episode_is_bootstrapped_from_its_final_observation():
    """It does not use the first observation of the next episode, and a neighbour's cut-off episode has no effect."""
    spec = Spec(spaces.Discrete(9), spaces.Discrete(2), planned_steps=10)
    agent = A2C(actors=1, rollout_steps=3)
    agent.reset(spec, 2, make_seeds(2, 0))
    found = {}
    agent.update = lambda: found.update(batch=agent.batch(agent.values(agent.features.flatten(1, 2)).detach()))
    value = agent.values(torch.eye(9).expand(2, 9, 9)).detach()
    seen = [(0, 1, False), (1, 2, True), (7, 8, False)]  # the second step ends in 2, and the next episode starts in 7
    for before, after, cut in seen:
        agent.act(np.full(2, before))
        truncated = np.array([cut, False])
        # The second learner continues where the first one restarts.
        arrived = np.array([after, {1: 1, 2: 7, 8: 8}[after]])
        agent.observe(Transition(np.full(2, before), np.zeros(2), np.zeros(2), np.zeros(2, bool), truncated, arrived))
    returns = found["batch"].returns
    torch.testing.assert_close(returns[0, 1], 0.99 * value[0, 2])
    torch.testing.assert_close(returns[1, 1], 0.99**2 * value[1, 8])
    torch.testing.assert_close(returns[:, 2], 0.99 * value[:, 8])


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
@pytest.mark.parametrize("scaled", [False, True])
def test_learners_with_different_episode_ends_are_independent_to_the_last_bit(algorithm, scaled):
    """Compares parameters, because equal actions may hide a drift."""
    settings = dict(TINY, actors=3, normalise_observations=scaled, normalise_rewards=scaled)
    settings |= {"rollout_steps": 16, "batch_size": 12, "epochs": 2} if algorithm == "ppo" else {"rollout_steps": 7}
    room = CartPole(episode_length=15) if scaled else DarkRoom(size=4, episode_length=6, start="random", reward="once")
    tasks, seeds = room.split(9, 1, seed=0)[0], make_seeds(9, 0)

    def parameters(rows):
        agent = find_component(algorithm, AGENTS)(**settings)
        interact(agent, room.make_vec(tasks.take(np.repeat(rows, 3))), 400, seeds[rows])
        return agent.stack.flat

    together = parameters(np.arange(9))
    for rows in ([8], [4, 1], [0, 8, 2, 3, 5]):
        np.testing.assert_array_equal(parameters(np.array(rows))[: len(rows)], together[rows])
