"""Meta-trains the meta-learners that an experiment names. The same as `icrl meta-train`.

    python -m data_gen.meta.training --config configs/bandit/rl2.yaml

Everything random in an iteration is a function of (seed, iteration), and a checkpoint holds all that the next iteration
depends on, so that a run that was killed goes on to the very weights of an uninterrupted one.
"""

import shutil
import sys
from contextlib import closing
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from data_gen.generation.generate import check_spaces, source_device, split_tasks
from data_gen.interaction import spec_of
from data_gen.meta.base import MetaLearner, TrainingTasks
from data_gen.meta.store import (
    TRAINING_STATE,
    WEIGHTS,
    checked_record,
    learner_folder,
    load_tensors,
    meta_learners,
    trained_checkpoint,
)
from data_gen.meta.training_log import MetaTrainingLog
from data_gen.storage.folder import load_info
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent
from icrl.run.checkpoints import RECORD, checkpoint_path, checkpoint_steps, keep_last_checkpoints
from icrl.run.command import Invocation, run_module
from icrl.run.fingerprints import data_fingerprint, meta_fingerprint
from icrl.run.folder import SCHEMA_VERSION, RunFolder, locked, origin, run_folder, write_config
from icrl.run.trackers import check_trackers
from icrl.support.device import check_device
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import new_folder, remove_leftovers, write_json
from icrl.support.terminal import say


def meta_train(config: ExperimentConfig, overwrite: bool = False, until: int | None = None) -> list[Path]:
    """Meta-trains what is not finished; returns the folders of what was not.

    Args:
        config: the experiment.
        overwrite: begin anew.
        until: stop after this iteration, with a checkpoint; the next call goes on.

    Raises UserError if a meta-learner cannot live on these tasks, diverges, or its checkpoint is damaged.
    """
    folder, learners = run_folder(config), meta_learners(config)
    if not learners:
        return []
    check_device(config.runtime.device)
    check_trackers(config.runtime.trackers)
    training = check_meta_learners(config)
    worked = []
    with locked(folder):
        for component in learners.values():
            place = learner_folder(config, folder, component)
            if overwrite:
                shutil.rmtree(place, ignore_errors=True)
            if trained_checkpoint(config, folder, component) is None:
                check_data(config, folder)
                write_config(config, folder)
                _train(config, component, training[component.sees], place, until)
                worked.append(place)
    return worked


def main(call: Invocation) -> None:
    """Meta-trains, and says what came of it."""
    folder, learners = run_folder(call.config), meta_learners(call.config)
    if not learners and call.alone:
        raise UserError(f"{call.config_file}: names no meta-learner among its sources and baselines (rl2, maml, pearl)")
    worked = meta_train(call.config, call.overwrite)
    for component in learners.values():
        path = trained_checkpoint(call.config, folder, component)
        assert path is not None
        record = checked_record(path, call.config, component)
        if path.parent in worked:
            cost = f"{record['environment_steps']:,} environment steps, {record['seconds']:.0f} s"
            result = "" if record["return"] is None else f"return {record['return']:.3f}, "
            say(f"meta-train: {component.label or component.name}: {result}{cost}: {path}")
        else:
            say(f"meta-train: complete for this config, skipped: {path}")
    if call.alone:
        say(f"next: {call.next_command('generate')}")


def check_meta_learners(config: ExperimentConfig) -> dict[str, TrainingTasks]:
    """The training tasks, by what is seen of them. Raises ConfigError if a meta-learner cannot live on them."""
    distribution, tasks, _ = split_tasks(config)
    check_spaces(distribution)
    training: dict[str, TrainingTasks] = {}
    with closing(distribution.make_vec(tasks.take([0]))) as envs:
        for key, component in meta_learners(config).items():
            try:
                spec = spec_of(envs, distribution.episode_length, component.sees, source_device(config))
                learner: MetaLearner = component.build()
                training[component.sees] = TrainingTasks(distribution, tasks, spec, config.seed, component.sees)
                learner.start(training[component.sees])
            except UserError as error:
                raise ConfigError(f"{key}: {error}") from error
    return training


def check_data(config: ExperimentConfig, folder: RunFolder) -> None:
    """Raises UserError if the run folder has data of another config, which its `config.yaml` describes."""
    if folder.data_info.exists() and load_info(folder)["fingerprint"] != data_fingerprint(config):
        raise UserError(f"{folder.data} belongs to another config: choose another --name, or delete {folder.path}")


def _train(
    config: ExperimentConfig, component: AgentComponent, training: TrainingTasks, place: Path, until: int | None
) -> None:
    learner: MetaLearner = component.build()
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place)
    steps = checkpoint_steps(place)
    done, record = steps[-1] if steps else 0, None
    learner.start(training)
    if steps:
        path = checkpoint_path(place, done)
        record = checked_record(path, config, component)
        try:
            learner.trained_networks.load_state_dict(load_tensors(path / WEIGHTS))
            learner.load_training_state(load_tensors(path / TRAINING_STATE))
        except (RuntimeError, KeyError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}: the checkpoint is damaged ({why}); delete it to go on from an older one"
            ) from error
    last = learner.iterations if until is None else min(until, learner.iterations)
    with closing(MetaTrainingLog(config, component, place, learner.iterations, record)) as log:
        if not steps and last == 0:
            _save(config, component, learner, place, 0, log)
        while done < last:
            figures = learner.improve(done)
            done += 1
            log.write(done, figures)
            if any(weights.isnan().any() for weights in learner.trained_networks.state_dict().values()):
                raise UserError(
                    f"meta-training of {component.name} diverged in iteration {done}: its weights are no numbers; "
                    "lower its learning rates"
                )
            if done % config.runtime.meta_checkpoint_every == 0 or done == last:
                _save(config, component, learner, place, done, log)


def _save(
    config: ExperimentConfig,
    component: AgentComponent,
    learner: MetaLearner,
    place: Path,
    done: int,
    log: MetaTrainingLog,
) -> None:
    """A checkpoint, whole or not at all; of finished meta-training, without what only the next iteration needs."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "step": done,
        "fingerprint": meta_fingerprint(config, component),
        "agent": component.model_dump(mode="json"),
        "tasks": config.tasks.model_dump(mode="json"),
        **log.totals(),
        "made_with": origin(),
    }
    networks = learner.trained_networks.state_dict()
    state = {} if done == learner.iterations else learner.training_state()
    path = checkpoint_path(place, done)
    try:
        with new_folder(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in networks.items()}, temporary / WEIGHTS)
            save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, temporary / TRAINING_STATE)
            write_json(temporary / RECORD, record)
    except (SafetensorError, RuntimeError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(f"cannot write the checkpoint {path}: {why}") from error
    keep_last_checkpoints(place, config.runtime.keep_checkpoints)


if __name__ == "__main__":
    sys.exit(run_module("python -m data_gen.meta.training", "Meta-trains the meta-learners that a config names.", main))
