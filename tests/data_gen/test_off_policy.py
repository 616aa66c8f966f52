"""DQN and SAC against plain single-learner references; the replay memory, schedules, sweeps and learning."""

import copy
import math

import gymnasium
import numpy as np
import pytest
import torch
from torch.nn.functional import smooth_l1_loss

from data_gen.agents.base import Spec
from data_gen.agents.deep.dqn import DQN, dqn_losses, dqn_targets
from data_gen.agents.deep.networks import normal
from data_gen.agents.deep.off_policy import Batch
from data_gen.agents.deep.replay import Replay
from data_gen.agents.deep.sac import SAC, squashed_gaussian
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.streams import make_seeds
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.point_navigation import PointNavigation
from icrl.support.errors import UserError

CPU = torch.device("cpu")
ROOM = DarkRoom(size=3, episode_length=4)
FIELD = PointNavigation(episode_length=5)
LEARNERS, ROWS = 3, 8


def collect(agent, family, steps, learners=LEARNERS, seeds=None):
    """Histories of learners on the first tasks."""
    tasks = family.split(8, 1, seed=0)[0].take(np.repeat(np.arange(learners), agent.actors))
    return interact(agent, family.make_vec(tasks), steps, make_seeds(8, 0)[:learners] if seeds is None else seeds)


def started(agent, observation_space, action_space, planned_steps=100):
    """The agent before its first step."""
    spec = Spec(observation_space, action_space, planned_steps)
    agent.reset(spec, LEARNERS * agent.actors, make_seeds(LEARNERS, 3))
    return agent


def random_batch(features, actions, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = LEARNERS, ROWS
    return Batch(
        torch.randn(*shape, features, generator=draw),
        actions,
        torch.randn(*shape, generator=draw) * 3,  # also beyond the bend of the Huber loss
        torch.rand(*shape, generator=draw) < 0.3,
        torch.randn(*shape, features, generator=draw),
    )


def plain(stack, row):
    """A `torch.nn` network with the parameters of one row of a stack."""
    layers = []
    for matrix, bias in zip(stack.parameters[::2], stack.parameters[1::2], strict=True):
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[2])
        layer.weight.data, layer.bias.data = matrix[row].detach().T.clone(), bias[row, 0].detach().clone()
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def flat(network):
    """The parameters of a network in the order of a stack."""
    return torch.cat([(p.T if p.ndim == 2 else p).reshape(-1) for p in network.parameters()]).detach()


def flat_gradient(network):
    return torch.cat([(p.grad.T if p.ndim == 2 else p.grad).reshape(-1) for p in network.parameters()])


def follow(target, learned, tau):
    for old, new in zip(target.parameters(), learned.parameters(), strict=True):
        old.data = (1 - tau) * old.data + tau * new.data


# The replay memory


def test_the_ring_keeps_each_learners_last_transitions_complete():
    replay = Replay(num_learners=2, actors=2, capacity=3, device=CPU)
    env = torch.arange(4).unsqueeze(1)  # two of learner 0, two of learner 1
    for step in range(5):
        number = 10 * step + env
        replay.add(
            {
                "bytes": (number + torch.arange(3)).to(torch.uint8),
                "cell": number.to(torch.int32) - 7,
                "reward": number.float() / 3,
                "terminated": number % 2 == 0,
            }
        )
        assert len(replay) == 2 * min(step + 1, 3)
    drawn = replay.sample(np.tile((np.arange(6) + 0.5) / 6, (2, 1)))
    cell = drawn["cell"].squeeze(2)
    for learner in range(2):  # steps 2, 3 and 4, because the ring has wrapped once
        wanted = [10 * step + 2 * learner + actor - 7 for step in (2, 3, 4) for actor in (0, 1)]
        assert sorted(cell[learner].tolist()) == wanted
    np.testing.assert_array_equal(drawn["bytes"], (cell + 7).unsqueeze(2) + torch.arange(3))
    np.testing.assert_array_equal(drawn["reward"].squeeze(2), (cell + 7) / 3)
    np.testing.assert_array_equal(drawn["terminated"].squeeze(2), (cell + 7) % 2 == 0)
    assert drawn["terminated"].dtype == torch.bool


