"""The scale of the training data, for the model's config: moments of Box observations, and the size of rewards."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ad_model.embeddings_ad import bounds, channel_axis, leaf_spaces
from data_gen.spaces import column_name
from data_gen.storage.info import Statistics
from icrl.support.errors import UserError

_ROWS_AT_ONCE = 2**14  # bounds the memory of the copies in double precision
_LEAST_STD = 1e-6  # relative to the mean; a number with less counts as constant

_LEAST_SHARE = 0.1  # of an action's range; with the default of 32 bins, less leaves at most 4 of them
_PARTS = 1000  # of an action's range, in which actions are counted
_OUTLIERS = 0.01  # share of the data


@dataclass
class Moments:
    """Mean and standard deviation of many rows, accumulated part by part."""

    count: int = 0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    """Sum of the squared deviations from the mean."""

    def add(self, rows: NDArray[Any]) -> None:
        """Adds rows (n, numbers), by Chan et al.'s pairwise update, which does not suffer from cancellation."""
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE].astype(np.float64)
            mean, total = part.mean(axis=0), self.count + len(part)
            shift = mean - self.mean
            self.squares = self.squares + ((part - mean) ** 2).sum(axis=0) + shift**2 * self.count * len(part) / total
            self.mean = self.mean + shift * len(part) / total
            self.count = total

    def plain(self) -> dict[str, list[float]]:
        """`mean` and `std` as plain values; the std of a constant number is 1."""
        std = np.sqrt(self.squares / max(1, self.count))
        return {"mean": self.mean.tolist(), "std": np.where(std > _LEAST_STD * np.abs(self.mean), std, 1.0).tolist()}


class ActionRange:
    """The part of a Box action's range that a data set uses, since the model's bins follow the range alone.

    A few outliers do not count: the part is that between the quantiles that leave out `_OUTLIERS` of the data.
    """

    def __init__(self, space: dict[str, Any]) -> None:
        self._limits = None
        if space["type"] == "Box":
            self._limits = tuple(np.asarray(bound, np.float64) for bound in bounds(space))
            self._counts = np.zeros((len(self._limits[0]), _PARTS), np.int64)

    def add(self, actions: NDArray[Any]) -> None:
        """Adds actions, (histories, steps, ...)."""
        if self._limits is None:
            return
        low, high = self._limits
        rows = actions.reshape(-1, len(low))
        scale = np.divide(_PARTS, high - low, out=np.zeros(len(low)), where=high > low)
        count = max(1, 16 * _ROWS_AT_ONCE // len(low))
        for first in range(0, len(rows), count):
            place = np.clip((rows[first : first + count] - low) * scale, 0, _PARTS - 1).astype(np.int64)
            place += np.arange(len(low)) * _PARTS
            self._counts += np.bincount(place.ravel(), minlength=self._counts.size).reshape(self._counts.shape)

    def warning(self) -> str | None:
        """A line about the number of an action that uses the smallest share of its range; None if all use enough."""
        if self._limits is None or not self._counts.any():
            return None
        low, high = self._limits
        below = self._counts.cumsum(axis=1) / self._counts.sum(axis=1, keepdims=True)
        first, last = (below <= _OUTLIERS / 2).sum(axis=1), (below < 1 - _OUTLIERS / 2).sum(axis=1)
        share = np.where(high > low, (last - first + 1) / _PARTS, 1.0)
        number = int(share.argmin())
        if share[number] >= _LEAST_SHARE:
            return None
        return (
            f"warning: {1 - _OUTLIERS:.0%} of the data's action[{number}] stay within {share[number]:.1%} of its range "
            f"[{low[number]:g}, {high[number]:g}], which model.action_bins cuts into equal bins: most stay nearly "
            "empty; give the environment tighter bounds (gymnasium.wrappers.TransformAction), or more model.action_bins"
        )


class DataStatistics:
    """Accumulates the statistics of a data set, shard by shard."""

    def __init__(self, observation_space: dict[str, Any]) -> None:
        self._spaces = {path: leaf for path, leaf in leaf_spaces(observation_space).items() if leaf["type"] == "Box"}
        self._moments = {path: Moments() for path in self._spaces}
        self._reward_squares, self._rewards = 0.0, 0

    def add(self, columns: dict[str, NDArray[Any]]) -> None:
        """Adds the columns of a shard, (histories, steps, ...). Raises UserError if one holds NaN or infinity."""
        for path, space in self._spaces.items():
            values, axis = columns[column_name("observation", path)], channel_axis(space)
            if not np.isfinite(values).all():
                raise UserError(f"the data's column {column_name('observation', path)} has values that are not finite")
            if axis in (0, 2):
                self._moments[path].add(np.moveaxis(values, axis + 2, -1).reshape(-1, space["shape"][axis]))
            else:
                self._moments[path].add(values.reshape(-1, 1 if axis == -1 else int(np.prod(space["shape"]))))
        if not np.isfinite(columns["reward"]).all():
            raise UserError("the data's column reward has values that are not finite")
        self._reward_squares += float(np.square(columns["reward"], dtype=np.float64).sum())
        self._rewards += columns["reward"].size

    def record(self) -> Statistics:
        """The statistics so far, which `ADConfig` takes as keyword arguments."""
        size = float(np.sqrt(self._reward_squares / max(1, self._rewards)))
        moments = {path: moments.plain() for path, moments in self._moments.items()}
        return Statistics.model_validate({"reward_scale": size or 1.0, "observation_statistics": moments})
