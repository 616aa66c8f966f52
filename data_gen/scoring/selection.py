"""Which of a run's histories training reads, and how likely each is: `training.selection` applied to their scores."""

import numpy as np
from numpy.typing import NDArray

from data_gen.scoring.scores import HistoryScores
from icrl.config.schema import SelectionConfig
from icrl.support.errors import ConfigError

ALL_HISTORIES = SelectionConfig()
"""What training reads by default: everything, each history as likely."""

SCORES = {"min_improvement": "improvement", "min_final_return": "final_return", "max_drop": "drop"}
"""The score that each limit of `training.selection` is about."""


def history_likelihoods(scores: HistoryScores, selection: SelectionConfig) -> NDArray[np.float64]:
    """(histories,) how likely each history is in training, relative to the others; 0 for those left out.

    Raises ConfigError, with the scores that were found, if none is left.
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
    """Which histories meet each limit that is set, by its name; a history without scores meets none."""
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
    """Lowest, lower quartile, median, upper quartile and highest of what is not NaN, (5,); NaN of nothing."""
    found = values[~np.isnan(values)]
    return np.quantile(found, [0, 0.25, 0.5, 0.75, 1]) if len(found) else np.full(5, np.nan)


def _best_of_each_task(scores: HistoryScores, share: float) -> NDArray[np.bool_]:
    """Those of the best final return; of equal ones, the first."""
    order = np.lexsort((np.arange(len(scores)), -scores.final_return, scores.task))  # NaN sorts last
    task = scores.task[order]
    _, first, size = np.unique(task, return_index=True, return_counts=True)
    place = np.arange(len(scores)) - np.repeat(first, size)
    best = np.empty(len(scores), dtype=np.bool_)
    best[order] = place < np.repeat(np.maximum(1, np.ceil(share * size - 1e-9)), size)
    return best & ~np.isnan(scores.final_return)


def _nothing_left(scores: HistoryScores, selection: SelectionConfig, met: dict[str, NDArray[np.bool_]]) -> str:
    parts = []
    for name, rows in met.items():
        text = (
            f"training.selection.{name}: {getattr(selection, name)} is met by {rows.sum():,} of {len(rows):,} histories"
        )
        if name in SCORES:
            found = " ".join(f"{value:.3g}" for value in quartiles(getattr(scores, SCORES[name])))
            text += f", whose {SCORES[name].replace('_', ' ')} is {found} (lowest, quartiles, highest)"
        parts.append(text)
    return (
        f"{'; '.join(parts)}: no history is left; `icrl info` shows the scores, here on the scale of the {scores.scale}"
    )