def test_samples_come_only_from_the_filled_part_of_the_memory():
    replay = Replay(num_learners=2, actors=1, capacity=100, device=CPU)
    replay.add({"x": torch.tensor([[1.0], [2.0]])})
    replay.add({"x": torch.tensor([[3.0], [4.0]])})
    drawn = replay.sample(np.array([[0.0, 0.49, 0.5, 0.999]] * 2))["x"].squeeze(2)
    assert drawn.tolist() == [[1, 1, 3, 3], [2, 2, 4, 4]]  # nothing from the 98 empty positions


@pytest.mark.parametrize("actors", [1, 2])
def test_a_time_limit_is_stored_with_its_final_observation_and_without_termination(actors):
    agent = DQN(actors=actors, learning_starts=1000)
    h = collect(agent, ROOM, 30)
    assert h.truncated.any()
    count = 30 * actors
    drawn = agent.replay.sample(np.tile((np.arange(count) + 0.5) / count, (LEARNERS, 1)))

    def by_history(name):
        return drawn[name].reshape(LEARNERS, 30, actors, -1).transpose(1, 2).flatten(0, 1).numpy()

    np.testing.assert_array_equal(by_history("observation."), h.observation)
    np.testing.assert_array_equal(by_history("action")[..., 0], h.action)
    np.testing.assert_array_equal(by_history("reward")[..., 0], h.reward)
    cell = h.observation.astype(int) @ [3, 1]
    arrived = ROOM.cells()[
        ROOM.next_cells()[cell, h.action]
    ]  # the cell that the move led to, not the next episode's start
    np.testing.assert_array_equal(by_history("next_observation."), arrived)
    assert not by_history("terminated").any()


def test_the_memory_is_no_larger_than_a_lifetime_fills():
    space = gymnasium.spaces.Discrete(3)
    assert started(DQN(), space, space, planned_steps=50).replay.capacity == 50
    assert started(DQN(buffer_size=20), space, space, planned_steps=50).replay.capacity == 20
    assert started(DQN(buffer_size=20, actors=3), space, space, planned_steps=50).replay.capacity == 6


# DQN


def a_dqn(**parameters):
    agent = DQN(hidden_sizes=(6, 5), discount=(0.5, 0.9, 1.0), learning_rate=(1e-3, 3e-3), **parameters)
    box = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    started(agent, box, gymnasium.spaces.Discrete(3))
    agent.target.flat += 0.3 * torch.randn(agent.target.flat.shape, generator=torch.Generator().manual_seed(1))
    numbers = torch.randint(3, (LEARNERS, ROWS, 1), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    return agent, random_batch(4, numbers)


@pytest.mark.parametrize("double", [False, True])
def test_dqns_loss_and_update_equal_those_of_plain_networks(double):
    agent, batch = a_dqn(double=double, max_grad_norm=0.1)
    networks = [plain(agent.learned, learner) for learner in range(LEARNERS)]
    targets = [plain(agent.target, learner) for learner in range(LEARNERS)]
    losses = agent.losses(batch)
    agent.update(batch)
    for i, (network, target) in enumerate(zip(networks, targets, strict=True)):
        gamma, rate = (agent.drawn(name, agent.seeds)[i] for name in ("discount", "learning_rate"))
        loss = 0.0
        for b in range(ROWS):
            with torch.no_grad():
                after = target(batch.next_features[i, b])
                chooser = network(batch.next_features[i, b]) if double else after
                y = batch.rewards[i, b] + gamma * (0 if batch.terminated[i, b] else after[chooser.argmax()])
            q = network(batch.features[i, b])[batch.actions[i, b, 0]]
            loss = loss + smooth_l1_loss(q, y) / ROWS
        torch.testing.assert_close(losses[i], loss)
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        assert norm > 0.1  # otherwise the limit would have no effect
        torch.testing.assert_close(agent.learned.gradient[i], flat_gradient(network))
        optimiser.step()
        torch.testing.assert_close(agent.learned.flat[i], flat(network))
        torch.testing.assert_close(agent.target.flat[i], flat(target))


def test_double_dqn_values_the_learned_networks_choice():
    next_q, learned = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[2.0, 0.0]]])
    given = torch.tensor([[1.0]]), torch.tensor([[False]]), torch.tensor([[0.5]])
    assert dqn_targets(*given, next_q).item() == 3.5
    assert dqn_targets(*given, next_q, learned).item() == 1.5
    assert dqn_targets(given[0], ~given[1], given[2], next_q).item() == 1


