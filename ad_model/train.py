"""Trains the transformer on a run's learning histories.

    python -m ad_model.train demo                                                             # one process
    accelerate launch -m ad_model.train --config demo                                         # as you set it up
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml -m ad_model.train --config demo

The same script runs from one CPU to FSDP2. Windows are a pure function of (seed, update), the learning rate is a
function of the update, and dropout is seeded by the update. So a killed run that resumes from its last checkpoint ends
with the very weights of an uninterrupted run, and one process and several with the same global batch give the same
losses.
"""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.utils import logging

from ad_model.build import build_model, check_objective, context_length, parameter_groups
from ad_model.checkpoint import load_checkpoint, resume_step, save_checkpoint
from ad_model.launched import check_accelerator, lost_processes_told, stops_now
from ad_model.objectives.base import Objective
from ad_model.streaming import StreamedWindows
from ad_model.token_cache import token_cache
from ad_model.training_log import TrainingLog
from ad_model.windows import Batch, WindowDataset
from data_gen.experiment import Experiment
from data_gen.storage.folder import load_info, load_tasks
from data_gen.storage.info import DataInfo
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks
from data_gen.tasks.same import MOST_RECORDED, in_form, training_tasks_record
from icrl.config.schema import ExperimentConfig, TrainingConfig
from icrl.run.checkpoints import TrainingRecord, checkpoint_record, last_checkpoint
from icrl.run.command import Invocation, run_module
from icrl.run.fingerprints import data_fingerprint, training_fingerprint
from icrl.run.folder import TASK_FILES, RunFolder, keep_config, locked, origin, stale, write_config
from icrl.run.purpose import Purpose
from icrl.run.trackers import check_trackers
from icrl.support.allocator import keep_freed_memory
from icrl.support.errors import UserError
from icrl.support.files import remove, remove_leftovers
from icrl.support.interruption import stop_requested
from icrl.support.terminal import leave, say


def train(given: Experiment | ExperimentConfig, overwrite: bool = False) -> bool:
    """Trains, or resumes training, until `training.steps`. Every process of a launch calls this function.

    Returns:
        True if there was anything to do.

    Raises UserError for missing or damaged data, for checkpoints of another config (unless `overwrite`), and for a full
    disk.
    """
    keep_freed_memory()
    logging.disable_progress_bar()  # saving takes a few milliseconds
    experiment = Experiment.of(given)
    config, folder, settings = experiment.config, experiment.folder, experiment.config.training
    check_trackers(config.runtime.trackers)
    accelerator = make_accelerator(config)
    check_accelerator(accelerator, config)
    with lost_processes_told(accelerator), locked(folder) if accelerator.is_main_process else contextlib.nullcontext():
        # The data, and the progress of an earlier call.
        info = load_info(folder)
        if info.fingerprint != data_fingerprint(config):
            raise stale(folder.data, "icrl generate --overwrite")
        fingerprint = training_fingerprint(config)
        start = 0 if overwrite else resume_step(folder.checkpoints, fingerprint, info.identity)
        if start == settings.steps:
            if accelerator.is_main_process:
                keep_config(config, folder)
            return False
        # Windows, model, optimiser.
        check_objective(config, experiment.family)
        objective: Objective = settings.objective.build()
        length = context_length(config.model, info.episode_length)
        windows = _windows(config, folder, info, objective, length, accelerator)
        spaces = info.observation_space, info.action_space
        model = build_model(config, *spaces, info.episode_length, windows.cache.statistics, objective.heads())
        model.config.training_tasks = _training_tasks(experiment, info)
        model.config.validation_tasks = _validation_tasks(experiment, info)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        _prepare_folder(config, folder, accelerator, overwrite)  # after everything that can be refused: this deletes
        model, optimizer = accelerator.prepare(model, optimizer)
        if start:
            load_checkpoint(accelerator, folder.checkpoints, start)
        # Updates, log lines and checkpoints.
        seed = config.seed_for("training")
        made_with = origin() | {"precision": accelerator.mixed_precision}
        with (
            contextlib.closing(windows),
            contextlib.closing(TrainingLog(config, folder, accelerator, model, start)) as log,
            stop_requested(launched=accelerator.num_processes > 1) as stop,
        ):
            for step, batches in _updates(windows, settings, accelerator, start):
                dropout_seed = make_seeds(1, seed, Purpose.DROPOUT, step, accelerator.process_index)
                torch.manual_seed(int(dropout_seed[0]))
                rate = learning_rate(settings, step)
                losses, gradient_norm = train_step(accelerator, model, optimizer, objective, batches, rate, settings)
                log.add(losses)
                done = step + 1
                logged = done % config.runtime.log_every == 0 or done == settings.steps
                if logged:
                    log.write(done, rate, gradient_norm)
                stopping = stops_now(accelerator, stop, logged)
                if done % config.runtime.checkpoint_every == 0 or done == settings.steps or stopping:
                    batch = send_to_device(windows[done * settings.accumulation_steps - 1], accelerator.device)
                    check_finite(accelerator, model, optimizer, objective, batch, done)
                    record = log.record(done, fingerprint, info.identity, made_with)
                    keep = config.runtime.keep_checkpoints
                    saved = save_checkpoint(accelerator, model, folder.checkpoints, record, keep)
                    if stopping:
                        stop.leave(saved)
    return True


