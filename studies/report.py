"""The report of a study, one self-contained HTML file, and its table for the terminal."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from eval.statistics import SEEDS_INTERVAL
from eval.summary import SPLIT_TITLES, TRANSFORMER, FigureTitle
from icrl.config.describe import aligned
from icrl.support.files import write_file
from icrl.support.pictures import STYLE, png
from icrl.support.yaml12 import write_yaml
from studies.cells import Run, Study
from studies.folder import StudyFolder
from studies.pictures import draw_axes, draw_curves
from studies.pool import Pool, Pooled
from studies.table import matching

Pools = Mapping[str, tuple[Sequence[Run], Pool]]

_UNKNOWN = Pooled(None, None, None, None, None, 0)


def write_report(study: Study, folder: StudyFolder, pools: Pools, figures: pd.DataFrame) -> None:
    """Writes `report.html`. `figures` is the study's table of figures."""
    found = _Figures(figures, _first(pools).split)
    titles = shown_titles(study, pools)
    first = _first(pools)
    labels = {cell.name: cell.label for cell in study.cells if cell.name in pools}
    by_cell = {
        name: [found.pooled(label, TRANSFORMER, first.scale_of(title), title) for title in titles]
        for name, label in labels.items()
    }
    cells = [
        {
            "settings": cell.settings,
            "figures": by_cell[cell.name],
            "seeds": max(each.seeds for each in by_cell[cell.name]),
            "tasks": next((each.tasks for each in by_cell[cell.name] if each.tasks is not None), "-"),
        }
        for cell in study.cells
        if cell.name in pools
    ]
    axes = [*study.spec.axes]
    heads = [_head(title, first) for title in titles]
    with matplotlib.rc_context(STYLE):
        leading = {name: each[0] for name, each in by_cell.items()}
        pictures = {
            "curves": draw_curves(*_curves(study, pools), first.scale, _seeds(pools)),
            "axes": draw_axes(study.cells, leading, axes, heads[0]),
        }
    html = page(
        "study.html.j2",
        title=study.spec.name,
        base=study.spec.base,
        runs=len(study.runs),
        complete=sum(len(runs) for runs, _ in pools.values()),
        axes=axes,
        heads=heads,
        cells=cells,
        meaning=_meaning(first),
        split=split_title(first.split),
        interval=SEEDS_INTERVAL,
        scale=first.scale.replace("_", " "),
        notes=_notes(cells),
        agents=_agents(labels, pools, found, titles),
        seeds=[
            {"run": run.name, "figures": [found.single(run.name, first.scale_of(title), title) for title in titles]}
            for runs, _ in pools.values()
            for run in runs
        ],
        published=_published(study, found),
        pictures={name: encoded(figure) for name, figure in pictures.items() if figure is not None},
        asked=write_yaml(study.asked.values),
    )
    write_file(folder.report, html)


def describe(study: Study, pools: Pools, figures: pd.DataFrame) -> str:
    """The figures of every cell, from the study's table of figures, as a few lines of text."""
    titles, first = shown_titles(study, pools), _first(pools)
    found = _Figures(figures, first.split)
    rows = [("  cell", *(_head(title, first) for title in titles), "seeds")]
    for cell in study.cells:
        if cell.name in pools:
            values = [found.pooled(cell.label, TRANSFORMER, first.scale_of(title), title) for title in titles]
            rows.append((f"  {cell.label}", *map(value_text, values), str(max(each.seeds for each in values))))
    lines = [
        aligned(rows),
        f"  the transformer on {split_title(first.split)} tasks; in square brackets the {SEEDS_INTERVAL}",
    ]
    return "\n".join(lines)


def value_text(value: Pooled) -> str:
    """A figure in a few characters, with its interval."""
    if value.value is None:
        return "unknown"
    ends = "" if value.low is None or value.high is None else f" [{_short(value.low)}, {_short(value.high)}]"
    return f"{_short(value.value)}{ends}"


