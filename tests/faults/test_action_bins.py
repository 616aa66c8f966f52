"""Bins of a Box action follow its bounds: bounds that cannot be cut are refused, and bins that stay empty are told."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from ad_model.build import build_model, check_spaces
from ad_model.statistics import ActionRange
from data_gen.spaces import to_json
from data_gen.tasks.control.pendulum import Pendulum
from icrl.config.schema import ModelConfig
from icrl.support.errors import ConfigError

MOST = float(np.finfo(np.float32).max)


def family(space):
    return type("Odd", (Pendulum,), {"action_space": property(lambda self: space)})()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Box(-MOST, MOST, (1,)), r"action\[0\].*from -3.4.*e\+38 to 3.4.*e\+38.*float32.*TransformAction"),
        (Box(-3e38, 3e38, (2,)), r"action\[0\].*float32.*TransformAction"),
        (Box(np.array([-1, -2e38]), np.array([1, 2e38]), dtype=np.float64), r"action\[1\].*float32"),
        (Box(-1e300, 1e300, (1,), np.float64), r"action\[0\].*float32"),
        (Box(-np.inf, np.inf, (1,)), "without bounds.*TransformAction"),
        (Box(0, np.inf, (1,)), "without bounds.*TransformAction"),
    ],
)
def test_an_action_box_that_cannot_be_cut_into_bins_is_refused_before_any_work(tiny, space, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        check_spaces(ModelConfig(), family(space))
    assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match=message):  # given data, too
        build_model(tiny(), to_json(Pendulum().observation_space), to_json(space), 6)


def test_usual_bounds_pass():
    for space in (Box(-1, 1, (3,)), Box(-1e30, 1e30, (1,)), Box(2, 2, (1,))):
        check_spaces(ModelConfig(), family(space))


def test_data_that_uses_few_bins_is_told_in_one_line():
    used = ActionRange(to_json(Box(np.array([-1, -1000, 3]), np.array([1, 1000, 3]), dtype=np.float32)))
    used.add(np.array([[[-0.9, 0.0, 3], [0.9, 1.0, 3]]], np.float32))
    used.add(np.array([[[0.5, -1.0, 3], [0.0, 0.5, 3]]], np.float32))
    line = used.warning()
    assert "\n" not in line and "action[1]" in line and "0.2%" in line and "[-1000, 1000]" in line
    used.add(np.array([[[0, -900, 3], [0, 900, 3]]], np.float32))
    assert used.warning() is None
    assert ActionRange({"type": "Discrete", "n": 3, "start": 0}).warning() is None


def test_a_few_outliers_do_not_hide_that_most_bins_stay_empty():
    used = ActionRange(to_json(Box(-1000, 1000, (2,))))
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 500, 2))
    actions[:, :, 1] = np.sign(actions[:, :, 1]) * 1000  # both ends of a range are a use of all of it
    actions[0, :2, 0] = -900, 900
    used.add(actions)
    assert "99% of the data's action[0] stay within 0.2% of its range" in used.warning()
    alone = ActionRange(to_json(Box(-1000, 1000, (1,))))
    alone.add(actions[:, :, 1:])
    assert alone.warning() is None
