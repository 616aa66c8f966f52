"""RL2: cores against PyTorch's, policy inputs, memory per trial, advantages by hand, resuming, learning."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
import torch
from gymnasium import spaces

from data_gen.interaction import interact, spec_of
from data_gen.meta.base import TrainingTasks
from data_gen.meta.rl2 import unrolled
from data_gen.meta.rl2.recurrent import GRU, LSTM
from data_gen.meta.rl2.rl2 import RL2
from data_gen.meta.rl2.trials import Batch
from data_gen.streams import make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.points.point_navigation import PointNavigation
from data_gen.tasks.tabular.bandit import Bandit
from data_gen.tasks.tabular.tabular_mdp import TabularMDP
from data_gen.tasks.vector import TaskVectorEnv
from icrl.support.errors import UserError

SMALL = {"trials": 8, "minibatches": 2, "units": 8, "iterations": 4, "trial_episodes": 2}


class Countdown(TaskDistribution):
    """Episodes have the task's own length. The reward is (10 x length + number of the step in the lifetime) / 32."""

    episode_length = 5

    def __init__(self, action_space=None):
        self._action_space = spaces.Discrete(3) if action_space is None else action_space

    @property
    def observation_space(self):
        return spaces.Discrete(6)

    @property
    def action_space(self):
        return self._action_space

    def make_vec(self, tasks):
        return CountdownEnvs(self, tasks)


class CountdownEnvs(TaskVectorEnv):
    def __init__(self, countdown, tasks):
        super().__init__(len(tasks), countdown.observation_space, countdown.action_space, 5)
        self.lengths, self.total_steps, self.clock = tasks["length"], 0, np.zeros(len(tasks), dtype=np.int64)

    def _restart(self, slots):
        self.clock[slots] = 0

    def _advance(self, actions):
        self.total_steps += 1
        self.clock += 1
        rewards = (10 * self.lengths + self.total_steps) / 32
        return rewards.astype(np.float32), self.clock >= self.lengths

    def _observe(self):
        return self.clock.copy()


def countdown(lengths, action_space=None, **parameters):
    """A learner, ready for meta-training on tasks with episodes of these lengths."""
    distribution, tasks = Countdown(action_space), Tasks({"length": np.array(lengths)})
    return started(distribution, tasks, **{**SMALL, **parameters})


def started(distribution, tasks, seed=0, **parameters):
    agent = RL2(**parameters)
    agent.start(TrainingTasks(distribution, tasks, spec_of(distribution.make_vec(tasks.take([0])), 1), seed))
    return agent


def loud(agent):
    """Enlarges the weights, so that the memory affects the actions."""
    with torch.no_grad():
        for parameter in agent.networks.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return agent


