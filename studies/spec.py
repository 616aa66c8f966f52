"""A study as its file writes it: a base config, axes, seeds, and what to show.

    base: demo
    overrides: {evaluation.seeds: 16}                    # for every run
    axes:
      training.learning_rate: [1e-3, 3e-3]               # a key of the config, and its values
      size: {small: {model.hidden_size: 32}, large: {model.hidden_size: 128}}   # or named groups of overrides
    seeds: {training: 5}                                 # 0, 1, 2, 3, 4; or a list

Everything that can be told without a base config is checked here. `studies.cells` makes configs of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from eval.figures import ScaleName
from icrl.config.loader import plain_values
from icrl.config.sections import Section, problem
from icrl.config.splits import SeedName
from icrl.support.errors import shown

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names of studies: those that a run folder may have."""

SEEDS: tuple[SeedName, ...] = ("split", "data", "training", "evaluation")
"""The seeds of an experiment that a study may vary apart from one another."""

COLUMNS = (
    *("run", "cell", "seed", *(f"seed_{kind}" for kind in SEEDS), "agent", "split", "scale", "figure"),
    *("value", "low", "high", "mean", "tasks", "seeds", "folder", "state", "seconds", "problem"),
)
"""Columns of a study's tables, which no axis may have the name of."""

_OWN = {"name": "the name of every run follows from its settings", "output": "use the study's --output"}
"""Keys of a config that a study decides, and what to do instead."""

_MOST_SEEDS = 10_000
_MOST_LETTERS = 60  # of the name of a value in an axis of groups

Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Seeds = Annotated[int, Field(ge=1, le=_MOST_SEEDS, strict=True)] | tuple[Seed, ...]
"""A number N, for the seeds 0 to N-1, or the seeds themselves."""


class StudySeeds(Section):
    """The seeds of a study's runs. Every cell has one run for each combination of them."""

    seed: Seeds | None = None
    """Values of the config's `seed`, from which all others follow. The other keys have to be left out then."""

    split: Seeds | None = None
    """Seeds of the split of the tasks."""

    data: Seeds | None = None
    """Seeds of the learning histories."""

    training: Seeds | None = None
    """Seeds of the transformer's training."""

    evaluation: Seeds | None = None
    """Seeds of the evaluation's lifetimes."""

    def values(self) -> dict[str, tuple[int, ...]]:
        """The seeds by what they are for; only those that are given."""
        given = {kind: getattr(self, kind) for kind in ("seed", *SEEDS)}
        return {
            kind: tuple(range(seeds)) if isinstance(seeds, int) else seeds
            for kind, seeds in given.items()
            if seeds is not None
        }

    @model_validator(mode="after")
    def _differ(self) -> "StudySeeds":
        for kind, seeds in self.values().items():
            repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
            if repeated:
                raise problem(f"seeds.{kind}", list(seeds), f"has {repeated[0]} twice: these runs would be the same")
            if not seeds:
                raise problem(f"seeds.{kind}", list(seeds), "is empty, so there would be no run")
        others = [kind for kind in self.values() if kind != "seed"]
        if self.seed is not None and others:
            message = "collides with seeds.seed, from which all seeds follow: give one of the two"
            raise problem(f"seeds.{others[0]}", getattr(self, others[0]), message)
        return self


class Published(Section):
    """A published figure, shown beside the study's own."""

    what: Annotated[str, Field(min_length=1, max_length=200)]
    """The row's name, such as `AD after 1,000 steps`."""

    source: Annotated[str, Field(min_length=1, max_length=300)]
    """Paper, and figure or table; say whether the value is stated or read off a plot."""

    value: float
    """The published value."""

    figure: str
    """Key of the figure to compare with, such as `final_episodes`."""

    scale: ScaleName = "normalised_return"
    """Scale of the value."""

    agent: str = "transformer"
    """The agent to compare."""

    split: str = "test"
    """The split to compare on."""

    settings: dict[str, Any] = {}
    """The cell to compare, by its values on the axes; may be left out if the study has a single cell."""

    note: str = ""
    """Differences between the two protocols."""


