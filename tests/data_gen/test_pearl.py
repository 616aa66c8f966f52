"""PEARL: posterior and losses against computations by hand, memories, lifetimes, resuming, and learning."""

import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from data_gen.agents.base import Spec, Transition
from data_gen.agents.deep.sac import critic_targets, squashed_gaussian
from data_gen.interaction import interact, spec_of
from data_gen.meta.base import TrainingTasks
from data_gen.meta.pearl.context_encoder import ContextEncoder, kl_from_prior, product_of_gaussians
from data_gen.meta.pearl.pearl import PEARL
from data_gen.meta.pearl.pearl_updates import Batch
from data_gen.meta.pearl.task_collection import LatentActor, RandomActor, prior_belief
from data_gen.meta.pearl.task_replay import TaskReplay
from data_gen.returns import episode_returns
from data_gen.streams import SlotStreams, derive, make_seeds
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.sparse_point_robot import SparsePointRobot
from icrl.support.errors import UserError

CPU = torch.device("cpu")
ROOM = DarkRoom(size=3, episode_length=6)
ONCE = DarkRoom(size=4, episode_length=5, start="random", reward="once")
ROBOT = SparsePointRobot()
TASKS, ROWS, CONTEXT, LATENT = 3, 7, 11, 2
TINY = {
    "latent_size": LATENT,
    "hidden_sizes": (8, 8),
    "encoder_sizes": (8,),
    "initial_episodes": 2,
    "tasks_per_iteration": 2,
    "updates": 3,
    "meta_batch": 4,
    "batch_size": 5,
    "context_size": 6,
    "buffer_size": 200,
}


def training(family, tasks, seed=0):
    envs = family.make_vec(tasks.take([0]))
    return TrainingTasks(family, tasks, spec_of(envs, family.episode_length), seed)


def started(family, count=6, **parameters):
    """An agent before its first iteration, on the first training tasks of a family."""
    agent = PEARL(**{**TINY, **parameters})
    agent.start(training(family, family.split(count, 2, seed=0)[0]))
    return agent


