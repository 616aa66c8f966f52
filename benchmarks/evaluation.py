"""Environment steps per second of the transformer in Dark Room, on one core at context 100, with and without its cache.

python -m benchmarks.evaluation
"""

import time

import numpy as np
import torch

from ad_model.build import build_model
from ad_model.in_context import TransformerAgent
from benchmarks.common import experiment, report
from data_gen.interaction import interact
from data_gen.spaces import to_json
from data_gen.streams import make_seeds

SLOTS, STEPS, RECOMPUTED_STEPS = 128, 1000, 160

if __name__ == "__main__":
    torch.set_num_threads(1)
    with experiment() as config:
        room = config.tasks.build()
        spaces = to_json(room.observation_space), to_json(room.action_space)
        model = build_model(config, *spaces, room.episode_length)
    tasks = room.all_tasks().take(np.arange(SLOTS) % 81)

    def speed(cached: bool, steps: int) -> float:
        """Environment steps per second over one lifetime."""
        agent = TransformerAgent(model, cached=cached)
        started = time.perf_counter()
        interact(agent, room.make_vec(tasks), steps, make_seeds(SLOTS, 0))
        return SLOTS * steps / (time.perf_counter() - started)

    speed(True, 120)  # warm-up
    pairs = [(speed(True, STEPS), speed(False, RECOMPUTED_STEPS)) for _ in range(3)]
    cached, recomputed = np.median(pairs, axis=0)
    report(
        "evaluation",
        slots=SLOTS,
        context=model.config.context_length,
        steps_per_second=round(cached),
        recomputing_steps_per_second=round(recomputed),
        ratio=round(float(np.median([a / b for a, b in pairs])), 1),
    )
