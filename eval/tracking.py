"""The part of an evaluation that goes to experiment trackers."""

from data_gen.experiment import Experiment
from eval.figures import BOTH_SCALES
from eval.summary import Estimate, Summary, load_summary
from eval.summary_text import describe
from icrl.run.trackers import Report, attach_report
from icrl.support.files import remove_leftovers


def track_evaluation(experiment: Experiment) -> None:
    """Adds the evaluation and its report to the training's run in the config's trackers, once.

    An evaluation of a model from elsewhere does not belong to that run, and is not added.

    Raises UserError if a tracker does not accept the report.
    """
    config, folder = experiment.config, experiment.folder
    if config.evaluation.given is not None:
        return
    summary = load_summary(folder)
    remove_leftovers(folder.logs)
    pictures = sorted(folder.report_pictures.glob("*.png"))
    attach_report(config, Report(scalars(summary), describe(summary), folder.summary, folder.report, pictures))


def scalars(summary: Summary) -> dict[str, float]:
    """Every known figure of a summary, as `evaluation/SPLIT/AGENT/SCALE/KEY`.

    Of an estimate, the IQM, and as `KEY_mean` the plain mean, which shows the lifetimes that fail.
    """
    known = {}
    for agent, splits in summary.agents.items():
        for split, figures in splits.items():
            for scale in BOTH_SCALES:
                for key, value in figures.on(scale).items():
                    numbers = {"": value.iqm, "_mean": value.mean} if isinstance(value, Estimate) else {"": value}
                    for suffix, number in numbers.items():
                        if number is not None:
                            known[f"evaluation/{split}/{agent}/{scale}/{key}{suffix}"] = float(number)
    return known
