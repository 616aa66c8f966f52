"""A run on given data takes that data's split by itself, and the data's word for it is not believed."""

import json
import shutil

import numpy as np
import pytest
from test_meta_train import LEANER

from ad_model.train import train
from data_gen.experiment import Experiment, open_run
from data_gen.generation.generate import generate
from data_gen.meta.training import meta_train
from data_gen.storage.folder import load_info
from data_gen.storage.writing import write_histories
from data_gen.tasks.base import Tasks
from eval.evaluate import evaluate
from eval.summary import load_summary
from icrl.cli import run_experiment
from icrl.config.loader import load_config, validate
from icrl.run.fingerprints import data_fingerprint, meta_fingerprint
from icrl.run.folder import TASK_FILES, run_folder
from icrl.run.records import record_text
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import sha256
from icrl.support.hub import Repository
from publish.model import model_parcel
from tests.conftest import TINY, merged
from tests.data_gen.test_given import histories, recorded

MADE = {"seed": 5, "split": {"train": 9, "validation": 2, "test": 4}}


@pytest.fixture
def theirs(tiny, tmp_path):
    """A copy of the data of a run with a split of its own."""
    made = tiny(name="made", **MADE)
    generate(made)
    shutil.copytree(run_folder(made).data, tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def on(theirs, tmp_path):
    """A function that makes the config of an experiment on that data."""

    def make(name="given", **changes):
        plain = {**TINY, "output": str(tmp_path / "runs"), "name": name, "data": {"folder": str(theirs)}}
        return validate(merged(plain, changes))

    return make


def goals(splits):
    return [sorted(map(tuple, tasks["goal"].tolist())) for tasks in splits]


def change_info(folder, **changes):
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(record_text({**info, **changes}))


def change_tasks(folder, name, tasks):
    """Replaces a file of tasks, with its checksum and its number of tasks in the record."""
    info = json.loads((folder / "info.json").read_text())
    kind = name.removeprefix("tasks-").removesuffix(".npz")
    tasks.save(folder / name)
    files = {**info["files"], name: sha256(folder / name)}
    change_info(folder, files=files, **{f"num_{kind}_tasks": len(tasks)})


def test_a_run_on_given_data_has_the_datas_split_whatever_its_seeds(on, tiny, capsys):
    own = goals(Experiment(tiny(name="made", **MADE)).splits)
    for number, seeds in enumerate(({}, {"seed": 7}, {"seeds": {"training": 3, "data": 4}})):
        config = on(f"given-{number}", **seeds)
        assert generate(config)
        assert goals(Experiment(config).splits) == own
        assert "split: 9 training, 2 validation and 4 held-out tasks, those of the data" in capsys.readouterr().out
        assert goals(open_run(run_folder(config).path).splits) == own


def test_such_a_run_is_trained_and_evaluated_on_the_datas_tasks(on):
    config = on(evaluation={"test_tasks": 9, "validation_tasks": 9, "train_tasks": 9})
    run_experiment(config)
    summary = load_summary(run_folder(config))
    assert (summary.held_out_tasks, summary.seen_tasks, summary.chosen_tasks) == (4, 0, 0)
    assert summary.splits == ["test", "validation", "train"]
    # Only the data knows its split, so the model's card needs the file.
    files = model_parcel(Experiment(config), Repository("me/mine", "model")).files
    assert len(Tasks.load(files["tasks-test.npz"])) == 4
    assert 'icrl.Tasks.load(hf_hub_download("me/mine", "tasks-test.npz"))' in files["README.md"].decode()


def test_a_split_in_the_config_decides_and_is_checked(on):
    for changes in ({"split": {"train": 0.8}}, {"seeds": {"split": 0}}, {"split": {"train": 9, "test": 4}, "seed": 5}):
        config = on(**changes)
        decided = Experiment(config).split_of_config
        assert not config.takes_given_split
        assert data_fingerprint(config) != data_fingerprint(on(seed=config.seed))
        if changes.get("seed") == 5:  # the split that the data was made with
            assert generate(config)
            assert goals(Experiment(config).splits)[2] == goals(decided)[2]
        else:
            with pytest.raises(ConfigError, match="held-out tasks are among the data's training tasks"):
                generate(config)


def test_validation_tasks_of_a_split_in_the_config_are_never_tasks_of_the_data(on, theirs, capsys):
    config = on(split={"train": 2, "validation": 10, "test": 4}, seed=5)
    change_tasks(theirs, "tasks-test.npz", Tasks.load(theirs / "tasks-test.npz"))
    trained, held_out = Tasks.load(theirs / "tasks-train.npz"), Experiment(config).split_of_config.test
    change_tasks(theirs, "tasks-train.npz", trained.take(~np.isin(trained.keys(), held_out.keys())))
    generate(config)
    validation = Experiment(config).validation_tasks
    assert 0 < len(validation) < 10
    assert not np.isin(validation.keys(), trained.keys()).any()
    assert "of 10 validation tasks are left out: the given data comes from them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "other", "message"),
    [
        ("tasks-test.npz", "tasks-train.npz", "4 of its 4 held-out tasks are among its training tasks"),
        ("tasks-validation.npz", "tasks-train.npz", "2 of its 2 validation tasks are among its training tasks"),
        ("tasks-validation.npz", "tasks-test.npz", "2 of its 2 validation tasks are among its held-out tasks"),
    ],
)
@pytest.mark.parametrize("form", [np.int64, np.float32, np.uint8])
def test_data_whose_sets_of_tasks_meet_is_refused(on, theirs, file, other, message, form):
    count = len(Tasks.load(theirs / file))
    change_tasks(theirs, file, Tasks({"goal": Tasks.load(theirs / other)["goal"][:count].astype(form)}))
    with pytest.raises(UserError, match=message):
        generate(on())
    assert not run_folder(on()).data.exists()


