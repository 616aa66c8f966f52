"""Ablations of the transformer: what enters the context, exactly, and that nothing else changes."""

import typing

import numpy as np
import pytest
import torch

from ad_model.build import build_model
from ad_model.in_context import TransformerAgent
from ad_model.token_cache import strand_order
from ad_model.tokens import EPISODE_ENDED, LIFETIME_STARTS, WITHIN_EPISODE, model_inputs
from data_gen.interaction import interact, spec_of
from data_gen.spaces import to_json
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks
from data_gen.tasks.control.pendulum import Pendulum
from data_gen.tasks.grids.dark_room import DarkRoom
from data_gen.tasks.grids.pixels import Pixels
from data_gen.tasks.sets import TaskSet
from eval.ablations import ABLATIONS, ContextOfAnotherTask, NoContext, RewardsHidden, ablation_name, other_tasks
from icrl.config.ablations import AblationName
from icrl.support.errors import ConfigError, UserError

ROOM = DarkRoom(size=4, episode_length=6, reward="once")  # episodes end at different steps
CONTEXT, STEPS = 18, 60
ALONE = [name for name in ABLATIONS if name != "context_of_another_task"]


def strong(model):
    with torch.no_grad():  # far from the initial near-uniform policy, so that a wrong context shows
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def model_for(tiny, family, backbone="llama"):
    spaces = to_json(family.observation_space), to_json(family.action_space)
    return strong(build_model(tiny(model={"backbone": backbone}), *spaces, family.episode_length))


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tiny):
    return model_for(tiny, ROOM, request.param)


def recording(kind):
    class Recording(kind):
        """Keeps the logits and the context of every prediction."""

        def reset(self, spec, num_envs, seeds):
            super().reset(spec, num_envs, seeds)
            self.logits, self.contexts = [], []

        def predict(self, observation):
            output = super().predict(observation)
            self.logits.append(output.logits[:, -1].clone())
            self.contexts.append(
                {name: tokens[:, : self.length].numpy().copy() for name, tokens in self.tokens.items()}
            )
            self.contexts[-1]["first"] = getattr(self, "first", torch.zeros(len(output.logits))).numpy().copy()
            return output

    return Recording


def task_set_of(family=ROOM, count=16):
    return TaskSet("test", family, family.sample(count, 0) if family.all_tasks() is None else family.all_tasks())


def run_agent(agent, family=ROOM, steps=STEPS):
    task_set = task_set_of(family)
    seeds = make_seeds(len(task_set), 0)
    if isinstance(agent, ContextOfAnotherTask):
        plain = TransformerAgent(agent.model, agent.temperature, agent.objective)
        agent.give(interact(plain, family.make_vec(task_set.tasks), steps, seeds), task_set)
    return interact(agent, family.make_vec(task_set.tasks), steps, seeds)


def true_tokens(histories):
    columns, _ = strand_order(histories.columns(), 1, to_json(ROOM.action_space))
    return {name: values.reshape(*histories.reward.shape, *values.shape[1:]) for name, values in columns.items()}


def episode_starts(true, slot, step):
    """The step at which the episode of `step` began."""
    return max(np.flatnonzero(true["boundary"][slot, : step + 1] != WITHIN_EPISODE))


def test_every_ablation_of_the_config_has_an_agent():
    assert set(ABLATIONS) == set(typing.get_args(AblationName))
    assert ablation_name("no_context") == "transformer (no context)"


@pytest.mark.parametrize(("name", "part"), [("rewards_hidden", "previous_reward"), ("ends_hidden", "boundary")])
def test_a_hidden_part_is_gone_from_every_token_and_all_else_is_true(model, name, part):
    agent = recording(ABLATIONS[name])(model)
    true = true_tokens(run_agent(agent))
    hidden = dict(true)
    hidden[part] = np.where(true[part] == LIFETIME_STARTS, LIFETIME_STARTS, 0) if part == "boundary" else true[part] * 0
    assert (true[part] != hidden[part]).any()
    for step, context in enumerate(agent.contexts):
        length = context["boundary"].shape[1]
        for column in ("observation", "previous_action", "previous_reward", "boundary"):
            np.testing.assert_array_equal(context[column], hidden[column][:, step + 1 - length : step + 1])


def entered_and_true(agent, part):
    """What entered the contexts of `part`, (slots, steps), and the true tokens, after checks of all other parts."""
    true = true_tokens(run_agent(agent))
    entered = np.stack([context[part][:, -1] for context in agent.contexts], axis=1)
    for step, context in enumerate(agent.contexts):  # what has entered stays
        length = context["boundary"].shape[1]
        np.testing.assert_array_equal(context[part], entered[:, step + 1 - length : step + 1])
        for column in {"observation", "previous_action", "previous_reward", "boundary"} - {part}:
            np.testing.assert_array_equal(context[column], true[column][:, step + 1 - length : step + 1])
    assert (entered[:, 0] == true[part][:, 0]).all()  # the first token of a lifetime has no step before it
    return entered, true[part]


def test_a_shuffled_reward_is_that_of_an_earlier_step_of_the_context(model):
    entered, true = entered_and_true(recording(ABLATIONS["rewards_shuffled"])(model), "previous_reward")
    for step in range(1, STEPS):
        earlier = true[:, max(1, step + 1 - CONTEXT) : step + 1]
        assert (entered[:, step, None] == earlier).any(axis=1).all()
    assert (entered != true).any() and entered.any()


