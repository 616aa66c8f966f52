"""Recorded environment steps per second with Q-learning on Dark Room.

The time includes starting the workers, and writing and syncing the shards.

python -m benchmarks.generation
"""

import time

from benchmarks.common import experiment, report
from data_gen.generation.generate import generate
from data_gen.storage.folder import load_info
from icrl.run.folder import run_folder

if __name__ == "__main__":
    for workers in (1, 2):
        with experiment(
            "--data.histories_per_task", "128", "--data.shards", "8", "--runtime.workers", str(workers)
        ) as config:
            started = time.perf_counter()
            generate(config)
            seconds = time.perf_counter() - started
            info = load_info(run_folder(config))
            steps = info.num_histories * info.history_steps
            size = sum(path.stat().st_size for path in run_folder(config).data.glob("*.h5"))
        report(
            "generation",
            workers=workers,
            steps=steps,
            seconds=round(seconds, 2),
            steps_per_second=round(steps / seconds),
            bytes_per_step=round(size / steps, 2),
        )
