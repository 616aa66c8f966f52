"""`info.json` of a data folder as a typed record. It may come from anywhere, so that every value is checked."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from data_gen.spaces import Space, json_leaves, space_from_json, to_json
from icrl.config.loader import fingerprint
from icrl.run.records import Record
from icrl.support.errors import UserError
from icrl.support.hub import check_name

_MOST_NUMBERS = 2**28
"""Numbers in one element of a space; more are taken for damage, before anything of that size is made."""

Number = Annotated[float, Field(allow_inf_nan=False)]


def _named(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("name"), str):
        raise ValueError("has no name")
    return value


Named = Annotated[dict[str, Any], AfterValidator(_named)]
"""A component as a config writes it: its name, and its parameters beside it."""


class Shard(Record):
    """One file of histories."""

    file: str
    sha256: str


class Given(Record):
    """Where given data is from: a repository at a commit, or a folder."""

    repo: str | None = None
    commit: str | None = None
    streaming: bool = False
    folder: str | None = None


class TrainedFigures(Record):
    """The weights of a meta-learner after meta-training, and what they cost."""

    weights: str
    """SHA-256 of the file of weights."""
    environment_steps: int
    seconds: Number
    iterations: int


class Moments(pydantic.BaseModel):
    """Mean and standard deviation of a Box observation, by number or by channel."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    mean: list[Number]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Statistics(pydantic.BaseModel):
    """The scale of a data set, which the model has to know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    reward_scale: Annotated[PositiveFloat, Field(allow_inf_nan=False)]
    observation_statistics: dict[str, Moments]


class DataInfo(Record):
    """Everything that training needs to know of a data set besides its shards."""

    schema_version: int
    fingerprint: str
    """Of the config that the data was made with."""
    observation_space: dict[str, Any]
    """As `data_gen.spaces.to_json` writes it."""
    action_space: dict[str, Any]
    episode_length: PositiveInt
    num_histories: PositiveInt
    history_steps: Annotated[PositiveInt, Field(alias="num_steps")]
    """Length of every history; `num_steps` on disk."""
    seed: int | None = None
    tasks: Named | None
    """The task family as a config names it; None where it is not one of this project's."""
    num_train_tasks: int | None = None
    num_test_tasks: int | None = None
    optimal_actions: bool = False
    swept: list[str] = []
    """Columns of hyper-parameters that learners drew for themselves."""
    sources: Annotated[list[Named], Field(min_length=1)]
    """By the number in the column `source`."""
    meta_learners: dict[str, TrainedFigures] = {}
    """By the key of the config that names it."""
    shards: Annotated[list[Shard], Field(min_length=1)]
    seconds: Number
    made_with: dict[str, str] = {}
    device: str | None = None
    statistics: Statistics | None = None
    given: Given | None = None

    @property
    def identity(self) -> str:
        """Changes with every byte of the data."""
        return fingerprint(self.fingerprint, [shard.sha256 for shard in self.shards])

    @property
    def total_steps(self) -> int:
        """Steps of all histories together."""
        return self.num_histories * self.history_steps

    @property
    def streamed(self) -> bool:
        """Whether the data's shards stay on the hub."""
        return self.given is not None and self.given.streaming

    def spaces(self) -> tuple[Space, Space]:
        """Observation and action space as Gymnasium has them."""
        return space_from_json(self.observation_space), space_from_json(self.action_space)


def checked_info(record: Mapping[str, Any], where: object) -> DataInfo:
    """A plain record as a `DataInfo`. Raises UserError, naming `where`, if it does not describe a data folder."""
    try:
        info = DataInfo.model_validate(dict(record))
        for name in ("observation_space", "action_space"):
            space = getattr(info, name)
            if _numbers(space) > _MOST_NUMBERS:
                raise ValueError(f"{name} is too large to be true")
            if to_json(space_from_json(space)) != space:
                raise ValueError(f"{name} is not a space as this project writes it")
        boxes = {path for path, leaf in json_leaves(info.observation_space).items() if leaf["type"] == "Box"}
        if info.statistics and set(info.statistics.observation_statistics) != boxes:
            raise ValueError("statistics are of other observations")
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, AssertionError, RecursionError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())[:200]}") from error
    names = [shard.file for shard in info.shards]
    for name in names:
        check_name(name, where)
    if len(set(names)) != len(names):
        raise UserError(f"{where}: lists a shard twice")
    return info


def _numbers(space: dict[str, Any]) -> int:
    """Numbers that an element of a space has, before anything of that size is made."""
    return sum(math.prod(leaf.get("shape", ())) for leaf in json_leaves(space).values())