def page(template: str, **values: Any) -> str:
    """A page from one of the templates in `studies/pages/`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.PackageLoader("studies", "pages")
    )
    return environment.get_template(template).render(**values)


def encoded(figure: Figure) -> str:
    """A picture as a page holds it."""
    return base64.b64encode(png(figure)).decode()


def shown_titles(study: Study, pools: Pools) -> list[FigureTitle]:
    """The figures that the study shows and its runs have."""
    titles = _first(pools).titles()
    return [titles[key] for key in study.spec.show if key in titles]


def split_title(split: str) -> str:
    """The name of a split for people."""
    return SPLIT_TITLES.get(split, split)


class _Figures:
    """The rows of a table of figures, by what they are of."""

    def __init__(self, table: pd.DataFrame, split: str) -> None:
        columns = [*Pooled._fields]
        plain = table[columns].astype(object).where(table[columns].notna(), None)
        keys = zip(*(table[name] for name in ("run", "cell", "agent", "split", "scale", "figure")), strict=True)
        values = plain.itertuples(index=False, name=None)
        self.rows = {
            (run if isinstance(run, str) else None, *rest): Pooled(*value)
            for (run, *rest), value in zip(keys, values, strict=True)
        }
        self.split = split
        self.cells = {run: cell for run, cell in zip(table["run"], table["cell"], strict=True) if isinstance(run, str)}

    def pooled(self, cell: str, agent: str, scale: str, title: FigureTitle) -> Pooled:
        """A figure over all runs of a cell."""
        return self.rows.get((None, cell, agent, self.split, scale, title.key), _UNKNOWN)

    def single(self, run: str, scale: str, title: FigureTitle) -> Pooled:
        """A figure of the transformer in one run."""
        return self.rows.get((run, self.cells[run], TRANSFORMER, self.split, scale, title.key), _UNKNOWN)


def _curves(study: Study, pools: Pools) -> tuple[dict[str, Any], dict[str, Any]]:
    """The transformer's curve in every cell, and the other agents' in the first cell."""
    first = _first(pools)
    curves = {
        cell.label: pools[cell.name][1].curve(TRANSFORMER, first.split, first.scale)
        for cell in study.cells
        if cell.name in pools
    }
    others = {
        agent: first.curve(agent, first.split, first.scale)
        for agent, splits in first.summary.agents.items()
        if not agent.startswith(TRANSFORMER) and first.split in splits
    }
    return curves, others


def _seeds(pools: Pools) -> list[Any]:
    """The curve of every training seed, if there is a single cell; more would hide the bands."""
    single = len(pools) == 1
    return _first(pools).curves(TRANSFORMER, _first(pools).split, _first(pools).scale) if single else []


def _agents(
    labels: Mapping[str, str], pools: Pools, found: _Figures, titles: Sequence[FigureTitle]
) -> list[dict[str, Any]]:
    """The figures of every agent in every cell; a single row for an untrained agent that is the same in all of them."""
    first = _first(pools)
    agents = dict.fromkeys(agent for name in labels for agent in pools[name][1].summary.agents)
    rows = []
    for agent in agents:
        by_cell = {
            label: [found.pooled(label, agent, first.scale_of(title), title) for title in titles]
            for name, label in labels.items()
            if agent in pools[name][1].summary.agents
        }
        untrained = not agent.startswith(TRANSFORMER)
        alike = (
            untrained
            and len(by_cell) > 1
            and all(figures == next(iter(by_cell.values())) for figures in by_cell.values())
        )
        shown = {"every cell": next(iter(by_cell.values()))} if alike else by_cell
        rows += [
            {"cell": cell, "agent": agent, "figures": figures, "seeds": max(each.seeds for each in figures)}
            for cell, figures in shown.items()
        ]
    return rows


def _published(study: Study, found: _Figures) -> list[dict[str, Any]]:
    """The published figures, with the study's own beside them."""
    rows = []
    for row in study.spec.published:
        cell = matching(study.cells, row.settings)[0]
        ours = found.rows.get((None, cell.label, row.agent, row.split, row.scale, row.figure), _UNKNOWN)
        difference = None if ours.value is None else ours.value - row.value
        rows.append({**row.model_dump(), "ours": ours, "difference": difference})
    return rows


def _meaning(pool: Pool) -> str:
    """The meaning of normalised returns of 0 and 1, in a sentence."""
    scale = pool.summary.normalised_return
    if not scale.known:
        return "Returns are raw, since the scale of some tasks is unknown."
    return f"Normalised returns: 0 is {scale.zero[pool.split]}; 1 is {scale.one[pool.split]}."


def _notes(cells: Sequence[Mapping[str, Any]]) -> str:
    """Why some cells have no interval."""
    few = [cell for cell in cells if cell["figures"] and cell["figures"][0].low is None]
    return "No interval where there are two training seeds, or fewer than five tasks." if few else ""


def _head(title: FigureTitle, pool: Pool) -> str:
    """The head of a figure's column."""
    raw = title.unit == "return" and pool.scale_of(title) == "return" and pool.scale != "return"
    return f"{title.title}{' (raw)' if raw else ''}"


def _first(pools: Pools) -> Pool:
    return next(iter(pools.values()))[1]


def _short(number: float) -> str:
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 100 else f"{round(number, 2) + 0.0:.2f}"
