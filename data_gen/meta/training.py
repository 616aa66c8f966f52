"""Meta-trains the meta-learners that an experiment names: the stage behind `icrl meta-train`.

Everything random in an iteration is a function of (seed, iteration), and a checkpoint holds everything that the next
iteration depends on. A run that was killed and resumed therefore ends with exactly the weights of an uninterrupted run.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_gen.experiment import Experiment
from data_gen.interaction import spec_of
from data_gen.meta.base import MetaLearner, TrainingTasks
from data_gen.meta.store import learner_folder, load_tensors, meta_learners, meta_record, trained_checkpoint
from data_gen.meta.training_log import MetaTrainingLog
from data_gen.storage.columns import check_recordable
from data_gen.storage.folder import load_info
from data_gen.validation import Validation, Verdict, has_validation_tasks
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import (
    MetaTrainingRecord,
    best_checkpoint,
    checkpoint_path,
    checkpoint_steps,
    keep_last_checkpoints,
)
from icrl.run.fingerprints import data_fingerprint, meta_fingerprint
from icrl.run.folder import META_STATE, META_WEIGHTS, RECORD, keep_config, locked, origin, stale, write_config
from icrl.run.records import write_record
from icrl.run.trackers import check_trackers
from icrl.support.device import check_device
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import checksums, new_folder, remove, remove_leftovers
from icrl.support.interruption import stop_requested

_LARGEST = 1e18  # below the root of the largest number in single precision, 1.8e19


def meta_train(given: Experiment | ExperimentConfig, overwrite: bool = False, until: int | None = None) -> list[Path]:
    """Meta-trains every meta-learner whose meta-training is not finished.

    Args:
        given: the experiment.
        overwrite: start again from scratch.
        until: stop after this iteration, with a checkpoint; the next call resumes there.

    Returns:
        the folders of the meta-learners that were trained.

    Raises UserError if a meta-learner cannot act on these tasks, diverges, or its checkpoint is damaged.
    """
    experiment = Experiment.of(given)
    config, folder, learners = experiment.config, experiment.folder, meta_learners(experiment.config)
    if not learners:
        return []
    check_device(config.runtime.device)
    check_trackers(config.runtime.trackers)
    if config.takes_given_split:
        load_info(folder)  # raises before the data is linked, whose training tasks the fingerprint has
    training = check_meta_learners(experiment)
    validation: Validation | None = None
    worked = []
    with locked(folder):
        remove_leftovers(folder.meta)
        for component in learners.values():
            home = learner_folder(config, folder, component)
            if overwrite:
                remove(home)
            if trained_checkpoint(config, folder, component) is None:
                check_data(experiment)
                write_config(config, folder)
                validation = validation or meta_validation(experiment)
                _train(config, component, training[component.sees], home, until, validation)
                worked.append(home)
        keep_config(config, folder)
    return worked


def check_meta_learners(experiment: Experiment) -> dict[str, TrainingTasks]:
    """The training tasks, by the agents' `sees`. Raises ConfigError if a meta-learner cannot act on these tasks."""
    family, tasks, device = experiment.family, experiment.train_tasks, experiment.source_device
    seed, check_values = experiment.config.seed_for("data"), experiment.config.runtime.check_values
    check_recordable(family.observation_space, family.action_space)
    training: dict[str, TrainingTasks] = {}
    with closing(family.make_vec(tasks.take([0]))) as envs:
        for key, component in meta_learners(experiment.config).items():
            try:
                spec = spec_of(envs, family.episode_length, component.sees, device)
                learner: MetaLearner = component.build()
                training[component.sees] = TrainingTasks(family, tasks, spec, seed, component.sees, check_values)
                learner.start(training[component.sees])
            except UserError as error:
                raise ConfigError(f"{key}: {error}") from error
    return training


def check_data(experiment: Experiment) -> None:
    """Raises UserError if the run folder has data of another config, since `config.yaml` must describe that data."""
    folder = experiment.folder
    if folder.data_info.exists() and load_info(folder).fingerprint != data_fingerprint(experiment.config):
        raise stale(folder.data, "icrl run --overwrite")


def meta_validation(experiment: Experiment) -> Validation | None:
    """The validation in meta-training; None if it is turned off, or if there are no validation tasks."""
    on = experiment.config.validation.meta_every > 0 and has_validation_tasks(experiment)
    return Validation(experiment, meta=True) if on else None


