"""The baseline columns of Table 1 of Duan et al. 2016 (RL^2): reward over n pulls of a k-armed Bernoulli bandit.

    python -m benchmarks.rl2_bandits                       # n = 10 and 100, k = 5, 10, 50
    python -m benchmarks.rl2_bandits --pulls 500
    python -m benchmarks.rl2_bandits --pulls 10 --arms 5 --tasks 1000

Prints one line of JSON per cell, and a Markdown table at the end. `interact` runs every algorithm on tasks of the
`bandit` family. The hyper-parameter of each cell has the highest mean on `--tasks` tuning tasks, on the paper's
grid; the figures are for as many other tasks. The paper's figures are means over 1,000 tasks, printed with one decimal.
`z` is the difference divided by its standard error, which is the root of the summed squares of three errors: ours, that
of 1,000 tasks with our standard deviation, and that of rounding (0.1 / sqrt(12)).

Ties go to the first arm, as with `argmax`. The paper does not say how it breaks ties, but its greedy column shows it:
with ties broken at random, greedy earns 1.3 to 2.1 more than the printed figures at n = 100.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import report
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks
from data_gen.tasks.tabular.bandit import Bandit
from icrl.config.components import AGENTS, find_component

TENTHS = [round(0.1 * tenth, 1) for tenth in range(11)]
PAPER_TASKS = 1000
ROUNDING = 0.1 / math.sqrt(12)  # standard deviation of the error of rounding to one decimal
SLOTS = 1000
"""Tasks that run at once: few enough that 20 joint samples of 50 arms each stay small."""


@dataclass(frozen=True)
class Column:
    """A column of Table 1: an agent, its fixed parameters, and the one that is tuned on a grid."""

    title: str
    agent: str
    fixed: dict[str, Any]
    tuned: str | None = None
    grid: tuple[Any, ...] = ()


FIRST = {"ties": "first"}
COLUMNS = (
    Column("Random", "random", {}),
    Column("Gittins", "gittins", FIRST, "discount", (0.9, 0.99, 0.999, 0.9999)),
    Column("TS", "thompson", FIRST),
    Column("OTS", "optimistic_thompson", FIRST, "samples_per_step", (1, 2, 5, 10, 20)),
    Column("UCB1", "ucb1", FIRST, "exploration", tuple(TENTHS)),
    Column("eps-greedy", "bandit_epsilon_greedy", FIRST, "epsilon", tuple(TENTHS)),
    Column("Greedy", "bandit_epsilon_greedy", FIRST | {"epsilon": 0.0}),
)

PAPER = {  # (n, k): the columns in the order of `COLUMNS`, then RL^2
    (10, 5): (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6, 6.7),
    (10, 10): (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6, 6.7),
    (10, 50): (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5, 6.8),
    (100, 5): (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8, 78.7),
    (100, 10): (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1, 83.5),
    (100, 50): (49.8, 85.2, 64.5, 67.7, 84.3, 78.3, 78.0, 84.9),
    (500, 5): (249.8, 405.8, 402.0, 406.7, 405.8, 388.2, 380.6, 401.6),
    (500, 10): (249.0, 437.8, 429.5, 438.9, 437.1, 408.0, 395.0, 432.5),
    (500, 50): (249.6, 463.7, 427.2, 437.6, 457.6, 413.6, 402.8, 438.9),
}


def rewards(column: Column, value: Any, bandit: Bandit, tasks: Tasks, pulls: int, seed: int) -> NDArray[np.float64]:
    """Total reward of a lifetime on each task, shape (num_tasks,)."""
    parameters = column.fixed if column.tuned is None else column.fixed | {column.tuned: value}
    agent, seeds, totals = find_component(column.agent, AGENTS)(**parameters), make_seeds(len(tasks), seed), []
    for start in range(0, len(tasks), SLOTS):
        rows = np.arange(start, min(start + SLOTS, len(tasks)))
        history = interact(agent, bandit.make_vec(tasks.take(rows)), pulls, seeds[rows])
        totals.append(history.reward.sum(axis=1, dtype=np.float64))
    return np.concatenate(totals)


def cell(column: Column, pulls: int, arms: int, num_tasks: int) -> dict[str, Any]:
    """One cell of the table beside the paper's: tunes the hyper-parameter, then measures on other tasks."""
    started, bandit = time.perf_counter(), Bandit(arms=arms)
    tuning, reported = bandit.split(num_tasks, num_tasks, seed=arms)
    scores = {value: rewards(column, value, bandit, tuning, pulls, 1).mean() for value in column.grid}
    chosen = max(scores, key=lambda value: scores[value]) if scores else None
    totals = rewards(column, chosen, bandit, reported, pulls, 2)
    figures: dict[str, Any] = {"n": pulls, "k": arms, "algorithm": column.title, column.tuned or "fixed": chosen}
    deviation, paper = totals.std(ddof=1), PAPER.get((pulls, arms), (None,) * 8)[COLUMNS.index(column)]
    figures |= {"mean": round(totals.mean(), 3), "standard_error": round(deviation / math.sqrt(num_tasks), 3)}
    if paper is not None:
        error = math.hypot(deviation / math.sqrt(num_tasks), deviation / math.sqrt(PAPER_TASKS), ROUNDING)
        figures |= {"paper": paper, "z": round((totals.mean() - paper) / error, 2)}
    return figures | {"tasks": num_tasks, "seconds": round(time.perf_counter() - started, 1)}


def markdown(cells: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of the table, one row per n and k: our figures, with the paper's in brackets."""
    yield "| n, k | " + " | ".join(column.title for column in COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for n, k in dict.fromkeys((figures["n"], figures["k"]) for figures in cells):
        row = [figures for figures in cells if (figures["n"], figures["k"]) == (n, k)]
        digits = 2 if n < 100 else 1
        shown = (f"{figures['mean']:.{digits}f} ({figures.get('paper', '-')})" for figures in row)
        yield f"| {n}, {k} | " + " | ".join(shown) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulls", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--arms", type=int, nargs="+", default=[5, 10, 50])
    parser.add_argument("--tasks", type=int, default=4000)
    arguments = parser.parse_args()
    table = []
    for pulls in arguments.pulls:
        for arms in arguments.arms:
            for column in COLUMNS:
                table.append(cell(column, pulls, arms, arguments.tasks))
                report("rl2_bandits", **table[-1])
    print("\n".join(markdown(table)))
