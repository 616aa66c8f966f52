"""The transformer as an agent: its tokens, its cache beyond the end of the context, and its sampling."""

import numpy as np
import pytest
import torch

from ad_model.build import build_model
from ad_model.in_context import TransformerAgent
from ad_model.token_cache import strand_order
from ad_model.tokens import EPISODE_ENDED, LIFETIME_STARTS, WITHIN_EPISODE
from data_gen.interaction import interact
from data_gen.spaces import to_json
from data_gen.streams import make_seeds
from data_gen.tasks.grids.dark_room import DarkRoom
from icrl.support.errors import UserError

ROOM = DarkRoom(size=4, episode_length=6, reward="once")
CONTEXT = 18


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tiny):
    spaces = to_json(ROOM.observation_space), to_json(ROOM.action_space)
    model = build_model(tiny(model={"backbone": request.param}), *spaces, ROOM.episode_length)
    with torch.no_grad():  # far from the initial near-uniform policy, so that a wrong context shows
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    assert model.config.context_length == CONTEXT
    return model


class Recording(TransformerAgent):
    """Keeps the logits and the context of every prediction."""

    def reset(self, spec, num_envs, seeds):
        super().reset(spec, num_envs, seeds)
        self.kept, self.contexts = [], []

    def predict(self, observation):
        output = super().predict(observation)
        self.kept.append(output.logits[:, -1].clone())
        self.contexts.append({name: tokens[:, : self.length].clone() for name, tokens in self.tokens.items()})
        return output


def run_agent(agent, steps=80):
    tasks = ROOM.all_tasks()
    return interact(agent, ROOM.make_vec(tasks), steps, make_seeds(len(tasks), 0))


def test_cached_logits_equal_recomputed_ones_far_beyond_the_end_of_the_context(model):
    cached, recomputing = Recording(model), Recording(model, cached=False)
    first, second = run_agent(cached), run_agent(recomputing)
    np.testing.assert_array_equal(first.action, second.action)
    assert len(cached.kept) == 80
    for a, b in zip(cached.kept, recomputing.kept, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_the_length_of_the_context_follows_the_documented_rule(model):
    agent = Recording(model)
    run_agent(agent, 60)
    lengths = [len(context["boundary"][0]) for context in agent.contexts]
    expected = list(range(1, CONTEXT + 1)) + [CONTEXT // 2 + 1 + step % (CONTEXT // 2) for step in range(60 - CONTEXT)]
    assert lengths == expected


def test_the_context_equals_the_training_tokens_of_the_same_steps(model):
    """Training and evaluation make the same tokens from a lifetime, so they cannot drift apart."""
    agent = Recording(model)
    h = run_agent(agent, 60)
    columns, lengths = strand_order(h.columns(), 1, to_json(ROOM.action_space))
    assert (lengths == 60).all()
    for step in range(60):
        context = agent.contexts[step]
        for name, tokens in context.items():
            trained = columns[name].reshape(16, 60, *columns[name].shape[1:])[:, step + 1 - tokens.shape[1] : step + 1]
            np.testing.assert_array_equal(tokens.numpy(), trained, err_msg=f"{name} at step {step}")
    flags = set(np.concatenate([context["boundary"].numpy().ravel() for context in agent.contexts]))
    assert flags == {LIFETIME_STARTS, EPISODE_ENDED, WITHIN_EPISODE}


def test_a_new_lifetime_starts_without_memory(model):
    agent = TransformerAgent(model)
    np.testing.assert_array_equal(run_agent(agent).action, run_agent(agent).action)


def test_a_slot_acts_the_same_alone_and_among_many(model):
    tasks, seeds = ROOM.all_tasks(), make_seeds(16, 0)
    together = interact(TransformerAgent(model), ROOM.make_vec(tasks), 50, seeds)
    alone = interact(TransformerAgent(model), ROOM.make_vec(tasks.take([5])), 50, seeds[5:6])
    np.testing.assert_array_equal(together.action[5], alone.action[0])


def test_actions_are_sampled_from_the_distribution_at_its_temperature(model):
    envs = ROOM.make_vec(ROOM.all_tasks().take(np.zeros(4000, dtype=int)))
    for temperature in (1.0, 0.5):
        agent = Recording(model, temperature)
        h = interact(agent, envs, 1, make_seeds(4000, 1))
        expected = torch.softmax(agent.kept[0][0, 0].double() / temperature, dim=0).numpy()
        found = np.bincount(h.action[:, 0], minlength=5) / 4000
        assert abs(found - expected).max() < 0.03
    greedy = Recording(model, 0.0)
    h = interact(greedy, envs, 1, make_seeds(4000, 1))
    assert (h.action[:, 0] == int(greedy.kept[0][0, 0].argmax())).all()


def test_a_model_for_other_spaces_is_refused(model):
    other = DarkRoom(size=5)
    with pytest.raises(UserError, match=r"the checkpoint's observation space is .* but the tasks' is"):
        interact(TransformerAgent(model), other.make_vec(other.all_tasks()), 3, make_seeds(25, 0))
