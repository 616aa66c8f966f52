"""Check that pushed data and models load where this project is not installed.

python -m benchmarks.bare_environments [--run runs/demo]

The check makes three virtual environments: one with `datasets`, for Parquet; one with h5py as well, which `datasets`
needs for HDF5; and one with torch, transformers and einops. A run is pushed to a local hub on the loopback
interface, as Parquet, HDF5 and a model, and loaded from there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.common import report

ROOT = Path(__file__).parent.parent
LOADS = """
from datasets import load_dataset
for streaming in (False, True):
    row = next(iter(load_dataset("tester/{repo}", split="train", streaming=streaming)))
    print(len(row["reward"]), len(row))
"""
CHECKS = {
    "datasets": (["datasets"], LOADS.format(repo="parquet")),
    "datasets and h5py": (["datasets", "h5py"], LOADS.format(repo="hdf5")),
    "transformers and torch": (
        ["torch", "transformers", "einops"],
        """
from transformers import AutoModel
model = AutoModel.from_pretrained("tester/model", trust_remote_code=True)
print(type(model).__name__, sum(parameter.numel() for parameter in model.parameters()))
""",
    ),
}


def main() -> None:
    """Runs the checks; exits with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/demo")
    run = parser.parse_args().run
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import HubServer

    with tempfile.TemporaryDirectory() as name, HubServer(Path(name) / "hub") as hub:
        # push
        surroundings = {**os.environ, **hub.environment(Path(name) / "home")}
        pushes = (["data", run, "--repo", "tester/hdf5"], ["model", run, "--repo", "tester/model"])
        for words in (*pushes, ["data", run, "--repo", "tester/parquet", "--format", "parquet"]):
            subprocess.run([sys.executable, "-m", "icrl", "push", *words], check=True, env=surroundings, cwd=ROOT)
        # load, each form in its own environment
        failed = False
        for label, (packages, code) in CHECKS.items():
            folder = Path(name) / label.replace(" ", "-")
            venv.create(folder, with_pip=True)
            python, constraints = str(folder / "bin" / "python"), str(ROOT / "constraints.txt")
            subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *packages], check=True)
            environment = {**hub.environment(folder / "home"), "PATH": os.environ["PATH"], "HOME": name}
            done = subprocess.run([python, "-c", code], cwd=name, env=environment, capture_output=True, text=True)
            failed |= done.returncode != 0
            output = done.stdout.split("\n")[:-1] or done.stderr.strip().split("\n")[-1:]
            report("bare_environments", environment=label, loads=done.returncode == 0, output=output)
    sys.exit(failed)


if __name__ == "__main__":
    main()
