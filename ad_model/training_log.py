"""The output of training while it runs: a progress bar, trackers, and a log with one line every few updates."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from ad_model.going_on import Plan
from ad_model.throughput import flops_per_token, matmul_peak, synchronize
from data_gen.validation import Verdict, tell
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import TrainingRecord, checkpoint_path, checkpoint_record
from icrl.run.folder import RunFolder
from icrl.run.trackers import Trackers, open_trackers
from icrl.support.errors import UserError
from icrl.support.files import log_line, read_json_lines, remove_leftovers, write_file
from icrl.support.terminal import say

_MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingLog:
    """Progress bar, trackers and log of a training that starts after update `step`.

    The loss is read off the device only when a line is written, so that updates do not wait for it.
    """

    def __init__(self, config: ExperimentConfig, folder: RunFolder, accelerator: Accelerator, model: Any, step: int):
        self.config, self.path, self.accelerator, self.step = config, folder.training_log, accelerator, step
        # Operations per token and the machine's peak, for the speed in every line.
        bare: Any = accelerator.unwrap_model(model)
        self.tokens_per_step = config.training.batch_size * bare.config.context_length
        self.num_parameters = sum(p.numel() for p in bare.parameters())
        context = bare.config.context_length
        self.flops = flops_per_token(self.num_parameters, config.model.num_layers, config.model.hidden_size, context)
        precision = _MIXED.get(accelerator.mixed_precision, torch.float32)
        self.peak = matmul_peak(accelerator.device, precision) * accelerator.num_processes
        # Lines after the checkpoint are dropped: their updates run again.
        record = checkpoint_record(checkpoint_path(folder.checkpoints, step), TrainingRecord) if step else None
        self.lines = [] if record is None else read_log(self.path, record)
        self.seconds = self.lines[-1]["seconds"] if self.lines else 0.0
        self.losses = [torch.tensor(loss, device=accelerator.device) for loss in (record.unlogged if record else [])]
        self.trackers = Trackers({})
        if accelerator.is_main_process:
            write_file(self.path, "".join(map(log_line, self.lines)))
            remove_leftovers(folder.logs)
            self.trackers = open_trackers(config, config.name, "train", folder.logs, step)
        self.bar = tqdm(
            total=config.training.steps,
            initial=step,
            unit=" updates",
            desc="train",
            dynamic_ncols=True,
            disable=not accelerator.is_main_process,
        )
        self.started = time.perf_counter()

    def add(self, losses: list[torch.Tensor]) -> None:
        """Keeps the losses of an update's micro-batches, without waiting for the device."""
        self.losses += losses

    def write(self, step: int, rate: float, gradient_norm: Any, verdict: Verdict | None = None) -> None:
        """Writes one line for the updates since the last line; called by every process.

        Args:
            step: updates so far.
            rate, gradient_norm: of the last update.
            verdict: the result of a validation after it, if there was one.

        Raises UserError if the loss is not finite.
        """
        loss: Any = self.accelerator.reduce(torch.stack(self.losses).mean(), reduction="mean")
        synchronize(self.accelerator.device)
        if not math.isfinite(loss):
            raise UserError(
                f"training diverged: the loss is {float(loss)} at update {step}; lower training.learning_rate"
            )
        if hasattr(gradient_norm, "full_tensor"):  # a sharded tensor under FSDP
            gradient_norm = gradient_norm.full_tensor()
        now = time.perf_counter()
        watched = verdict.validated.figures if verdict else {}
        passed = now - self.started - watched.get("validation_seconds", 0.0)
        speed = self.tokens_per_step * (step - self.step) / passed
        self.seconds += now - self.started
        line = {
            "step": step,
            "loss": float(loss),
            "learning_rate": rate,
            "gradient_norm": float(gradient_norm),
            "tokens_per_second": round(speed),
            "share_of_peak": round(speed * self.flops / self.peak, 4),
            "seconds": round(self.seconds, 3),
            **watched,
        }
        self.bar.update(step - self.step)
        self.bar.set_postfix_str(
            f"loss {line['loss']:.3f}, {speed / 1e3:.0f}k tokens/s, {line['share_of_peak']:.0%} of peak"
        )
        if verdict:
            tell(f"after update {step}", verdict, not any(each.get("memorises") for each in self.lines))
        self.lines.append(line)
        if self.accelerator.is_main_process:
            with open(self.path, "a") as file:
                file.write(log_line(line))
        self.trackers.log({name: value for name, value in line.items() if name != "step"}, step)
        self.losses, self.step, self.started = [], step, time.perf_counter()

    def record(
        self, step: int, plan: Plan, made_with: dict[str, str], verdict: Verdict | None, stopped: str | None
    ) -> TrainingRecord:
        """The record of a checkpoint after `step` updates, with the figures of the whole training so far.

        Args:
            step: updates so far.
            plan: which training this is.
            made_with: versions and settings of the machine.
            verdict: the result of a validation of these weights, if there was one.
            stopped: why training stops here, if it does so early.
        """
        return TrainingRecord(
            step=step,
            fingerprint=plan.fingerprint,
            data=plan.data,
            stretches=plan.stretches,
            initial=plan.initial,
            validation=verdict.record if verdict else None,
            stopped=stopped,
            made_with=made_with,
            parameters=self.num_parameters,
            processes=self.accelerator.num_processes,
            seconds=self.lines[-1]["seconds"] if self.lines else 0.0,
            loss=self.lines[-1]["loss"] if self.lines else None,
            unlogged=[float(loss) for loss in self.losses] if self.accelerator.num_processes == 1 else [],
        )

    def close(self) -> None:
        """Closes the progress bar and the trackers."""
        self.bar.close()
        self.trackers.close()


def read_log(path: Path, record: TrainingRecord | None = None) -> list[dict[str, Any]]:
    """The lines of a training log; none if the file does not exist.

    With the `record` of a checkpoint, only lines up to it are returned, and the user is told if some are missing.
    """
    lines = read_json_lines(path, {"step", "loss", "seconds"})
    if record is None:
        return lines
    lines = [line for line in lines if line["step"] <= record.step]
    if (lines[-1]["loss"] if lines else None) != record.loss:
        say(f"warning: {path}: lines up to update {record.step} are missing")
    return lines
