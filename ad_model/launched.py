"""Training under a launcher: the settings of accelerate, read back, and processes that stop or end together.

What decides a result comes from the config, never from the environment. `accelerate` reads variables such as
ACCELERATE_GRADIENT_ACCUMULATION_STEPS wherever they were set, and prefers them to its arguments.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from icrl.config.schema import ExperimentConfig
from icrl.support.errors import UserError, shown
from icrl.support.interruption import Stop
from icrl.support.terminal import say

_PRECISIONS = ("no", "fp16", "bf16")
_SHARDED_INPUT = ("tp_size", "cp_size", "sp_size")
"""Kinds of parallelism in which several processes need the same windows; here, every process has its own."""


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


def check_accelerator(accelerator: Accelerator, config: ExperimentConfig) -> None:
    """Raises UserError, with the variable to unset, if the accelerator differs from the config."""
    settings, runtime = config.training, config.runtime
    _expect(
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        accelerator.gradient_accumulation_steps,
        settings.accumulation_steps,
        "training.accumulation_steps",
    )
    wanted = (runtime.mixed_precision,) if runtime.mixed_precision else _PRECISIONS
    if accelerator.mixed_precision not in wanted:
        _expect(
            "ACCELERATE_MIXED_PRECISION",
            accelerator.mixed_precision,
            runtime.mixed_precision or "one of no, fp16, bf16",
            "runtime.mixed_precision",
        )
    elif runtime.mixed_precision is None and accelerator.mixed_precision != "no" and accelerator.is_main_process:
        found = accelerator.mixed_precision
        say(f"train: in {found}, as ACCELERATE_MIXED_PRECISION says; set runtime.mixed_precision to decide yourself")
    kinds = {"cpu", getattr(torch.accelerator.current_accelerator(), "type", "cpu")}
    if accelerator.device.type not in kinds:
        where = f"ACCELERATE_TORCH_DEVICE: {accelerator.device}"
        raise UserError(f"{where}: is not a device of this machine that trains; unset this variable")
    plugin = getattr(accelerator.state, "dynamo_plugin", None)
    compiled = plugin is not None and plugin.backend.value != "NO"
    _expect("ACCELERATE_DYNAMO_BACKEND", compiled, runtime.compile, "runtime.compile")
    if runtime.compile:
        _check_compiler(accelerator.device)
    for kind, variable in (
        (DistributedType.DEEPSPEED, "ACCELERATE_USE_DEEPSPEED"),
        (DistributedType.MEGATRON_LM, "ACCELERATE_USE_MEGATRON_LM"),
    ):
        if accelerator.distributed_type == kind:  # it clips, accumulates and steps by settings of its own
            raise UserError(f"{variable}: {kind.value} is not supported: unset it, and launch with FSDP or MULTI_GPU")
    parallel = getattr(accelerator, "parallelism_config", None)
    for name in _SHARDED_INPUT:
        if parallel is not None and (getattr(parallel, name, None) or 1) > 1:
            raise UserError(f"PARALLELISM_CONFIG_{name.upper()}: is {getattr(parallel, name)}, but only 1 is supported")


def stops_now(accelerator: Accelerator, stop: Stop, together: bool) -> bool:
    """True if the training is to save and end after this update.

    Several processes have to save the same update, so they agree on it: in updates with `together`, in which all of
    them wait for each other in any case.
    """
    if accelerator.num_processes == 1:
        return bool(stop)
    if not together:
        return False
    asked = torch.tensor(float(bool(stop)), device=accelerator.device)
    return float(accelerator.reduce(asked, reduction="sum")) > 0


@contextlib.contextmanager
def lost_processes_told(accelerator: Accelerator) -> Iterator[None]:
    """Turns what PyTorch raises when another process of the launch has ended into a UserError."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
        if accelerator.num_processes == 1 or not lost:
            raise
        raise UserError(
            "another process of this launch has ended, as its own messages say; run the same command again, without "
            "--overwrite, to continue"
        ) from error


def _check_compiler(device: torch.device) -> None:
    """Compiles a small function. Raises UserError where PyTorch cannot, such as without a C++ compiler."""
    try:
        torch.compile(lambda values: 2 * values + 1, backend="inductor")(torch.ones(8, device=device))
    except Exception as error:  # of every kind
        why = shown(str(error).strip().partition("\n")[0], quoted=False)
        raise UserError(
            f"runtime.compile: PyTorch cannot compile on this machine ({why}): install a C++ compiler, or leave the "
            "key out"
        ) from error


def _expect(variable: str, found: Any, wanted: Any, key: str) -> None:
    if found == wanted:
        return
    if variable in os.environ:
        value = os.environ[variable][:60]
        advice = f"{variable}={value}: this variable overrides {key}: {wanted}; unset it, or set {key}"
        raise UserError(f"{advice} (accelerate runs with {found})")
    raise UserError(f"{key}: {wanted}, but accelerate runs with {found}; start a new process")
