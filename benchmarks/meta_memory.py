"""Peak memory of meta-training with few and with many training tasks, one process per measurement.

python -m benchmarks.meta_memory [--tasks 100 10000]
"""

import argparse
import resource
import subprocess
import sys
import tempfile

from benchmarks.common import report
from data_gen.meta.training import meta_train
from icrl.config.loader import load_config

SMALL = {
    "bandit/rl2": "trials=64 units=16 joint_inputs=true task_coefficient=1.0",
    "points/navigation_maml": "meta_batch=20",
    "points/sparse_robot_pearl": "resident_tasks=64 updates=20",
}
"""Configs, with sizes so small that tasks would show in the memory if they were kept."""
ITERATIONS = 3


def one(name: str, tasks: int) -> None:
    """Meta-trains one config, and reports the peak memory of this process."""
    sizes = [f"data.sources.0.{word}" for word in f"{SMALL[name]} iterations={ITERATIONS}".split()]
    with tempfile.TemporaryDirectory() as folder:
        alone = ["--output", folder, "--runtime.trackers", "[]", "--evaluation.baselines", "[]"]
        meta_train(load_config(name, [*sizes, *alone, "--split.train", str(tasks)]))
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report("meta_memory", config=name, tasks=tasks, mebibytes=mebibytes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--only", choices=SMALL, help="measure this config only, in this process")
    args = parser.parse_args()
    if args.only:
        one(args.only, args.tasks[0])
    else:
        for name in SMALL:
            for tasks in args.tasks:
                words = ["-m", "benchmarks.meta_memory", "--only", name, "--tasks", str(tasks)]
                subprocess.run([sys.executable, *words], check=True, stderr=subprocess.DEVNULL)