def by_layer(core, inputs, keep):
    """(T, B, H) outputs of a core, computed step by step by PyTorch's layer and autograd."""
    state = (torch.zeros(1, inputs.shape[1], core.units),) * core.states
    outputs = []
    for step, begun in zip(inputs, keep, strict=True):
        state = tuple(part * begun.unsqueeze(1) for part in state)
        output, after = core.layer(step.unsqueeze(0), state if core.states > 1 else state[0])
        state = after if core.states > 1 else (after,)
        outputs.append(output[0])
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", [GRU, LSTM])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_core_and_its_gradient_equal_pytorchs_layer(kind, restarts, monkeypatch):
    monkeypatch.setattr(unrolled, "_AT_ONCE", 3 * 4 * 6)  # three of seven steps at once
    torch.manual_seed(0)
    core = kind(5, 6, longest=20)
    inputs = torch.randn(7, 4, 5, requires_grad=True)
    keep = (torch.rand(7, 4) > 0.4).float() if restarts else torch.ones(7, 4)
    ours, theirs = core(inputs, keep if restarts else None), by_layer(core, inputs, keep)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    wanted = [inputs, *core.parameters()]
    for found, expected in zip(
        torch.autograd.grad((ours * weights).sum(), wanted),
        torch.autograd.grad((theirs * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_a_core_initially_remembers_for_up_to_the_length_of_a_trial(kind):
    core = kind(2, 1000, longest=50)
    gate = core.weights[2][1000:2000]
    assert 0 <= gate.min() < 0.5 and np.log(40) < gate.max() <= np.log(50)
    steps = gate.exp()
    assert steps.mean().item() == pytest.approx(25.5, abs=2)


def test_a_trial_starts_without_a_last_step_and_its_later_episodes_with_the_real_one():
    """Episodes of 2 and 3 steps, two per trial: six steps are 1.5 trials in one slot and 1 trial in the other."""
    agent = countdown([2, 3], trials=2, minibatches=1)
    agent.trial_steps = 6
    batch = agent.collect(np.array([0, 1]), iteration=0)
    inputs, actions = batch.inputs.numpy(), batch.actions[..., 0].numpy()
    observation, action, reward, done = np.split(inputs, [6, 9, 10], axis=2)
    np.testing.assert_array_equal(observation.argmax(axis=2), np.array([[0, 1, 0, 1, 0, 1], [0, 1, 2, 0, 1, 2]]).T)
    begins = np.array([[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0]], dtype=bool).T
    np.testing.assert_array_equal(action[begins], np.zeros((3, 3)))
    np.testing.assert_array_equal(action[~begins].argmax(axis=1), np.roll(actions, 1, axis=0)[~begins])
    np.testing.assert_array_equal(action[~begins].sum(axis=1), np.ones(9))
    np.testing.assert_array_equal(32 * reward[..., 0], [[0, 0], [21, 31], [22, 32], [23, 33], [0, 34], [25, 35]])
    np.testing.assert_array_equal(done[..., 0], np.array([[1, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 0]]).T)
    np.testing.assert_array_equal(batch.over.numpy(), np.array([[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]).T)
    np.testing.assert_array_equal(batch.counted().numpy(), np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).T)


def test_joint_inputs_are_the_previous_pair_and_its_product_with_the_reward():
    agent = countdown([2, 3], trials=2, minibatches=1, joint_inputs=True)
    batch = agent.collect(np.array([0, 1]), iteration=0)
    pair, rewarded = np.split(batch.inputs.numpy()[..., 11:], 2, axis=2)
    assert not pair[0].any() and not rewarded[0].any()
    seen = np.array([0, 0])
    np.testing.assert_array_equal(pair[1].argmax(axis=1), seen * 3 + batch.actions[0, :, 0].numpy())
    np.testing.assert_array_equal(32 * rewarded[1], pair[1] * [[21], [31]])


def test_the_clock_is_the_fraction_of_finished_episodes_of_the_trial():
    agent = countdown([2, 3], trials=2, minibatches=1, trial_clock=True)
    agent.trial_steps = 6
    batch = agent.collect(np.array([0, 1]), iteration=0)
    clock = np.array([[0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0.5, 0.5, 0.5]]).T
    np.testing.assert_array_equal(batch.inputs[..., 11].numpy(), clock)
    envs = Countdown().make_vec(Tasks({"length": np.array([2, 3])}))
    interact(agent, envs, 7, make_seeds(2, 3))  # a lifetime longer than its trial: three and two episodes
    assert agent.life.inputs[:, 11].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("value", ["shared", "separate"])
@pytest.mark.parametrize("lengths", [[5, 5], [2, 3]])
def test_recomputed_log_probabilities_and_values_equal_the_collected_ones(cell, value, lengths):
    """The trials of the slots end at the same step for one `lengths`, and at different steps for the other."""
    agent = loud(countdown(lengths, cell=cell, value=value, trials=2, minibatches=1, head_units=4, joint_inputs=True))
    batch = agent.collect(np.array([0, 1]), iteration=0)
    targets = agent.targets(batch, np.array([0, 1]), iteration=0)
    assert ("keep" in targets) == (lengths == [2, 3])
    _, (policy_loss, *_) = agent._loss(batch, targets, 0.0)
    networks, memory = agent.networks, agent.networks.policy.core(batch.inputs, targets.get("keep"))
    outputs = networks.policy.read(memory, batch.inputs)[0]
    assert outputs.std() > 0.1  # the outputs depend on the memory
    log_prob, _ = agent.distribution.log_prob_and_entropy(outputs, [], batch.actions)
    torch.testing.assert_close(log_prob, targets["log_prob"], rtol=1e-4, atol=1e-5)
    assert policy_loss.item() == pytest.approx(0, abs=1e-5)  # normalised advantages, at a ratio of 1
    values = agent._values(networks.policy.read(memory, batch.inputs), batch.inputs, targets.get("keep"))
    if value == "shared":
        torch.testing.assert_close(values, batch.outputs[1].squeeze(-1), rtol=1e-4, atol=1e-5)
    elif lengths == [2, 3]:  # the second trial of the first slot starts without memory
        own = networks.value.read(networks.value.core(batch.inputs[4:8, :1]), batch.inputs[4:8, :1])[0]
        torch.testing.assert_close(values[4:8, :1], own.squeeze(-1))


def test_a_memory_lasts_over_episodes_and_ends_with_the_trial():
    """A slot's second trial starts without memory; the second episode of a trial does not."""
    agent = loud(countdown([2, 3], trials=2, minibatches=1))
    batch = agent.collect(np.array([0, 1]), iteration=0)
    core, keep = agent.networks.policy.core, batch.keep()
    through = core(batch.inputs, keep)
    torch.testing.assert_close(through[4:8, :1], core(batch.inputs[4:8, :1]))  # the second trial of the first slot
    assert (through[2:4, :1] - core(batch.inputs[2:4, :1])).abs().max() > 0.01  # the second episode of the first trial


def test_a_lifetime_of_any_length_is_one_trial():
    agent = loud(countdown([2, 3], trials=2, minibatches=1))
    envs = Countdown().make_vec(Tasks({"length": np.array([2, 3])}))
    interact(agent, envs, 20, make_seeds(2, 3))
    assert agent.life.inputs[:, 10].tolist() == [1.0, 0.0]  # step 20 ended an episode of 2
    long = agent.life.memory.clone()
    envs = Countdown().make_vec(Tasks({"length": np.array([2, 3])}))
    interact(agent, envs, 8, make_seeds(2, 3))
    assert (agent.life.memory - long).abs().max() > 1e-3


def test_other_slots_do_not_change_a_slots_actions():
    agent = loud(countdown([2, 3, 4, 5]))
    tasks, seeds = Tasks({"length": np.array([2, 3, 4, 5])}), make_seeds(4, 3)
    together = interact(agent, Countdown().make_vec(tasks), 20, seeds).action
    for slot in range(4):
        alone = interact(agent, Countdown().make_vec(tasks.take([slot])), 20, seeds[[slot]]).action
        np.testing.assert_array_equal(alone[0], together[slot])


def test_a_greedy_agent_takes_the_most_likely_action():
    agent = loud(countdown([2, 3], trials=2, minibatches=1))
    agent.greedy = True
    agent.begin(None, 2, make_seeds(2, 0))
    actions = agent.act(np.array([0, 3]))
    np.testing.assert_array_equal(actions, agent.life.outputs[0].argmax(dim=1).numpy())


def test_advantages_flow_across_episodes_and_stop_at_the_end_of_a_trial():
    """The first slot's trial ends at step 2 of 4, and its next trial is cut off. The other slot's trial has 4 steps."""
    flag = torch.tensor
    batch = Batch(
        torch.empty(4, 2, 1),
        torch.empty(4, 2, 1),
        [],
        rewards=torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]),
        ended=flag([[True, False], [True, True], [False, False], [False, True]]),
        over=flag([[False, False], [True, False], [False, False], [False, True]]),
    )
    values = torch.tensor([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0], [40.0, 40.0]])
    found = batch.advantages(values, discount=0.5, gae_lambda=0.8)
    last = 2 - 20
    assert found[:, 0].tolist() == pytest.approx([1 + 10 - 10 + 0.4 * last, last, 3 + 20 - 30, 0])
    end = 4 - 40
    third = 3 + 20 - 30 + 0.4 * end
    second = 2 + 15 - 20 + 0.4 * third
    assert found[:, 1].tolist() == pytest.approx([1 + 10 - 10 + 0.4 * second, second, third, end])


