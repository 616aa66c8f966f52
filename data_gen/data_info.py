"""`info.json` of a data folder as a schema, since one may come from anywhere."""

import math
from typing import Annotated, Any

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt

from configs.errors import UserError
from configs.hub import check_name
from data_gen.spaces import json_leaves, space_from_json, to_json

_MOST_NUMBERS = 2**28
Number = Annotated[float, Field(allow_inf_nan=False)]


class Part(pydantic.BaseModel):
    """A part of the record; what it says beyond this is kept."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)


class Shard(Part):
    """One file."""

    file: str
    sha256: str


class SourceSaid(Part):
    """Who lived the histories."""

    name: str


class Moments(pydantic.BaseModel):
    """Of a Box observation's numbers, or channels."""

    model_config = pydantic.ConfigDict(extra="forbid")
    mean: list[Number]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Statistics(pydantic.BaseModel):
    """What the model has to know of the data's scale."""

    model_config = pydantic.ConfigDict(extra="forbid")
    reward_scale: Annotated[PositiveFloat, Field(allow_inf_nan=False)]
    observation_statistics: dict[str, Moments]


class DataInfo(Part):
    """The whole record."""

    schema_version: int
    fingerprint: str
    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    episode_length: PositiveInt
    num_histories: PositiveInt
    num_steps: PositiveInt
    seed: int | None = None
    tasks: dict[str, Any] | None
    num_train_tasks: int | None = None
    num_test_tasks: int | None = None
    optimal_actions: bool = False
    swept: list[str] = []
    sources: Annotated[list[SourceSaid], Field(min_length=1)]
    meta_learners: dict[str, dict[str, Any]] = {}
    shards: Annotated[list[Shard], Field(min_length=1)]
    seconds: Number
    made_with: dict[str, str] = {}
    statistics: Statistics | None = None


def _numbers(space: dict[str, Any]) -> int:
    """Numbers that an element of a space has, before anything of that size is made."""
    return sum(math.prod(leaf.get("shape", ())) for leaf in json_leaves(space).values())


def checked_info(record: dict[str, Any], where: object) -> dict[str, Any]:
    """The record with what it may leave out filled in. Raises UserError if it is none of a data folder."""
    try:
        info: dict[str, Any] = DataInfo.model_validate(record).model_dump()
        for name in ("observation_space", "action_space"):
            if _numbers(info[name]) > _MOST_NUMBERS:
                raise ValueError(f"{name} is too large to be true")
            if to_json(space_from_json(info[name])) != info[name]:
                raise ValueError(f"{name} is no space as this project writes it")
        if info["tasks"] is not None and not isinstance(info["tasks"].get("name"), str):
            raise ValueError("tasks have no name")
        boxes = {path for path, leaf in json_leaves(info["observation_space"]).items() if leaf["type"] == "Box"}
        if info["statistics"] and set(info["statistics"]["observation_statistics"]) != boxes:
            raise ValueError("statistics are of other observations")
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, AssertionError, RecursionError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())[:200]}") from error
    names = [shard["file"] for shard in info["shards"]]
    for name in names:
        check_name(name, where)
    if len(set(names)) != len(names):
        raise UserError(f"{where}: lists a shard twice")
    return info
