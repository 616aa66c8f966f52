"""The architecture: imports go one way, no file is too long, and the configs folder has no Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = ("icrl", "data_gen", "ad_model", "eval", "publish", "studies")
LONGEST_FILE = 350


def contracts(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_one_way(copy):
    done = contracts(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("icrl/support/errors.py", "import icrl.run.folder"),
        ("icrl/run/folder.py", "from data_gen.tasks.base import Tasks"),
        ("data_gen/interaction.py", "def late():\n    from ad_model.tokens import token_columns"),
        (
            "data_gen/tasks/base.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import data_gen.meta.base",
        ),
        ("data_gen/tasks/grids/grid.py", "import data_gen.tasks.points.plane"),
        ("eval/figures.py", "import eval.evaluate"),
        ("data_gen/streams.py", "def late():\n    from icrl import evaluate"),
        ("ad_model/modeling_ad.py", "import ad_model.tokens"),
    ],
)
def test_an_upward_or_circular_import_breaks_a_contract(copy, file, line):
    with open(copy / file, "a") as module:
        module.write(f"\n{line}\n")
    done = contracts(copy)
    assert done.returncode != 0 and "BROKEN" in done.stdout


def test_the_configs_folder_has_no_python_file():
    assert not list((ROOT / "configs").rglob("*.py"))


def test_no_file_exceeds_the_longest_allowed_length():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= LONGEST_FILE, path


def test_data_gen_has_few_modules_at_its_top_level():
    assert len([path for path in (ROOT / "data_gen").glob("*.py") if not path.stem.startswith("__")]) <= 8
