"""The `runtime` section of a config: speed, devices and logging."""

from typing import Literal

from pydantic import PositiveInt, model_validator

from icrl.config.sections import Section, problem


class RuntimeConfig(Section):
    """Speed, devices and logging. These keys change results only by rounding."""

    workers: PositiveInt = 2
    """Number of local processes that generate data. Unused with `executor: dask`."""

    executor: Literal["processes", "dask"] = "processes"
    """Executor that makes the shards: local processes, or a Dask cluster."""

    scheduler: str | None = None
    """Address of the Dask scheduler, such as tcp://host:8786. Required by `executor: dask`."""

    device: str | None = None
    """Device of the evaluation and of the sources' networks. By default, the evaluation uses the first accelerator if
    there is one, and the sources use the CPU. Training always uses the device of accelerate."""

    check_values: bool = True
    """Check at every step that observations and actions are in their spaces, rewards finite and flags boolean, for
    environments and agents that are not this project's own. Turn this off only to record values that break their
    space, which are then cast to its type."""

    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """Precision of training. By default, the setting of `accelerate launch`."""

    compile: bool = False
    """Compile the model with torch.compile for training. Off by default."""

    trackers: tuple[str, ...] = ("tensorboard",)
    """Experiment trackers: any of tensorboard, wandb and trackio. An empty list turns tracking off."""

    log_every: PositiveInt = 20
    """Updates between two log lines."""

    checkpoint_every: PositiveInt = 200
    """Updates between two checkpoints. The last update always saves one."""

    meta_checkpoint_every: PositiveInt = 20
    """Iterations of meta-training between two checkpoints. The last iteration always saves one."""

    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints to keep. Older ones are deleted once a newer one is complete."""

    @model_validator(mode="after")
    def _dask_has_a_scheduler(self) -> "RuntimeConfig":
        if self.executor == "dask" and self.scheduler is None:
            raise problem("runtime.scheduler", None, "the dask executor needs its address: --scheduler tcp://HOST:PORT")
        return self
