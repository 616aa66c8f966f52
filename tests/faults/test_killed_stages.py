"""A few kills and neighbours of the long fault harness: `python -m tests.faults.harness` tries hundreds."""

import pytest
from conftest import TINY, merged

from tests.faults.harness import kills, neighbours
from tests.faults.harness.kills.scenarios import expected
from tests.faults.harness.stages import make_stages


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with generated data, and what uninterrupted commands make."""
    folder = tmp_path_factory.mktemp("home")
    make_stages(folder, merged(TINY, {"output": "runs"}), ("generate",))
    return folder


@pytest.mark.parametrize(
    ("stage", "by", "share", "restart"),
    [("generate", "interrupt", 5, "again"), ("train", "kill", 9, "twice"), ("train", "terminate", 6, "again")],
)
def test_a_stage_that_is_killed_continues_to_the_same_results(home, tmp_path, stage, by, share, restart):
    at = expected(home, stage)["operations"] * share // 10
    outcome = kills.attempt(home, f"{stage}:{by}:{at}:{restart}", tmp_path)
    assert not outcome.broken, outcome.detail


@pytest.mark.parametrize(
    "case", ["pair:train:generate-overwrite:5", "read-only:checkpoints", "link:log-to-another-file"]
)
def test_a_training_with_a_neighbour_keeps_its_promises(home, tmp_path, case):
    outcome = neighbours.attempt(home, case, tmp_path)
    assert not outcome.broken, outcome.detail
