"""The baselines of RL2's Table 2: total reward over n episodes of a random tabular MDP, beside the paper's figures.

python -m benchmarks.rl2_mdps [--episodes 10 25] [--tasks 2000] [--tuning-tasks 1000]

Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", section 3.2. The paper's agents
have a prior mean reward of 0, while the tasks' is 1; both are measured. Parameters are tuned for each n and prior, on
tasks other than the reported ones; the paper's were tuned on its test tasks. Prints one line of JSON per cell, then a
Markdown table.
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import report
from data_gen.interaction import interact
from data_gen.returns import episode_returns
from data_gen.streams import make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.tabular.tabular_mdp import TabularMDP
from icrl.config.components import AGENTS, find_component

PAPER = {  # Table 2
    "random": {10: 100.1, 25: 250.2, 50: 499.7, 75: 749.9, 100: 999.4},
    "PSRL": {10: 138.1, 25: 408.8, 50: 904.4, 75: 1417.1, 100: 1939.5},
    "OPSRL": {10: 144.1, 25: 425.2, 50: 930.7, 75: 1449.2, 100: 1973.9},
    "UCRL2": {10: 146.6, 25: 424.1, 50: 918.9, 75: 1427.6, 100: 1942.1},
    "BEB": {10: 150.2, 25: 427.8, 50: 917.8, 75: 1422.6, 100: 1935.1},
    "epsilon-greedy": {10: 132.8, 25: 377.3, 50: 823.3, 75: 1293.9, 100: 1778.2},
    "greedy": {10: 134.8, 25: 368.8, 50: 769.3, 75: 1172.9, 100: 1578.5},
}
PAPER_TASKS = 1000

BAYES = {"prior_std": 1.0, "concentration": 1.0}
TRUE = {"prior_mean": 1.0} | BAYES
NEARLY_NONE = {"prior_mean": 0.0, "prior_std": 100.0}  # Osband's code: a prior precision of 1e-4


@dataclass(frozen=True)
class Column:
    """A column of Table 2: an agent, its priors by name, and the grid on which its one free parameter is tuned."""

    agent: str
    priors: dict[str, dict[str, float]] = field(default_factory=lambda: {"none": {}})
    fixed: dict[str, Any] = field(default_factory=dict)
    parameter: str | None = None
    grid: tuple[float, ...] = ()


def _priors(published: dict[str, float]) -> dict[str, dict[str, float]]:
    return {"published": published, "true": TRUE}


_LOG_GRID = tuple(round(float(value), 4) for value in np.geomspace(0.01, 1, 13))
COLUMNS = {
    "random": Column("random"),
    "PSRL": Column("psrl", _priors({"prior_mean": 0.0} | BAYES)),
    "OPSRL": Column("opsrl", _priors({"prior_mean": 0.0} | BAYES), {}, "samples", (2, 3, 5, 8, 12)),
    "UCRL2": Column("ucrl2", _priors(NEARLY_NONE | {"concentration": 1e-5}), {}, "scaling", _LOG_GRID),
    "BEB": Column("beb", _priors({"prior_mean": 0.0} | BAYES), {}, "beta", (0, 5, 10, 15, 20, 25, 30, 35, 40, 50)),
    "epsilon-greedy": Column(  # the paper's grid begins at .1; 0 is the greedy column
        "mdp_epsilon_greedy", _priors(NEARLY_NONE | {"concentration": 1e-4}), {}, "epsilon", (0.1, 0.2, 0.3, 0.4, 0.5)
    ),
    "greedy": Column("mdp_epsilon_greedy", _priors(NEARLY_NONE | {"concentration": 1e-4}), {"epsilon": 0.0}),
    "optimistic Q-learning": Column(
        "q_learning", fixed={"discount": 0.6, "step_size": 0.2, "initial_value": 5.0, "epsilon_start": 0.0}
    ),
}


@dataclass(frozen=True)
class Cell:
    """Mean total reward over n episodes, its standard error, and the paper's figure."""

    mean: float
    error: float
    paper: float | None
    sigmas: float | None
    """Difference from the paper in standard errors, which combine the paper's 1,000 tasks and the tasks here."""
    parameter: str

    @staticmethod
    def of(totals: NDArray[np.float64], paper: float | None, parameter: str) -> "Cell":
        """The cell of (num_tasks,) total rewards, beside the paper's mean."""
        deviation = float(totals.std(ddof=1))
        error = deviation / len(totals) ** 0.5
        sigmas = (
            None
            if paper is None
            else float(totals.mean() - paper) / float(np.hypot(error, deviation / PAPER_TASKS**0.5))
        )
        return Cell(float(totals.mean()), error, paper, sigmas, parameter)