def train_step(
    accelerator: Accelerator,
    model: Any,
    optimizer: Any,
    objective: Objective,
    batches: Iterable[Batch],
    rate: float,
    settings: TrainingConfig,
) -> tuple[list[Tensor], Any]:
    """One update: gradients of all micro-batches, clipped together, and a step of the optimiser.

    Args:
        accelerator: knows the micro-batch after which processes exchange gradients.
        model, optimizer: as the accelerator prepared them.
        objective: computes the loss of a batch.
        batches: the micro-batches of this update.
        rate: the learning rate.
        settings: `training`, for the norm that gradients are clipped to.

    Returns:
        The losses of the micro-batches, on the device, and the norm of the gradients before clipping.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses, gradient_norm = [], None
    # Gradients add up. The optimiser steps, and clears them, only after the last micro-batch.
    for batch in batches:
        with accelerator.accumulate(model):
            loss = objective.loss(model, batch["tokens"], batch["columns"])
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                gradient_norm = accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
    return losses, gradient_norm


def check_finite(
    accelerator: Accelerator, model: Any, optimizer: Any, objective: Objective, batch: Batch, done: int
) -> None:
    """Raises UserError if a checkpoint after `done` updates would not be finite. Every process calls it.

    Weights may be finite and still too large for any use, so the loss of one more batch is computed with them.
    """
    bare: Any = accelerator.unwrap_model(model, keep_torch_compile=False)  # without gradients it would compile again
    with torch.no_grad(), accelerator.autocast():
        loss = objective.loss(bare, batch["tokens"], batch["columns"])
    moments = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    bad = torch.zeros(3, device=accelerator.device)
    for number, tensors in enumerate(([loss], [*model.parameters()], moments)):
        for tensor in tensors:
            own = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a part of it under FSDP
            bad[number] += (~torch.isfinite(own)).any().to(bad)
    found: Any = accelerator.reduce(bad, reduction="sum")
    names = [
        name for name, count in zip(("loss", "weights", "optimiser's state"), found.tolist(), strict=True) if count
    ]
    if names:
        raise UserError(
            f"training diverged: the {' and the '.join(names)} after update {done} would not be finite; lower "
            "training.learning_rate"
        )


def main(call: Invocation, experiment: Experiment | None = None) -> None:
    """Trains, and prints the result."""
    experiment = experiment or Experiment(call.config)
    trained = train(experiment, call.overwrite)
    checkpoint = last_checkpoint(experiment.folder.checkpoints)
    record = checkpoint_record(checkpoint, TrainingRecord)
    if trained:
        cost = f"{record.parameters:,} parameters, {record.seconds:.0f} s"
        say(f"train: loss {record.loss:.3f}, {cost}: {checkpoint}")
    else:
        say(f"train: complete for this config, skipped: {checkpoint}")
    if call.alone:
        say(f"next: {call.next_command('evaluate')}")


def learning_rate(settings: TrainingConfig, step: int) -> float:
    """Learning rate of update `step` (from 0): linear warm-up, then a cosine down to `final_learning_rate`."""
    warmup = min(settings.warmup_steps, settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    low = settings.final_learning_rate
    return settings.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


def make_accelerator(config: ExperimentConfig) -> Accelerator:
    """The accelerator. Raises UserError if accelerate refuses the settings or runs fewer processes than launched."""
    # An objective with heads of its own may leave the policy head without a gradient; DDP stops unless it is told.
    unused = DistributedDataParallelKwargs(find_unused_parameters=bool(config.training.objective.build().heads()))
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=config.runtime.mixed_precision,
            gradient_accumulation_steps=config.training.accumulation_steps,
            dynamo_backend="inductor" if config.runtime.compile else None,
            kwargs_handlers=[unused],
        )
    except Exception as error:  # accelerate raises anything for a variable of the environment that it cannot read
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"runtime: accelerate refuses these settings: {why}") from error
    wanted = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"launched as {wanted} processes, but accelerate runs {accelerator.num_processes}: on CPUs, launch with "
            "--config_file configs/accelerate/multi_cpu.yaml"
        )
    return accelerator


def _windows(
    config: ExperimentConfig,
    folder: RunFolder,
    info: DataInfo,
    objective: Objective,
    length: int,
    accelerator: Accelerator,
) -> WindowDataset:
    """This process's part of the windows of the run's data, `length` steps each, from disk or streamed."""
    process, settings = (accelerator.process_index, accelerator.num_processes), config.training
    seed = config.seed_for("training")
    wanted = objective.columns
    if config.data.streaming:
        return StreamedWindows(config, info, wanted, length, *process)
    with accelerator.main_process_first():
        cache = token_cache(folder, settings.subsample, length, settings.selection, wanted)
    return WindowDataset(cache, length, settings.batch_size, seed, settings.accumulation_steps, *process)


def _prepare_folder(config: ExperimentConfig, folder: RunFolder, accelerator: Accelerator, overwrite: bool) -> None:
    """Deletes everything that this training replaces, and writes the config; the other processes wait."""
    if accelerator.is_main_process:
        if overwrite:
            for path in (folder.checkpoints, folder.logs):
                remove(path)
        folder.checkpoints.mkdir(exist_ok=True)
        remove_leftovers(folder.checkpoints)
        write_config(config, folder)
    accelerator.wait_for_everyone()


def _training_tasks(experiment: Experiment, info: DataInfo) -> dict[str, Any] | None:
    """The record of the tasks that the data comes from, which an evaluation compares with its held-out tasks.

    None if the tasks of given data are unknown.
    """
    stored = load_tasks(experiment.folder.data, info, TASK_FILES[0])
    tasks = None if stored is None else in_form(experiment.family, stored)
    return None if tasks is None else _record(experiment, tasks, "training", MOST_RECORDED)


def _validation_tasks(experiment: Experiment, info: DataInfo) -> dict[str, Any] | None:
    """The record of the tasks that choices may be made on, like `_training_tasks`; None if there are none."""
    if info.given is None:
        tasks = load_tasks(experiment.folder.data, info, TASK_FILES[1])
    else:
        tasks = experiment.validation_tasks
    return _record(experiment, tasks, "validation", MOST_RECORDED // 4) if tasks else None


def _record(experiment: Experiment, tasks: Tasks, kind: str, most: int) -> dict[str, Any] | None:
    """The record of tasks; None, and the user is told, if there are more than `most` of them."""
    record = training_tasks_record(experiment.family, tasks, most)
    if record is None:
        say(
            f"warning: {len(tasks):,} {kind} tasks: the model keeps no record of more than {most:,}, so an evaluation "
            "with another split cannot tell whether its held-out tasks are among them"
        )
    return record


def _updates(
    windows: WindowDataset, settings: TrainingConfig, accelerator: Accelerator, start: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Yields (step, micro-batches on the device) for every update from `start` on."""
    parts, cuda = settings.accumulation_steps, accelerator.device.type == "cuda"
    loader = DataLoader(windows, batch_size=None, sampler=range(start * parts, settings.steps * parts), pin_memory=cuda)
    batches = iter(loader)
    for step in range(start, settings.steps):
        yield step, (send_to_device(next(batches), accelerator.device, non_blocking=cuda) for _ in range(parts))


if __name__ == "__main__":
    leave(run_module("python -m ad_model.train", "Trains the transformer on a run's learning histories.", main))