def test_the_huber_loss_is_linear_beyond_one():
    q, actions = torch.tensor([[[9.0, 0.5], [9.0, 3.0]]]), torch.tensor([[[1], [1]]])
    assert dqn_losses(q, actions, torch.zeros(1, 2)).item() == pytest.approx((0.125 + 2.5) / 2)


@pytest.mark.parametrize(("tau", "actors"), [(1.0, 1), (1.0, 2), (0.25, 1)])
def test_the_target_network_moves_only_every_target_every_steps(tau, actors):
    agent = DQN(actors=actors, target_every=6, tau=tau, learning_starts=0, train_every=1, batch_size=4)
    targets = []
    moved = []

    def note(_):
        target = agent.target.flat.clone()
        if targets:
            moved.append(not torch.equal(target, targets[-1]))
        targets.append(target)

    tasks = ROOM.all_tasks().take(np.repeat(np.arange(2), actors))
    interact(agent, ROOM.make_vec(tasks), 19, make_seeds(2, 0), progress=note)
    assert [step for step, yes in enumerate(moved, start=2) if yes] == list(range(6 // actors, 20, 6 // actors))


def test_soft_target_updates_move_by_the_fraction_tau():
    agent, _ = a_dqn(tau=0.25, target_every=3)
    before = agent.target.flat.clone()
    agent.stepped(2)
    assert torch.equal(agent.target.flat, before)
    agent.stepped(3)
    torch.testing.assert_close(agent.target.flat, 0.75 * before + 0.25 * agent.learned.flat)


def test_epsilon_falls_linearly_to_its_end_by_its_fraction_of_the_lifetime():
    space = gymnasium.spaces.Discrete(2)
    agent = started(
        DQN(epsilon_start=0.8, epsilon_end=(0.2, 0.4), epsilon_fraction=0.5), space, space, planned_steps=100
    )
    end = agent.drawn("epsilon_end", agent.seeds)
    assert len(set(end)) == 2
    for steps, share in ((0, 0), (25, 0.5), (50, 1), (90, 1)):
        agent.steps = steps
        np.testing.assert_allclose(agent.epsilon(), 0.8 + share * (end - 0.8))


def test_actions_are_uniform_with_probability_epsilon_and_greedy_otherwise():
    space = gymnasium.spaces.Discrete(4)
    agent = started(DQN(actors=4000, epsilon_start=0.4, epsilon_end=0.4), space, space)
    actions = agent.policy_actions(torch.ones(LEARNERS, 4000, 4)).squeeze(2)
    for row in actions.numpy():
        shares = np.sort(np.bincount(row, minlength=4)) / 4000
        np.testing.assert_allclose(shares, [0.1, 0.1, 0.1, 0.7], atol=0.025)


def test_a_dqn_without_exploration_is_greedy():
    space = gymnasium.spaces.Discrete(4)
    agent = started(DQN(actors=200, epsilon_start=0, epsilon_end=0), space, space)
    assert all(len(set(row.tolist())) == 1 for row in agent.policy_actions(torch.ones(LEARNERS, 200, 4)).squeeze(2))


def test_joint_actions_are_numbered_and_returned_as_elements_of_the_space():
    space = gymnasium.spaces.MultiDiscrete([2, 3])
    agent = started(DQN(actors=100, learning_starts=0), gymnasium.spaces.Discrete(2), space)
    actions = agent.choose(np.zeros(LEARNERS * 100, np.int64))
    assert actions.shape == (LEARNERS * 100, 2)
    assert {tuple(action) for action in actions.tolist()} == {(x, y) for x in range(2) for y in range(3)}


# SAC


def a_sac(**parameters):
    agent = SAC(hidden_sizes=(6, 5), discount=(0.5, 0.9), tau=(0.1, 0.4), learning_rate=(1e-3, 3e-3), **parameters)
    agent.batch_size = ROWS
    box = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    started(agent, box, gymnasium.spaces.Box(-2, 3, (2,), np.float32))
    draw = torch.Generator().manual_seed(1)
    agent.targets.flat += 0.3 * torch.randn(agent.targets.flat.shape, generator=draw)
    return agent, random_batch(4, 2 * torch.rand(LEARNERS, ROWS, 2, generator=draw) - 1)


def one_action(actor, features, noise):
    """One action and its log-probability, by `torch.distributions`."""
    mean, log_std = actor(features).chunk(2)
    gaussian = torch.distributions.Normal(mean.double(), log_std.clamp(-20, 2).exp().double())
    u = mean + log_std.clamp(-20, 2).exp() * noise
    action = torch.tanh(u.double())
    return action.float(), (gaussian.log_prob(u.double()) - torch.log(1 - action**2)).sum().float()


@pytest.mark.parametrize("entropy_coefficient", ["auto", 0.2])
def test_two_updates_of_sac_equal_those_of_plain_networks(entropy_coefficient):
    target = {"target_entropy": -1.5} if entropy_coefficient == "auto" else {}
    agent, batch = a_sac(entropy_coefficient=entropy_coefficient, **target)
    plain_learners = []
    for i in range(LEARNERS):
        actor = plain(agent.policy, i)
        critics, targets = ([plain(stack, 2 * i + k) for k in range(2)] for stack in (agent.critics, agent.targets))
        start = 1.0 if entropy_coefficient == "auto" else entropy_coefficient
        log_alpha = torch.tensor(math.log(start), requires_grad=True)
        rate = agent.drawn("learning_rate", agent.seeds)[i]
        of_critics = [parameter for critic in critics for parameter in critic.parameters()]
        optimisers = [torch.optim.Adam(p, lr=rate) for p in ([log_alpha], of_critics, actor.parameters())]
        plain_learners.append((actor, critics, targets, log_alpha, optimisers))
    for _ in range(2):
        noise = normal(copy.deepcopy(agent.streams), CPU, 2, ROWS, 2)
        agent.update(batch)
        for i, (actor, critics, targets, log_alpha, optimisers) in enumerate(plain_learners):
            gamma, tau = (agent.drawn(name, agent.seeds)[i] for name in ("discount", "tau"))
            for optimiser in optimisers:
                optimiser.zero_grad()
            alpha = log_alpha.exp().item()
            drawn = [one_action(actor, batch.features[i, b], noise[i, 0, b]) for b in range(ROWS)]
            if entropy_coefficient == "auto":
                sum(-log_alpha * (log_prob.item() - 1.5) / ROWS for _, log_prob in drawn).backward()
                torch.testing.assert_close(agent.temperature.gradient[i, 0], log_alpha.grad)
                optimisers[0].step()
            loss = 0.0
            for b in range(ROWS):
                with torch.no_grad():
                    action, log_prob = one_action(actor, batch.next_features[i, b], noise[i, 1, b])
                    after = torch.cat([batch.next_features[i, b], action])
                    value = min(target(after).item() for target in targets) - alpha * log_prob.item()
                    y = batch.rewards[i, b] + gamma * (0 if batch.terminated[i, b] else value)
                known = torch.cat([batch.features[i, b], batch.actions[i, b]])
                loss = loss + sum(0.5 * (critic(known) - y).square().sum() for critic in critics) / ROWS
            loss.backward()
            for k, critic in enumerate(critics):
                torch.testing.assert_close(
                    agent.critics.gradient[2 * i + k], flat_gradient(critic), atol=2e-5, rtol=1e-4
                )
            optimisers[1].step()
            loss = 0.0
            for b, (action, log_prob) in enumerate(drawn):
                q = torch.cat([critic(torch.cat([batch.features[i, b], action])) for critic in critics])
                loss = loss + (alpha * log_prob - q.min()) / ROWS
            optimisers[2].zero_grad()
            loss.backward()
            torch.testing.assert_close(agent.policy.gradient[i], flat_gradient(actor), atol=2e-5, rtol=1e-4)
            optimisers[2].step()
            torch.testing.assert_close(agent.policy.flat[i], flat(actor), atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(agent.temperature.flat[i, 0], log_alpha.detach(), atol=1e-5, rtol=1e-4)
            for k in range(2):
                follow(targets[k], critics[k], tau)
                torch.testing.assert_close(agent.critics.flat[2 * i + k], flat(critics[k]), atol=1e-4, rtol=1e-3)
                torch.testing.assert_close(agent.targets.flat[2 * i + k], flat(targets[k]), atol=1e-4, rtol=1e-3)


def test_the_two_critics_of_a_learner_start_different():
    agent, _ = a_sac()
    assert not torch.isclose(agent.critics.flat[::2], agent.critics.flat[1::2]).all(dim=1).any()


def test_log_probabilities_of_squashed_actions_stay_finite_at_the_edge():
    outputs = torch.tensor([[[60.0, -20.0], [-60.0, -20.0], [0.0, 80.0]]])
    actions, log_prob = squashed_gaussian(outputs, torch.ones(1, 3, 1))
    assert actions.tolist()[0][:2] == [[1], [-1]]
    assert torch.isfinite(log_prob).all()
    u = math.exp(2)  # the log standard deviation is clipped to 2
    exact = -0.5 - 2 - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(u) ** 2)
    assert log_prob[0, 2].item() == pytest.approx(exact, rel=1e-4)


def test_sacs_actions_lie_in_a_box_with_any_bounds():
    space = gymnasium.spaces.Box(np.array([-2, 5], np.float32), np.array([3, 6], np.float32))
    for starts in (0, 1000):  # actions of the policy, and random ones before learning starts
        agent = started(SAC(actors=500, learning_starts=starts, hidden_sizes=(4,)), gymnasium.spaces.Discrete(2), space)
        actions = agent.choose(np.zeros(LEARNERS * 500, np.int64))
        assert actions.shape == (LEARNERS * 500, 2)
        assert (actions.min(axis=0) >= space.low).all()
        assert (actions.max(axis=0) <= space.high).all()
        if starts:
            np.testing.assert_allclose(actions.mean(axis=0), [0.5, 5.5], atol=0.1)
            np.testing.assert_allclose(np.ptp(actions, axis=0), [5, 1], rtol=0.02)


# Both


@pytest.mark.parametrize(("actors", "first"), [(1, 12), (2, 8)])
def test_updates_come_every_train_every_steps_once_learning_starts(monkeypatch, actors, first):
    agent = DQN(actors=actors, learning_starts=8, train_every=4, gradient_steps=3, batch_size=2)
    seen = []
    monkeypatch.setattr(DQN, "update", lambda self, batch: seen.append(self.steps))
    collect(agent, ROOM, 13)
    assert seen == [step for step in (4, 8, 12) if step >= first for _ in range(3)]


def test_actions_are_random_until_learning_starts(monkeypatch):
    asked = []
    monkeypatch.setattr(SAC, "policy_actions", lambda self, features: (asked.append(self.steps), self.taken)[1])
    collect(SAC(learning_starts=6, batch_size=2, train_every=100), FIELD, 9)
    assert asked == [6, 7, 8]


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (lambda rate: DQN(learning_rate=rate, learning_starts=8, batch_size=4, epsilon_end=0.0), ROOM),
        (lambda rate: SAC(learning_rate=rate, learning_starts=8, batch_size=4, hidden_sizes=(8, 8)), FIELD),
    ],
)
def test_a_sweep_equals_the_single_runs_that_it_consists_of(make, family):
    seeds = make_seeds(8, 0)
    swept = make((0.001, 0.1))
    rates = swept.drawn("learning_rate", seeds)
    together = collect(swept, family, 60, 8, seeds)
    alone = {rate: collect(make(rate), family, 60, 8, seeds) for rate in (0.001, 0.1)}
    assert set(rates) == set(alone)
    for i, rate in enumerate(rates):
        np.testing.assert_array_equal(together.action[i], alone[rate].action[i])
    slow, fast = (h.action.reshape(8, -1) for h in alone.values())
    assert (slow != fast).any(axis=1).sum() >= 6  # the same seeds give other actions


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_every_parameter_learns(name):
    agent = DQN(learning_starts=4, batch_size=16) if name == "dqn" else SAC(learning_starts=4, hidden_sizes=(8, 8))
    collect(agent, ROOM if name == "dqn" else FIELD, 40)
    stacks = [agent.learned] if name == "dqn" else [agent.policy, agent.critics, agent.temperature]
    for stack in stacks:
        for parameter in stack.parameters:
            assert (parameter.grad_fn is None) and torch.isfinite(parameter).all()
        assert (stack.gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("make", [DQN, SAC])
def test_observations_are_normalised_by_each_learners_own_observations(make):
    agent = make(normalise_observations=True, learning_starts=5, batch_size=64, train_every=1)
    family = FIELD if make is SAC else ROOM
    h = collect(agent, family, 50)
    features = agent.sample().features
    if make is DQN:  # one-hot vectors stay as they are
        assert set(features.unique().tolist()) == {0, 1}
        return
    stored = (h.observation - h.observation.mean(axis=1, keepdims=True)) / h.observation.std(axis=1, keepdims=True)
    for i in range(LEARNERS):
        for row in features[i].numpy()[:5]:
            assert np.abs(stored[i] - row).max(axis=1).min() < 1e-2


def test_dqn_learns_a_small_room():
    room = DarkRoom(size=3, episode_length=8)
    tasks = room.all_tasks()
    agent = DQN(
        learning_rate=3e-3,
        learning_starts=50,
        target_every=50,
        discount=0.8,
        epsilon_fraction=0.5,
        epsilon_end=0,
        hidden_sizes=(32,),
    )
    h = interact(agent, room.make_vec(tasks), 1200, make_seeds(9, 0))
    scores = room.normalise(episode_returns(h.reward, h.ended, 150), tasks)
    assert scores[:, :5].mean() < 0.4
    assert np.median(scores[:, -10:].mean(axis=1)) > 0.95


def test_sac_learns_to_move_to_the_goal():
    field = PointNavigation(episode_length=5, tolerance=0, step=0.2)
    agent = SAC(
        learning_rate=0.01,
        learning_starts=60,
        batch_size=32,
        tau=0.05,
        hidden_sizes=(32, 32),
        discount=0.8,
        entropy_coefficient=0.02,
    )
    h = interact(agent, field.make_vec(field.sample(8, seed=0)), 300, make_seeds(8, 0))
    returns = episode_returns(h.reward, h.ended, 60)
    assert returns[:, :12].mean() < -2.3
    assert returns[:, -6:].mean() > -0.8


BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("agent", "space", "message"),
    [
        (DQN(), BOX, "dqn needs Discrete or flat MultiDiscrete actions"),
        (SAC(), gymnasium.spaces.Discrete(3), "sac needs Box actions with finite bounds"),
        (SAC(), gymnasium.spaces.Box(-np.inf, 1, (2,), np.float32), "sac needs Box actions with finite bounds"),
    ],
)
def test_actions_that_cannot_be_learned_are_refused_in_one_line(agent, space, message):
    with pytest.raises(UserError, match=message) as refusal:
        started(agent, BOX, space)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("given", [{"tau": 1.5}, {"entropy_coefficient": "often"}, {"entropy_coefficient": -1}])
