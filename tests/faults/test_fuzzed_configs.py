"""The quick part of the fuzzing: a few seeds of every kind. The long part: `python -m tests.faults.fuzz_configs`."""

import pytest
from fuzz_configs import KINDS, outcome


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "count"), [("configs", 60), ("texts", 60), ("parameters", 60)])
def test_strange_input_is_accepted_or_refused_in_lines(kind, count, tmp_path):
    results = [outcome(KINDS[kind], 100_000 + seed, tmp_path) for seed in range(count)]
    assert [result for result in results if not result.startswith(("accepted", "refused"))] == []
    assert any(result.startswith("refused") for result in results)
