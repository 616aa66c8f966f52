"""The check that the configured device exists."""

from icrl.support.errors import ConfigError, UserError, shown


def check_device(name: str | None) -> None:
    """Raises ConfigError if `runtime.device` names no device, UserError if this machine cannot compute on it."""
    if name is None:
        return
    import torch  # takes seconds, and tabular sources do not need it

    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"runtime.device: cannot use {shown(name)}: {_line(error)}") from error
    try:
        torch.ones(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"runtime.device: cannot use {name!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
