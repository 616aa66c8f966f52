"""`python -m data_gen --config FILE`: makes the learning histories of an experiment. The same as `icrl generate`."""

import sys

from data_gen.generation.generate import generate
from data_gen.scoring.report import data_report, describe
from data_gen.storage.folder import is_streamed, load_info
from icrl.run.command import Invocation, run_module
from icrl.run.folder import run_folder
from icrl.support.terminal import say


def main(call: Invocation) -> None:
    """Generates, and says what came of it."""
    folder = run_folder(call.config)
    if generate(call.config, call.overwrite):
        info = load_info(folder)
        steps = info.num_histories * info.history_steps
        origin = f"from {call.config.data.given}" if call.config.data.given else f"in {info.seconds:.1f} s"
        say(f"generate: {info.num_histories:,} histories, {steps:,} steps, {origin}: {folder.data}")
        if not is_streamed(info):
            say(describe(data_report(folder, info), call.config.training.target))
    else:
        say(f"generate: complete for this config, skipped: {folder.data}")
    if call.alone:
        say(f"next: {call.next_command('train')}")


if __name__ == "__main__":
    sys.exit(run_module("python -m data_gen", "Source agents leave learning histories on the training tasks.", main))
