"""The base of the classic control families: tasks that differ in physical constants."""

from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import TaskDistribution, Tasks
from icrl.config.components import component
from icrl.support.errors import UserError, did_you_mean

_ROUNDING = 1e-9  # relative; a task may have been converted to other units or text and back


@component
class VariedPhysics(TaskDistribution):
    """Tasks that differ in physical constants: each constant in `vary` is its default times a log-uniform factor.

    A task holds every constant by name, including those that do not vary. Subclasses define `DEFAULTS`.
    """

    DEFAULTS: ClassVar[dict[str, float]] = {}
    """The constants by name, with their values in Gymnasium's environment."""

    vary: tuple[str, ...] = ()
    """The constants that differ between tasks."""
    low: Annotated[float, Field(gt=0)] = 0.5
    """The smallest factor."""
    high: Annotated[float, Field(gt=0)] = 2.0
    """The largest factor. Factors are log-uniform: halving is as likely as doubling."""

    def __post_init__(self) -> None:
        for name in self.vary:
            if name not in self.DEFAULTS:
                raise ValueError(f"vary: {name!r} is not a constant{did_you_mean(name, self.DEFAULTS)}")
        if not self.vary or len(set(self.vary)) < len(self.vary):
            raise ValueError(f"vary {list(self.vary)} must name at least one constant, and each only once")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} and high {self.high} leave no range: low must be less than high")

    @property
    def varies(self) -> str:
        return "dynamics"

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        least, most = float(np.log(self.low)), float(np.log(self.high))
        factors = np.exp(np.random.default_rng(seed).uniform(least, most, (len(self.vary), num_tasks)))
        varied = dict(zip(self.vary, factors, strict=True))
        return Tasks({name: np.full(num_tasks, value) * varied.get(name, 1) for name, value in self.DEFAULTS.items()})

    def constants(self, tasks: Tasks) -> dict[str, NDArray[np.float64]]:
        """The constants of `tasks` by name, each (num_tasks,). Raises UserError if one is outside this family."""
        for name, default in self.DEFAULTS.items():
            low, high = (default * self.low, default * self.high) if name in self.vary else (default, default)
            inside = (tasks[name] >= low * (1 - _ROUNDING)) & (tasks[name] <= high * (1 + _ROUNDING))
            if not inside.all():
                value = float(tasks[name][~inside][0])
                raise UserError(f"{name} {value:g} lies outside this family: its range is [{low:g}, {high:g}]")
        return {name: np.asarray(tasks[name], dtype=np.float64) for name in self.DEFAULTS}

    def write_constants(self, axes: Any, task: Tasks) -> None:
        """Writes the constants that vary, as multiples of their defaults, into the corner of a picture."""
        lines = [f"{name} \N{MULTIPLICATION SIGN} {task[name][0] / self.DEFAULTS[name]:.2f}" for name in self.vary]
        corner = {"ha": "left", "va": "top", "transform": axes.transAxes}
        axes.text(0.02, 0.98, "\n".join(lines), fontsize=7, color="#111827", **corner)