def test_the_last_step_of_an_unfinished_trial_has_no_gradient():
    """The value of the last step of an unfinished trial serves only the steps before."""
    agent = countdown([2, 3], trials=2, minibatches=1)
    agent.trial_steps = 6
    batch = agent.collect(np.array([0, 1]), iteration=0)
    targets = agent.targets(batch, np.array([0, 1]), iteration=0)
    assert targets["weight"][-1].tolist() == pytest.approx([0, 1 / 11])
    other = dataclasses.replace(batch, actions=torch.where(targets["weight"].unsqueeze(-1) > 0, batch.actions, 2))
    assert agent._loss(batch, targets, 0.1)[0] == agent._loss(other, targets, 0.1)[0]


SPACES = {
    "discrete": spaces.Discrete(3, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-0.1, 0.1, (2,)),
}


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("name", SPACES)
def test_every_parameter_learns_with_every_kind_of_action(name, cell):
    parameters = {"cell": cell, "value": "separate", "head_units": 4, "task_coefficient": 1.0}
    agent = countdown([2, 3, 5], SPACES[name], **parameters)
    before = {key: value.clone() for key, value in agent.networks.state_dict().items()}
    figures = agent.improve(0)
    assert figures["environment_steps"] == 80 and np.isfinite(list(figures.values())).all()
    unchanged = [key for key, value in agent.networks.state_dict().items() if torch.equal(value, before[key])]
    assert unchanged == []
    history = interact(
        agent, Countdown(SPACES[name]).make_vec(Tasks({"length": np.array([2, 5])})), 7, make_seeds(2, 0)
    )
    assert all(SPACES[name].contains(action.astype(SPACES[name].dtype)) for action in history.action[0])