def test_parameters_out_of_range_are_refused(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        SAC(**given)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("algorithm", ["dqn", "sac"])
def test_learners_are_independent_to_the_last_bit(algorithm, scaled):
    """Compares parameters: equal actions may hide a drift. Matrix libraries split odd sizes in other ways."""
    settings = {"actors": 2, "learning_starts": 20, "batch_size": 37, "train_every": 1, "hidden_sizes": (50, 9)}
    settings |= {"learning_rate": 0.003, "normalise_observations": scaled, "normalise_rewards": scaled}
    agent_class = DQN if algorithm == "dqn" else SAC
    room = PointNavigation(episode_length=10) if algorithm == "sac" else DarkRoom(size=4, episode_length=6)
    tasks, seeds = room.split(9, 1, seed=0)[0], make_seeds(9, 0)

    def parameters(rows):
        agent = agent_class(**settings)
        interact(agent, room.make_vec(tasks.take(np.repeat(rows, 2))), 80, seeds[rows])
        return (agent.learned if algorithm == "dqn" else agent.policy).flat

    together = parameters(np.arange(9))
    for rows in ([8], [4, 1], [0, 8, 2, 3, 5]):
        np.testing.assert_array_equal(parameters(np.array(rows))[: len(rows)], together[rows])


def test_sampled_rewards_are_scaled_by_the_deviation_of_the_return():
    agent = DQN(learning_starts=0, batch_size=64, normalise_rewards=True, discount=0.5, epsilon_end=1)
    tasks = ROOM.all_tasks().take([0, 1, 2])
    h = interact(agent, ROOM.make_vec(tasks), 60, make_seeds(3, 0))
    running, returns = np.zeros(3), []
    for step in range(60):
        running = 0.5 * running + h.reward[:, step]
        returns.append(running.copy())
        running[h.ended[:, step]] = 0
    scale = np.std(returns, axis=0)
    sampled = agent.sample().rewards.numpy()
    for learner in range(3):
        wanted = {0.0} if scale[learner] == 0 else {0.0, 1 / scale[learner]}
        assert all(min(abs(value - one) for one in wanted) < 1e-2 for value in sampled[learner])
    assert sampled.max() > 0
