"""An export of many data sets that is killed continues where it was."""

import pytest

from data_gen.exchange import minari_export
from data_gen.exchange.minari_export import export_minari
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from icrl.run.folder import run_folder
from icrl.support.errors import UserError

minari = pytest.importorskip("minari")


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    config = tiny(split={"train": 4, "test": 2}, data={"shards": 2})
    generate(config)
    return run_folder(config)


def killed_at_the_third_data_set(monkeypatch, folder, **words):
    real, calls = minari_export._make_namespace, []

    def third(dataset_id):
        calls.append(dataset_id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(dataset_id)

    with monkeypatch.context() as patch:
        patch.setattr(minari_export, "_make_namespace", third)
        with pytest.raises(KeyboardInterrupt):
            export_minari(folder, "ours/room-v0", by_task=True, **words)


def test_an_export_that_was_killed_is_continued_and_keeps_what_is_complete(folder, tmp_path, monkeypatch):
    killed_at_the_third_data_set(monkeypatch, folder)
    complete = {path: path.read_bytes() for path in (tmp_path / "minari").rglob("*.hdf5")}
    assert len(complete) == 2
    for left in (".ours.room-v0.export.1.tmp", ".ours.room-v0.2.tmp", "ours/.room-task-00003-v0.1.tmp"):
        (tmp_path / "minari" / left / "data").mkdir(parents=True)
    ids = export_minari(folder, "ours/room-v0", by_task=True)
    assert not list((tmp_path / "minari").rglob(".*"))
    assert len(ids) == 4 and set(minari.list_local_datasets()) == set(ids)
    assert all(path.read_bytes() == content for path, content in complete.items())
    with pytest.raises(UserError, match="already exists"):
        export_minari(folder, "ours/room-v0", by_task=True)


@pytest.mark.parametrize("by_task", [False, True])
def test_an_id_without_a_namespace_is_exported_too(folder, tmp_path, by_task):
    ids = export_minari(folder, "room-v0", by_task=by_task)
    assert set(minari.list_local_datasets()) == set(ids) and len(ids) == (4 if by_task else 1)
    assert not list((tmp_path / "minari").rglob(".*"))
    assert sum(minari.load_dataset(one).total_steps for one in ids) == load_info(folder).total_steps


def test_data_sets_of_another_selection_are_not_taken_for_those_of_the_killed_export(folder, monkeypatch):
    killed_at_the_third_data_set(monkeypatch, folder, histories=range(7))
    with pytest.raises(UserError, match="already exists"):
        export_minari(folder, "ours/room-v0", by_task=True)
