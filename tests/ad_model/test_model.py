"""The model: every backbone, causality, saving and loading with and without this project, refused options."""

import json

import pytest
import torch
from conftest import run_python
from transformers import AutoModel, Cache

from ad_model import ADModel
from ad_model.build import backbone_values, build_model, parameter_groups
from icrl.config.schema import ModelConfig
from icrl.run.fingerprints import training_fingerprint
from icrl.support.errors import ConfigError

INFO = (
    {"type": "MultiDiscrete", "nvec": [4, 6], "start": [0, 0]},
    {"type": "Discrete", "n": 5, "start": 0},
    6,
)
"""Observation space, action space, episode length."""
BACKBONES = ["llama", "gpt2", "gpt_neox", "qwen3"]


def batch(windows=3, steps=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "observation": torch.stack(
            [torch.randint(4, (windows, steps), generator=g), torch.randint(6, (windows, steps), generator=g)], dim=2
        ).to(torch.uint8),
        "previous_action": torch.randint(5, (windows, steps), generator=g).to(torch.uint8),
        "previous_reward": torch.rand(windows, steps, generator=g),
        "boundary": torch.randint(3, (windows, steps), generator=g).to(torch.uint8),
    }


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_predicts_only_from_the_present_and_the_past(tiny, backbone):
    model = build_model(tiny(model={"backbone": backbone}), *INFO).eval()
    inputs = batch()
    logits = model(**inputs).logits
    assert logits.shape == (3, 12, 1, 5)
    for name in inputs:
        changed = {**inputs, name: inputs[name].clone()}
        changed[name][:, 7] = (changed[name][:, 7] + 1) % 3
        moved = (model(**changed).logits - logits).abs().amax(dim=(0, 2, 3))
        assert moved[:7].max() < 1e-6, name  # earlier logits stay
        assert moved[7:].min() > 0, name  # logits from this step on change


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_model_has_the_size_given_in_the_config(tiny, backbone):
    changes = {"backbone": backbone, "num_heads": 4, "num_layers": 3, "intermediate_size": 48}
    config = build_model(tiny(model=changes), *INFO).backbone.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 3, 4)
    assert getattr(config, "n_inner", None) or config.intermediate_size == 48
    heads = getattr(config, "head_dim", None) or 4
    assert heads == 4


def test_the_loss_is_the_mean_over_all_positions(tiny):
    model = build_model(tiny(), *INFO).eval()
    action = torch.randint(5, (3, 12))
    output = model(**batch(), action=action)
    by_hand = -torch.log_softmax(output.logits, dim=-1).gather(3, action[..., None, None]).mean()
    torch.testing.assert_close(output.loss, by_hand)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_saved_model_loads_equal(tiny, backbone, tmp_path):
    model = build_model(tiny(model={"backbone": backbone}), *INFO).eval()
    model.save_pretrained(tmp_path)
    for loaded in (ADModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        torch.testing.assert_close(loaded.eval()(**batch()).logits, model(**batch()).logits, rtol=0, atol=0)


def test_a_checkpoint_loads_without_this_project_installed(tiny, tmp_path):
    """Without site's .pth files, Python cannot find an editable install of this project. The code checks this first."""
    import site

    model = build_model(tiny(), *INFO).eval()
    model.save_pretrained(tmp_path / "model")
    torch.save(batch(), tmp_path / "batch.pt")
    torch.save(model(**batch()).logits, tmp_path / "logits.pt")
    code = f"""
import importlib.util, sys
sys.path.append({site.getsitepackages()[0]!r})
for name in ("ad_model", "icrl", "data_gen"):
    assert importlib.util.find_spec(name) is None, name
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained("model", trust_remote_code=True).eval()
torch.testing.assert_close(model(**torch.load("batch.pt")).logits, torch.load("logits.pt"), rtol=0, atol=1e-6)
print(type(model).__name__)
"""
    done = run_python(["-S", "-I", "-c", code], tmp_path, {"HF_HOME": str(tmp_path / "hf")})
    assert done.stdout.strip() == "ADModel", done.stderr


def test_the_initial_weights_follow_from_the_seed(tiny):
    first, again, other = (build_model(tiny(seed=seed), *INFO).head.linear.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "lama"}, "model.backbone: unknown backbone 'lama'; did you mean 'llama'"),
        ({"backbone_options": {"hidden_actt": "relu"}}, "model.backbone_options.hidden_actt: llama has no such option"),
    ],
)
def test_an_unknown_backbone_or_option_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        backbone_values(ModelConfig(**changes), 10)


def test_backbone_options_reach_the_backbone(tiny):
    model = build_model(tiny(model={"backbone": "gpt_neox", "backbone_options": {"hidden_act": "relu"}}), *INFO)
    assert model.backbone.config.hidden_act == "relu"


def test_an_action_space_without_bounds_is_refused(tiny):
    with pytest.raises(ConfigError, match="without bounds cannot be scaled"):
        action = {"type": "Box", "shape": [2], "dtype": "float32", "low": None, "high": 1.0}
        build_model(tiny(), INFO[0], action, INFO[2])


@pytest.mark.parametrize(("episodes", "steps"), [(3, 18), (0.5, 3), (1.5, 9), (3.0, 18)])
def test_a_context_may_be_a_part_of_an_episode(tiny, episodes, steps):
    assert build_model(tiny(model={"context_episodes": episodes}), *INFO).config.context_length == steps


@pytest.mark.parametrize("episodes", [0.4, 0.01, 1.1])
def test_a_context_of_a_part_of_a_step_is_refused(tiny, episodes):
    with pytest.raises(ConfigError, match=rf"context_episodes: {episodes} of 6 steps are [\d.]+ steps, which is not"):
        build_model(tiny(model={"context_episodes": episodes}), *INFO)


def test_equal_contexts_have_equal_fingerprints(tiny):
    assert training_fingerprint(tiny()) == training_fingerprint(tiny(model={"context_episodes": 3.0}))


def test_norms_and_biases_do_not_decay(tiny):
    decaying, undecayed = parameter_groups(build_model(tiny(), *INFO), 0.1)
    assert all(parameter.ndim >= 2 for parameter in decaying["params"])
    assert all(parameter.ndim < 2 for parameter in undecayed["params"])
    assert (decaying["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)


def test_the_config_is_plain_json(tiny, tmp_path):
    build_model(tiny(), *INFO).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "algorithm_distillation"
    assert config["observation_space"]["nvec"] == [4, 6]
    assert config["backbone"]["model_type"] == "llama"
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel"}
    assert {path.name for path in tmp_path.iterdir()} >= {"modeling_ad.py", "configuration_ad.py", "model.safetensors"}


def test_canary_a_prefilled_cache_and_a_continuation_equal_one_pass(tiny):
    """Pins how transformers passes keys and values to this project's own cache."""
    from ad_model.in_context import window_cache

    model = build_model(tiny(), *INFO).eval()
    inputs, cache = batch(), None
    cache = window_cache(model, 12)
    assert isinstance(cache, Cache)
    model(**{name: value[:, :8] for name, value in inputs.items()}, past_key_values=cache, use_cache=True)
    rest = model(**{name: value[:, 8:] for name, value in inputs.items()}, past_key_values=cache, use_cache=True)
    torch.testing.assert_close(rest.logits, model(**inputs).logits[:, 8:], rtol=0, atol=1e-5)
