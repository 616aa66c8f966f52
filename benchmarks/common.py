"""Shared parts of the benchmarks: a temporary experiment, and figures as one line of JSON."""

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"


@contextmanager
def experiment(*overrides: str) -> Iterator[ExperimentConfig]:
    """The demo's config with overrides, with its runs in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield load_config(DEMO, [*overrides, "--output", folder, "--runtime.trackers", "[]"])


def report(name: str, **figures: object) -> None:
    """Prints the figures of one benchmark as one line of JSON."""
    machine = {"machine": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": name, **figures, **machine}), flush=True)
