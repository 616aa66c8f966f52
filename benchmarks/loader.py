"""Context windows per second from the memory-mapped token cache, as training reads them: 100 steps each, on one core.

python -m benchmarks.loader
"""

import time

import numpy as np
import torch

from ad_model.token_cache import token_cache
from ad_model.windows import WindowDataset
from benchmarks.common import experiment, report
from data_gen.generation.generate import generate
from icrl.run.folder import run_folder

CONTEXT, BATCH, BATCHES = 100, 64, 2000

if __name__ == "__main__":
    torch.set_num_threads(1)
    with experiment("--data.histories_per_task", "128", "--data.shards", "8") as config:
        generate(config)
        cache = token_cache(run_folder(config), config.training.subsample, CONTEXT)
        windows = WindowDataset(cache, CONTEXT, BATCH, seed=0)
        speeds = []
        for repeat in range(4):
            started = time.perf_counter()
            for update in range(BATCHES):
                windows[repeat * BATCHES + update]
            speeds.append(BATCH * BATCHES / (time.perf_counter() - started))
        rows = len(cache.columns["action"])
    report(
        "loader",
        steps_in_cache=rows,
        context=CONTEXT,
        windows_per_second=round(float(np.median(speeds[1:]))),
        first_pass=round(speeds[0]),
    )
