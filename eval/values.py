"""`values.parquet`: the figures of an evaluation by task and lifetime, from which studies and comparisons pool them.

A summary has each figure once per split. To pool a figure over training seeds, to pair it by task, or to give it an
interval over both, the values behind it are needed. A figure that is one number for a whole split is not in this table.

    agent, split, scale, figure   what the value is
    task, seed                    numbers of the task on its split, and of the lifetime, as in returns.parquet
    value                         the figure of that lifetime; NaN where the task has none
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.same import task_keys
from eval.figures import Figure, ScaleName, Scores, task_values
from eval.summary import TasksRecord
from icrl.config.components import parameters
from icrl.config.loader import fingerprint
from icrl.support.errors import UserError

_KEYS = ("agent", "split", "scale", "figure")

ByScale = Mapping[ScaleName, Scores]


def values_table(figures: Sequence[Figure], scores: Mapping[tuple[str, str], ByScale]) -> pd.DataFrame:
    """The table of all figures that have a value per task.

    Args:
        figures: the evaluation's figures.
        scores: by agent and split, the scores on each scale.
    """
    parts = []
    for (agent, split), by_scale in scores.items():
        for scale, own in by_scale.items():
            for figure in figures:
                values = task_values(figure, own) if scale in figure.scales else None
                if isinstance(values, np.ndarray):
                    task, seed = np.indices(values.shape)
                    part = pd.DataFrame({"task": task.ravel(), "seed": seed.ravel(), "value": values.ravel()})
                    parts.append(part.assign(agent=agent, split=split, scale=scale, figure=figure.key))
    columns = [*_KEYS, "task", "seed", "value"]
    table = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    return table.astype({**dict.fromkeys(_KEYS, "category"), "task": np.int32, "seed": np.int32, "value": np.float64})


def read_values(path: Path) -> dict[tuple[str, str, str, str], NDArray[np.float64]]:
    """The values by agent, split, scale and figure, each (task, lifetime); NaN for tasks without a value.

    Raises UserError if the file is missing or damaged.
    """
    try:
        table = pd.read_parquet(path)
        table = table.sort_values(["task", "seed"], kind="stable")
        groups = table.groupby([*_KEYS], observed=True, sort=False)
        return {key: _array(group) for key, group in groups}
    except (OSError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({why}); run `icrl evaluate --overwrite` to make it again") from error


def tasks_record(family: TaskDistribution, tasks: Tasks) -> TasksRecord:
    """The tasks of a split by their values, so that two evaluations can be told to be on the same ones."""
    settings = to_jsonable_python(parameters(family), fallback=repr)
    keys = [f"{key:016x}" for key in task_keys(family, tasks).tolist()]
    return TasksRecord(family=fingerprint(type(family).__qualname__, settings), keys=keys)


def _array(group: pd.DataFrame) -> NDArray[np.float64]:
    tasks, seeds = int(group["task"].max()) + 1, int(group["seed"].max()) + 1
    return group["value"].to_numpy(dtype=np.float64).reshape(tasks, seeds)