def test_tasks_that_are_not_of_the_family_or_not_as_many_as_stated_are_refused(on, theirs):
    before = Tasks.load(theirs / "tasks-test.npz")
    change_tasks(theirs, "tasks-test.npz", Tasks({"goal": before["goal"] + 90}))
    with pytest.raises(UserError, match=r"tasks-test\.npz: 4 of its 4 tasks are not tasks of DarkRoom"):
        generate(on())
    change_tasks(theirs, "tasks-test.npz", before)
    change_info(theirs, num_test_tasks=3)
    with pytest.raises(UserError, match=r"tasks-test\.npz: has 4 tasks, but its info\.json states 3"):
        generate(on())
    change_info(theirs, num_test_tasks=4)
    (theirs / "tasks-test.npz").write_bytes(b"no tasks")
    with pytest.raises(UserError, match=r"tasks-test\.npz: is damaged"):
        generate(on())


@pytest.mark.parametrize("absent", ["tasks-test.npz", "tasks-train.npz"])
def test_data_without_a_file_of_tasks_has_the_configs_split(on, theirs, capsys, absent):
    info = json.loads((theirs / "info.json").read_text())
    (theirs / absent).unlink()
    change_info(theirs, files={name: value for name, value in info["files"].items() if name != absent})
    config = on()
    assert config.takes_given_split
    if absent == "tasks-test.npz":  # the config's split is another one than the data's, and its leak is found
        with pytest.raises(ConfigError, match="held-out tasks are among the data's training tasks"):
            generate(config)
    else:
        assert generate(config)
        assert "split: 12 training, 1 validation and 3 held-out tasks, by this config" in capsys.readouterr().out
        assert goals(Experiment(config).splits) == goals(Experiment(config).split_of_config)


def test_data_of_other_parameters_of_the_family_has_the_configs_split(on, theirs):
    change_info(theirs, tasks={**TINY["tasks"], "reward": "once"})
    with pytest.raises(ConfigError, match="held-out tasks are among the data's training tasks"):
        generate(on())


