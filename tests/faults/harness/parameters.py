"""Random parameters of components: a component is refused in one line, or it can be built and tried."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.generation.checks import check_agent
from data_gen.spaces import to_json
from icrl.config.components import AGENTS, OBJECTIVES, TASKS, find_component
from icrl.config.loader import _set, _settled, load_agent, load_tasks, read_overrides, validate
from icrl.config.sections import AgentComponent, ObjectiveComponent
from icrl.support.errors import UserError
from icrl.support.yaml12 import read_yaml
from tests.faults.harness.configs import BASE, answered
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.strange_values import Rng, as_text, strange

NUMBER = 12_000


def random_component(rng: Rng, folder: Path) -> Callable[[], object]:
    """A case: a component with strange values for a few of its parameters, built, and tried if it can be built."""
    tables = [(TASKS, _tried_tasks), (AGENTS, _tried_agent), (OBJECTIVES, _tried_objective)]
    table, tried = tables[rng.choice(3, p=[0.45, 0.5, 0.05])]
    name = sorted(table)[rng.integers(len(table))]
    fields = [*find_component(name, table).__dataclass_fields__, "no_such"]
    chosen = [fields[index] for index in rng.integers(len(fields), size=rng.choice([1, 1, 1, 2, 3]))]
    words = [f"--{key}={as_text(strange(rng))}" for key in chosen]
    if name == "gymnasium" and rng.random() < 0.7:
        words = ["--env_id=CartPole-v1", "--layouts=4", *words]
    return lambda: tried(name, words)


def _tried_tasks(name: str, words: list[str]) -> None:
    family = load_tasks(name, words)
    spaces = to_json(family.observation_space), to_json(family.action_space)
    assert spaces and family.episode_length > 0
    train, _ = family.split(2, 1, 0)
    with contextlib.closing(family.make_vec(train.take([0]))) as envs:
        envs.reset(seed=np.zeros(1, np.uint64))


def _tried_agent(name: str, words: list[str]) -> None:
    load_agent(name, words)
    values: dict[str, Any] = {"name": name}
    for key, value in read_overrides(words):
        _set(values, key, value, AgentComponent)
    component = AgentComponent.model_validate(_settled(values, AgentComponent))
    for tasks in ("dark_room", "bandit", "point_navigation"):
        family = load_tasks(tasks)
        with contextlib.closing(family.make_vec(family.sample(1, 0))) as envs, contextlib.suppress(UserError):
            check_agent("baselines.0", component, envs, 10**5, "cpu", 10**5)


def _tried_objective(name: str, words: list[str]) -> None:
    values = {"name": name} | {word[2:].partition("=")[0]: read_yaml(word.partition("=")[2]) for word in words[:1]}
    values.pop("no_such", None)
    config = {**BASE, "training": {**BASE["training"], "objective": values}}
    validate({"name": "fuzz", **config})
    ObjectiveComponent.model_validate(values).build()


def prepare(home: Path) -> None:
    """Nothing to prepare."""


def cases(home: Path, number: int) -> list[str]:
    """The seeds of the cases."""
    return [str(seed) for seed in range(number)]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Builds and tries one component."""
    return answered("parameters", case, random_component, int(case), folder)
