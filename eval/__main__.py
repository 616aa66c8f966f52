"""`python -m eval --config FILE`: the frozen transformer on held-out tasks, and the report. As `icrl evaluate`."""

import sys

from configs.command import Invocation, run_module, say
from configs.files import read_json
from configs.run_folder import run_folder
from eval.evaluate import TRANSFORMER, evaluate
from eval.report import write_report


def main(call: Invocation) -> None:
    """Evaluates, writes the report, and says what came of it."""
    folder = run_folder(call.config)
    if evaluate(call.config, call.overwrite) or not folder.report.exists():
        say(f"evaluate: {folder.summary} and {folder.returns.name}")
        write_report(call.config)
    else:
        say(f"evaluate: complete for this config, skipped: {folder.eval}")
    summary = read_json(folder.summary)
    for agent, splits in summary["agents"].items():
        figures = splits["test"]["normalised_return"]
        first, last = figures["first_episode"]["iqm"], figures["last_episodes"]["iqm"]
        mark = "->" if agent == TRANSFORMER else "  "
        say(
            f"  {mark} {agent:18} held-out tasks: {first:5.2f} in episode 1, {last:5.2f} in the last {summary['last_episodes']}"
        )
    say(f"report: {folder.report}")


if __name__ == "__main__":
    sys.exit(run_module("python -m eval", "The frozen transformer and every baseline on held-out tasks.", main))