def _train(
    config: ExperimentConfig,
    component: AgentComponent,
    training: TrainingTasks,
    home: Path,
    until: int | None,
    validation: Validation | None,
) -> None:
    """Trains one meta-learner from its last checkpoint, or from scratch, to the end or to iteration `until`.

    In a validation, another agent acts with a copy of the weights, so that meta-training is the same without it.
    """
    learner: MetaLearner = component.build()
    home.mkdir(parents=True, exist_ok=True)
    remove_leftovers(home)
    # Fresh networks first: the checkpoint then replaces their weights and everything else that training keeps.
    learner.start(training)
    record = _resume(config, component, learner, home)
    done = record.step if record else 0
    last = learner.iterations if until is None else min(until, learner.iterations)
    with closing(MetaTrainingLog(config, component, home, learner.iterations, record)) as log, stop_requested() as stop:
        if record is None and last == 0:
            _save(config, component, learner, home, 0, log)
        while done < last:
            figures, verdict = _improved(component, learner, done), None
            done += 1
            if validation and (done % config.validation.meta_every == 0 or done == learner.iterations):
                _check_finite(component, done, learner, {})
                acting: MetaLearner = component.build()
                acting.weights = dict(learner.trained_networks.state_dict())  # type: ignore[misc]
                verdict = validation.verdict(acting, home, done, component.sees)
            log.write(done, figures, verdict)
            _check_finite(component, done, learner, {})
            saves = done % config.runtime.meta_checkpoint_every == 0 or done == last or stop
            if saves or (verdict and verdict.is_best):
                _save(config, component, learner, home, done, log, verdict)
            if stop:
                stop.leave(checkpoint_path(home, done))


def _improved(component: AgentComponent, learner: MetaLearner, done: int) -> dict[str, float]:
    """The figures of one more iteration. Raises UserError if an update is too large for single precision."""
    try:
        return learner.improve(done)
    except RuntimeError as error:
        if "without overflow" not in str(error):  # torch's words for a step size that is not a float
            raise
        raise _diverged(component, done + 1, "an update") from error


def _resume(
    config: ExperimentConfig, component: AgentComponent, learner: MetaLearner, home: Path
) -> MetaTrainingRecord | None:
    """Loads the last checkpoint into `learner` and returns its record; None without a checkpoint. Raises UserError."""
    steps = checkpoint_steps(home)
    if not steps:
        return None
    path = checkpoint_path(home, steps[-1])
    record = meta_record(path, config, component)
    try:
        learner.trained_networks.load_state_dict(load_tensors(path / META_WEIGHTS))
        learner.load_training_state(load_tensors(path / META_STATE))
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: the checkpoint is damaged ({why}); delete it to resume from an older one") from error
    return record


def _save(
    config: ExperimentConfig,
    component: AgentComponent,
    learner: MetaLearner,
    home: Path,
    done: int,
    log: MetaTrainingLog,
    verdict: Verdict | None = None,
) -> None:
    """Writes a checkpoint, whole or not at all. The last one has no training state, since no iteration follows."""
    record = MetaTrainingRecord(
        step=done,
        fingerprint=meta_fingerprint(config, component),
        agent=component.model_dump(mode="json"),
        tasks=config.tasks.model_dump(mode="json"),
        environment_steps=log.environment_steps,
        seconds=log.seconds,
        mean_return=log.mean_return,
        validation=verdict.record if verdict else None,
        made_with=origin(),
    )
    networks = learner.trained_networks.state_dict()
    state = {} if done == learner.iterations else learner.training_state()
    _check_finite(component, done, learner, state)
    path = checkpoint_path(home, done)
    try:
        with new_folder(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in networks.items()}, temporary / META_WEIGHTS)
            save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, temporary / META_STATE)
            write_record(temporary / RECORD, record.model_copy(update={"files": checksums(temporary)}))
    except (SafetensorError, RuntimeError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(f"cannot write the checkpoint {path}: {why}") from error
    best = best_checkpoint(home)
    keep_last_checkpoints(home, config.runtime.keep_checkpoints, (best,))


def _check_finite(component: AgentComponent, done: int, learner: MetaLearner, state: Mapping[str, Tensor]) -> None:
    """Raises UserError if weights are not finite or too large, or if `state` or a buffer holds NaN or infinity.

    The square of a number above _LARGEST overflows, so the next activations of such weights would be infinite. Minus
    infinity is allowed in buffers, where it masks.
    """
    networks = learner.trained_networks
    bad = [name for name, each in networks.named_parameters() if not bool((each.abs() < _LARGEST).all())]
    bad += [name for name, each in networks.named_buffers() if bool((each.isnan() | each.isposinf()).any())]
    bad += [name for name, each in state.items() if not bool(each.isfinite().all())]
    if bad:
        raise _diverged(component, done, bad[0])


def _diverged(component: AgentComponent, iteration: int, what: str) -> UserError:
    return UserError(
        f"meta-training of {component.name} diverged in iteration {iteration}: {what} is NaN, infinite or too large; "
        "lower its learning rates"
    )
