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
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.utils import logging

from ad_model.build import build_model, check_objective, context_length, parameter_groups
from ad_model.checkpoint import check_finite, load_checkpoint, save_checkpoint
from ad_model.going_on import Plan, kept_for_more, plan_training
from ad_model.initial import initial_model, join_tasks, statistics_of
from ad_model.launched import check_accelerator, lost_processes_told, make_accelerator, stops_now
from ad_model.modeling_ad import ADModel
from ad_model.objectives.base import Objective
from ad_model.schedule import learning_rate
from ad_model.streaming import StreamedWindows
from ad_model.token_cache import token_cache
from ad_model.training_log import TrainingLog
from ad_model.validation import Watch
from ad_model.windows import Batch, WindowDataset
from data_gen.experiment import Experiment
from data_gen.storage.folder import load_info, load_tasks
from data_gen.storage.info import DataInfo
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks
from data_gen.tasks.same import MOST_RECORDED, in_form, training_tasks_record
from icrl.config.schema import ExperimentConfig, TrainingConfig
from icrl.run.checkpoints import (
    TrainingRecord,
    checkpoint_path,
    checkpoint_record,
    checkpoint_steps,
    keep_last_checkpoints,
    last_checkpoint,
)
from icrl.run.command import Invocation, run_module
from icrl.run.fingerprints import data_fingerprint
from icrl.run.folder import TASK_FILES, RunFolder, keep_config, locked, origin, stale, write_config
from icrl.run.purpose import Purpose
from icrl.run.trackers import check_trackers
from icrl.support.allocator import keep_freed_memory
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
        plan = plan_training(config, folder.checkpoints, info.identity, overwrite)
        if plan.complete:
            if accelerator.is_main_process:
                keep_config(config, folder)
            return False
        # Windows, model, optimiser.
        check_objective(config, experiment.family)
        objective: Objective = settings.objective.build()
        windows = _windows(config, folder, info, objective, accelerator)
        model = _model(experiment, info, windows, objective)
        watch = Watch(experiment, accelerator, model)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        # After everything that can be refused, since this deletes.
        _prepare_folder(config, folder, accelerator, overwrite, plan)
        prepared, optimizer = accelerator.prepare(model, optimizer)
        if plan.start:
            load_checkpoint(accelerator, folder.checkpoints, plan.start)
        with contextlib.closing(windows):
            _make_updates(_Training(config, folder, accelerator, prepared, optimizer, objective, windows, watch, plan))
    return True


class _Training(NamedTuple):
    """Everything that the updates need."""

    config: ExperimentConfig
    folder: RunFolder
    accelerator: Accelerator
    model: Any
    optimizer: Any
    objective: Objective
    windows: WindowDataset
    watch: Watch
    plan: Plan


def _make_updates(training: _Training) -> None:
    """Makes all updates from the plan's start on, with their validations, log lines and checkpoints."""
    config, folder, accelerator, model, optimizer, objective, windows, watch, plan = training
    settings, runtime, seed = config.training, config.runtime, config.seed_for("training")
    kept = kept_for_more(config, folder.checkpoints)
    made_with = origin() | {"precision": accelerator.mixed_precision}
    with (
        contextlib.closing(TrainingLog(config, folder, accelerator, model, plan.start)) as log,
        stop_requested(launched=accelerator.num_processes > 1) as stop,
    ):
        for step, batches in _updates(windows, settings, accelerator, plan.start):
            dropout_seed = make_seeds(1, seed, Purpose.DROPOUT, step, accelerator.process_index)
            torch.manual_seed(int(dropout_seed[0]))
            rate = learning_rate(settings, step, plan.rewarmed)
            losses, gradient_norm = train_step(accelerator, model, optimizer, objective, batches, rate, settings)
            log.add(losses)
            # A validation, a log line and a checkpoint, if they are due; a new best result always has a checkpoint.
            done, verdict, stopped = step + 1, None, None
            last, due = done == settings.steps, watch.due(done)
            logged = last or due or done % runtime.log_every == 0
            stopping = stops_now(accelerator, stop, logged)
            saves = last or done % runtime.checkpoint_every == 0 or checkpoint_path(folder.checkpoints, done) == kept
            saves = saves or stopping
            if saves or due:
                batch = send_to_device(windows[done * settings.accumulation_steps - 1], accelerator.device)
                check_finite(accelerator, model, optimizer, objective, batch, done)
            if due:
                verdict = watch(model, done)
                stopped = watch.stops(verdict, done)
            if logged:
                log.write(done, rate, gradient_norm, verdict)
            if saves or stopped or (verdict and verdict.is_best):
                record = log.record(done, plan, made_with, verdict, stopped)
                saved = save_checkpoint(accelerator, model, folder.checkpoints, record)
                if accelerator.is_main_process:
                    keep_last_checkpoints(folder.checkpoints, runtime.keep_checkpoints, (watch.best(), kept))
                if stopping:
                    stop.leave(saved)
            if stopped:
                return


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