def test_histories_from_elsewhere_have_the_configs_split(tmp_path):
    write_histories(tmp_path / "mine", [histories(np.random.default_rng(0))], recorded())
    plain = {**TINY, "output": str(tmp_path / "runs"), "data": {"folder": str(tmp_path / "mine")}}
    config = validate(merged(plain, {"model": {"context_episodes": 2}, "training": {"subsample": 1}}))
    generate(config)
    assert [len(tasks) for tasks in Experiment(config).splits] == [12, 1, 3]
    assert train(config) and evaluate(config)


def test_data_of_an_earlier_version_has_validation_tasks_where_tasks_are_left_over(on, theirs):
    info = json.loads((theirs / "info.json").read_text())
    (theirs / "tasks-validation.npz").unlink()
    del info["num_validation_tasks"], info["split_seed"], info["files"]["tasks-validation.npz"]
    (theirs / "info.json").write_text(record_text(info))
    found = []
    for number in range(2):
        config = on(f"given-{number}", seed=number)
        generate(config)
        splits = Experiment(config).splits
        assert [len(tasks) for tasks in splits] == [9, 1, 4]
        everything = np.concatenate([tasks.keys() for tasks in splits])
        assert len(np.unique(everything)) == 14
        found.append(goals(splits))
    assert found[0] == found[1]
    change_info(theirs, num_validation_tasks=0)  # they were turned off
    config = on("given-2")
    generate(config)
    assert not len(Experiment(config).validation_tasks)


def test_the_split_of_replaced_data_is_taken_anew(on, theirs, tiny):
    experiment = Experiment(on())
    generate(experiment)
    before = goals(experiment.splits)
    other = tiny(name="other", seed=8)
    generate(other)
    shutil.rmtree(theirs)
    shutil.copytree(run_folder(other).data, theirs)
    generate(experiment, overwrite=True)
    assert goals(experiment.splits) == goals(Experiment(other).splits) != before


def test_given_data_need_not_be_linked_to_know_its_split(on, theirs):
    experiment = Experiment(on())
    assert [len(tasks) for tasks in experiment.splits] == [9, 2, 4]
    assert not experiment.folder.path.exists()
    shutil.rmtree(theirs)
    with pytest.raises(UserError, match=r"theirs has no info\.json, so it is not a data set"):
        len(Experiment(on()).test_tasks)


def test_a_meta_learner_on_given_data_is_trained_on_the_datas_training_tasks(on, theirs):
    config = on(evaluation={"baselines": [LEANER]})
    with pytest.raises(UserError, match="has not been generated; run `icrl generate`"):
        meta_train(config)
    run_experiment(config)  # takes the data first
    assert set(load_summary(run_folder(config)).agents) == {"transformer", "test_meta_train:Leaner"}
    (learner,) = config.evaluation.baselines
    before = meta_fingerprint(config, learner)
    change_tasks(theirs, "tasks-train.npz", Tasks.load(theirs / "tasks-train.npz").take(slice(None, None, -1)))
    generate(config, overwrite=True)
    assert meta_fingerprint(config, learner) != before


def test_the_resolved_config_of_a_run_keeps_what_decides_the_split(on):
    for changes in ({}, {"split": {"train": 9, "test": 4}, "seed": 5}, {"seeds": {"split": 5}}):
        name = f"given-{len(changes)}-{'split' in changes}"
        config = on(name, **changes)
        try:
            generate(config)
        except ConfigError:  # of another split than the data's
            continue
        again = load_config(run_folder(config).config)
        assert again.takes_given_split == config.takes_given_split
        assert data_fingerprint(again) == data_fingerprint(config)


def test_the_files_of_tasks_are_linked_and_known(on):
    config = on()
    generate(config)
    folder = run_folder(config)
    assert [*load_info(folder).files] == [*TASK_FILES]
    assert all((folder.data / name).is_symlink() for name in TASK_FILES)
