"""Peak memory of `icrl push data` and of a pull, with few and with many shards of equal size, one process each.

python -m benchmarks.push_memory [--shards 4 40] [--megabytes 256] [--format hdf5 parquet]

The hub is a server of this project's tests on the loopback interface. It stores on the same disk: 10 GB of data need
three times as much space.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from benchmarks.common import report
from data_gen.storage.writing import Recorded, write_histories

_EPISODE, _STEPS, _PIXELS = 50, 1000, 32
_HISTORY = _STEPS * _PIXELS**2  # bytes; noise does not compress


def parts(shards: int, megabytes: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yields histories of noise images, about `megabytes` per shard."""
    histories = max(1, megabytes * 10**6 // _HISTORY)
    ended = np.zeros((histories, _STEPS), bool)
    ended[:, _EPISODE - 1 :: _EPISODE] = True
    for shard in range(shards):
        rng = np.random.default_rng(shard)
        yield {
            "observation": rng.integers(256, size=(histories, _STEPS, _PIXELS, _PIXELS), dtype=np.uint8),
            "action": rng.integers(4, size=(histories, _STEPS)),
            "reward": rng.random((histories, _STEPS)),
            "terminated": np.zeros_like(ended),
            "truncated": ended,
        }


def pushed(shards: int, megabytes: int, form: str) -> None:
    """Writes a data folder, pushes and pulls it, and reports the time and the peak memory of both."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from hub_server import HubServer

    about = Recorded(
        spaces.Box(0, 255, (_PIXELS, _PIXELS), np.uint8), spaces.Discrete(4), _EPISODE, [{"name": "noise"}]
    )
    with tempfile.TemporaryDirectory() as name, HubServer(Path(name) / "hub") as hub:
        folder = Path(name) / "noise"
        write_histories(folder, parts(shards, megabytes), about)
        size = sum(path.stat().st_size for path in folder.iterdir())
        environment = {**os.environ, **hub.environment(Path(name) / "home")}
        words = ["push", "data", str(folder), "--repo", "tester/noise", "--format", form]
        figures = {}
        for verb, command in (("push", words), ("pull", ["pull", "data", "tester/noise", "--to", f"{name}/pulled"])):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "icrl", *command], check=True, env=environment, stdout=subprocess.DEVNULL
            )
            figures[f"{verb}_seconds"] = round(time.perf_counter() - started)
            # The peak of all child processes so far; the push comes first.
            figures[f"{verb}_mebibytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    report("push_memory", format=form, shards=shards, megabytes=size // 10**6, **figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[4, 40])
    parser.add_argument("--megabytes", type=int, default=256, help="megabytes per shard")
    parser.add_argument("--format", nargs="+", choices=("hdf5", "parquet"), default=["hdf5", "parquet"])
    parser.add_argument("--only", action="store_true", help="measure in this process")
    args = parser.parse_args()
    for form in args.format:
        for shards in args.shards:
            if args.only:
                pushed(shards, args.megabytes, form)
                continue
            words = ["--only", "--shards", str(shards), "--megabytes", str(args.megabytes), "--format", form]
            subprocess.run([sys.executable, "-m", "benchmarks.push_memory", *words], check=True)