def main(call: Invocation, experiment: Experiment | None = None) -> None:
    """Trains, and prints the result."""
    experiment = experiment or Experiment(call.config)
    trained = train(experiment, call.overwrite)
    checkpoint = last_checkpoint(experiment.folder.checkpoints)
    record = checkpoint_record(checkpoint, TrainingRecord)
    if record.stopped:
        say(f"train: stopped early, after update {record.step} of {call.config.training.steps}: {record.stopped}")
    if trained:
        cost = f"{record.parameters:,} parameters, {record.seconds:.0f} s"
        say(f"train: loss {record.loss:.3f}, {cost}: {checkpoint}")
    else:
        say(f"train: complete for this config, skipped: {checkpoint}")
    if call.alone:
        say(f"next: {call.next_command('evaluate')}")


def _windows(
    config: ExperimentConfig, folder: RunFolder, info: DataInfo, objective: Objective, accelerator: Accelerator
) -> WindowDataset:
    """This process's part of the windows of the run's data, each as long as the context, from disk or streamed."""
    process, settings = (accelerator.process_index, accelerator.num_processes), config.training
    seed, length = config.seed_for("training"), context_length(config.model, info.episode_length)
    wanted = objective.columns
    if config.data.streaming:
        return StreamedWindows(config, info, wanted, length, *process)
    with accelerator.main_process_first():
        cache = token_cache(folder, settings.subsample, length, settings.selection, wanted)
    return WindowDataset(cache, length, settings.batch_size, seed, settings.accumulation_steps, *process)


def _model(experiment: Experiment, info: DataInfo, windows: WindowDataset, objective: Objective) -> ADModel:
    """The model that training begins with: with random weights, or with those of `training.initial`."""
    config = experiment.config
    initial = None if config.training.initial is None else initial_model(experiment)
    statistics = windows.cache.statistics if initial is None else statistics_of(initial.config)
    spaces = info.observation_space, info.action_space
    model = build_model(config, *spaces, info.episode_length, statistics, objective.heads())
    model.config.training_tasks = _training_tasks(experiment, info)
    model.config.validation_tasks = _validation_tasks(experiment, info)
    if initial is not None:
        model.load_state_dict(initial.state_dict())
        join_tasks(experiment, model.config, initial.config)
    return model


def _prepare_folder(
    config: ExperimentConfig, folder: RunFolder, accelerator: Accelerator, overwrite: bool, plan: Plan
) -> None:
    """Deletes everything that this training replaces, and writes the config; the other processes wait."""
    accelerator.wait_for_everyone()  # they may still be reading what is deleted
    if accelerator.is_main_process:
        if overwrite:
            for path in (folder.checkpoints, folder.logs):
                remove(path)
        for step in reversed(checkpoint_steps(folder.checkpoints)):
            if step > plan.start:  # of a shorter training, whose last updates are made again
                remove(checkpoint_path(folder.checkpoints, step))
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
