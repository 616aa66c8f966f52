"""`python -m data_gen --config FILE`: makes the learning histories of an experiment. The same as `icrl generate`."""

import sys

from configs.command import Invocation, run_module, say
from configs.run_folder import run_folder
from data_gen.data_folder import is_streamed, load_info
from data_gen.data_report import data_report, describe
from data_gen.generate import generate


def main(call: Invocation) -> None:
    """Generates, and says what came of it."""
    folder = run_folder(call.config)
    if generate(call.config, call.overwrite):
        info = load_info(folder)
        steps = info["num_histories"] * info["num_steps"]
        origin = f"from {call.config.data.given}" if call.config.data.given else f"in {info['seconds']:.1f} s"
        say(f"generate: {info['num_histories']:,} histories, {steps:,} steps, {origin}: {folder.data}")
        if not is_streamed(info):
            say(describe(data_report(folder, info), call.config.training.target))
    else:
        say(f"generate: complete for this config, skipped: {folder.data}")
    if call.alone:
        say(f"next: {call.next_command('train')}")


if __name__ == "__main__":
    sys.exit(run_module("python -m data_gen", "Source agents leave learning histories on the training tasks.", main))
