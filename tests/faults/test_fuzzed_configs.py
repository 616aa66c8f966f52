"""The quick part of the fuzzing: a few seeds of every kind. The long part is `make faults`."""

import pytest

from tests.faults.harness import configs, parameters


@pytest.mark.parametrize(
    ("module", "cases"),
    [
        (configs, [f"values {100_000 + seed}" for seed in range(60)]),
        (configs, [f"text {100_000 + seed}" for seed in range(60)]),
        (parameters, [str(100_000 + seed) for seed in range(60)]),
    ],
)
def test_strange_input_is_accepted_or_refused_in_lines(module, cases, tmp_path):
    outcomes = [module.attempt(tmp_path, case, tmp_path) for case in cases]
    assert [outcome for outcome in outcomes if outcome.broken] == []
    assert any(outcome.ending.startswith("refused") for outcome in outcomes)
