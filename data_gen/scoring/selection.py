"""Selection of the histories that training reads: `training.selection` applied to their scores."""

import numpy as np
from numpy.typing import NDArray

from data_gen.scoring.scores import HistoryScores
from icrl.config.schema import SelectionConfig
from icrl.support.errors import ConfigError

ALL_HISTORIES = SelectionConfig()
"""The default selection: all histories, equally likely."""

SCORES = {"min_improvement": "improvement", "min_final_return": "final_return", "max_drop": "drop"}
"""The score that each limit of `training.selection` applies to."""


def history_likelihoods(scores: HistoryScores, selection: SelectionConfig) -> NDArray[np.float64]:
    """(histories,) likelihood of each history in training, relative to the others; 0 for histories left out.

    Raises ConfigError, with the range of the scores, if no history is left.
    """
    met = limits_met(scores, selection)
    kept = np.logical_and.reduce([np.ones(len(scores), dtype=np.bool_), *met.values()])
    if not kept.any():
        raise ConfigError(_nothing_left(scores, selection, met))
    if selection.likelihood == "uniform":
        return kept.astype(np.float64)
    score = -scores.drop if selection.likelihood == "stability" else getattr(scores, selection.likelihood)
    kept &= ~np.isnan(score)
    if not kept.any():
        raise ConfigError(f"training.selection.likelihood: {selection.likelihood}: no history has a complete episode")
    above = np.where(kept, score - score[kept].min(), 0.0)
    return above if above.any() else kept.astype(np.float64)  # where all scores are equal, all are equally likely


def limits_met(scores: HistoryScores, selection: SelectionConfig) -> dict[str, NDArray[np.bool_]]:
    """Masks (histories,) of the histories that meet each limit, by its name. Histories without scores meet no limit."""
    met = {}
    if selection.min_improvement is not None:
        met["min_improvement"] = scores.improvement >= selection.min_improvement
    if selection.min_final_return is not None:
        met["min_final_return"] = scores.final_return >= selection.min_final_return
    if selection.max_drop is not None:
        met["max_drop"] = scores.drop <= selection.max_drop
    if selection.best_share < 1:
        met["best_share"] = _best_of_each_task(scores, selection.best_share)
    return met


def quartiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(5,) lowest value, lower quartile, median, upper quartile and highest value, without NaN; NaN if none is left."""
    known = values[~np.isnan(values)]
    return np.quantile(known, [0, 0.25, 0.5, 0.75, 1]) if len(known) else np.full(5, np.nan)


def _best_of_each_task(scores: HistoryScores, share: float) -> NDArray[np.bool_]:
    """Mask of the `share` of each task's histories with the best final return; ties go to the first history."""
    order = np.lexsort((np.arange(len(scores)), -scores.final_return, scores.task))  # NaN sorts last
    task = scores.task[order]
    _, first, size = np.unique(task, return_index=True, return_counts=True)
    rank = np.arange(len(scores)) - np.repeat(first, size)
    best = np.empty(len(scores), dtype=np.bool_)
    best[order] = rank < np.repeat(np.maximum(1, np.ceil(share * size - 1e-9)), size)
    return best & ~np.isnan(scores.final_return)


def _nothing_left(scores: HistoryScores, selection: SelectionConfig, met: dict[str, NDArray[np.bool_]]) -> str:
    parts = []
    for name, rows in met.items():
        text = (
            f"training.selection.{name}: {getattr(selection, name)} is met by {rows.sum():,} of {len(rows):,} histories"
        )
        if name in SCORES:
            shown = " ".join(f"{value:.3g}" for value in quartiles(getattr(scores, SCORES[name])))
            text += f", whose {SCORES[name].replace('_', ' ')} is {shown} (lowest, quartiles, highest)"
        parts.append(text)
    return (
        f"{'; '.join(parts)}: no history is left; `icrl info` shows the scores, here on the scale of the {scores.scale}"
    )