def totals(name: str, parameters: dict[str, Any], tasks: Tasks, seed: int, episodes: int) -> NDArray[np.float64]:
    """Total reward after 1, 2, ... `episodes` episodes, shape (num_tasks, episodes). No agent depends on n."""
    mdp = TabularMDP()
    agent = find_component(name, AGENTS)(**parameters)
    h = interact(agent, mdp.make_vec(tasks), mdp.episode_length * episodes, make_seeds(len(tasks), seed))
    return episode_returns(h.reward.astype(np.float64), h.ended, episodes).cumsum(axis=1)


def column_cells(name: str, column: Column, args: argparse.Namespace) -> dict[tuple[str, int], Cell]:
    """Tunes and measures one column; returns its cells by (prior, n)."""
    tasks, tuning = TabularMDP().sample(args.tasks, args.seed), TabularMDP().sample(args.tuning_tasks, args.seed + 1)
    cells = {}
    for prior, given in column.priors.items():
        base = column.fixed | given
        # tune: one run per value serves every n, since no agent depends on n
        tried = {
            value: totals(
                column.agent, base | {column.parameter: value}, tuning, args.seed + 1, max(args.episodes)
            ).mean(0)
            for value in column.grid
        }
        # measure: values of n with the same best parameter share a run
        runs: dict[Any, NDArray[np.float64]] = {}
        for n in args.episodes:
            best = max(tried, key=lambda value, n=n: tried[value][n - 1]) if tried else None  # type: ignore[misc]
            chosen = {} if best is None else {column.parameter: best}
            if best not in runs:
                runs[best] = totals(column.agent, base | chosen, tasks, args.seed, max(args.episodes))
            text = "" if best is None else f"{column.parameter} {best:g}"
            paper = PAPER.get(name, {}).get(n) if prior != "true" else None
            cell = cells[prior, n] = Cell.of(runs[best][:, n - 1], paper, text)
            report(
                "rl2_mdps", agent=name, prior=prior, episodes=n, tasks=args.tasks, mean=round(cell.mean, 2),
                standard_error=round(cell.error, 2), paper=paper,
                standard_errors_off=None if cell.sigmas is None else round(cell.sigmas, 2), parameter=text,
            )  # fmt: skip
    return cells


def table(cells: dict[str, dict[tuple[str, int], Cell]], episodes: list[int]) -> str:
    """The Markdown table, with one block of rows per n: the paper, ours, the difference, and the parameters."""
    lines = ["| n | | " + " | ".join(cells) + " |", "|---|---|" + "---|" * len(cells)]
    for n in episodes:
        published = [column.get(("published", n)) or column[("none", n)] for column in cells.values()]
        true = [column.get(("true", n)) for column in cells.values()]
        rows = {
            "paper": ["" if cell.paper is None else f"{cell.paper}" for cell in published],
            "ours, published prior": [f"{cell.mean:.1f} ± {cell.error:.1f}" for cell in published],
            "difference in standard errors": [
                "" if cell.sigmas is None else f"{cell.sigmas:+.1f}" for cell in published
            ],
            "parameter": [cell.parameter for cell in published],
            "ours, true prior": ["" if cell is None else f"{cell.mean:.1f} ± {cell.error:.1f}" for cell in true],
            "parameter, true prior": ["" if cell is None else cell.parameter for cell in true],
        }
        for index, (label, texts) in enumerate(rows.items()):
            lines.append(f"| {n if index == 0 else ''} | {label} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, nargs="+", default=[10, 25], help="values of n, one block of rows each")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks that the figures are for")
    parser.add_argument("--tuning-tasks", type=int, default=1000, help="other tasks, on which parameters are tuned")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(table({name: column_cells(name, column, arguments) for name, column in COLUMNS.items()}, arguments.episodes))
