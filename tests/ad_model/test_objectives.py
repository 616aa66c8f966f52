"""Objectives: their columns, heads, losses and actions, and an objective of the user's own."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT
from safetensors.torch import load_file

from ad_model.build import check_objective
from ad_model.in_context import TransformerAgent
from ad_model.load import load_model
from ad_model.objectives.base import Objective
from ad_model.objectives.imitation import Imitation
from ad_model.train import train
from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from eval.evaluate import evaluate
from icrl.config.components import OBJECTIVES, component, find_component
from icrl.run.checkpoints import last_checkpoint
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError, UserError


@component
class WithValue(Objective):
    """Imitation plus a value head, which predicts the reward. Actions follow the largest logit."""

    scale: float = 0.5
    columns = ("action", "reward", "terminated")

    def heads(self):
        return {"value": 1}

    def loss(self, model, tokens, columns):
        output = model(**tokens, action=columns["action"])
        assert columns["terminated"].dtype == torch.bool
        return output.loss + self.scale * (output.heads["value"][..., 0] - columns["reward"]).square().mean()

    def act(self, model, logits, heads, uniform, temperature):
        assert heads["value"].shape == (len(logits), 1)
        return model.sample(logits, uniform, 0.0)


@component
class Unknown(Objective):
    columns = ("nothing",)

    def loss(self, model, tokens, columns):
        return 0


def trained(tiny, **changes):
    config = tiny(**changes)
    generate(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config)
    return config


def model_of(config):
    return last_checkpoint(run_folder(config).checkpoints) / "model"


def test_an_objective_is_found_by_the_name_of_its_file():
    files = {path.stem for path in (ROOT / "ad_model/objectives").glob("*.py")} - {"__init__", "base"}
    assert set(OBJECTIVES) == files >= {"imitation", "optimal_action"}
    for name in OBJECTIVES:
        assert issubclass(find_component(name, OBJECTIVES), Objective)


def test_a_users_own_objective_adds_columns_a_head_and_a_way_to_act(tiny):
    config = trained(tiny, training={"objective": {"name": f"{__name__}:WithValue", "scale": 2.0}})
    weights = load_file(model_of(config) / "model.safetensors")
    assert weights["heads.value.weight"].shape == (1, 16)
    fresh = load_file(model_of(trained(tiny, name="plain")) / "model.safetensors")
    assert set(weights) - set(fresh) == {"heads.value.weight", "heads.value.bias"}
    assert evaluate(config)
    # The agent acts as the objective says: greedily, whereas imitation samples.
    experiment, model = Experiment(config), load_model(model_of(config))
    seeds = [make_seeds(3, seed) for seed in (0, 1)]
    envs = [experiment.family.make_vec(experiment.test_tasks) for _ in seeds]
    agent = TransformerAgent(model, objective=config.training.objective.build())
    first, second = (interact(agent, env, 6, seed).action for env, seed in zip(envs, seeds, strict=True))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(UserError, match="give the objective that the model was trained with"):
        TransformerAgent(model)  # it would sample from the policy head


def test_every_weight_of_an_objectives_head_is_trained_and_its_parameters_are_in_the_fingerprint(tiny):
    objective = {"name": f"{__name__}:WithValue"}
    one = trained(tiny, name="one", training={"objective": objective, "steps": 2})
    more = trained(tiny, name="more", training={"objective": objective, "steps": 4})
    first, last = (load_file(model_of(config) / "model.safetensors") for config in (one, more))
    assert all(
        not torch.equal(first[f"heads.value.{part}"], last[f"heads.value.{part}"]) for part in ("weight", "bias")
    )
    with pytest.raises(UserError, match="belongs to another config"):
        train(tiny(name="one", training={"objective": {**objective, "scale": 1.0}, "steps": 2}))


def test_a_model_without_the_head_that_acting_needs_is_refused(tiny):
    plain = trained(tiny, name="plain")
    other = tiny(
        name="other",
        training={"objective": {"name": f"{__name__}:WithValue"}},
        evaluation={"checkpoint": str(model_of(plain))},
    )
    generate(other)
    with pytest.raises(UserError, match=r"acts with .'value': 1.: give the objective that the model was trained with"):
        evaluate(other)


def test_a_column_that_the_data_lacks_is_reported_in_one_line(tiny):
    config = tiny(training={"objective": {"name": f"{__name__}:Unknown"}})
    generate(config)
    with pytest.raises(
        ConfigError, match=r"training\.objective: Unknown needs 'nothing', which a window does not have"
    ):
        train(config)


def test_labels_need_data_that_records_them(tiny):
    with pytest.raises(ConfigError, match=r"training\.objective: needs data\.optimal_actions: true"):
        tiny(training={"objective": "optimal_action"})


def test_the_mean_of_the_loss_per_step_is_the_mean_loss(tiny):
    model = load_model(model_of(trained(tiny)))
    generator = torch.Generator().manual_seed(0)
    action = torch.randint(5, (3, 9), generator=generator)
    tokens = {
        "observation": torch.randint(4, (3, 9, 2), generator=generator),
        "previous_action": torch.randint(5, (3, 9), generator=generator),
        "previous_reward": torch.rand(3, 9, generator=generator),
        "boundary": torch.zeros(3, 9, dtype=torch.long),
    }
    with torch.no_grad():
        mean = Imitation().loss(model, tokens, {"action": action})
        steps = model(**tokens, action=action, reduction="none").loss
        expected = -model(**tokens).logits[:, :, 0].log_softmax(-1).gather(-1, action[..., None])[..., 0]
    torch.testing.assert_close(steps, expected)
    torch.testing.assert_close(steps.mean(), mean)


@component
class Odd(Objective):
    """An objective with one thing wrong."""

    wrong: str = "vector"

    def heads(self):
        return {"keys": {"keys": 1}, "size": {"q": 0}, "text": {"q": "2"}}.get(self.wrong, {})

    def loss(self, model, tokens, columns):
        loss = model(**tokens, action=columns["action"], reduction="none").loss
        values = {
            "vector": loss,
            "none": None,
            "float": 1.0,
            "detached": loss.mean().detach(),
            "nan": loss.mean() * np.nan,
        }
        return values.get(self.wrong, loss.mean())

    def act(self, model, logits, heads, uniform, temperature):
        return logits


@pytest.mark.parametrize("wrong", ["vector", "none", "float", "detached", "nan", "keys", "size", "text"])
def test_an_objective_that_cannot_work_is_refused_before_training(tiny, wrong):
    config = tiny(training={"objective": {"name": f"{__name__}:Odd", "wrong": wrong}})
    with pytest.raises(ConfigError, match=r"^training\.objective: Odd does not work on one window: "):
        check_objective(config, config.tasks.build())


def test_actions_of_a_wrong_shape_are_refused(tiny):
    objective = {"name": f"{__name__}:Odd", "wrong": "act"}
    config = trained(tiny, training={"objective": objective}, validation={"every": 0})
    with pytest.raises(UserError, match=r"Odd\.act returned \(6, 1, 5\), but the actions of 6 environments"):
        evaluate(config)
