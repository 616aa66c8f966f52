"""Four seeds: each determines its own part of an experiment, and only the stages that depend on it are made again."""

import itertools

import numpy as np
import pytest
from conftest import TINY, merged

from ad_model.build import build_model
from ad_model.train import train
from data_gen.experiment import Experiment, open_run
from data_gen.generation.generate import generate
from data_gen.spaces import to_json
from eval.evaluate import evaluate
from icrl.config.loader import dump, fingerprint, load_config, validate
from icrl.config.splits import SeedsConfig
from icrl.run.fingerprints import (
    data_fingerprint,
    evaluation_fingerprint,
    meta_fingerprint,
    tasks_values,
    training_fingerprint,
)
from icrl.run.folder import SCHEMA_VERSION, run_folder
from icrl.run.purpose import Purpose
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import checksums

NAMES = [*SeedsConfig.model_fields]


TRAINING_KEYS_BEFORE = {
    *("objective", "selection", "steps", "batch_size", "accumulation_steps", "subsample", "learning_rate"),
    *("final_learning_rate", "warmup_steps", "betas", "weight_decay", "max_grad_norm"),
}
"""The keys of `training` before there were four seeds."""


def config(**changes):
    return validate(merged(TINY, changes))


def meta(config):
    rl2 = validate(merged(TINY, {"data": {"sources": [{"name": "rl2"}]}})).data.sources[0]
    return meta_fingerprint(config, rl2)


STAGES = {
    "meta": meta,
    "data": data_fingerprint,
    "training": training_fingerprint,
    "evaluation": evaluation_fingerprint,
}


@pytest.mark.parametrize(
    ("seed", "unchanged"),
    [("split", []), ("data", []), ("training", ["meta", "data"]), ("evaluation", ["meta", "data", "training"])],
)
def test_a_seed_is_in_the_fingerprints_of_the_stages_that_it_determines(seed, unchanged):
    before, after = config(), config(seeds={seed: 1})
    assert [name for name, stage in STAGES.items() if stage(before) == stage(after)] == unchanged


def test_fingerprints_follow_from_the_values_of_seeds_and_not_from_their_spelling():
    spelled = config(seed=9, seeds=dict.fromkeys(NAMES, 4))
    for stage in STAGES.values():
        assert stage(spelled) == stage(config(seed=4)) != stage(config(seed=9))
    assert training_fingerprint(config(seed=0, seeds={"training": 1})) == training_fingerprint(
        config(seed=1, seeds={"data": 0, "split": 0, "evaluation": 5})
    )


def test_no_two_settings_of_the_seeds_have_the_same_fingerprint():
    settings = [dict(zip(NAMES, values, strict=True)) for values in itertools.product(range(2), repeat=len(NAMES))]
    assert len({evaluation_fingerprint(config(seeds=seeds)) for seeds in settings}) == len(settings)


def test_a_config_without_validation_tasks_has_the_fingerprints_of_earlier_versions():
    made = config(seed=3, split={"validation": 0}, data={"sources": [{"name": "random"}]})
    data = made.data.model_dump(mode="json")
    for key in ("repo", "folder", "streaming", "resident_shards"):
        del data[key]
    sources = [{key: value for key, value in source.items() if key != "label"} for source in data["sources"]]
    before = fingerprint(
        SCHEMA_VERSION, 3, tasks_values(made), {"train": 0.8, "test": 0.2}, data | {"sources": sources}
    )
    assert data_fingerprint(made) == before != data_fingerprint(config(seed=3, data={"sources": [{"name": "random"}]}))
    training = made.training.model_dump(mode="json", include=TRAINING_KEYS_BEFORE)
    assert training_fingerprint(made) == fingerprint(before, made.model, training)


def test_a_config_that_an_earlier_version_wrote_has_no_validation_tasks(tmp_path, tiny):
    made = tiny(split={"validation": 0})
    generate(made)
    path = run_folder(made).config
    text = path.read_text().partition("\n")[2]  # without its checksum
    assert "  validation: 0\n" in text
    path.write_text(text.replace("  validation: 0\n", "").replace("  validation_tasks: 0\n", ""))
    again = load_config(path)
    assert again.split.validation == 0 and data_fingerprint(again) == data_fingerprint(made)
    assert [len(tasks) for tasks in open_run(path.parent).splits] == [13, 0, 3]
    (tmp_path / "mine.yaml").write_text("tasks: {name: dark_room}\ndata: {sources: [q_learning]}\nsplit: {train: 0.8}")
    assert load_config(tmp_path / "mine.yaml").split.validation is None


def test_each_seed_is_resolved_and_survives_a_dump(tmp_path):
    made = config(seed=3, seeds={"training": 8})
    assert [made.seed_for(name) for name in NAMES] == [3, 3, 8, 3]
    (tmp_path / "again.yaml").write_text(dump(made))
    again = load_config(tmp_path / "again.yaml")
    assert dump(again) == dump(made) and [again.seed_for(name) for name in NAMES] == [3, 3, 8, 3]
    assert load_config(tmp_path / "again.yaml", ["--seed", "4", "--seeds.training", "5"]).seed_for("training") == 5
    for words, message in (
        (["--seeds.trainin", "1"], r"seeds\.trainin: unknown key \(value 1\); did you mean 'training'\?"),
        (["--seeds.data", "-1"], r"seeds\.data: input should be greater than or equal to 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / "again.yaml", words)


def histories(experiment):
    return experiment.learners.seed.tolist()


def goals(experiment):
    return [tasks["goal"].tolist() for tasks in experiment.splits]


def test_the_split_and_the_learners_have_their_own_seeds():
    base = Experiment(config())
    other = {name: Experiment(config(seeds={name: 1})) for name in NAMES}
    assert [name for name in NAMES if goals(other[name]) != goals(base)] == ["split"]
    assert [name for name in NAMES if histories(other[name]) != histories(base)] == ["data"]


def test_initial_weights_follow_from_the_training_seed_alone():
    family = config().tasks.build()
    spaces = to_json(family.observation_space), to_json(family.action_space)

    def weights(**changes):
        return build_model(config(**changes), *spaces, 6).state_dict()["embed_reward.weight"].tolist()

    assert weights(seeds={"training": 1}) == weights(seed=1) != weights()
    assert weights(seeds={"data": 1, "split": 1, "evaluation": 1}) == weights()


def test_several_training_seeds_use_one_data_set_and_several_evaluation_seeds_one_model(tiny):
    first = tiny()
    assert generate(first) and train(first) and evaluate(first)
    folder = run_folder(first)
    before = checksums(folder.data), checksums(folder.checkpoints)
    second = tiny(seeds={"training": 1})
    assert not generate(second)
    with pytest.raises(UserError, match="belongs to another config"):
        train(second)
    assert train(second, overwrite=True)
    assert checksums(folder.data) == before[0]
    assert checksums(folder.checkpoints) != before[1]
    third = tiny(seeds={"training": 1, "evaluation": 2})
    assert not generate(third) and not train(third)
    assert evaluate(third, overwrite=True)


def test_equal_seeds_of_two_parts_share_no_random_numbers():
    assert len({purpose.value for purpose in Purpose}) == len(Purpose.__members__)
    made = config(seed=5)
    lifetimes = np.random.SeedSequence((5, Purpose.EVALUATION)).generate_state(20, np.uint64)
    assert not set(histories(Experiment(made))) & set(lifetimes.tolist())
