"""`python -m eval CONFIG`, the same as `icrl evaluate`: the frozen transformer on held-out tasks, and the report."""

from data_gen.experiment import Experiment
from eval.evaluate import evaluate
from eval.report import report_exists, write_report
from eval.summary import load_summary
from eval.summary_text import describe
from eval.tracking import track_evaluation
from icrl.run.command import Invocation, run_module
from icrl.run.trackers import check_trackers
from icrl.support.terminal import leave, say


def main(call: Invocation, experiment: Experiment | None = None) -> None:
    """Evaluates, writes the report, adds it to the training's trackers, and prints the result."""
    check_trackers(call.config.runtime.trackers)
    experiment = experiment or Experiment(call.config)
    folder = experiment.folder
    if evaluate(experiment, call.overwrite) or not report_exists(folder):
        say(f"evaluate: {folder.summary} and {folder.returns.name}")
        write_report(experiment)
    else:
        say(f"evaluate: complete for this config, skipped: {folder.eval}")
    say(describe(load_summary(folder)))
    say(f"report: {folder.report}")
    track_evaluation(experiment)


if __name__ == "__main__":
    leave(run_module("python -m eval", "The frozen transformer and every baseline on held-out tasks.", main))