def random_batch(agent, actions, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows, features = TASKS * ROWS, agent.encoder.size
    return Batch(
        torch.randn(TASKS, CONTEXT, agent.nets.encoder.layers.sizes[0], generator=draw),
        torch.randn(rows, features, generator=draw),
        actions,
        torch.randn(rows, generator=draw),
        torch.rand(rows, generator=draw) < 0.4,
        torch.randn(rows, features, generator=draw),
        torch.randn(TASKS, LATENT, generator=draw),
        agent.actions.noise(draw, 2, rows),
    )


def box_batch(agent):
    return random_batch(agent, torch.rand(TASKS * ROWS, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1)


def discrete_batch(agent):
    return random_batch(agent, torch.arange(TASKS * ROWS).unsqueeze(1) % 5)


def gradients(loss, module):
    found = torch.autograd.grad(loss, [*module.parameters()], allow_unused=True, retain_graph=True)
    return [0.0 if gradient is None else float(gradient.abs().max()) for gradient in found]


def touched(loss, module):
    return any(size > 0 for size in gradients(loss, module))


def shake(module):
    """Changes target networks, so that they differ from the learned ones."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)


# The posterior


def test_posterior_is_the_product_of_the_factors_densities():
    means, variances = torch.tensor([[0.5], [-1.0], [2.0]]), torch.tensor([[1.0], [0.5], [4.0]])
    mean, variance = product_of_gaussians(means, variances)
    assert float(variance) == pytest.approx(1 / (1 + 2 + 0.25))
    assert float(mean) == pytest.approx((0.5 - 2.0 + 0.5) / 3.25)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64).unsqueeze(1)
    density = Normal(means.squeeze(1).double(), variances.squeeze(1).double().sqrt()).log_prob(grid).sum(dim=1).exp()
    density = density / torch.trapezoid(density, grid.squeeze(1))
    assert torch.allclose(
        density, Normal(mean.double(), variance.double().sqrt()).log_prob(grid).exp().squeeze(1), atol=1e-6
    )


def test_posterior_does_not_depend_on_the_order_of_the_context_nor_on_other_tasks():
    torch.manual_seed(0)
    encoder, context = ContextEncoder(4, (8, 8), LATENT, CPU), torch.randn(TASKS, CONTEXT, 4)
    mean, variance = encoder.posterior(context)
    for other in (context[:, torch.randperm(CONTEXT)], context[:, torch.arange(CONTEXT - 1, -1, -1)]):
        assert torch.allclose(encoder.posterior(other)[0], mean, atol=1e-6)
        assert torch.allclose(encoder.posterior(other)[1], variance, atol=1e-6)
    alone = encoder.posterior(context[1:2])
    assert torch.allclose(alone[0], mean[1:2], atol=1e-6) and torch.allclose(alone[1], variance[1:2], atol=1e-6)


def test_kl_is_summed_over_tasks_and_dimensions():
    mean, variance = torch.randn(TASKS, LATENT), torch.rand(TASKS, LATENT) + 0.1
    expected = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0))
    assert expected.shape == (TASKS, LATENT)
    assert float(kl_from_prior(mean, variance)) == pytest.approx(float(expected.sum()), rel=1e-5)


# Losses


@pytest.mark.parametrize(("family", "batch_of"), [(ROBOT, box_batch), (ROOM, discrete_batch)])
def test_encoder_learns_only_from_the_critics_and_the_kl(family, batch_of):
    agent = started(family, entropy_coefficient="auto")
    networks, batch, alpha = agent.nets, batch_of(agent), torch.tensor(0.3)
    critic_loss, kl, latents = agent.updating.critic_loss(batch, alpha)
    actor_loss, log_prob = agent.updating.actor_loss(batch, latents, alpha)
    assert touched(critic_loss, networks.encoder) and touched(kl, networks.encoder)
    assert not latents.requires_grad
    assert not touched(actor_loss, networks.encoder) and not touched(log_prob.sum(), networks.encoder)
    assert touched(critic_loss, networks.critics) and not touched(kl, networks.critics)
    assert touched(actor_loss, networks.policy) and not touched(actor_loss, networks.critics)
    assert not touched(critic_loss, networks.policy)
    assert not any(parameter.requires_grad for parameter in networks.targets.parameters())


def test_an_update_moves_the_encoder_by_the_critics_loss_and_the_weighted_kl():
    agent = started(ROBOT, kl_weight=0.7)
    batch = box_batch(agent)
    critic_loss, kl, _ = agent.updating.critic_loss(batch, torch.tensor(1.0))
    expected = torch.autograd.grad(critic_loss + 0.7 * kl, [*agent.nets.encoder.parameters()])
    agent.updating.update(batch)
    for parameter, gradient in zip(agent.nets.encoder.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient)


def test_targets_of_box_actions_equal_sacs_with_the_latent_as_an_input():
    agent = started(ROBOT, reward_scale=3.0, discount=0.8)
    shake(agent.nets.targets)
    batch, latents, alpha = box_batch(agent), torch.randn(TASKS * ROWS, LATENT), torch.tensor(0.3)
    states = torch.cat([batch.next_states, latents], dim=1)
    with torch.no_grad():
        actions, log_prob = squashed_gaussian(agent.nets.policy(states.unsqueeze(0)), batch.action_noise[:1])
        q = agent.nets.targets(torch.cat([states, actions[0]], dim=1).expand(2, -1, -1)).squeeze(2)
    discount, weight = torch.tensor([[0.8]]), torch.tensor([[0.3]])
    expected = critic_targets(
        3 * batch.rewards[None], batch.terminated[None], discount, q[None], log_prob, weight
    ).squeeze(0)
    assert torch.allclose(agent.updating.soft_targets(batch, latents, alpha), expected, atol=1e-5)


def test_targets_of_discrete_actions_are_exact_expectations():
    agent = started(ROOM, reward_scale=3.0, discount=0.8)
    shake(agent.nets.targets)
    batch, latents = discrete_batch(agent), torch.randn(TASKS * ROWS, LATENT)
    targets = agent.updating.soft_targets(batch, latents, torch.tensor(0.3))
    for row in (int(batch.terminated.int().argmax()), int((~batch.terminated).int().argmax())):
        state = torch.cat([batch.next_states[row], latents[row]])[None, None]
        with torch.no_grad():
            policy = Categorical(logits=agent.nets.policy(state)[0, 0])
            q = agent.nets.targets(state.expand(2, -1, -1))[:, 0]
        expected = sum(
            float(policy.probs[action]) * (min(q[:, action].tolist()) - 0.3 * float(policy.probs[action].log()))
            for action in range(5)
        )
        future = 0.0 if batch.terminated[row] else 0.8 * expected
        assert float(targets[row]) == pytest.approx(3 * float(batch.rewards[row]) + future, rel=1e-4)


def test_discrete_policy_for_given_values_becomes_their_softmax():
    agent = started(ROOM)
    values = torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0])
    logits = torch.zeros(1, 1, 5, requires_grad=True)
    optimiser = torch.optim.Adam([logits], 0.1)
    for _ in range(300):
        value, _ = agent.actions.soft_value(
            lambda states: values.expand(2, 1, 5), torch.zeros(1, 1), logits, torch.zeros(1, 0), torch.tensor(0.5)
        )
        optimiser.zero_grad()
        (-value.sum()).backward()
        optimiser.step()
    assert torch.allclose(logits.softmax(dim=2).flatten(), (values / 0.5).softmax(dim=0), atol=1e-3)
    assert value.item() == pytest.approx(float(0.5 * (values / 0.5).logsumexp(dim=0)), abs=1e-4)


def test_critics_loss_is_the_authors_mean_without_a_half():
    agent = started(ROOM)
    batch, alpha = discrete_batch(agent), torch.tensor(0.3)
    loss, _, latents = agent.updating.critic_loss(batch, alpha)
    targets = agent.updating.soft_targets(batch, latents, alpha)
    q = agent.nets.critics(torch.cat([batch.states, latents], dim=1).expand(2, -1, -1))
    taken = torch.stack([q[:, row, int(action)] for row, action in enumerate(batch.actions)], dim=1)
    expected = ((taken[0] - targets) ** 2).mean() + ((taken[1] - targets) ** 2).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("family", [ROBOT, ROOM])
def test_every_parameter_learns(family):
    agent = started(family, entropy_coefficient="auto")
    before = {name: values.clone() for name, values in agent.nets.state_dict().items()}
    agent.improve(0)
    assert [name for name, values in agent.nets.state_dict().items() if torch.equal(values, before[name])] == []


def test_fixed_entropy_coefficient_stays():
    agent = started(ROOM, entropy_coefficient=0.25)
    assert agent.improve(0)["alpha"] == pytest.approx(0.25)
    assert started(ROOM, entropy_coefficient=0.0).improve(0)["alpha"] < 1e-30


# Memories


def marked(places, count, mark):
    """Transitions labelled with their task and their number."""
    of_place = torch.as_tensor(places).view(-1, 1, 1).expand(-1, count, 1)
    return {"task": of_place.clone(), "number": (mark + torch.arange(count)).view(1, -1, 1).repeat(len(places), 1, 1)}


def test_memory_samples_a_tasks_own_transitions_and_the_context_its_latest_ones():
    replay = TaskReplay(3, 10, CPU)
    places = replay.admit(np.array([7, 3, 5]))
    replay.add(places, marked([7, 3, 5], 6, 0), context=True)
    replay.add(places[1:], marked([3, 5], 4, 6), context=True)
    replay.add(places[1:2], marked([3], 3, 10), context=False)  # numbers 10 to 12 replace 0 to 2
    sampler, uniform = replay.sampler(), torch.rand(3, 400, generator=torch.Generator().manual_seed(0))
    uniform[:, 0] = 1 - 2**-24  # the largest possible value
    index = torch.from_numpy(places)
    whole, context = sampler.transitions(index, uniform), sampler.context(index, uniform)
    for drawn in (whole, context):
        assert torch.equal(drawn["task"].squeeze(2), torch.tensor([[7], [3], [5]]).expand(3, 400))
    assert [sorted(set(row.flatten().tolist())) for row in whole["number"]] == [
        [*range(6)],
        [*range(3, 13)],
        [*range(10)],
    ]
    assert [sorted(set(row.flatten().tolist())) for row in context["number"]] == [
        [*range(6)],
        [*range(6, 10)],
        [*range(6, 10)],
    ]


def test_posterior_episodes_are_context_only_if_requested():
    for asked, steps in ((False, 2 * 20), (True, 5 * 20)):
        agent = started(ROBOT, posterior_in_context=asked)  # 2 episodes with the prior, 3 with the posterior
        agent.improve(0)
        collected = agent.replay.added > 2 * 20  # the other tasks made only the initial episodes
        assert set(agent.replay.context_count[collected]) == {steps}
        assert set(agent.replay.context_first[collected]) == {2 * 20}
        assert set(agent.replay.context_count[~collected]) == {2 * 20}


def test_new_tasks_replace_the_earliest_tasks_and_start_empty():
    replay = TaskReplay(3, 10, CPU)
    replay.add(replay.admit(np.array([7, 3])), marked([7, 3], 2, 0), context=True)
    replay.add(replay.admit(np.array([5, 7])), marked([5, 7], 2, 5), context=True)
    assert sorted(replay.task) == [3, 5, 7]
    place = replay.admit(np.array([7, 9]))  # 7 arrived first but is requested now
    assert sorted(replay.task) == [5, 7, 9]
    assert replay.task[place].tolist() == [7, 9] and replay.added[place].tolist() == [4, 0]


@pytest.mark.parametrize("residents", [6, 3])
def test_transitions_belong_to_the_task_that_they_are_stored_for_and_never_to_a_held_out_one(residents):
    family = DarkRoom(size=4, episode_length=8)
    train, test = family.split(6, 9, seed=0)
    agent = PEARL(**TINY, resident_tasks=residents)
    agent.start(training(family, train))
    for iteration in range(4):
        agent.improve(iteration)
    replay = agent.replay
    assert replay.residents == residents
    for place, task in enumerate(replay.task):
        count = min(replay.added[place], replay.capacity)
        arrived = replay.fields["next_observation."][place, :count].numpy()
        paid = replay.fields["reward"][place, :count, 0].numpy() > 0
        assert np.array_equal(paid, (arrived == train["goal"][task]).all(axis=1))
        assert not any((arrived[paid] == goal).all(axis=1).any() for goal in test["goal"])


def test_time_limits_are_bootstrapped_but_terminations_are_not():
    agent = started(ROOM)  # only the time limit ends episodes
    agent.improve(0)
    assert not agent.replay.fields["terminated"].any()
    agent = started(ONCE)
    agent.improve(0)
    reward, terminated = (agent.replay.fields[name].squeeze(2) for name in ("reward", "terminated"))
    assert terminated.any() and torch.equal(terminated, reward > 0)
    # The observation after the action is stored, not the first observation of the next episode.
    goals = agent.training.tasks["goal"][agent.replay.task]
    for place, goal in enumerate(goals):
        arrived = agent.replay.fields["next_observation."][place][terminated[place]]
        assert (arrived.numpy() == goal).all()


def test_memory_does_not_grow_with_the_number_of_tasks():
    def held(number):
        agent = PEARL(**{**TINY, "resident_tasks": 100, "buffer_size": 100})
        agent.start(training(ROBOT, ROBOT.split(number, 1, seed=0)[0]))
        for iteration in range(2):
            agent.improve(iteration)
        assert agent.replay.residents == 100
        sizes = {name: values.nbytes for name, values in agent.replay.fields.items()}
        return sizes, {name: values.nbytes for name, values in agent.training_state().items()}

    assert held(100) == held(10_000)


# Collecting


def test_held_actions_are_held_and_differ_between_slots():
    agent = started(ROBOT)
    actor = RandomActor(agent.encoder, agent.actions, hold=4)
    tasks = agent.training.tasks.take(np.zeros(3, dtype=int))
    interact(actor, ROBOT.make_vec(tasks), 8, make_seeds(3, 0))
    actions = actor.fields()["action"].numpy()
    assert actions.shape == (3, 8, 2)
    assert (actions[:, :4] == actions[:, :1]).all() and (actions[:, 4:] == actions[:, 4:5]).all()
    assert (actions[:, 3] != actions[:, 4]).all() and (actions[0] != actions[1]).all()


def changes(latents):
    """(slots, steps - 1) flags: True where z differs from the step before."""
    return (np.diff(np.stack(latents, axis=1), axis=1) != 0).all(axis=2)


class Watched:
    """Records z at every step of an actor."""

    def __init__(self, actor):
        self.actor, self.latents = actor, []
        chosen = actor.act

        def act(observation):
            self.latents.append(actor.latents.numpy().copy())
            return chosen(observation)

        actor.act = act


@pytest.mark.parametrize("collecting", [True, False])
def test_latent_is_drawn_only_at_the_start_of_an_episode(collecting):
    agent = started(ONCE, exploration_episodes=1)
    agent.improve(0)
    slots, steps = 5, 30
    actor = agent
    if collecting:
        mean, variance = prior_belief(slots, LATENT, CPU)
        actor = LatentActor(agent.encoder, agent.actions, agent.nets.policy, mean, variance)
    watched = Watched(actor)
    tasks = agent.training.tasks.take(np.arange(slots))
    history = interact(actor, ONCE.make_vec(tasks), steps, make_seeds(slots, 1))
    assert len(set(history.ended.sum(axis=1))) > 1  # the slots' episodes end at different times
    assert np.array_equal(changes(watched.latents), history.ended[:, :-1])


# A lifetime


def test_latent_comes_from_the_prior_first_and_then_from_the_posterior_of_all_steps():
    agent = started(ROBOT, exploration_episodes=2, context_capacity=50)
    agent.improve(0)
    slots, drawn = 2, []
    spec = agent.training.spec
    agent.reset(spec, slots, make_seeds(slots, 4))
    random, seen = np.random.default_rng(0), []
    noise = SlotStreams(derive(make_seeds(slots, 4), 0))
    for step in range(80):
        if step % 20 == 0:
            drawn.append((agent.latents.clone(), torch.from_numpy(noise.normal(LATENT).astype(np.float32))))
        observation = random.normal(size=(slots, 2)).astype(np.float32)
        arrived = random.normal(size=(slots, 2)).astype(np.float32)
        reward = random.normal(size=slots)
        action = agent.act(observation)
        seen.append(np.concatenate([observation, action, reward[:, None]], axis=1))
        ended = np.full(slots, step % 20 == 19)
        agent.observe(Transition(observation, action, reward, np.zeros(slots, bool), ended, arrived))
    context = torch.from_numpy(np.stack(seen, axis=1).astype(np.float32))
    for episode, (latents, normal) in enumerate(drawn):
        if episode < 2:
            assert torch.equal(latents, normal)
            continue
        last = context[:, max(0, 20 * episode - 50) : 20 * episode]
        with torch.no_grad():
            mean, variance = agent.nets.encoder.posterior(last)
        assert torch.allclose(latents, mean + variance.sqrt() * normal, atol=1e-5)


def test_next_observation_is_in_the_context_if_requested():
    without, with_it = started(ROBOT), started(ROBOT, next_observation_in_context=True)
    assert with_it.nets.encoder.layers.sizes[0] == without.nets.encoder.layers.sizes[0] + 2
    fields = {
        "observation.": torch.tensor([[1.0, 2.0]]),
        "action": torch.tensor([[3.0, 4.0]]),
        "reward": torch.tensor([[5.0]]),
        "next_observation.": torch.tensor([[6.0, 7.0]]),
    }
    assert without.described(fields).tolist() == [[1, 2, 3, 4, 5]]
    assert with_it.described(fields).tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert started(ROBOT, context_reward_scale=3.0).described(fields).tolist() == [[1, 2, 3, 4, 15]]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("family", [ROBOT, ONCE])
def test_a_lifetime_does_not_depend_on_other_slots_in_any_bit(family, deterministic):
    agent = started(family, deterministic=deterministic, hidden_sizes=(40, 40), latent_size=5, encoder_sizes=(40,))
    agent.improve(0)
    rows = np.arange(37) % 6
    tasks, seeds = agent.training.tasks.take(rows), make_seeds(37, 9)
    together = interact(agent, family.make_vec(tasks), 70, seeds)
    for some in ([36], [4, 1], [5, 30, 7, *range(20)]):
        apart = interact(agent, family.make_vec(tasks.take(some)), 70, seeds[some])
        for name, values in apart.columns().items():
            np.testing.assert_array_equal(together.columns()[name][some], values, err_msg=f"{name} of {some}")


# Resuming, refusing, learning


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        (ROBOT, {"entropy_coefficient": "auto", "next_observation_in_context": True}),
        (ONCE, {"resident_tasks": 3, "buffer_size": 25}),  # full rings and replaced tasks
    ],
)
def test_resumed_meta_training_equals_uninterrupted_meta_training(family, parameters):
    parameters = {"initial_episodes": 1, "posterior_episodes": 2, "prior_episodes": 2, **parameters}
    whole, first, second = (started(family, **parameters) for _ in range(3))
    expected = [whole.improve(iteration) for iteration in range(4)]
    figures = [first.improve(iteration) for iteration in range(2)]
    weights = {name: values.clone() for name, values in first.nets.state_dict().items()}
    state = {name: values.clone() for name, values in first.training_state().items()}
    assert not any(values.requires_grad for values in state.values())
    second.nets.load_state_dict(weights)
    second.load_training_state(state)
    figures += [second.improve(iteration) for iteration in range(2, 4)]
    assert figures == expected
    for there, here in (
        (whole.nets.state_dict(), second.nets.state_dict()),
        (whole.training_state(), second.training_state()),
    ):
        assert there.keys() == here.keys()
        assert all(torch.equal(there[name], here[name]) for name in there)


def test_unsupported_spaces_and_parameters_are_refused():
    number = gymnasium.spaces.Box(-1, 1, (2,))
    for actions in (gymnasium.spaces.MultiDiscrete([3, 3]), gymnasium.spaces.Box(-np.inf, np.inf, (1,))):
        with pytest.raises(UserError, match="pearl needs Discrete actions, or Box"):
            PEARL().check(Spec(number, actions, 10))
    with pytest.raises(UserError, match="raise buffer_size to at least 100"):
        started(ROBOT, buffer_size=99)
    with pytest.raises(UserError, match="has not been meta-trained"):
        PEARL().reset(Spec(number, number, 10), 1, make_seeds(1, 0))
    with pytest.raises(ValueError, match="target_entropy"):
        PEARL(target_entropy=1.0)


def test_pearl_learns_to_return_to_a_rewarded_cell():
    family = DarkRoom(size=3, episode_length=5)
    agent = PEARL(
        latent_size=3,
        hidden_sizes=(32, 32),
        encoder_sizes=(32,),
        next_observation_in_context=True,
        kl_weight=0.01,
        context_reward_scale=3.0,
        initial_episodes=10,
        prior_episodes=4,
        posterior_episodes=4,
        tasks_per_iteration=9,
        updates=40,
        meta_batch=9,
        batch_size=32,
        context_size=20,
        learning_rate=3e-3,
        discount=0.8,
        tau=0.02,
        entropy_coefficient=0.3,
        exploration_episodes=4,
    )
    every = family.all_tasks()
    agent.start(training(family, every))
    for iteration in range(40):
        agent.improve(iteration)
    history = interact(agent, family.make_vec(every.take(np.repeat(np.arange(9), 4))), 60, make_seeds(36, 1))
    returns = episode_returns(history.reward, history.ended, 12)
    found = (returns[:, :4] > 0).any(axis=1)
    assert found.sum() >= 6
    # A lifetime that found the goal returns to it. The best possible return is 4.6; random actions earn 0.6.
    assert returns[found, 4:].mean() > 2.5 and returns[found, 4:].mean() > 2 * returns[:, :4].mean()