def test_a_shuffled_action_is_uniformly_random(model):
    entered, true = entered_and_true(recording(ABLATIONS["actions_shuffled"])(model), "previous_action")
    counts = np.bincount(entered[:, 1:].ravel(), minlength=5) / entered[:, 1:].size
    assert abs(counts - 1 / 5).max() < 0.06
    assert abs((entered == true)[:, 1:].mean() - 1 / 5) < 0.06


def test_an_emptied_context_is_that_of_a_lifetime_that_starts_with_the_episode(model):
    """Also the logits are those of a model that reads the current episode alone, whatever the other slots do."""
    agent = recording(NoContext)(model)
    true = true_tokens(run_agent(agent))
    lengths = set()
    for step, (context, logits) in enumerate(zip(agent.contexts, agent.logits, strict=True)):
        for slot in range(0, 16, 5):
            start, first = episode_starts(true, slot, step), context["first"][slot]
            own = {name: true[name][slot : slot + 1, start : step + 1].copy() for name in context if name != "first"}
            own["boundary"][:, 0], own["previous_action"][:, 0], own["previous_reward"][:, 0] = LIFETIME_STARTS, 0, 0
            for name, values in own.items():
                np.testing.assert_array_equal(context[name][slot, int(first) :], values[0])
            with torch.inference_mode():
                alone = model(**model_inputs({name: torch.from_numpy(values) for name, values in own.items()}))
            torch.testing.assert_close(logits[slot], alone.logits[0, -1], rtol=0, atol=1e-4)
            lengths.add(step + 1 - start)
    assert lengths == set(range(1, 7))


def test_an_exchanged_context_is_that_of_another_life_up_to_the_current_episode(model):
    agent = recording(ContextOfAnotherTask)(model)
    true = true_tokens(run_agent(agent))
    task_set = task_set_of()
    plain = interact(TransformerAgent(model), ROOM.make_vec(task_set.tasks), STEPS, make_seeds(16, 0))
    others = other_tasks(task_set)
    assert (task_set.tasks["goal"][others] != task_set.tasks["goal"]).any(axis=1).all()
    given = {name: values[others] for name, values in true_tokens(plain).items()}
    for step, context in enumerate(agent.contexts):
        length = context["boundary"].shape[1]
        for slot in range(16):
            start = episode_starts(true, slot, step)
            for name in ("observation", "previous_action", "previous_reward", "boundary"):
                expected = (given if start else true)[name][slot].copy()
                expected[start:] = true[name][slot, start:]
                if start and name in ("previous_action", "previous_reward"):  # results of the episode before
                    expected[start] = given[name][slot, start]
                np.testing.assert_array_equal(context[name][slot], expected[step + 1 - length : step + 1])
    assert (true["boundary"][:, 1:] == EPISODE_ENDED).any()


@pytest.mark.parametrize("name", ABLATIONS)
def test_cached_logits_equal_recomputed_ones(model, name):
    cached, recomputing = recording(ABLATIONS[name])(model), recording(ABLATIONS[name])(model, cached=False)
    first, second = run_agent(cached), run_agent(recomputing)
    np.testing.assert_array_equal(first.action, second.action)
    for a, b in zip(cached.logits, recomputing.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize(
    "family",
    [
        Pixels(of={"name": "dark_room", "size": 4, "episode_length": 6, "reward": "once"}, keep=True),
        Pendulum(episode_length=6),
        DarkRoom(size=4, episode_length=6, diagonal=True),
    ],
    ids=["dict_with_image", "box_actions", "multi_discrete_actions"],
)
def test_every_ablation_works_with_every_kind_of_space(tiny, name, family):
    model = model_for(tiny, family)
    histories = run_agent(ABLATIONS[name](model), family, 40)
    assert not np.array_equal(histories.action, run_agent(TransformerAgent(model), family, 40).action)
    recomputed = run_agent(ABLATIONS[name](model, cached=False), family, 40)
    np.testing.assert_allclose(histories.action, recomputed.action, atol=1e-4)


@pytest.mark.parametrize("name", ALONE)
def test_a_slot_acts_the_same_alone_and_among_many(model, name):
    tasks, seeds = ROOM.all_tasks(), make_seeds(16, 0)
    together = interact(ABLATIONS[name](model), ROOM.make_vec(tasks), 50, seeds)
    alone = interact(ABLATIONS[name](model), ROOM.make_vec(tasks.take([5])), 50, seeds[5:6])
    np.testing.assert_array_equal(together.action[5], alone.action[0])


def test_model_code_of_an_earlier_version_is_refused_where_it_cannot_hide_a_part_of_the_context(model, monkeypatch):
    monkeypatch.setattr(type(model), "forward", lambda self, observation: None)
    envs = ROOM.make_vec(ROOM.all_tasks().take([0]))
    RewardsHidden(model).check(spec_of(envs, 6))
    with pytest.raises(UserError, match="no_context: the code beside the weights is of an earlier version"):
        NoContext(model).check(spec_of(envs, 6))


def test_a_task_never_gets_the_context_of_an_equal_task():
    goals = np.array([(0, 0), (1, 1), (0, 0), (2, 2), (1, 1), (3, 3)])
    others = other_tasks(TaskSet("test", ROOM, Tasks({"goal": goals})))
    assert (goals[others] != goals).any(axis=1).all()
    assert sorted(others) == list(range(6))
    for few in (goals[:1], goals[[0, 2, 1]]):
        with pytest.raises(ConfigError, match="context_of_another_task needs two different tasks"):
            other_tasks(TaskSet("test", ROOM, Tasks({"goal": few})))
