"""Texts of users in pictures: no text is read as a formula, which may be one that cannot be drawn."""

import io

import matplotlib
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from conftest import TINY, merged

from data_gen.tasks.adapted.gym_adapter import GymnasiumTasks
from data_gen.tasks.catalogue import draw_tasks
from eval import report
from icrl.config.loader import validate
from icrl.support.errors import ConfigError
from icrl.support.pictures import STYLE, png

STRANGE = ["cost $5_$", "$x^{$", r"\$ $\frac$ $", "_hidden", "<script>", "50%", "{}", "a_b^c"]


class SummaryOf:
    """The part of a summary that the curves take."""

    episodes, splits, main_split, ablations = 3, ["test"], "test", ()

    def scale_on(self, split):
        return "normalised_return"


@pytest.mark.parametrize("label", STRANGE)
def test_a_label_is_drawn_as_it_is_written(label):
    validate(merged(TINY, {"data": {"sources": [{"name": "q_learning", "label": label}]}}))
    agents = ["transformer", label]
    rows = [(agent, "test", 0, 0, episode) for agent in agents for episode in (1, 2, 3)]
    table = pd.DataFrame(rows, columns=["agent", "split", "task", "seed", "episode"])
    table["return"] = table["normalised_return"] = np.linspace(0, 1, len(table))
    with matplotlib.rc_context(STYLE):
        figure = report._curves(table, SummaryOf(), "test", agents)
        figure.savefig(io.BytesIO(), format="png")
    shown = [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()]
    assert shown[-1] == label


@pytest.mark.parametrize("name", STRANGE)
def test_a_family_and_its_values_are_drawn_as_they_are_written(name, tmp_path, monkeypatch):
    family = GymnasiumTasks(env_id="Pendulum-v1", vary={"g": [9.0, 10.0]})
    assert family.observation_space.shape == (3,)  # found before the environments are replaced
    family._varied = {name: family._varied["g"]}
    monkeypatch.setattr(
        GymnasiumTasks, "maker", lambda self, tasks, row: type("M", (), {"picture": lambda self: None})()
    )
    assert draw_tasks(family, name, tmp_path / "picture.png")
    assert matplotlib.rcParams["text.parse_math"]


@pytest.mark.parametrize("label", ["a\nb", "\x1b[31mred", "x" * 101, "", "\ud800", "a\0"])
def test_a_label_that_no_table_can_hold_is_refused(label):
    with pytest.raises(ConfigError, match=r"^config: data\.sources\.0\.label: "):
        validate(merged(TINY, {"data": {"sources": [{"name": "q_learning", "label": label}]}}))


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_text_that_no_file_can_hold_is_refused_wherever_it_stands(text):
    for changes in ({"output": text}, {"tasks": {"kwargs": {"x": [text]}}}, {"evaluation": {"checkpoint": text}}):
        with pytest.raises(ConfigError, match="has characters that no file can hold"):
            validate(merged(TINY, changes))


@pytest.mark.parametrize("key", ["\ud800", "a\0b"])
def test_a_key_that_no_file_can_hold_is_refused_wherever_it_stands(key):
    tasks = {"name": "gymnasium", "env_id": "CartPole-v1", "kwargs": {"x": {key: 1}}, "layouts": 3}
    with pytest.raises(ConfigError, match=r"^config: tasks.kwargs.x.* is a key with characters that no file can hold$"):
        validate({**TINY, "tasks": tasks})


def test_letters_that_the_font_lacks_bring_no_warnings(recwarn):
    figure = matplotlib.figure.Figure()
    figure.suptitle("\U0001f680 \u4e2d")
    assert png(figure).startswith(b"\x89PNG")
    assert not recwarn.list
