"""Every space in the model: encoders, the action head's loss and samples, and the data's statistics."""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ad_model import ADModel
from ad_model.action_head_ad import ActionHead
from ad_model.build import build_model
from ad_model.embeddings_ad import ImageEmbedding, VectorEmbedding, leaf_embedding, leaf_spaces
from ad_model.statistics import DataStatistics
from data_gen.spaces import leaves, map_leaves, storage_type, to_json
from icrl.support.errors import ConfigError, UserError

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)
IMAGE = spaces.Box(0, 255, (9, 12, 3), np.uint8)
OBSERVATIONS = {
    "discrete": spaces.Discrete(4, start=-1),
    "multi_discrete": spaces.MultiDiscrete([3, 5], start=[0, 2]),
    "multi_binary": spaces.MultiBinary(4),
    "vector": VECTOR,
    "matrix": spaces.Box(-2, 2, (5, 5), np.float32),
    "image": IMAGE,
    "channels_first": spaces.Box(0, 255, (4, 20, 20), np.uint8),
    "grey": spaces.Box(0, 255, (8, 8), np.uint8),
    "dict": spaces.Dict({"image": IMAGE, "agent": spaces.Dict({"cell": spaces.Discrete(5), "speed": VECTOR})}),
    "unsorted": spaces.Dict(z=spaces.Discrete(4), a=spaces.Discrete(4)),
    "scalar": spaces.Dict({"speed": spaces.Box(-1, 1, (), np.float32)}),
    "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Dict({"image": IMAGE}))),
}
ACTIONS = {
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 4, 3], start=[0, 1, 0]),
    "box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32)),
    "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
    "scalar": spaces.Box(-1, 1, (), np.float32),
    "one_value": spaces.Box(np.array([-1, 2], np.float32), np.array([1, 2], np.float32)),
    "not_dyadic": spaces.Box(-0.1, 0.3, (3,), np.float32),
}


def drawn(space, shape=(2, 6), seed=0):
    """Random elements of a space as stored arrays, by leaf path; each is (*shape, ...)."""
    space.seed(seed)
    found = {}
    for path, leaf in leaves(space).items():
        leaf.seed(seed)
        values = np.stack([leaf.sample() for _ in range(math.prod(shape))])
        found[path] = values.reshape(*shape, *values.shape[1:]).astype(storage_type(leaf)[1])
    return found


def built(tiny, observation, action, **changes):
    spaces_of = to_json(observation), to_json(action)
    gathered = DataStatistics(spaces_of[0])
    columns = {f"observation.{path}".rstrip("."): values for path, values in drawn(observation, (8, 20), 1).items()}
    gathered.add({**columns, "reward": np.ones((8, 20), np.float32)})
    return build_model(tiny(**changes), *spaces_of, 2, gathered.record()).eval()


def batch(observation, action):
    seen = {path: torch.from_numpy(values) for path, values in drawn(observation).items()}
    acted = torch.from_numpy(drawn(action)[""])
    return {
        "observation": seen.get("", seen),
        "previous_action": acted.roll(1, dims=1),
        "previous_reward": torch.randn(2, 6),
        "boundary": torch.zeros(2, 6, dtype=torch.uint8),
        "action": acted,
    }


@pytest.mark.parametrize("action", ACTIONS, ids=str)
@pytest.mark.parametrize("observation", OBSERVATIONS, ids=str)
def test_every_leaf_reaches_the_prediction_of_its_own_step_and_no_earlier_one(tiny, observation, action):
    observation, action = OBSERVATIONS[observation], ACTIONS[action]
    model = built(tiny, observation, action)
    inputs = batch(observation, action)
    output = model(**inputs)
    assert output.loss.isfinite()
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    paths = list(leaf_spaces(to_json(observation)))
    assert set(paths) == set(leaves(observation))
    finite = output.logits.isfinite()
    for path in paths:
        changed = copy.deepcopy(inputs)
        values = changed["observation"][path] if path else changed["observation"]
        values[:, 3] = values[:, 2] if not torch.equal(values[:, 3], values[:, 2]) else values[:, 1]
        moved = (model(**changed).logits - output.logits).where(finite, torch.tensor(0.0)).abs().amax(dim=(0, 2, 3))
        assert moved[:3].max() < 1e-5, path
        assert moved[3] > 0, path


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=str)
def test_a_saved_model_of_any_space_loads_equal(tiny, tmp_path, observation):
    observation, action = OBSERVATIONS[observation], ACTIONS["box"]
    model, inputs = built(tiny, observation, action), batch(observation, action)
    model.save_pretrained(tmp_path)
    loaded = ADModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [1e-37, 1e-39, 1e-46, 1e-300])
