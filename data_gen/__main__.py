"""`python -m data_gen CONFIG`: generates the learning histories of an experiment. The same as `icrl generate`."""

from data_gen.experiment import Experiment
from data_gen.generation.generate import generate
from data_gen.scoring.report import data_report, describe
from data_gen.storage.folder import load_info
from icrl.run.command import Invocation, run_module
from icrl.support.terminal import leave, say


def main(call: Invocation, experiment: Experiment | None = None) -> None:
    """Generates the data and prints a summary."""
    experiment = experiment or Experiment(call.config)
    config, folder = experiment.config, experiment.folder
    if generate(experiment, call.overwrite):
        info = load_info(folder)
        origin = f"from {config.data.given}" if config.data.given else f"in {info.seconds:.1f} s"
        say(f"generate: {info.num_histories:,} histories, {info.total_steps:,} steps, {origin}: {folder.data}")
        if not info.streamed:
            say(describe(data_report(folder, info), config.training.imitates))
    else:
        say(f"generate: complete for this config, skipped: {folder.data}")
    if call.alone:
        say(f"next: {call.next_command('train')}")


if __name__ == "__main__":
    leave(run_module("python -m data_gen", "Runs source agents and records their learning histories.", main))
