"""The figures of an evaluation as lines of text, for the terminal and for cards."""

from eval.figures import LEVEL
from eval.summary import SPLIT_TITLES, TRANSFORMER, Estimate, Summary, Value
from icrl.config.describe import aligned

NO_HELD_OUT = "held-out tasks were not evaluated (evaluation.test_tasks: 0)"
"""The sentence that every page without held-out tasks has."""


def describe(summary: Summary) -> str:
    """The figures on held-out tasks, on validation tasks if they were evaluated, and on task sets, as text.

    The figures on training tasks are shown only if there are no others.
    """
    title = "normalised return" if summary.normalised_return.known else "return"
    shown = summary.shown(brief=True)
    splits = [split for split in summary.splits if split != "train"] or ["train"]
    lines = [
        "\n".join(
            [
                *(_table(summary, split, f"{SPLIT_TITLES[split]} tasks") for split in splits),
                *(_table(summary, name, summary.set_title(name)) for name in summary.task_sets),
            ]
        ),
        f"  figures: {title}, interquartile mean over tasks and lifetimes, and the plain mean in brackets",
        "  last tenth: of the steps; where episodes end early, these are later episodes",
        "  trained with: environment steps before these lifetimes began",
    ]
    if f"reached_{LEVEL}" in (figure.key for figure in shown):
        last = f"last {summary.num_final_episodes} episodes"
        lines.insert(2, f"  reach {LEVEL}: share of the lifetimes whose {last} have a mean of {LEVEL} or more")
    if "success_rate" in (figure.key for figure in shown):
        lines.insert(2, f"  success: share of the last {summary.num_final_episodes} episodes that succeed")
    if any(agent.endswith(f" (over {summary.episodes})") for agent in summary.agents):
        lines.append(
            f"  over {summary.episodes}: schedules planned for these {summary.episodes} episodes, not as in the data"
        )
    reason = next(
        filter(None, (value.without_interval for _, _, value in summary.estimates(TRANSFORMER, summary.main_split))), ""
    )
    if "test" not in summary.splits:
        lines.append(f"  {NO_HELD_OUT}")
    if summary.seen:
        lines.append(f"  warning: {summary.seen}")
    return "\n".join([*lines, *([f"  {reason}"] if reason else [])])


def _table(summary: Summary, split: str, title: str) -> str:
    """One row per agent, with its figures on a split or task set."""
    shown = summary.shown(brief=True)
    rows = [(f"  {title}", *(figure.title for figure in shown), "trained with")]
    for agent in summary.agents:
        mark = "->" if agent == TRANSFORMER else "  "
        cells = (value_text(summary.value(agent, split, figure), figure.unit) for figure in shown)
        rows.append((f"  {mark} {agent}", *cells, trained_with(summary, agent)))
    widths = [max(len(row[column]) for row in rows) for column in range(1, len(rows[0]))]
    return aligned(
        [(row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))) for row in rows]
    )


def value_text(value: Value, unit: str = "return", mean: bool = True) -> str:
    """A value in a few characters: of an estimate, the interquartile mean, and in brackets the plain one if `mean`."""
    if isinstance(value, Estimate):
        if value.iqm is None or value.mean is None:
            return "unknown"
        if unit == "share":  # a rate is a mean
            return f"{value.mean:.2f}"
        return f"{value.iqm:.2f}" + (f" ({value.mean:.2f})" if mean and value.mean is not None else "")
    if value is None:
        return "-"
    return f"{value:.0f}" if unit != "share" and float(value).is_integer() else f"{value:.2f}"


def trained_with(summary: Summary, agent: str) -> str:
    """Environment steps of an agent's training, in a few characters; for the transformer, those of its data."""
    steps = summary.training_steps.get(agent)
    if steps is None:
        return "unknown"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if steps >= 0.9995 * size:
            return f"{steps / size:.3g}{unit}"
    return str(steps)
