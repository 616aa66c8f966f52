"""The output of meta-training while it runs: a progress bar, trackers, and a log with one line per iteration."""

import math
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from data_gen.validation import Verdict, tell
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import MetaTrainingRecord
from icrl.run.folder import LOGS, TRAINING_LOG
from icrl.run.trackers import open_trackers
from icrl.support.files import log_line, read_json_lines, remove_leftovers, write_file
from icrl.support.terminal import say


class MetaTrainingLog:
    """The log of one meta-learner, which continues where a checkpoint left off.

    Args:
        config: the experiment.
        component: the meta-learner.
        home: the meta-learner's folder.
        iterations: number of iterations of the whole meta-training.
        record: record of the checkpoint that training resumes from, or None. Lines after the checkpoint are dropped.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        component: AgentComponent,
        home: Path,
        iterations: int,
        record: MetaTrainingRecord | None,
    ) -> None:
        done = record.step if record else 0
        self.environment_steps = record.environment_steps if record else 0
        self.seconds = record.seconds if record else 0.0
        self.mean_return = record.mean_return if record else None
        self.path, self.name = home / TRAINING_LOG, component.label or component.name
        # Lines after the checkpoint are dropped: their iterations run again.
        lines = [line for line in read_meta_log(self.path) if line["step"] <= done] if done else []
        self.warned = any(line.get("memorises") for line in lines)
        if len(lines) < done:
            say(f"warning: {self.path}: lines up to iteration {done} are missing")
        write_file(self.path, "".join(map(log_line, lines)))
        remove_leftovers(home / LOGS)
        self.trackers = open_trackers(config, f"{config.name}-{home.name}", "meta-train", home / LOGS, done)
        self.bar = tqdm(
            total=iterations, initial=done, unit=" iterations", desc=f"meta-train {self.name}", dynamic_ncols=True
        )
        self.started = time.perf_counter()

    def write(self, iteration: int, figures: dict[str, float], verdict: Verdict | None = None) -> None:
        """Writes the line of an iteration.

        Args:
            iteration: counted from 1.
            figures: the result of `MetaLearner.improve`.
            verdict: the result of a validation after it, if there was one.
        """
        now = time.perf_counter()
        passed, self.started = now - self.started, now
        known = {name: float(value) if math.isfinite(value) else None for name, value in figures.items()}
        self.environment_steps += int(figures["environment_steps"])
        self.seconds = round(self.seconds + passed, 3)
        self.mean_return = known["return"]
        watched = verdict.validated.figures if verdict else {}
        improving = passed - watched.get("validation_seconds", 0.0)
        line: dict[str, Any] = {
            "step": iteration,
            **known,
            "environment_steps": self.environment_steps,
            "steps_per_second": round(figures["environment_steps"] / improving),
            "seconds": self.seconds,
            **watched,
        }
        if verdict:
            tell(f"of {self.name} after iteration {iteration}", verdict, warn=not self.warned)
            self.warned = self.warned or verdict.validated.memorises
        with open(self.path, "a") as file:
            file.write(log_line(line))
        shown = {name: value for name, value in line.items() if name != "step" and value is not None}
        self.trackers.log(shown, iteration)
        self.bar.update(1)
        result = "" if self.mean_return is None else f"return {self.mean_return:.3f}, "
        self.bar.set_postfix_str(f"{result}{line['steps_per_second'] / 1e3:,.0f}k steps/s")

    def close(self) -> None:
        """Closes the progress bar and the trackers."""
        self.bar.close()
        self.trackers.close()


def read_meta_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a meta-training log, without one that a killed process left unfinished."""
    return read_json_lines(path, {"step", "seconds", "environment_steps"})
