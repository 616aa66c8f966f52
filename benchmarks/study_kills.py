"""A study that is killed at random moments, and one in parts, beside one that runs through: `figures.parquet` is equal.

python -m benchmarks.study_kills                      # configs/studies/seeds.yaml, 10 kills, 2 parts: half an hour
python -m benchmarks.study_kills MY_STUDY --kills 3 --parts 4 --output runs/kills

The first run tells how long the study takes. The second is killed with SIGKILL after a random share of the time that is
left, and started again, as often as asked. The third runs all parts at once, each as one process.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.common import report


def main() -> None:
    """Runs the study in three ways, and prints one line of JSON for each. Exits with 1 if the figures differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="seeds")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=Path("runs/study_kills"))
    arguments, overrides = parser.parse_known_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    words = [arguments.study, "--name", "study", *overrides]
    # Straight through.
    started = time.perf_counter()
    expected = _finished(words, arguments.output / "through")
    seconds = time.perf_counter() - started
    report("study", way="through", seconds=round(seconds))
    # Killed.
    place, moments = arguments.output / "killed", np.random.default_rng(arguments.seed)
    left = seconds
    started = time.perf_counter()
    for _ in range(arguments.kills):
        moment = moments.uniform(0, left)
        process = _start(words, place)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        left = max(left - moment, 0.1 * seconds)  # what a kill loses is done again, so moments come up to the end
    killed = _finished(words, place)
    same = killed == expected
    report("study", way="killed", kills=arguments.kills, seconds=round(time.perf_counter() - started), same=same)
    # In parts.
    place = arguments.output / "parts"
    started = time.perf_counter()
    parts = [
        _start([*words, "--part", f"{index + 1}/{arguments.parts}", "--workers", "1"], place)
        for index in range(arguments.parts)
    ]
    codes = [part.wait() for part in parts]
    divided = _figures(place).read_bytes() == expected
    report("study", way="parts", seconds=round(time.perf_counter() - started), codes=codes, same=divided)
    sys.exit(0 if same and divided else 1)


def _start(words: list[str], output: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "icrl", "study", *words, "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _finished(words: list[str], output: Path) -> bytes:
    """The bytes of the figures, once the study has ended."""
    code = _start(words, output).wait()
    if code:
        sys.exit(code)
    return _figures(output).read_bytes()


def _figures(output: Path) -> Path:
    return output / "study" / "figures.parquet"


if __name__ == "__main__":
    main()
