"""Random configs, random text as YAML, and random parameters of components: every answer is a value or a UserError.

    python -m tests.faults.fuzz_configs --configs 2000 --parameters 12000     # from the repository's root, minutes

Prints one line per kind, and every traceback with the input that made it. A case is limited in time, and the process in
memory, so that a value that is merely huge is noticed, too.
"""

import argparse
import contextlib
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from icrl.config.components import AGENTS, OBJECTIVES, TASKS, find_component
from icrl.config.loader import dump, load_agent, load_config, load_tasks
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import AgentComponent, ObjectiveComponent, Section
from icrl.support.errors import ConfigError, UserError
from icrl.support.yaml12 import read_yaml

SECONDS = 20
"""Longest time of a case."""

MEMORY = 6 * 2**30
"""Address space that a case may add, in bytes."""

STRANGE = [
    *(
        0,
        1,
        2,
        3,
        7,
        -1,
        -7,
        0.5,
        1.0,
        1e-9,
        -0.0,
        1e300,
        -1e300,
        float("nan"),
        float("inf"),
        5e-324,
        True,
        False,
        None,
    ),
    *(10**6, 10**9, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, -(10**30), 10**4400, "", "x", "yes", "1e-4", "0x_", "a\nb"),
    *(
        "$x^{$",
        "\x00",
        "\ud800",
        "é\u202e",
        "x" * 5000,
        "../..",
        "/",
        "~",
        "a:b",
        "os:getcwd",
        ":",
        "a.b:",
        "<<",
        "{what}",
    ),
    *(
        [],
        {},
        [1],
        [0, 1],
        [1, 0],
        [[]],
        ["x"],
        [None],
        [1, 2, 3],
        [float("nan")],
        {"low": 1, "high": 2},
        {"a": {"b": [1]}},
    ),
    *(
        {"low": 2, "high": 1},
        {"low": -1, "high": 1e300, "log": True},
        {"name": "x"},
        {"name": None},
        {1: 2},
        {"params": 3},
    ),
    *("random", "optimal", "dark_room", "q_learning", "ppo", "imitation", "rl2", "pixels", "gymnasium", "CartPole-v1"),
]

NUMBERS = [
    0,
    1,
    2,
    3,
    4,
    5,
    9,
    17,
    64,
    100,
    1000,
    10**5,
    10**6,
    10**7,
    10**9,
    10**12,
    10**15,
    2**63 - 1,
    0.0,
    1e-12,
    0.1,
]
NUMBERS += [0.5, 0.9, 0.999999999, 1.5, 10.0, 1e3, 1e6, 1e12, 1e30, 1e38, 1e300]
"""Numbers that many keys accept, small and huge."""

BASE: dict[str, Any] = {
    "tasks": {"name": "dark_room", "size": 4, "episode_length": 6},
    "data": {"sources": [{"name": "q_learning"}], "histories_per_task": 2, "episodes": 24, "shards": 3},
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "context_episodes": 3},
    "training": {"steps": 6, "batch_size": 8, "subsample": 4, "warmup_steps": 2, "objective": {"name": "imitation"}},
    "evaluation": {"episodes": 3, "seeds": 2, "train_tasks": 3, "test_tasks": 3, "baselines": [{"name": "random"}]},
    "runtime": {"workers": 1, "trackers": []},
}

Rng = np.random.Generator


def strange(rng: Rng, depth: int = 0) -> Any:
    """A random value: one of `STRANGE`, a number of random size, random text, or a list or mapping of these."""
    kind = rng.integers(14)
    if kind > 9:
        return NUMBERS[rng.integers(len(NUMBERS))]
    if kind < 6:
        return STRANGE[rng.integers(len(STRANGE))]
    if kind == 6:
        return int(rng.integers(-5, 70))
    if kind == 7:
        return float(rng.normal() * 10.0 ** rng.integers(-8, 9))
    if kind == 8 or depth > 2:
        return "".join(chr(int(code)) for code in rng.integers(1, 0x3FF, rng.integers(0, 12)))
    if rng.random() < 0.5:
        return [strange(rng, depth + 1) for _ in range(rng.integers(0, 4))]
    return {_text(strange(rng, 3)).strip(): strange(rng, depth + 1) for _ in range(rng.integers(0, 4))}


def schema_keys(section: type[Section] = ExperimentConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, and of the parameters of the components of `BASE`."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        yield key
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section) and "params" not in kind.model_fields:
            yield from schema_keys(kind, f"{key}.")
    if not prefix:
        for key, name, table in (
            ("tasks", "dark_room", TASKS),
            ("data.sources.0", "q_learning", AGENTS),
            ("training.objective", "imitation", OBJECTIVES),
        ):
            for parameter in (
                "name",
                "label",
                "share",
                "sees",
                "record",
                "params",
                *find_component(name, table).__dataclass_fields__,
            ):
                yield f"{key}.{parameter}"


KEYS = sorted(set(schema_keys()))


def random_config(rng: Rng, folder: Path) -> Callable[[], object]:
    """A case: `BASE` with strange values at a few keys, in the file or as overrides."""
    keys = [KEYS[index] for index in rng.integers(len(KEYS), size=rng.integers(1, 3))]
    values = yaml.safe_load(yaml.safe_dump(BASE))
    words = []
    for key in keys:
        value = strange(rng)
        if rng.random() < 0.4:
            text = value if isinstance(value, str) and rng.random() < 0.5 else _text(value)
            words += [f"--{key}", text] if rng.random() < 0.5 else [f"{key}={text}"]
            continue
        node: Any = values
        *parents, last = key.split(".")
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
            if not isinstance(node, dict | list):
                node = {}
        if isinstance(node, dict):
            node[last] = value
    if rng.random() < 0.1:
        values[_text(strange(rng, 3)).strip()] = strange(rng)
    path = folder / "config.yaml"
    path.write_text(_text(values), encoding="utf-8", errors="surrogatepass")
    return lambda: _loaded(path, words)


