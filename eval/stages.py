"""All stages of an experiment, one after another."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

from ad_model.train import main as train
from data_gen.__main__ import main as generate
from data_gen.experiment import Experiment
from data_gen.meta.__main__ import main as meta_train
from eval.__main__ import main as evaluate
from eval.before import check_run
from icrl.run.command import Invocation
from icrl.run.folder import remove_results

Stage = Literal["meta-train", "generate", "train", "evaluate"]

_STAGES: dict[Stage, Callable[[Invocation, Experiment], None]] = {
    "meta-train": meta_train,
    "generate": generate,
    "train": train,
    "evaluate": evaluate,
}


def _alone(stage: Stage, experiment: Experiment) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def run_stages(call: Invocation, around: Callable[[Stage, Experiment], AbstractContextManager[None]] = _alone) -> None:
    """Runs all stages, and skips those that are complete for the same config. Raises UserError.

    Args:
        call: the experiment, and whether its results are deleted first.
        around: gives the block that a stage runs in: a study puts there what another run has made already.
    """
    experiment = Experiment(call.config)  # one for all stages, so that tasks are split once
    check_run(experiment, call.overwrite)  # now, rather than after the data is generated
    if call.overwrite:
        remove_results(experiment.folder, with_data=not call.config.data.given)
    # Given data comes first, since meta-learners train on its tasks.
    first: tuple[Stage, Stage] = ("generate", "meta-train") if call.config.data.given else ("meta-train", "generate")
    stages: tuple[Stage, ...] = (*first, "train", "evaluate")
    for name in stages:
        with around(name, experiment):
            _STAGES[name](replace(call, alone=False), experiment)