@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Box(-1, 1, (2,))], ids=str)
def test_a_temperature_near_0_takes_the_most_likely_action(space, temperature):
    head = ActionHead(to_json(space), 8, 16)
    torch.manual_seed(0)
    factors, values = head.unreachable.shape
    logits, uniform = 3 * torch.randn(50, factors, values), torch.rand(50, factors)
    found, likely = head.sample(logits, uniform, temperature), head.sample(logits, uniform, 0.0)
    np.testing.assert_allclose(found, likely, atol=1 / 16)  # a Box's action may lie anywhere in its bin
    assert likely.unique().numel() > 1


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_sampled_actions_lie_in_the_space(action):
    space = ACTIONS[action]
    head = ActionHead(to_json(space), 8, bins=7)
    logits = 3 * head(torch.randn(500, 1, 8)).detach()[:, 0]
    edges = torch.tensor([0.0, 1.0])[:, None].expand(2, logits.shape[1])  # single precision rounds up to 1
    uniform = torch.cat([edges, torch.rand(498, logits.shape[1])])
    for temperature in (1.0, 0.3, 1e-39, 0.0):
        found = head.sample(logits, uniform, temperature).numpy()
        assert found.shape == (500, *space.shape)
        assert all(space.contains(value.astype(space.dtype)) for value in found)


def test_the_loss_of_a_multi_discrete_action_is_the_sum_over_its_parts():
    head = ActionHead(to_json(spaces.MultiDiscrete([2, 3], start=[5, 0])), 4, bins=9)
    logits = head(torch.randn(1, 2, 4))
    assert logits.shape == (1, 2, 2, 3) and logits[0, 0, 0, 2] == -torch.inf
    action = torch.tensor([[[6, 2], [5, 0]]])
    first, second = logits[..., 0, :2].log_softmax(-1), logits[..., 1, :].log_softmax(-1)
    by_hand = -(first[0, 0, 1] + second[0, 0, 2] + first[0, 1, 0] + second[0, 1, 0]) / 2
    torch.testing.assert_close(head.loss(logits, action), by_hand)


def test_a_box_action_falls_into_its_bin_even_at_the_bounds():
    head = ActionHead(to_json(spaces.Box(np.float32([-1, 0]), np.float32([1, 10]))), 4, bins=4)
    actions = torch.tensor([[[-1.0, 0.0], [1.0, 10.0], [0.01, 4.9], [-0.51, 7.5]]])
    assert head.factors(actions).tolist() == [[[0, 0], [3, 3], [2, 1], [0, 3]]]


def test_a_box_is_sampled_from_the_piecewise_constant_density_of_its_logits():
    head = ActionHead(to_json(spaces.Box(0, 4, (1,), np.float32)), 4, bins=4)
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(200_000, 1, 4)
    generator = torch.Generator().manual_seed(0)
    found = head.sample(logits, torch.rand(200_000, 1, generator=generator))[:, 0]
    shares = torch.histc(found, bins=8, min=0, max=4) / len(found)
    expected = torch.tensor([0.1, 0.4, 0.2, 0.3]).repeat_interleave(2) / 2
    assert (shares - expected).abs().max() < 0.005
    assert head.sample(logits[:1], torch.zeros(1, 1), temperature=0).item() == 1.5


def test_unseen_values_of_a_short_factor_are_never_drawn():
    head = ActionHead(to_json(spaces.MultiDiscrete([2, 5])), 4, bins=9)
    logits = head(torch.zeros(1, 1, 4))[:, 0].expand(1000, -1, -1)
    almost_one = torch.full((1000, 2), 1 - 2**-24)
    assert head.sample(logits, almost_one).max(dim=0).values.tolist() == [1, 4]


def test_statistics_do_not_depend_on_how_the_data_is_cut():
    space = spaces.Dict({"image": IMAGE, "speed": VECTOR, "cell": spaces.Discrete(4)})
    columns = {f"observation.{path}": values for path, values in drawn(space, (6, 30)).items()}
    columns["observation.speed"] = columns["observation.speed"] + 1e4  # far from 0: sums of squares would cancel
    columns["reward"] = np.random.default_rng(0).normal(3, 1, (6, 30)).astype(np.float32)
    whole, parts = DataStatistics(to_json(space)), DataStatistics(to_json(space))
    whole.add(columns)
    for first in (0, 1, 4):
        last = {0: 1, 1: 4, 4: 6}[first]
        parts.add({name: values[first:last] for name, values in columns.items()})
    found = whole.record().model_dump()
    assert found["reward_scale"] == pytest.approx(np.sqrt((columns["reward"].astype(float) ** 2).mean()))
    assert set(found["observation_statistics"]) == {"image", "speed"}
    for path, axes in (("image", (0, 1, 2, 3)), ("speed", (0, 1))):
        values = columns[f"observation.{path}"].astype(np.float64)
        for statistics in (found, parts.record().model_dump()):
            moments = statistics["observation_statistics"][path]
            assert moments["mean"] == pytest.approx(values.mean(axis=axes), rel=1e-9)
            assert moments["std"] == pytest.approx(values.std(axis=axes), rel=1e-6)