def _text(value: Any) -> str:
    try:
        return str(yaml.safe_dump(value))
    except ValueError:  # an integer of too many digits to print
        return "9" * 4500


def _loaded(path: Path, words: list[str]) -> None:
    config = load_config(path, words)
    again = path.with_name("again.yaml")
    again.write_text(dump(config), encoding="utf-8")
    assert load_config(again).model_dump() == config.model_dump(), "reads back as another config"


def random_text(rng: Rng, folder: Path) -> Callable[[], object]:
    """A case: the text of a config with pieces deleted, doubled, swapped and inserted."""
    letters = list(str(yaml.safe_dump(BASE)))
    marks = [
        "&a ",
        "*a",
        "!!int ",
        "!!python/object:os.system ",
        "<<: ",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "? ",
        "|\n",
        ">\n",
    ]
    marks += [
        '"',
        "'",
        "%YAML 9\n",
        "---\n",
        "...\n",
        "\t",
        "\r",
        "#",
        "@",
        "`",
        "\x85",
        "\u2028",
        "\ufeff",
        "1e9999",
        "0x",
        ".",
    ]
    for _ in range(rng.choice([1, 1, 1, 2, 4, 11])):
        start, length = int(rng.integers(len(letters) + 1)), int(rng.choice([1, 1, 2, 3, 8, 30]))
        action = rng.integers(4)
        if action == 0:
            del letters[start : start + length]
        elif action == 1:
            letters[start:start] = letters[start : start + length] * int(rng.integers(1, 4))
        elif action == 2:
            letters[start:start] = marks[rng.integers(len(marks))] * int(rng.choice([1, 1, 1, 2, 80]))
        else:
            letters[start:start] = [chr(int(code)) for code in rng.integers(1, 0x2FF, length)]
    path = folder / "config.yaml"
    path.write_text("".join(letters), encoding="utf-8", newline="")
    return lambda: _loaded(path, [])


def random_component(rng: Rng, folder: Path) -> Callable[[], object]:
    """A case: a component with strange values for a few of its parameters, built, and tried if it can be built."""
    tables = [(TASKS, _tried_tasks), (AGENTS, _tried_agent), (OBJECTIVES, _tried_objective)]
    table, tried = tables[rng.choice(3, p=[0.45, 0.5, 0.05])]
    name = sorted(table)[rng.integers(len(table))]
    fields = [*find_component(name, table).__dataclass_fields__, "no_such"]
    chosen = [fields[index] for index in rng.integers(len(fields), size=rng.choice([1, 1, 1, 2, 3]))]
    words = [f"--{key}={_text(strange(rng))}" for key in chosen]
    if name == "gymnasium" and rng.random() < 0.7:
        words = ["--env_id=CartPole-v1", "--layouts=4", *words]
    return lambda: tried(name, words)


def _tried_tasks(name: str, words: list[str]) -> None:
    from data_gen.spaces import to_json

    family = load_tasks(name, words)
    spaces = to_json(family.observation_space), to_json(family.action_space)
    assert spaces and family.episode_length > 0
    train, _ = family.split(2, 1, 0)
    with contextlib.closing(family.make_vec(train.take([0]))) as envs:
        envs.reset(seed=np.zeros(1, np.uint64))


def _tried_agent(name: str, words: list[str]) -> None:
    from data_gen.generation.checks import check_agent

    load_agent(name, words)
    from icrl.config.loader import _overrides, _set, _settled

    values: dict[str, Any] = {"name": name}
    for key, value in _overrides(words):
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
    from icrl.config.loader import validate

    validate({"name": "fuzz", **config})
    ObjectiveComponent.model_validate(values).build()


KINDS = {"configs": random_config, "texts": random_text, "parameters": random_component}


def outcome(make: Callable[[Rng, Path], Callable[[], object]], seed: int, folder: Path) -> str:
    """`accepted`, `refused`, or the traceback of case `seed`. Each line of a refusal is short and stands for itself."""
    try:
        make(np.random.default_rng(seed), folder)()
    except UserError as error:
        lines = str(error).splitlines()
        if not lines or any(len(line) > 1500 or not line.strip() for line in lines):
            return f"the refusal is empty or too long: {str(error)[:300]!r}"
        return "refused" if isinstance(error, ConfigError) else "refused (UserError)"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return traceback.format_exc()[-1500:]
    return "accepted"


def _too_long(*_: object) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def main() -> int:
    """Runs the long part; the exit code is 1 if there was a traceback."""
    parser = argparse.ArgumentParser(description="Random configs and parameters; every answer is a value or one line.")
    parser.add_argument("--configs", type=int, default=2000, help="random values, and as many random texts")
    parser.add_argument("--parameters", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY + 12 * 2**30, -1))
    signal.signal(signal.SIGALRM, _too_long)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("configs", given.configs), ("texts", given.configs), ("parameters", given.parameters)):
            counts: Counter[str] = Counter()
            for case in range(count):
                signal.alarm(SECONDS)
                result = outcome(KINDS[name], given.seed + case, Path(folder))
                signal.alarm(0)
                counts[result if result.startswith(("accepted", "refused")) else "tracebacks"] += 1
                if not result.startswith(("accepted", "refused")):
                    bad += 1
                    print(f"--- {name}, case {given.seed + case}\n{result}", flush=True)
            print(f"{name}: {count} tried, {dict(counts)}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
