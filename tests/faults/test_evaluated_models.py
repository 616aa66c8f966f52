"""An evaluation belongs to everything of the model that decided its results."""

import json

import pytest

from ad_model.build import build_model
from ad_model.load import write_checksums
from ad_model.model_files import CONFIG
from data_gen.spaces import to_json
from eval.evaluate import evaluate, evaluated_weights
from icrl.run.folder import CHECKSUMS, run_folder
from icrl.support.errors import UserError


@pytest.fixture
def given(tiny, tmp_path):
    """The config of an evaluation of a model folder with fresh weights, and that folder."""
    path = tmp_path / "theirs"
    config = tiny(evaluation={"checkpoint": str(path), "test_tasks": 2, "train_tasks": 0, "seeds": 1, "episodes": 1})
    family = config.tasks.build()
    build_model(config, to_json(family.observation_space), to_json(family.action_space), 6).save_pretrained(path)
    write_checksums(path)
    return config, path


def test_a_changed_config_of_a_model_without_checksums_is_not_called_complete(given):
    config, path = given
    (path / CHECKSUMS).unlink()
    assert evaluate(config)
    assert not evaluate(config)
    content = json.loads((path / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps({**content, "reward_scale": 7.0}))
    with pytest.raises(UserError, match=r"belongs to another config: .*--overwrite"):
        evaluate(config)
    assert evaluate(config, overwrite=True)


def test_code_beside_the_weights_counts_if_it_runs(given):
    config, path = given
    trusting = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"trust_remote_code": True})}
    )

    def weights():
        return [evaluated_weights(each, run_folder(each), path) for each in (config, trusting)]

    (path / "modeling_ad.py").write_text("one = 1")
    before = weights()
    (path / "modeling_ad.py").write_text("one = 2")
    after = weights()
    assert before[0] == after[0]
    assert before[1] != after[1]