def test_a_number_that_never_varies_is_not_divided_by_zero():
    space = to_json(spaces.Box(-1, 1, (2,), np.float32))
    gathered = DataStatistics(space)
    gathered.add({"observation": np.full((2, 3, 2), 0.25, np.float32), "reward": np.zeros((2, 3), np.float32)})
    assert gathered.record().model_dump() == {
        "reward_scale": 1.0,
        "observation_statistics": {"": {"mean": [0.25, 0.25], "std": [1.0, 1.0]}},
    }


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_rewards_of_any_scale_give_the_same_logits(tiny, scale):
    observation, action = OBSERVATIONS["discrete"], ACTIONS["discrete"]
    plain, scaled = built(tiny, observation, action), built(tiny, observation, action)
    scaled.config.reward_scale = scale * plain.config.reward_scale
    inputs = batch(observation, action)
    far = {**inputs, "previous_reward": scale * inputs["previous_reward"]}
    torch.testing.assert_close(scaled(**far).logits, plain(**inputs).logits, rtol=0, atol=1e-4)


def test_images_are_distinguished_from_vectors_by_their_space():
    assert isinstance(leaf_embedding(to_json(IMAGE), 8), ImageEmbedding)
    assert isinstance(leaf_embedding(to_json(OBSERVATIONS["matrix"]), 8), VectorEmbedding)
    first = leaf_embedding(to_json(OBSERVATIONS["channels_first"]), 8)
    assert not first.channels_last and first.layers[0].in_channels == 4
    assert leaf_embedding(to_json(IMAGE), 8).layers[0].in_channels == 3


def test_an_image_has_the_same_embedding_with_its_channels_first_or_last():
    last = leaf_embedding(to_json(IMAGE), 8)
    first = leaf_embedding(to_json(spaces.Box(0, 255, (3, 9, 12), np.uint8)), 8)
    first.load_state_dict(last.state_dict())
    image = torch.from_numpy(drawn(IMAGE)[""])
    torch.testing.assert_close(first(image.movedim(-1, 2)), last(image))


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-np.inf, 1, (2,)), spaces.Dict({"a": spaces.Discrete(2)}), spaces.Box(0, 4, (2,), np.int64)],
    ids=["unbounded", "dict", "integers"],
)
def test_an_action_space_without_a_head_is_refused(tiny, space):
    with pytest.raises(ConfigError, match=r"model: |tasks: actions: "):
        built(tiny, OBSERVATIONS["discrete"], space)


def test_leaves_of_spaces_and_of_their_elements_have_the_same_paths():
    for space in OBSERVATIONS.values():
        assert list(leaves(space)) == list(leaves(space.sample()))
        doubled = map_leaves(lambda a, b: np.stack([a, b]), space.sample(), space.sample())
        assert list(leaves(doubled)) == list(leaves(space))


def test_a_dict_keeps_its_encoders_apart_in_any_order_of_its_keys(tiny, tmp_path):
    """JSON sorts the keys of a config; Gymnasium keeps the order of keywords."""
    observation, action = OBSERVATIONS["unsorted"], ACTIONS["discrete"]
    model, inputs = built(tiny, observation, action), batch(observation, action)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(ADModel.from_pretrained(tmp_path).eval()(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("column", ["observation", "reward"])
def test_a_column_with_values_that_are_not_finite_is_named(column):
    gathered = DataStatistics(to_json(VECTOR))
    columns = {"observation": np.zeros((2, 3, 3), np.float32), "reward": np.zeros((2, 3), np.float32)}
    columns[column][1, 1] = np.nan
    with pytest.raises(UserError, match=f"column {column} has values that are not finite"):
        gathered.add(columns)


@pytest.mark.parametrize("key", ["a.b", "a/b", ""])
def test_a_key_that_cannot_name_a_column_is_refused(key):
    with pytest.raises(UserError, match="cannot name a column"):
        to_json(spaces.Dict({key: spaces.Discrete(2)}))
