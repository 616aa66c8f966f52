"""Nothing that a file names is built or imported, unless the user's own config says the same."""

import json
import shutil
import sys

import numpy as np
import pytest

from data_gen.generation.generate import generate
from data_gen.scoring.report import data_report
from data_gen.storage.folder import load_info
from data_gen.storage.named_family import is_plain, named_family
from data_gen.storage.writing import Recorded, write_histories
from data_gen.tasks.base import Tasks
from icrl import cli
from icrl.config.loader import make_tasks
from icrl.run.folder import folder_of_data, run_folder
from icrl.run.records import record_text
from icrl.support.files import sha256

TRAP = "def load(**_):\n    open({marker!r}, 'w').write('ran')\n    return 0\nclass Family:\n    pass\nload()\n"

CARTPOLE = {"name": "gymnasium", "env_id": "CartPole-v1"}
HOSTILE = [
    {**CARTPOLE, "vary": {"x": {"call": "trap_module:load", "seeds": 2}}},
    {**CARTPOLE, "vary": {"x": {"call": "torch.hub:load", "seeds": 2, "repo_or_dir": "DIR", "source": "local"}}},
    {**CARTPOLE, "layouts": 3, "wrappers": [{"name": "trap_module:load"}]},
    {**CARTPOLE, "layouts": 3, "wrappers": [{"name": "RecordVideo", "video_folder": "DIR/videos"}]},
    {"name": "gymnasium", "env_id": "trap_module:X-v0", "layouts": 3},
    {"name": "pixels", "of": {"name": "trap_module:Family"}},
    {"name": "pixels", "of": "trap_module:Family"},
    {"name": "pixels", "of": {"name": "dark_room", "params": {"name": "trap_module:Family"}}},
    {"name": "pixels", "of": {"name": "pixels", "of": {"name": "trap_module:Family"}}},
    {"name": "pixels", "of": {"name": "gymnasium", "env_id": "trap_module:X-v0", "layouts": 3}},
    {"name": "trap_module:Family"},
    {"name": "dark_room", "size": [{"name": "trap_module:Family"}]},
    {"name": "dark_room", "size": -1},
    {"name": "dark_room", "size": 10**5},
    {"name": "dark_room", "colour": "red"},
    {"name": "dark_room", "size": 4, "episode_length": 10**9},
]


