"""Everything about a run that can be known before its first stage, so that nothing is refused after hours of data."""

import contextlib
from pathlib import Path

from ad_model.build import check_model, check_objective, check_spaces, context_length
from ad_model.in_context import TransformerAgent
from ad_model.initial import check_initial
from ad_model.launched import check_accelerator, make_accelerator
from ad_model.load import load_model
from ad_model.objectives.base import Objective
from data_gen.experiment import Experiment
from data_gen.generation.checks import check_generation
from data_gen.generation.executors import check_scheduler
from data_gen.interaction import spec_of
from data_gen.meta.store import meta_learners
from data_gen.meta.training import check_meta_learners
from data_gen.validation import has_validation_tasks
from eval.ablations import ABLATIONS
from eval.evaluate import check_agents
from eval.evaluated_tasks import evaluated_tasks
from eval.figures import load_figures
from eval.summary import load_summary
from icrl.run.checkpoints import TrainingRecord, checkpoint_path, checkpoint_record, checkpoint_steps
from icrl.run.fingerprints import evaluation_fingerprint
from icrl.run.folder import check_places, stale
from icrl.run.progress import check_training, replaced_evaluations
from icrl.run.trackers import check_logins, check_trackers
from icrl.support.errors import ConfigError, UserError


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
    check_initial(experiment)
    _check_validation(experiment)
    _check_evaluated_model(experiment)


def _check_earlier_work(experiment: Experiment) -> None:
    """Raises UserError if the folder holds a training or an evaluation of another config."""
    config, folder = experiment.config, experiment.folder
    steps = checkpoint_steps(folder.checkpoints)
    if steps:
        path = checkpoint_path(folder.checkpoints, steps[-1])
        check_training(path, checkpoint_record(path, TrainingRecord), config)
    if folder.summary.exists():
        made_by = load_summary(folder).fingerprint
        if made_by != evaluation_fingerprint(config) and made_by not in replaced_evaluations(config, folder):
            raise stale(folder.eval)


def _check_validation(experiment: Experiment) -> None:
    """Raises ConfigError if a setting needs validation that will not take place."""
    config = experiment.config
    has_validation_tasks(experiment)
    if config.evaluation.checkpoint == "best":
        needed = {"every": True, "meta_every": bool(meta_learners(config))}
        for key, is_needed in needed.items():
            if is_needed and not getattr(config.validation, key):
                raise ConfigError(f"evaluation.checkpoint: best: needs validation.{key} above 0")


def _check_evaluated_model(experiment: Experiment) -> None:
    """Raises UserError if `evaluation.checkpoint` is missing, damaged, or for other spaces or another objective."""
    config, place = experiment.config, experiment.config.evaluation.given
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
