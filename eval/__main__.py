"""`python -m eval --config FILE`: the frozen transformer on held-out tasks, and the report. As `icrl evaluate`."""

import sys

from configs.command import Invocation, run_module, say
from configs.run_folder import run_folder
from eval.evaluate import evaluate
from eval.report import write_report
from eval.results import describe, load_summary


def main(call: Invocation) -> None:
    """Evaluates, writes the report, and says what came of it."""
    folder = run_folder(call.config)
    if evaluate(call.config, call.overwrite) or not folder.report.exists():
        say(f"evaluate: {folder.summary} and {folder.returns.name}")
        write_report(call.config)
    else:
        say(f"evaluate: complete for this config, skipped: {folder.eval}")
    say(describe(load_summary(folder)))
    say(f"report: {folder.report}")


if __name__ == "__main__":
    sys.exit(run_module("python -m eval", "The frozen transformer and every baseline on held-out tasks.", main))
