"""The quick part of two kinds of the fault harness: damage to files of a run folder, and flipped bits in them."""

import pytest
from conftest import ROOT, run_python

from tests.faults.harness.outcomes import read_outcomes

NUMBERS = {"damaged_files": 40, "flips": 150}


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_damaged_file_is_made_again_or_named_and_never_used(tmp_path, kind):
    words = ["--kinds", kind, "--number", str(NUMBERS[kind]), "--processes", "1", "--output", str(tmp_path)]
    finished = run_python(["-m", "tests.faults.harness", *words], ROOT)
    outcomes = read_outcomes(tmp_path / "outcomes.jsonl")
    assert finished.returncode == 0 and len(outcomes) == NUMBERS[kind], finished.stdout + finished.stderr
    assert len({outcome.ending for outcome in outcomes}) >= (3 if kind == "damaged_files" else 1)