@pytest.mark.parametrize("family", [DarkRoom(size=3, episode_length=4), PointNavigation(episode_length=4)])
def test_every_kind_of_observation_is_supported(family):
    agent = started(family, family.sample(16, 0), **SMALL)
    assert agent.improve(0)["environment_steps"] == 8 * 8


def test_resumed_meta_training_equals_uninterrupted_meta_training():
    mdp = TabularMDP(states=3, actions=2, episode_length=4)
    tasks = mdp.sample(20, 0)
    parameters = {**SMALL, "task_coefficient": 0.5, "task_arrays": ("reward",), "value": "separate"}
    whole, resumed = (started(mdp, tasks, **parameters) for _ in range(2))
    for iteration in range(4):
        whole.improve(iteration)
    for iteration in range(2):
        resumed.improve(iteration)
    weights = {key: value.clone() for key, value in resumed.networks.state_dict().items()}
    state = {key: value.clone() for key, value in resumed.training_state().items()}
    later = RL2(**parameters)
    later.set_up(resumed.training.spec)
    later.begin_training(resumed.training)
    later.networks.load_state_dict(weights)
    later.load_training_state(state)
    for iteration in range(2, 4):
        later.improve(iteration)
    for found, expected in (
        (later.networks.state_dict(), whole.networks.state_dict()),
        (later.training_state(), whole.training_state()),
    ):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def test_the_task_is_predicted_from_the_steps_so_far():
    """After 10 pulls of 2 arms, the error is a third lower than without information, where its mean is 1."""
    bandit = Bandit(arms=2)
    parameters = {"trial_episodes": 10, "trials": 128, "task_coefficient": 1.0, "learning_rate": 0.02, "iterations": 60}
    agent = started(bandit, bandit.sample(1000, 0), joint_inputs=True, **parameters)
    losses = [agent.improve(iteration)["task_loss"] for iteration in range(60)]
    assert losses[0] > 0.9 and losses[-1] < 0.67


def test_a_bandit_is_learned():
    """Four arms, 20 pulls: random earns 10, and the best arm 16."""
    bandit = Bandit(arms=4)
    parameters = {"trial_episodes": 20, "trials": 256, "learning_rate": 0.01, "iterations": 60, "joint_inputs": True}
    agent = started(bandit, bandit.sample(5000, 0), **parameters)
    for iteration in range(60):
        agent.improve(iteration)
    history = interact(agent, bandit.make_vec(bandit.sample(500, 1)), 20, make_seeds(500, 2))
    assert history.reward.sum(axis=1).mean() > 12
    assert history.reward[:, 10:].mean() > history.reward[:, :3].mean() + 0.1  # within a lifetime


def test_rates_stay_constant_and_then_change_linearly_to_an_end_that_may_be_earlier():
    agent = RL2(iterations=100, hold=0.2, entropy_end=0.6)
    assert [agent._between(1.0, 0.0, iteration, 1.0) for iteration in (0, 20, 60, 100)] == [1, 1, 0.5, 0]
    assert [agent._between(1.0, 0.5, iteration, 0.6) for iteration in (20, 40, 60, 100)] == [1, 0.75, 0.5, 0.5]