class StudySpec(Section):
    """A study."""

    name: Annotated[str, Field(pattern=NAME, max_length=200)]
    """Name of the study's folder. By default, the name of the study's file without its suffix."""

    base: Annotated[str, Field(min_length=1)]
    """The config that all runs share: a YAML file, or the name of a shipped config such as `demo`."""

    overrides: dict[str, Any] = {}
    """Dotted keys and their values, for every run."""

    axes: dict[str, Any] = {}
    """The settings that differ: a dotted key with the list of its values, or a name with groups of overrides,
    `{GROUP: {KEY: VALUE}}`."""

    combine: Literal["product", "pairs"] = "product"
    """`product` makes a cell of every combination of the axes' values; `pairs` of the first values of all axes, of the
    second values, and so on."""

    seeds: StudySeeds = StudySeeds()
    """The seeds of every cell. By default, each cell has one run, with the seeds of the base."""

    show: Annotated[tuple[str, ...], Field(min_length=1)] = ("final_episodes", "area_under_curve")
    """Keys of the figures in the report's tables. The first is drawn over the axes."""

    published: tuple[Published, ...] = ()
    """Published figures that the report shows beside the study's."""

    threads: PositiveInt = 1
    """Threads of every run. Sums are rounded by the number of threads, so it belongs to the study: with a number that
    the machine decides, two machines would end with other last digits."""

    @field_validator("axes")
    @classmethod
    def _have_values(cls, axes: dict[str, Any]) -> dict[str, Any]:
        for axis, values in axes.items():
            if axis in COLUMNS:
                raise problem(f"axes.{axis}", shown(axis), "is a column of figures.parquet: choose another name")
            if isinstance(values, Mapping):
                _check_groups(axis, values)
            elif not isinstance(values, list):
                raise problem(f"axes.{axis}", plain_values(values), "needs a list of values, or a mapping of groups")
            if not values:
                raise problem(f"axes.{axis}", plain_values(values), "is empty, so there would be no cell")
        return axes

    @model_validator(mode="after")
    def _pairs_match(self) -> "StudySpec":
        lengths = {axis: len(values) for axis, values in self.axes.items()}
        if self.combine == "pairs" and len(set(lengths.values())) > 1:
            few, many = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            message = (
                f"pairs need as many values on every axis, but {few} has {lengths[few]} and {many} {lengths[many]}"
            )
            raise problem("combine", "pairs", message)
        return self

    @model_validator(mode="after")
    def _every_key_once(self) -> "StudySpec":
        places = [*self._places()]
        for (first, key), (second, other) in combinations(places, 2):
            same_group = first == second and first.startswith("axes.") and key == other
            if not same_group and self._meet(first, key, other):
                message = f"is set twice: in {first}, and in {second}" + (f" as {other}" if other != key else "")
                raise problem(key, shown(key, quoted=False), message)
        for place, key in places:
            if key in _OWN:
                raise problem(
                    f"{place}.{key}" if place == "overrides" else place,
                    key,
                    f"is a key that no study sets: {_OWN[key]}",
                )
            if place.startswith("axes.") and (key == "seed" or key.split(".")[0] == "seeds"):
                raise problem(place, key, "is no axis: seeds belong under the study's key seeds")
        return self

    def _meet(self, first: str, key: str, other: str) -> bool:
        """True if both keys set the same thing. An axis may set an item of what `overrides` set as a whole."""
        if f"{other}.".startswith(f"{key}.") and first == "overrides" and key != other:
            value = next(value for name, value in self.overrides.items() if name.replace("-", "_") == key)
            return _has(plain_values(value), other.removeprefix(f"{key}.").split("."))
        return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")

    def _places(self) -> Iterator[tuple[str, str]]:
        """Yields every dotted key that the study sets, after the place that sets it. A group's keys come once."""
        for key in self.overrides:
            yield "overrides", key.replace("-", "_")
        for kind in self.seeds.values():
            yield f"seeds.{kind}", "seed" if kind == "seed" else f"seeds.{kind}"
        for axis, values in self.axes.items():
            keys = dict.fromkeys(key for group in values.values() for key in group) if is_groups(values) else [axis]
            for key in keys:
                yield f"axes.{axis}", key.replace("-", "_")


def is_groups(values: Any) -> bool:
    """True if an axis has named groups of overrides, rather than the values of one key."""
    return isinstance(values, Mapping)


def _has(value: Any, keys: Sequence[str]) -> bool:
    """True if a mapping has a value at the end of these keys."""
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def _check_groups(axis: str, groups: Mapping[Any, Any]) -> None:
    """Raises a validation error unless every group is a name with a mapping of dotted keys."""
    if "." in axis:
        raise problem(
            f"axes.{axis}", plain_values(dict(groups)), "is a key of the config, which needs a list of values"
        )
    for name, group in groups.items():
        where = f"axes.{axis}.{name}"
        if not isinstance(name, str | int | float) or not 0 < len(str(name)) <= _MOST_LETTERS:
            raise problem(where, name, f"names a group by at most {_MOST_LETTERS} letters")
        if not isinstance(group, Mapping) or not all(isinstance(key, str) for key in group):
            raise problem(where, plain_values(group), "needs a mapping of dotted keys to values")
