"""The tables of a study: `runs.parquet`, a row per run, and `figures.parquet`, a row per figure.

`figures.parquet` has no times and no paths, so the same study gives the same bytes, whatever was killed on the way and
however the runs were divided. Its rows have

    run                   the run; empty in the rows that pool all runs of a cell
    cell, and the axes    the settings
    seed_split ...        the run's four seeds; empty in pooled rows
    agent, split, scale, figure
    value                 interquartile mean over tasks and lifetimes (and training seeds); of a share, the mean
    low, high             ends of its 95% interval: over tasks for a run, over training seeds and tasks for a cell
    mean                  the plain mean
    tasks, seeds          how many tasks and how many trainings the value is of
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from eval.figures import load_figures
from icrl.run.fingerprints import evaluation_fingerprint
from icrl.support.errors import ConfigError, UserError, did_you_mean
from icrl.support.files import write_file
from studies.cells import Cell, Run, Study
from studies.folder import StudyFolder, read_run_record
from studies.pool import Evaluated, Pool, Pooled, summary_value
from studies.spec import SEEDS

_TEXT = ("run", "cell", "agent", "split", "scale", "figure")
_INTEGERS = (*(f"seed_{kind}" for kind in SEEDS), "tasks", "seeds")
_NUMBERS = ("value", "low", "high", "mean")


def check_figures(study: Study) -> None:
    """Raises ConfigError for a figure of `show` or `published` that the runs will not have, or a cell not there."""
    where, spec = study.asked.where, study.spec
    named = study.runs[0].config.evaluation.figures
    known = [figure.key for figure in (load_figures(named, study.runs[0].config.evaluation.episodes))]
    for key in spec.show:
        if key not in known:
            raise ConfigError(f"{where}: show: unknown figure {key!r}{did_you_mean(key, known)}")
    for number, row in enumerate(spec.published):
        if row.figure not in known:
            raise ConfigError(
                f"{where}: published.{number}.figure: unknown figure {row.figure!r}{did_you_mean(row.figure, known)}"
            )
        if len(matching(study.cells, row.settings)) != 1:
            raise ConfigError(
                f"{where}: published.{number}.settings: {len(matching(study.cells, row.settings))} cells have these "
                f"values; name one cell by its values on {', '.join(spec.axes) or 'the axes'}"
            )


def matching(cells: Sequence[Cell], settings: dict[str, Any]) -> list[Cell]:
    """The cells that have these values on these axes."""
    return [
        cell
        for cell in cells
        if all(axis in cell.settings and cell.settings[axis] == value for axis, value in settings.items())
    ]


def cell_pools(study: Study, folder: StudyFolder, complete: Sequence[Run]) -> dict[str, tuple[list[Run], Pool]]:
    """The complete runs of every cell and their evaluations, by the cell's name; without cells that have none."""
    pools = {}
    for cell in study.cells:
        runs = [run for run in complete if run.cell.name == cell.name]
        if runs:
            pools[cell.name] = runs, Pool([Evaluated(folder.run(run.name)) for run in runs])
    return pools


def figure_rows(study: Study, pools: dict[str, tuple[list[Run], Pool]]) -> pd.DataFrame:
    """`figures.parquet` as a table. Raises UserError if an evaluation cannot be read."""
    rows: list[dict[str, Any]] = []
    for cell in study.cells:
        if cell.name not in pools:
            continue
        runs, pool = pools[cell.name]
        for run, member in zip(runs, pool.members, strict=True):
            seeds = {f"seed_{kind}": run.seed(kind) for kind in SEEDS}
            of_run = Pool([member])
            rows += [
                {"run": run.name, **_settings(cell), **seeds, **keys, **figure._asdict()}
                for keys, figure in _figures(of_run)
            ]
        rows += [{"run": None, **_settings(cell), **keys, **figure._asdict()} for keys, figure in _figures(pool)]
    axes = [*study.spec.axes]
    columns = ["run", "cell", *axes, *_INTEGERS[:4], *_TEXT[2:], *_NUMBERS, *_INTEGERS[4:]]
    return _typed(pd.DataFrame(rows, columns=columns), axes)


def _figures(pool: Pool) -> Iterator[tuple[dict[str, str], Pooled]]:
    """Yields (agent, split, scale and figure, value) for everything that the runs of a pool have in common."""
    single = len(pool.members) == 1
    for agent, splits in pool.summary.agents.items():
        for split in splits:
            for title in pool.titles().values():
                for scale in title.scales:
                    if title.key not in splits[split].on(scale):
                        continue
                    if single:
                        value = summary_value(splits[split].on(scale)[title.key], title)
                    elif all(split in member.summary.agents.get(agent, {}) for member in pool.members):
                        value = pool.figure(agent, split, scale, title)
                    else:
                        continue
                    yield {"agent": agent, "split": split, "scale": scale, "figure": title.key}, value


def run_rows(study: Study, folder: StudyFolder) -> pd.DataFrame:
    """`runs.parquet` as a table: what every run is, where it is, and how it stands."""
    rows = []
    for run in study.runs:
        try:
            record = read_run_record(folder.run(run.name))
        except UserError:
            record = None
        if record is not None and record.fingerprint != evaluation_fingerprint(run.config):
            record = None
        state = "waiting" if record is None else "unfinished" if record.state == "running" else record.state
        rows.append(
            {
                "run": run.name,
                **_settings(run.cell),
                **{f"seed_{kind}": run.seed(kind) for kind in SEEDS},
                "folder": f"{folder.runs.name}/{run.name}",
                "state": state,
                "seconds": record.seconds if record else 0.0,
                "problem": record.problem if record else "",
                "linked": ", ".join(record.linked) if record else "",
            }
        )
    return _typed(pd.DataFrame(rows), [*study.spec.axes])


def write_table(path: Any, table: pd.DataFrame) -> None:
    """Writes a table as Parquet, whole or not at all."""
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_file(path, content.getvalue())


def _settings(cell: Cell) -> dict[str, Any]:
    return {"cell": cell.label, **cell.settings}


def _typed(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The table with one type per column, whatever its first rows hold."""
    kinds: dict[str, str] = dict.fromkeys(_TEXT, "string") | dict.fromkeys(_INTEGERS, "Int64")
    kinds |= dict.fromkeys(_NUMBERS, "Float64")
    for axis in axes:
        values = table[axis].tolist()
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if not numeric:
            table[axis] = [value if isinstance(value, str) else str(value) for value in values]
        whole = numeric and all(isinstance(value, int) for value in values)
        kinds[axis] = "Int64" if whole else "Float64" if numeric else "string"
    return table.astype({name: kind for name, kind in kinds.items() if name in table.columns})
