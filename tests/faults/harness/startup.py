"""Code that every Python process runs when it starts, also the processes of a launcher."""

from pathlib import Path

from tests.conftest import ROOT


def variables_that_run(code: str, folder: Path, **variables: object) -> dict[str, str]:
    """Variables with which every Python process runs `code` when it starts, and other variables for it."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{site}:{ROOT}", **{name: str(value) for name, value in variables.items()}}
