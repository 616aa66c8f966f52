"""Names and paths of people are text, and data without an episode or with other rows is what it is."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pytest
import yaml

from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.scoring.report import data_report, describe, describe_scores
from data_gen.scoring.scores import history_scores
from data_gen.storage.card import config_name, dataset_card
from data_gen.storage.folder import load_info
from data_gen.storage.info import checked_info
from data_gen.storage.writing import Recorded, write_histories
from icrl.config.schema import SelectionConfig
from icrl.run.folder import folder_of_data
from icrl.support.errors import UserError
from icrl.support.hub import Repository
from icrl.support.markdown import code, plain
from publish.data import data_parcel, push_parquet
from publish.model import model_parcel


def write(path, family, rewards=(0.0, 1.0), steps=12, ends=True, **about):
    """A data folder of one history per reward, in one shard each."""
    spaces = {"observation_space": family.observation_space, "action_space": family.action_space}
    ended = np.zeros((1, steps), bool)
    ended[:, 5::6] = ends
    parts = [
        {
            "observation": np.zeros((1, steps, 2), int),
            "action": np.zeros((1, steps), int),
            "reward": np.full((1, steps), reward),
            "terminated": np.zeros((1, steps), bool),
            "truncated": ended,
        }
        for reward in rewards
    ]
    return write_histories(
        path, parts, Recorded(**{**spaces, "episode_length": 6, "sources": [{"name": "me"}], **about})
    )


@pytest.fixture
def family(tiny):
    return tiny().tasks.build()


# the name that datasets caches by


def test_the_cards_config_name_follows_from_the_shards_checksums(tmp_path, family):
    from datasets import load_dataset

    def rows():
        found = load_dataset(str(tmp_path / "mine"), split="train", cache_dir=str(tmp_path / "cache"))
        return found.with_format("numpy")["reward"][:].sum()

    first = write(tmp_path / "mine", family)
    assert rows() == 12
    changed = checked_info({**first.plain(), "fingerprint": "another config"}, "info.json")
    assert config_name("mine", changed) == config_name("mine", first)
    shutil.rmtree(tmp_path / "mine")
    other = write(tmp_path / "mine", family, rewards=(5.0, 5.0))
    assert config_name("mine", other) != config_name("mine", first)
    assert rows() == 120
    # the same config, whose environment's code has changed
    same = checked_info({**other.plain(), "fingerprint": first.fingerprint}, "info.json")
    assert config_name("mine", same) != config_name("mine", first)


# paths are not patterns


@pytest.fixture
def pushed(monkeypatch):
    """The tables that would be sent."""
    import datasets

    tables = []

    def send(table, *_, config_name, **__):
        tables.append(np.concatenate(table.with_format("numpy")["reward"][:]))
        raise UserError("not sent")

    monkeypatch.setattr(datasets.Dataset, "push_to_hub", send)
    return tables


@pytest.mark.parametrize("name", ["exp[1]", "exp?", "exp*", "exp{a,b}", "**"])
def test_a_path_with_the_characters_of_a_pattern_pushes_its_own_rows(tmp_path, family, pushed, name):
    for neighbour in ("exp1", "expa"):
        write(tmp_path / neighbour / "x", family, rewards=(7.0,))
    write(tmp_path / name / "x", family, rewards=(1.0, 2.0))
    with pytest.raises(UserError, match="not sent"):
        push_parquet(folder_of_data(tmp_path / name / "x"), "x", Repository("me/x", "dataset"), False, None)
    assert sorted(set(pushed[0])) == [1.0, 2.0]
    assert len(pushed[0]) == 24


def test_leftovers_of_other_folders_are_not_removed(tmp_path, family):
    (tmp_path / ".exp1.9.tmp").mkdir()
    (tmp_path / ".e(1).9.tmp").mkdir()
    with pytest.raises(UserError, match="for a pattern"):
        write(tmp_path / "*", family)
    write(tmp_path / "e(1)", family)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".exp1.9.tmp", "e(1)"]


# histories without a complete episode


def test_data_without_a_complete_episode_is_reported_and_can_be_pushed(tmp_path, family):
    write(tmp_path / "mine", family, steps=40, ends=False, episode_length=50)
    folder = folder_of_data(tmp_path / "mine")
    info = load_info(folder)
    report = data_report(folder, info)
    assert report.histories == 0
    assert "no history has a complete episode" in describe(report)
    assert "nan" not in describe(report)
    scores = history_scores(folder, info)
    assert np.isnan(scores.final_return).all()
    assert "0 me" in describe_scores(scores, info.sources, SelectionConfig())
    assert data_parcel(folder, "mine", Repository("me/x", "dataset")).files


def test_one_shard_without_a_complete_episode_does_not_hide_the_others(tmp_path, family):
    write(tmp_path / "mine", family, rewards=(0.0, 1.0))
    folder = folder_of_data(tmp_path / "mine")
    first = sorted(folder.data.glob("*.h5"))[0]
    with h5py.File(first, "r+") as file:
        file["truncated"][:] = False
    record = load_info(folder).plain()
    record["shards"][0]["sha256"] = hashlib.sha256(first.read_bytes()).hexdigest()
    folder.data_info.write_text(json.dumps(record))
    report = data_report(folder, load_info(folder))
    assert (report.histories, report.curve.tolist()) == (1, [6.0, 6.0])


# text of people in cards and names


@pytest.mark.parametrize("name", ["a:b", "a|b", "a<b", 'a"b', "a b", "ü", "a\\b", "a" * 200])
def test_any_folder_name_makes_a_card_that_load_dataset_reads(tmp_path, family, name):
    from datasets import load_dataset

    write(tmp_path / name, family)
    found = load_dataset(str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == 2
    card = (tmp_path / name / "README.md").read_text()
    used = yaml.safe_load(card.split("---\n")[1])["configs"][0]["config_name"]
    assert not set(used) & set("<>:/\\|?*")


@pytest.mark.parametrize("name", ["a?b", "a*", "[ab]", "a\nb", "a::b", "a\x1bb"])
def test_a_name_that_load_dataset_reads_as_a_pattern_is_refused(tmp_path, family, name):
    with pytest.raises(UserError, match="choose another name"):
        write(tmp_path / name, family)
    assert not [*tmp_path.iterdir()]


SCRIPT = "<script>alert(1)</script>"


def test_a_card_shows_text_of_people_as_text(tmp_path, family):
    name = "x` | <script>"
    info = write(
        tmp_path / "mine",
        family,
        sources=[{"name": f"`{SCRIPT}`", "note": "a | b\n# Licence"}],
        tasks={"name": f"m:`{SCRIPT}"},
    )
    info = checked_info({**info.plain(), "made_with": {SCRIPT: "![x](http://x)"}, "swept": [f"`{SCRIPT}"]}, "info.json")
    card = dataset_card(name, info)
    assert "<script" not in card
    assert "\n# Licence" not in card
    assert card.count("\n# ") == 1
    assert "![x](" not in card
    assert len([line for line in card.splitlines() if line.startswith("|") and "hyper" not in line]) > 8


def test_a_models_card_shows_labels_as_text(tiny):
    from ad_model.train import train
    from eval.evaluate import evaluate

    config = tiny(evaluation={"baselines": [{"name": "random", "label": f"{SCRIPT} | x"}], "train_tasks": 0})
    generate(config)
    train(config)
    evaluate(config)
    card = model_parcel(Experiment(config), Repository("me/x", "model")).files["README.md"].decode()
    assert "<script" not in card
    assert r"\| x" in card


def test_plain_and_code_are_one_line_and_end_nothing():
    assert plain("demo_2-x.y") == "demo_2-x.y"
    assert plain("a\n<b> | `c`") == r"a &lt;b&gt; \| \`c\`"
    assert code("a b{c}") == "`a b{c}`"
    assert code("a`b<c") == r"<code>a\`b&lt;c</code>"
    assert code("a | b\nc") == r"<code>a \| b c</code>"
