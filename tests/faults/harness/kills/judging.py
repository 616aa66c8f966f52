"""The promises about a kill: how the command ends, and that whatever was complete is still there and intact."""

from pathlib import Path
from typing import Any

from eval.summary import intact_summary
from icrl.run.checkpoints import MetaTrainingRecord, TrainingRecord, checkpoint_path, checkpoint_steps, intact_record
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError
from tests.faults.harness.promises import broken_promises, messages
from tests.faults.harness.stages import progress
from tests.faults.harness.uninterrupted import digest
from tests.faults.harness.watched import Result

MOST_SECONDS = 290.0
CODES = {"kill": -9, "terminate": 143, "interrupt": 130}
_WORDS = {"terminate": "terminated", "interrupt": "interrupted"}


def broken_ending(result: Result, by: str, hit: bool, worker: bool) -> dict[str, str]:
    """Broken promises of a command that was killed.

    Args:
        result: how the command ended.
        by: the signal.
        hit: whether the signal came before the command's end.
        worker: whether a worker got the signal, and not the command itself.
    """
    code, lines = (1 if worker else CODES[by]) if hit else 0, messages(result)
    broken = broken_promises(result, (code,), MOST_SECONDS)
    if worker:
        right = len(lines) == 1 and lines[0].startswith("error: a worker was killed")
    elif by == "kill" or not hit:
        right = not lines
    else:
        right = len(lines) == 1 and lines[0].startswith(_WORDS[by])
    return broken if right else {**broken, "many lines": "\n".join(lines)[-1500:] or "no line"}


def broken_restart(result: Result, code: int) -> dict[str, str]:
    """Broken promises of the command that was started again."""
    broken = broken_promises(result, (0, 1, 2), MOST_SECONDS)
    return broken if result.code == code else {**broken, "failed restart": f"{result.code}: {result.errors[-500:]}"}


def lost_or_damaged(start: Path, folder: Path, agreed: dict[str, Any], reached: dict[str, int]) -> dict[str, str]:
    """Broken promises of the moment after a kill: everything complete is still there, and intact.

    Args:
        start: the state before the command.
        folder: the state after the kill.
        agreed: the results of the command without a fault.
        reached: the progress just before the kill.
    """
    broken, now = {}, progress(folder)
    if lost := [f"{key} {now.get(key)} of {least}" for key, least in reached.items() if now.get(key, -1) < least]:
        broken["lost"] = f"after the kill: {'; '.join(lost)}"
    run_folder, damaged = RunFolder(folder / "runs/tiny"), []
    for path in run_folder.data.glob("train-*.h5"):
        name = path.relative_to(folder)
        known = [agreed.get(str(name)), *([digest(start / name)] if (start / name).exists() else [])]
        if digest(path) not in known:
            damaged.append(str(name))
    kinds: list[tuple[Path, Any]] = [(run_folder.checkpoints, TrainingRecord)]
    kinds += [(each, MetaTrainingRecord) for each in run_folder.meta.glob("[!.]*")]
    try:
        for each, kind in kinds:
            for step in checkpoint_steps(each):
                intact_record(checkpoint_path(each, step), kind)
        if run_folder.summary.exists():
            intact_summary(run_folder)
    except UserError as error:
        damaged.append(str(error))
    return {**broken, "damaged": f"after the kill: {'; '.join(damaged)}"} if damaged else broken
