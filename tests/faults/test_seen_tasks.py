"""A model knows its training tasks, so that it is not evaluated on them by mistake."""

import json

import pytest
from conftest import seal

from ad_model.load import load_model
from ad_model.train import train
from data_gen.generation.generate import generate
from eval.evaluate import evaluate
from eval.report import write_report
from eval.summary import load_summary
from eval.summary_text import describe
from icrl.run.command import expanded
from icrl.run.folder import run_folder
from icrl.support.errors import ConfigError


@pytest.fixture
def model(tiny):
    """The model folder of a finished training."""
    config = tiny(name="first")
    generate(config)
    train(config)
    return run_folder(config).checkpoints / "step-000006" / "model"


def test_a_checkpoint_of_another_split_is_refused_or_the_seen_tasks_are_stated(tiny, model):
    other = {"name": "second", "seed": 1, "evaluation": {"checkpoint": str(model)}}
    with pytest.raises(ConfigError, match=r"was trained on \d of the 3 held-out tasks: .* --allow-seen-tasks"):
        evaluate(tiny(**other))
    assert not run_folder(tiny(**other)).eval.exists()
    allowed = tiny(**{**other, "evaluation": {"checkpoint": str(model), "allow_seen_tasks": True}})
    assert evaluate(allowed)
    summary = load_summary(run_folder(allowed))
    assert summary.seen_tasks > 0
    stated = f"the transformer was trained on {summary.seen_tasks} of the 3 held-out tasks"
    assert f"warning: {stated}" in describe(summary)
    assert stated in write_report(allowed).read_text()
    with pytest.raises(ConfigError, match="was trained on"):  # not "complete, skipped"
        evaluate(tiny(**other))
    assert expanded("--allow-seen-tasks") == "--evaluation.allow_seen_tasks=true"


def test_a_checkpoint_of_the_same_split_is_evaluated_and_one_without_a_record_is_said_to_be_unknown(tiny, model):
    same = tiny(name="second", evaluation={"checkpoint": str(model)})
    assert evaluate(same)
    summary = load_summary(run_folder(same))
    assert (summary.seen_tasks, summary.seen) == (0, "")
    before = load_model(model, "cpu").state_dict()
    for record in (
        None,
        5,
        {},
        {"family": 3, "keys": ""},
        {"family": "DarkRoom", "keys": "=="},
        {"family": "DarkRoom"},
        {"family": "DarkRoom", "keys": "", "rounded": {"goal": "float8"}},
        {"family": "DarkRoom", "keys": "", "rounded": {"goal": 5.0}},
        {"family": "DarkRoom", "keys": "", "rounded": 7},
    ):
        content = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**content, "training_tasks": record}))
        seal(model.parent)
        assert evaluate(same, overwrite=True)
        assert "unknown whether the transformer was trained on these tasks" in describe(load_summary(run_folder(same)))
    assert load_model(model, "cpu").state_dict().keys() == before.keys()


def test_more_training_tasks_than_a_record_holds_are_told_and_not_taken_for_unseen(tiny, monkeypatch, capsys):
    monkeypatch.setattr("ad_model.train.MOST_RECORDED", 5)
    own = tiny(name="first")
    generate(own)
    train(own)
    told = capsys.readouterr().out
    assert "training tasks: the model keeps no record of more than 5" in told
    path = run_folder(own).checkpoints / "step-000006" / "model"
    assert json.loads((path / "config.json").read_text())["training_tasks"] is None
    assert evaluate(own)
    assert load_summary(run_folder(own)).seen_tasks == 0  # the split keeps its own tasks apart
    other = tiny(name="second", seed=1, evaluation={"checkpoint": str(path)})
    assert evaluate(other)
    assert "unknown whether the transformer was trained on these tasks" in describe(load_summary(run_folder(other)))
