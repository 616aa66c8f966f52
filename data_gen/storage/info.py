"""`info.json` of a data folder as a typed record. The file may come from anywhere, so every value is checked."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, Field, PositiveFloat

from data_gen.spaces import Space, check_json, json_leaves, space_from_json
from icrl.config.loader import fingerprint
from icrl.run.records import Record
from icrl.support.errors import UserError, shown
from icrl.support.files import check_name

Number = Annotated[float, Field(allow_inf_nan=False)]


def _named(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("name"), str):
        raise ValueError("has no name")
    return value


Total = Annotated[int, Field(ge=1, le=2**53)]
"""A number of histories, or of steps."""

Named = Annotated[dict[str, Any], AfterValidator(_named)]
"""A component as a config writes it: its name and its parameters in one mapping."""


class Shard(Record):
    """One file of histories."""

    file: str
    sha256: str


class Given(Record):
    """The origin of given data: a repository at a commit, or a folder."""

    repo: str | None = None
    commit: str | None = None
    streaming: bool = False
    folder: str | None = None


class TrainedFigures(Record):
    """The weights of a meta-learner after meta-training, and what they cost."""

    weights: str
    """SHA-256 of the weights file."""
    environment_steps: int
    seconds: Number
    iterations: int


class Moments(pydantic.BaseModel):
    """Mean and standard deviation of a Box observation, per number or per channel."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    mean: list[Number]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Statistics(pydantic.BaseModel):
    """Scales of a data set that the model needs."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    reward_scale: Annotated[PositiveFloat, Field(allow_inf_nan=False)]
    observation_statistics: dict[str, Moments]


class DataInfo(Record):
    """Everything that training needs to know of a data set besides its shards."""

    schema_version: int
    fingerprint: str
    """Fingerprint of the config that the data was made with."""
    observation_space: dict[str, Any]
    """The space as `data_gen.spaces.to_json` writes it."""
    action_space: dict[str, Any]
    episode_length: Total
    num_histories: Total
    history_steps: Annotated[Total, Field(alias="num_steps")]
    """Length of every history; `num_steps` on disk."""
    seed: int | None = None
    """Seed of the learning histories."""
    split_seed: int | None = None
    """Seed of the split; None in data of earlier versions, where it was `seed`."""
    tasks: Named | None
    """The task family as a config names it; None if it is not one of this project's."""
    num_train_tasks: Annotated[int, Field(ge=0, le=2**53)] | None = None
    num_validation_tasks: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """None in data of earlier versions, which had no validation tasks."""
    num_test_tasks: Annotated[int, Field(ge=0, le=2**53)] | None = None
    optimal_actions: bool = False
    swept: list[str] = []
    """Columns of the hyper-parameters that each learner drew for itself."""
    sources: Annotated[list[Named], Field(min_length=1)]
    """The sources, numbered as in the column `source`."""
    meta_learners: dict[str, TrainedFigures] = {}
    """The meta-learners among the sources, by the config key that names each."""
    shards: Annotated[list[Shard], Field(min_length=1)]
    files: dict[str, str] = {}
    """SHA-256 of the task files, by name; empty in data of earlier versions."""
    seconds: Number
    made_with: dict[str, str] = {}
    device: str | None = None
    check_values: bool | None = None
    """True if every value was checked when it arose (`runtime.check_values`)."""
    statistics: Statistics | None = None
    given: Given | None = None

    @property
    def identity(self) -> str:
        """Fingerprint of every byte of the data."""
        return fingerprint(self.fingerprint, [shard.sha256 for shard in self.shards])

    @property
    def total_steps(self) -> int:
        """Steps of all histories together."""
        return self.num_histories * self.history_steps

    @property
    def streamed(self) -> bool:
        """True if the shards stay on the hub."""
        return self.given is not None and self.given.streaming

    def spaces(self) -> tuple[Space, Space]:
        """Observation and action space as Gymnasium spaces."""
        return space_from_json(self.observation_space), space_from_json(self.action_space)


def checked_info(record: Mapping[str, Any], where: object) -> DataInfo:
    """A plain record as a `DataInfo`. Raises UserError, naming `where`, if it does not describe a data folder."""
    try:
        info = DataInfo.model_validate(dict(record))
        for name in ("observation_space", "action_space"):
            try:
                check_json(getattr(info, name))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from error
        boxes = {path for path, leaf in json_leaves(info.observation_space).items() if leaf["type"] == "Box"}
        if info.statistics and set(info.statistics.observation_statistics) != boxes:
            raise ValueError("statistics do not match the observations")
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower().removeprefix('value error, ')}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, AssertionError, RecursionError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())[:200]}") from error
    # File names become paths, so none may lead out of the folder.
    names = [shard.file for shard in info.shards]
    for name in names:
        check_name(name, where)
        if not name.endswith((".h5", ".parquet")):
            raise UserError(f"{where}: the shard {shown(name)} is neither a .h5 nor a .parquet file")
    if len(set(names)) != len(names):
        raise UserError(f"{where}: the same shard is listed twice")
    return info
