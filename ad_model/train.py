"""Trains the transformer on a run's learning histories.

    python -m ad_model.train --config configs/demo.yaml                                       # one process
    accelerate launch -m ad_model.train --config configs/demo.yaml                            # what accelerate is told
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml -m ad_model.train --config configs/demo.yaml

The same script runs from one CPU to FSDP2. Windows are a pure function of (seed, step), the learning rate one of the
step, and dropout is seeded by the step, so a run that was killed goes on from its last checkpoint to the very weights
of an uninterrupted one, and one process and several with the same global batch give the same losses.
"""

import contextlib
import json
import math
import os
import shutil
import sys
import time
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.utils import logging

from ad_model.build import build_model, parameter_groups
from ad_model.checkpoint import checkpoint_record, last_checkpoint, load_checkpoint, resume_step, save_checkpoint
from ad_model.throughput import flops_per_token, keep_freed_memory, matmul_peak, synchronize
from ad_model.windows import TokenCache, WindowDataset, token_cache
from configs.command import Invocation, run_module, say
from configs.errors import UserError
from configs.files import remove_leftovers, write_file
from configs.run_folder import RunFolder, data_fingerprint, locked, run_folder, stale, training_fingerprint, write_config
from configs.schema import ExperimentConfig, TrainingConfig
from data_gen.generate import load_info

_MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(config: ExperimentConfig, overwrite: bool = False) -> bool:
    """Trains, or goes on training, until `training.steps`; every process of a launch calls it.

    Returns whether there was anything to do.

    Raises UserError for missing or damaged data, checkpoints of another config (unless `overwrite`), a full disk.
    """
    keep_freed_memory()
    logging.disable_progress_bar()  # of saving, a few milliseconds long
    folder, settings = run_folder(config), config.training
    accelerator = _accelerator(config, folder)
    with locked(folder) if accelerator.is_main_process else contextlib.nullcontext():
        info = load_info(folder)
        if info["fingerprint"] != data_fingerprint(config):
            raise stale(folder.data, "icrl generate --overwrite")
        _prepare_folder(config, folder, accelerator, overwrite)
        step = resume_step(folder.checkpoints, training_fingerprint(config))
        if step == settings.steps:
            return False
        model = build_model(config, info)
        context_length = model.config.context_length
        with accelerator.main_process_first():
            cache = token_cache(folder, settings.subsample, context_length)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        model, optimizer = accelerator.prepare(model, optimizer)
        if step:
            load_checkpoint(accelerator, folder.checkpoints, step)
        log = TrainingLog(config, folder, accelerator, model, step)
        for step, batches in _updates(config, cache, context_length, accelerator, step):
            set_seed(_dropout_seed(config.seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            for batch in batches:
                with accelerator.accumulate(model):
                    loss = model(**batch).loss
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        gradient_norm = accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                log.add(loss)
            done = step + 1
            if done % config.runtime.log_every == 0 or done == settings.steps:
                log.write(done, learning_rate(settings, step), gradient_norm)
            if done % config.runtime.checkpoint_every == 0 or done == settings.steps:
                record = {"fingerprint": training_fingerprint(config), **log.totals()}
                save_checkpoint(accelerator, model, folder.checkpoints, done, config.runtime.keep_checkpoints, record)
        log.close()
        accelerator.end_training()
    return True


def main(call: Invocation) -> None:
    """Trains, and says what came of it."""
    made = train(call.config, call.overwrite)
    folder = run_folder(call.config)
    checkpoint = last_checkpoint(folder.checkpoints)
    record = checkpoint_record(checkpoint)
    if made:
        say(f"train: {record['parameters']:,} parameters, loss {record['loss']:.3f}, {record['seconds']:.0f} s: {checkpoint}")
    else:
        say(f"train: complete for this config, skipped: {checkpoint}")
    say(f"next: {call.next_command('evaluate')}")


def learning_rate(settings: TrainingConfig, step: int) -> float:
    """Learning rate of update `step` (from 0): linear warm-up, then a cosine down to a share of the peak."""
    warmup = min(settings.warmup_steps, settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    low = settings.final_learning_rate
    return settings.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


def _accelerator(config: ExperimentConfig, folder: RunFolder) -> Accelerator:
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=config.runtime.mixed_precision,
            gradient_accumulation_steps=config.training.accumulation_steps,
            dynamo_backend="inductor" if config.runtime.compile else None,
            log_with=list(config.runtime.trackers) or None,
            project_dir=str(folder.path),
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"runtime: accelerate refuses these settings: {error}") from error
    wanted = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"launched as {wanted} processes, but accelerate runs {accelerator.num_processes}: on CPUs, launch with "
            "--config_file configs/accelerate/multi_cpu.yaml"
        )
    return accelerator


def _prepare_folder(config: ExperimentConfig, folder: RunFolder, accelerator: Accelerator, overwrite: bool) -> None:
    if accelerator.is_main_process:
        if overwrite:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
        for place in (folder.checkpoints, folder.cache):
            place.mkdir(exist_ok=True)
            remove_leftovers(place)
        write_config(config, folder)
    accelerator.wait_for_everyone()


def _updates(config: ExperimentConfig, cache: TokenCache, context_length: int, accelerator: Accelerator, start: int) -> Any:
    """Gives (step, micro-batches on the device) for every update from `start` on."""
    settings = config.training
    parts = settings.accumulation_steps
    windows = WindowDataset(
        cache,
        context_length,
        settings.batch_size,
        config.seed,
        parts,
        accelerator.process_index,
        accelerator.num_processes,
    )
    cuda = accelerator.device.type == "cuda"
    loader = DataLoader(windows, batch_size=None, sampler=range(start * parts, settings.steps * parts), pin_memory=cuda)
    batches = iter(loader)
    for step in range(start, settings.steps):
        yield (
            step,
            (
                {name: value.to(accelerator.device, non_blocking=cuda) for name, value in next(batches).items()}
                for _ in range(parts)
            ),
        )


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return hash((seed, step, process)) % 2**32


class TrainingLog:
    """Progress bar, trackers and `training_log.jsonl`; reads the loss off the device only when it writes a line."""

    def __init__(self, config: ExperimentConfig, folder: RunFolder, accelerator: Accelerator, model: Any, step: int):
        self.config, self.path, self.accelerator, self.step = config, folder.training_log, accelerator, step
        bare: Any = accelerator.unwrap_model(model)
        self.tokens_per_step = config.training.batch_size * bare.config.context_length
        self.num_parameters = sum(p.numel() for p in bare.parameters())
        context = bare.config.context_length
        self.flops = flops_per_token(self.num_parameters, config.model.num_layers, config.model.hidden_size, context)
        precision = _MIXED.get(accelerator.mixed_precision, torch.float32)
        self.peak = matmul_peak(accelerator.device, precision) * accelerator.num_processes
        lines = read_log(self.path)
        self.lines = [line for line in lines if line["step"] <= step]
        self.seconds = self.lines[-1]["seconds"] if self.lines else 0.0
        self.losses: list[torch.Tensor] = []
        if accelerator.is_main_process:
            write_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        try:
            accelerator.init_trackers("logs", config={})
        except (ImportError, ValueError) as error:
            raise UserError(f"runtime.trackers: {error}") from error
        self.bar = tqdm(
            total=config.training.steps,
            initial=step,
            unit=" updates",
            desc="train",
            dynamic_ncols=True,
            disable=not accelerator.is_main_process,
        )
        self.started = time.perf_counter()

    def add(self, loss: torch.Tensor) -> None:
        """Takes note of one micro-batch's loss, without waiting for it."""
        self.losses.append(loss.detach())

    def write(self, step: int, rate: float, gradient_norm: Any) -> None:
        """Writes one line for the updates since the last one; called by every process."""
        loss: Any = self.accelerator.reduce(torch.stack(self.losses).mean(), reduction="mean")
        synchronize(self.accelerator.device)
        now = time.perf_counter()
        speed = self.tokens_per_step * (step - self.step) / (now - self.started)
        self.seconds += now - self.started
        line = {
            "step": step,
            "loss": float(loss),
            "learning_rate": rate,
            "gradient_norm": float(gradient_norm),
            "tokens_per_second": round(speed),
            "share_of_peak": round(speed * self.flops / self.peak, 4),
            "seconds": round(self.seconds, 3),
        }
        self.bar.update(step - self.step)
        self.bar.set_postfix_str(f"loss {line['loss']:.3f}, {speed / 1e3:.0f}k tokens/s, {line['share_of_peak']:.0%} of peak")
        self.lines.append(line)
        if self.accelerator.is_main_process:
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=step)
        self.losses, self.step, self.started = [], step, time.perf_counter()

    def totals(self) -> dict[str, Any]:
        """What the whole training came to so far."""
        return {
            "parameters": self.num_parameters,
            "processes": self.accelerator.num_processes,
            "seconds": self.lines[-1]["seconds"] if self.lines else 0.0,
            "loss": self.lines[-1]["loss"] if self.lines else None,
        }

    def close(self) -> None:
        self.bar.close()


def read_log(path: Any) -> list[dict[str, Any]]:
    """The lines of a training log; a last line that a killed process left unfinished is dropped."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


if __name__ == "__main__":
    sys.exit(run_module("python -m ad_model.train", "Trains the transformer on a run's learning histories.", main))
