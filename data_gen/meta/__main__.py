"""`python -m data_gen.meta CONFIG`: meta-trains the meta-learners of an experiment. The same as `icrl meta-train`."""

from data_gen.experiment import Experiment
from data_gen.meta.store import meta_learners, meta_record, trained_checkpoint
from data_gen.meta.training import meta_train
from icrl.run.command import Invocation, run_module
from icrl.support.errors import UserError
from icrl.support.terminal import leave, say


def main(call: Invocation, experiment: Experiment | None = None) -> None:
    """Meta-trains and prints a summary. Raises UserError if the config names no meta-learner."""
    experiment = experiment or Experiment(call.config)
    learners = meta_learners(call.config)
    if not learners and call.alone:
        raise UserError(f"{call.config_file}: names no meta-learner among its sources and baselines (rl2, maml, pearl)")
    worked = meta_train(experiment, call.overwrite)
    for component in learners.values():
        path = trained_checkpoint(call.config, experiment.folder, component)
        assert path is not None
        record = meta_record(path, call.config, component)
        if path.parent in worked:
            cost = f"{record.environment_steps:,} environment steps, {record.seconds:.0f} s"
            result = "" if record.mean_return is None else f"return {record.mean_return:.3f}, "
            say(f"meta-train: {component.label or component.name}: {result}{cost}: {path}")
        else:
            say(f"meta-train: complete for this config, skipped: {path}")
    if call.alone:
        say(f"next: {call.next_command('generate')}")


if __name__ == "__main__":
    leave(run_module("python -m data_gen.meta", "Meta-trains the meta-learners that a config names.", main))
