"""The check that the configured device exists."""

from icrl.support.errors import UserError


def check_device(name: str | None) -> None:
    """Raises UserError if `runtime.device` names a device that this machine's PyTorch cannot compute on."""
    if name is None:
        return
    import torch  # takes seconds, and tabular sources do not need it

    try:
        torch.ones(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"runtime.device: cannot use {name!r}: {why}") from error
