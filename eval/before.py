"""Everything about a run that can be known before its first stage, so that nothing is refused after hours of data."""

import contextlib
from pathlib import Path

from ad_model.build import check_model, check_objective, check_spaces, context_length
from ad_model.launched import check_accelerator
from ad_model.load import load_model
from ad_model.objectives.base import Objective
from ad_model.train import make_accelerator
from data_gen.experiment import Experiment
from data_gen.generation.checks import check_generation
from data_gen.generation.executors import check_scheduler
from data_gen.interaction import spec_of
from data_gen.meta.training import check_meta_learners
from eval.ablations import ABLATIONS
from eval.evaluate import check_agents
from eval.evaluated_tasks import evaluated_tasks
from eval.figures import load_figures
from eval.in_context import TransformerAgent
from eval.summary import load_summary
from icrl.run.checkpoints import TrainingRecord, checkpoint_path, checkpoint_record, checkpoint_steps
from icrl.run.fingerprints import evaluation_fingerprint, training_fingerprint
from icrl.run.folder import check_places, stale
from icrl.run.trackers import check_logins, check_trackers
from icrl.support.errors import UserError


def check_run(experiment: Experiment, overwrite: bool = False) -> None:
    """Raises UserError for whatever a stage of this run would refuse later; cheap checks first, nothing is written."""
    config, folder = experiment.config, experiment.folder
    check_trackers(config.runtime.trackers)
    if overwrite or not folder.summary.exists():  # finished work is shown without a network, too
        check_logins(config.runtime.trackers)
    check_places(folder)
    if not overwrite:
        _check_earlier_work(experiment)
    evaluated_tasks(experiment)
    load_figures(config.evaluation.figures, config.evaluation.episodes)
    check_model(config.model)
    context_length(config.model, experiment.family.episode_length)
    check_spaces(config.model, experiment.family)
    check_objective(config, experiment.family)
    if not config.data.given:
        check_generation(experiment)
    check_meta_learners(experiment)
    check_agents(experiment)
    check_accelerator(make_accelerator(config), config)
    if not config.data.given and not folder.data_info.exists():
        check_scheduler(config.runtime)
    _check_evaluated_model(experiment)


def _check_earlier_work(experiment: Experiment) -> None:
    """Raises UserError if the folder holds a training or an evaluation of another config."""
    config, folder = experiment.config, experiment.folder
    steps = checkpoint_steps(folder.checkpoints)
    if steps:
        path = checkpoint_path(folder.checkpoints, steps[-1])
        if checkpoint_record(path, TrainingRecord).fingerprint != training_fingerprint(config):
            raise stale(path)
    if folder.summary.exists() and load_summary(folder).fingerprint != evaluation_fingerprint(config):
        raise stale(folder.eval)


def _check_evaluated_model(experiment: Experiment) -> None:
    """Raises UserError if `evaluation.checkpoint` is missing, damaged, or for other spaces or another objective."""
    config, place = experiment.config, experiment.config.evaluation.checkpoint
    if place is None:
        return
    if not Path(place).exists() and Path(place).resolve().is_relative_to(experiment.folder.checkpoints.resolve()):
        return  # this run's own training will write it
    model = load_model(place, "cpu", config.evaluation.trust_remote_code)
    objective: Objective = config.training.objective.build()
    with contextlib.closing(experiment.family.make_vec(experiment.one_task)) as envs:
        try:
            kinds: list[type[TransformerAgent]] = [
                TransformerAgent,
                *(ABLATIONS[name] for name in config.evaluation.ablations),
            ]
            for kind in kinds:
                kind(model, 1.0, objective).check(spec_of(envs, experiment.lived_steps, "observation", "cpu"))
        except UserError as error:
            raise UserError(f"evaluation.checkpoint: {place}: {error}") from error