def test_each_observation_may_have_its_own_head():
    agent = loud(countdown([2, 3], trials=2, minibatches=1, observation_heads=True))
    batch, network = agent.collect(np.array([0, 1]), iteration=0), agent.networks.policy
    memory = network.core(batch.inputs, batch.keep())
    policy, value = network.read(memory, batch.inputs)
    weight, bias = network.head.weight.view(6, 4, 8), network.head.bias.view(6, 4)
    for step, slot in ((0, 0), (1, 0), (8, 1)):
        seen = batch.inputs[step, slot, :6].argmax()
        expected = weight[seen] @ memory[step, slot] + bias[seen]
        torch.testing.assert_close(torch.cat([policy[step, slot], value[step, slot]]), expected)
    plane = PointNavigation(episode_length=4)
    with pytest.raises(UserError, match="observation_heads needs Discrete observations"):
        RL2(observation_heads=True).check(spec_of(plane.make_vec(plane.sample(1, 0)), 4))


def test_trials_become_longer_over_the_first_half_of_meta_training():
    agent = countdown([5, 5], trial_episodes=5, first_trial_episodes=1, iterations=8)
    steps = [agent.improve(iteration)["environment_steps"] for iteration in range(6)]
    assert steps == [8 * 5 * episodes for episodes in (1, 2, 3, 4, 5, 5)]
    with pytest.raises(ValueError, match="first_trial_episodes 3 is above trial_episodes 2"):
        RL2(first_trial_episodes=3)


def test_joint_inputs_need_finite_spaces():
    plane = PointNavigation(episode_length=4)
    spec = spec_of(plane.make_vec(plane.sample(1, 0)), 4)
    with pytest.raises(UserError, match="joint_inputs needs Discrete actions"):
        RL2(joint_inputs=True).check(spec)
    with pytest.raises(UserError, match="the length of an episode is unknown"):
        RL2().check(dataclasses.replace(spec, episode_length=None))
    with pytest.raises(ValueError, match="minibatches 3 does not divide trials 8"):
        RL2(trials=8, minibatches=3)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_lifetime_has_the_same_bits_alone_and_among_many(cell):
    """Box actions and a usual width, to show if a matrix product depends on the number of slots."""
    plane = PointNavigation(episode_length=10)
    tasks, seeds = plane.sample(24, seed=0), make_seeds(24, 0)
    with closing(plane.make_vec(tasks)) as envs:
        spec = spec_of(envs, 40)
    agent = RL2(cell=cell, units=64, trials=8, minibatches=2)
    agent.start(TrainingTasks(plane, tasks, spec, seed=0))

    def history(rows):
        with closing(plane.make_vec(tasks.take(rows))) as envs:
            return interact(agent, envs, 40, seeds[rows]).action

    together = history(np.arange(24))
    for rows in ([3], [5, 2], [7, 0, 9], np.arange(6), np.arange(13)):
        np.testing.assert_array_equal(history(np.array(rows)), together[rows])


def test_the_policy_loss_is_clipped_only_on_the_side_of_a_gain():
    agent = loud(countdown([2, 3], trials=2, minibatches=1, clip_range=0.2))
    batch = agent.collect(np.array([0, 1]), iteration=0)
    targets = agent.targets(batch, np.array([0, 1]), iteration=0)
    collected = targets["log_prob"]
    for ratio in (0.5, 0.9, 1.1, 2.0):
        for advantage in (-1.5, 1.5):
            given = targets | {
                "log_prob": collected - np.log(ratio),
                "advantages": torch.full_like(targets["advantages"], advantage),
            }
            _, (policy_loss, *_) = agent._loss(batch, given, 0.0)
            by_hand = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
            assert policy_loss.item() == pytest.approx(-by_hand, rel=1e-4)


def test_an_entropy_bonus_lowers_the_loss_by_the_entropy():
    agent = loud(countdown([2, 3], trials=2, minibatches=1))
    batch = agent.collect(np.array([0, 1]), iteration=0)
    targets = agent.targets(batch, np.array([0, 1]), iteration=0)
    without, (_, _, entropy, _) = agent._loss(batch, targets, 0.0)
    assert entropy > 0.01
    assert agent._loss(batch, targets, 0.3)[0].item() == pytest.approx((without - 0.3 * entropy).item(), rel=1e-5)
