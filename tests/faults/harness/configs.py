"""Random configs, and random text as YAML: every answer is a config or a UserError, within a time and a memory."""

import contextlib
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from icrl.config.components import AGENTS, OBJECTIVES, TASKS, find_component
from icrl.config.loader import dump, load_config
from icrl.config.schema import ExperimentConfig
from icrl.config.sections import Section
from icrl.support.errors import ConfigError, UserError
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.strange_values import Rng, as_text, strange

NUMBER = 4000
"""Half of them are configs with strange values, half are damaged text."""

SECONDS = 20
"""Longest time of a case."""

MEMORY = 2**30
"""Address space that a case may add, in bytes."""

BASE: dict[str, Any] = {
    "tasks": {"name": "dark_room", "size": 4, "episode_length": 6},
    "data": {"sources": [{"name": "q_learning"}], "histories_per_task": 2, "episodes": 24, "shards": 3},
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "context_episodes": 3},
    "training": {"steps": 6, "batch_size": 8, "subsample": 4, "warmup_steps": 2, "objective": {"name": "imitation"}},
    "evaluation": {"episodes": 3, "seeds": 2, "train_tasks": 3, "test_tasks": 3, "baselines": [{"name": "random"}]},
    "runtime": {"workers": 1, "trackers": []},
}


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
            text = value if isinstance(value, str) and rng.random() < 0.5 else as_text(value)
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
        values[as_text(strange(rng, 3)).strip()] = strange(rng)
    path = folder / "config.yaml"
    path.write_text(as_text(values), encoding="utf-8", errors="surrogatepass")
    return lambda: _loaded(path, words)


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
    marks += ['"', "'", "%YAML 9\n", "---\n", "...\n", "\t", "\r", "#", "@", "`", "\x85", "\u2028", "\ufeff", "1e9999"]
    marks += ["0x", "."]
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


def prepare(home: Path) -> None:
    """Nothing to prepare."""


def cases(home: Path, number: int) -> list[str]:
    """The seeds of the cases, by kind."""
    return [f"{kind} {seed}" for seed in range(number // 2) for kind in ("values", "text")]


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Loads one config."""
    kind, _, seed = case.partition(" ")
    return answered("configs", case, {"values": random_config, "text": random_text}[kind], int(seed), folder)


def answered(
    kind: str, case: str, make: Callable[[Rng, Path], Callable[[], object]], seed: int, folder: Path
) -> Outcome:
    """Tries the case that `make` makes of a seed: `accepted`, `refused`, or a broken promise.

    Each line of a refusal is short and stands for itself.
    """
    with limited():
        try:
            make(np.random.default_rng(seed), folder)()
        except UserError as error:
            lines = str(error).splitlines()
            if not lines or any(len(line) > 1500 or not line.strip() for line in lines):
                return Outcome(kind, case, "refused", ("many lines",), detail=str(error)[:300])
            return Outcome(kind, case, "refused as a config" if isinstance(error, ConfigError) else "refused")
        except TimeoutError:
            return Outcome(kind, case, "ended", ("time",), detail=traceback.format_exc()[-1500:])
        except MemoryError:
            return Outcome(kind, case, "ended", ("memory",), detail=traceback.format_exc()[-1500:])
        except Exception:
            return Outcome(kind, case, "ended", ("traceback",), detail=traceback.format_exc()[-1500:])
        return Outcome(kind, case, "accepted")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limits the time of a block, and the address space that it may add."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    earlier = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
        resource.setrlimit(resource.RLIMIT_AS, before)
