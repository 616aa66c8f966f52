"""The quick part of the fault harness on full disks."""

from conftest import ROOT, run_python

from tests.faults.harness.outcomes import read_outcomes


def test_a_full_disk_is_one_line_and_the_same_command_finishes_when_there_is_room(tmp_path):
    words = ["--kinds", "full_disks", "--number", "3", "--processes", "1", "--output", str(tmp_path)]
    finished = run_python(["-m", "tests.faults.harness", *words], ROOT)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    endings = {outcome.case: outcome.ending for outcome in read_outcomes(tmp_path / "outcomes.jsonl")}
    assert len(endings) == 3
    assert all(end == "refused, then finished" or end.startswith("no mount here") for end in endings.values()), endings
