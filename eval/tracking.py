"""What experiment trackers are told of an evaluation."""

from typing import Any

from eval.results import describe, load_summary
from icrl.config.schema import ExperimentConfig
from icrl.run.folder import run_folder
from icrl.run.trackers import Report, attach_report


def track_evaluation(config: ExperimentConfig) -> None:
    """Adds the evaluation and its report to the training's run in the config's trackers, once.

    An evaluation of another checkpoint than the finished training's own is none of that run's, and is left out.

    Raises UserError if a tracker has not got it.
    """
    if config.evaluation.checkpoint is not None:
        return
    folder = run_folder(config)
    summary = load_summary(folder)
    pictures = sorted(folder.report_pictures.glob("*.png"))
    attach_report(config, Report(scalars(summary), describe(summary), folder.summary, folder.report, pictures))


def scalars(summary: dict[str, Any]) -> dict[str, float]:
    """The IQMs of a summary that are known, as `evaluation/SPLIT/AGENT/return/final_episodes`."""
    found = {}
    for agent, splits in summary["agents"].items():
        for split, figures in splits.items():
            for column in ("return", "normalised_return"):
                for name, figure in figures[column].items():
                    if isinstance(figure, dict) and figure["iqm"] is not None:
                        found[f"evaluation/{split}/{agent}/{column}/{name}"] = figure["iqm"]
    return found
