"""What meta-training says while it runs: a progress bar, trackers, and `training_log.jsonl`, one line an iteration."""

import json
import math
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.trackers import open_trackers
from icrl.support.files import read_json_lines, write_file

LOG = "training_log.jsonl"


class MetaTrainingLog:
    """The log of one meta-learner, which goes on where a checkpoint left off.

    Args:
        config: the experiment.
        component: the meta-learner.
        place: its folder.
        iterations: of the whole meta-training.
        record: of the checkpoint that it goes on from, if there is one; lines after it are dropped.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        component: AgentComponent,
        place: Path,
        iterations: int,
        record: dict[str, Any] | None,
    ) -> None:
        start = record or {"step": 0, "environment_steps": 0, "seconds": 0.0, "return": None}
        done, self._totals = start["step"], {key: start[key] for key in ("environment_steps", "seconds", "return")}
        self.path, self.name = place / LOG, component.label or component.name
        lines = [line for line in read_meta_log(self.path) if line["step"] <= done]
        write_file(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        self.trackers = open_trackers(config, f"{config.name}-{place.name}", "meta-train", place / "logs", done)
        self.bar = tqdm(
            total=iterations, initial=done, unit=" iterations", desc=f"meta-train {self.name}", dynamic_ncols=True
        )
        self.started = time.perf_counter()

    def write(self, iteration: int, figures: dict[str, float]) -> None:
        """Writes the line of an iteration, from 1. `figures` is what `MetaLearner.improve` returned."""
        now = time.perf_counter()
        before = self._totals
        line = {
            "step": iteration,
            **{name: float(value) if math.isfinite(value) else None for name, value in figures.items()},
            "environment_steps": before["environment_steps"] + int(figures["environment_steps"]),
            "steps_per_second": round(figures["environment_steps"] / (now - self.started)),
            "seconds": round(before["seconds"] + now - self.started, 3),
        }
        self.started = now
        self._totals = {key: line[key] for key in before}
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        self.trackers.log(
            {name: value for name, value in line.items() if name != "step" and value is not None}, iteration
        )
        self.bar.update(1)
        result = "" if line["return"] is None else f"return {line['return']:.3f}, "
        self.bar.set_postfix_str(f"{result}{line['steps_per_second'] / 1e3:,.0f}k steps/s")

    def totals(self) -> dict[str, Any]:
        """What the whole meta-training came to so far."""
        return self._totals

    def close(self) -> None:
        self.bar.close()
        self.trackers.close()


def read_meta_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return read_json_lines(path, {"step", "seconds", "environment_steps"})
