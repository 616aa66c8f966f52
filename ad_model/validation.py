"""Validation of the transformer while it is being trained: the present weights act in context on validation tasks.

A copy of the model acts, and never the model itself, which may be sharded, compiled or wrapped for mixed precision. So
training is the same with and without validation, to the bit, and the figures are those of an evaluation of the same
weights, in full precision. The first process acts while the others wait for the result, on which all of them decide
alike. Under FSDP, the first process holds a whole copy of the weights.
"""

import copy
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ad_model.checkpoint import plain_weights
from ad_model.in_context import TransformerAgent
from ad_model.modeling_ad import ADModel
from ad_model.objectives.base import Objective
from ad_model.throughput import synchronize
from data_gen.experiment import Experiment
from data_gen.validation import Validation, Verdict, has_validation_tasks
from icrl.run.checkpoints import best_checkpoint
from icrl.support.errors import UserError
from icrl.support.terminal import say


class Watch:
    """Validates the model every `validation.every` updates. Every process of a launch makes one and calls it.

    Args:
        experiment: gives the tasks and the settings.
        accelerator: of the training.
        model: the model, before the accelerator has prepared it.
    """

    def __init__(self, experiment: Experiment, accelerator: Accelerator, model: ADModel) -> None:
        self.config, self.accelerator = experiment.config, accelerator
        self.folder = experiment.folder.checkpoints
        self.on = self.config.validation.every > 0 and has_validation_tasks(experiment)
        if self.config.validation.every and not self.on:
            say("train: there are no validation tasks (split.validation), so training is not validated")
        if self.on and accelerator.is_main_process:
            self.validation = Validation(experiment)
            self.model = copy.deepcopy(model).requires_grad_(False).to(accelerator.device)
            self.objective: Objective = self.config.training.objective.build()

    def due(self, done: int) -> bool:
        """True if the model is validated after `done` updates: a function of the config alone, never of the clock."""
        return self.on and (done % self.config.validation.every == 0 or done == self.config.training.steps)

    def __call__(self, model: Any, done: int) -> Verdict:
        """Validates the weights after `done` updates. Every process raises UserError if an environment does."""
        weights = plain_weights(self.accelerator, model)  # under FSDP, every process gives its part
        answer: list[Any] = [None]
        if self.accelerator.is_main_process:
            synchronize(self.accelerator.device)  # the time of the updates before is not the validation's
            self.model.load_state_dict(weights)
            agent = TransformerAgent(self.model, self.config.evaluation.temperature, self.objective)
            try:
                answer = [self.validation.verdict(agent, self.folder, done)]
            except UserError as error:
                answer = [error]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(answer)
        if isinstance(answer[0], UserError):
            raise answer[0]
        verdict: Verdict = answer[0]
        return verdict

    def best(self) -> Path | None:
        """The checkpoint with the best score so far; None if none was validated."""
        return best_checkpoint(self.folder)

    def stops(self, verdict: Verdict, done: int) -> str | None:
        """Why training stops early after `done` updates; None if it does not.

        The decision follows from the checkpoints, so it is the same after a restart.
        """
        patience, every = self.config.validation.patience, self.config.validation.every
        if patience is None or done - verdict.best_step < patience * every or done == self.config.training.steps:
            return None
        return f"no validation return above that of update {verdict.best_step} in {patience} validations"