def change_record(path, **changes):
    """Rewrites values of a record as a hostile writer would, with a checksum that fits."""
    path.write_text(record_text({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A complete run of a small Dark Room."""
    from icrl.config.loader import validate
    from tests.conftest import TINY

    config = validate({**TINY, "name": "made", "output": str(tmp_path_factory.mktemp("runs"))})
    generate(config)
    return config


@pytest.fixture
def pulled(made, tmp_path, monkeypatch):
    """A function that makes a pulled data folder whose record names other tasks, and a module that must not run."""
    marker = tmp_path / "ran"
    (tmp_path / "trap_module.py").write_text(TRAP.format(marker=str(marker)))
    (tmp_path / "hubconf.py").write_text(TRAP.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def make(tasks, to="pulled"):
        folder = tmp_path / to
        shutil.copytree(run_folder(made).data, folder)
        named = json.loads(json.dumps(tasks).replace("DIR", str(tmp_path)))
        change_record(folder / "info.json", tasks=named)
        return folder

    yield make
    assert not marker.exists()
    assert not (tmp_path / "videos").exists()
    assert "trap_module" not in sys.modules


@pytest.mark.parametrize("tasks", HOSTILE)
def test_the_family_that_a_pulled_folder_names_runs_nothing(pulled, tasks):
    folder = folder_of_data(pulled(tasks))
    assert not data_report(folder, load_info(folder)).normalised


def test_a_runs_own_data_is_not_believed_about_parameters_that_its_config_does_not_have(pulled, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    pulled(HOSTILE[0], to="run/data")
    (run / "config.yaml").write_text(
        "tasks: {name: gymnasium, env_id: CartPole-v1, vary: {x: [1, 2]}, layouts: null}\n"
    )
    folder = folder_of_data(run)
    assert not data_report(folder, load_info(folder)).normalised


@pytest.mark.parametrize("words", [["info"], ["push", "model", "--repo", "a/b", "--dry-run"]])
def test_the_config_in_a_pulled_data_folder_is_not_read(pulled, made, words, capsys):
    folder = pulled(load_info(run_folder(made)).tasks)
    (folder / "config.yaml").write_text("tasks: {name: 'trap_module:Family'}\n")
    at = 1 if words == ["info"] else 2
    assert cli.main([*words[:at], str(folder), *words[at:]]) == 1
    assert "is a data folder, not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["tasks: [1", "- 1", "tasks: dark_room", "", "tasks: {size: 4}"])
def test_a_config_beside_data_that_names_no_tasks_leaves_the_scale_unknown(made, tmp_path, text):
    shutil.copytree(run_folder(made).data, tmp_path / "data")
    (tmp_path / "config.yaml").write_text(text)
    folder = folder_of_data(tmp_path)
    assert not data_report(folder, load_info(folder)).normalised


def test_plain_families_of_a_pulled_folder_still_have_their_scale(made, pulled):
    folder = folder_of_data(pulled(load_info(run_folder(made)).tasks))
    report = data_report(folder, load_info(folder))
    assert report.normalised
    np.testing.assert_array_equal(report.curve, data_report(run_folder(made), load_info(run_folder(made))).curve)
    assert is_plain({"name": "pixels", "of": {"name": "dark_room", "size": 5}, "tile": 2})
    assert is_plain({"name": "cart_pole", "vary": ["length", "gravity"]})


@pytest.mark.parametrize(
    ("name", "parameters", "known"),
    [
        ("point_navigation", {"episode_length": 65536}, False),  # half a minute of simulated episodes
        ("dark_room", {"size": 64, "episode_length": 17000}, False),  # more than a minute of matrix products
        ("point_navigation", {"episode_length": 500}, True),
        ("dark_room", {"size": 17, "episode_length": 200}, True),
    ],
)
def test_a_small_folder_does_not_ask_for_minutes_of_computation(tmp_path, name, parameters, known):
    family = make_tasks(name, **parameters)
    space, length = family.observation_space, family.episode_length
    zeros = {key: np.zeros((1, length)) for key in ("reward", "terminated", "truncated")}
    part = {"observation": np.zeros((1, length, *space.shape), space.dtype),
            "action": np.zeros((1, length, *family.action_space.shape), family.action_space.dtype)}  # fmt: skip
    spaces = {"observation_space": space, "action_space": family.action_space, "episode_length": length}
    named = {"name": name, **parameters}
    about = Recorded(**spaces, sources=[{"name": "mine"}], tasks=named, train_tasks=family.sample(1, 0))
    write_histories(tmp_path / "theirs", [part | zeros], about)
    folder = folder_of_data(tmp_path / "theirs")
    assert (named_family(folder, load_info(folder)) is not None) is known


@pytest.mark.parametrize(
    "arrays",
    [
        {"goal": np.full((12, 2), 99)},
        {"goal": np.zeros((12, 3), int)},
        {"goal": np.zeros((2, 2), int)},
        {"aim": np.zeros((12, 2), int)},
        {"goal": np.full((12, 2), "x")},
    ],
)
def test_tasks_that_are_not_of_the_family_leave_the_scale_unknown(made, pulled, arrays):
    folder = pulled(load_info(run_folder(made)).tasks)
    Tasks(arrays).save(folder / "tasks-train.npz")
    files = json.loads((folder / "info.json").read_text())["files"]
    change_record(folder / "info.json", files={**files, "tasks-train.npz": sha256(folder / "tasks-train.npz")})
    assert not data_report(folder_of_data(folder), load_info(folder_of_data(folder))).normalised
