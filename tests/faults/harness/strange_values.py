"""Strange values for the keys of a config: wrong kinds, edges of numbers, text with a meaning to some program."""

from typing import Any

import numpy as np
import yaml

WRONG = [None, True, False, [], {}, [1], [0, 1], [1, 0], [[]], ["x"], [None], [1, 2, 3], [float("nan")], {1: 2}]
WRONG += [{"low": 1, "high": 2}, {"low": 2, "high": 1}, {"low": -1, "high": 1e300, "log": True}, {"a": {"b": [1]}}]
WRONG += [{"name": "x"}, {"name": None}, {"params": 3}]

EDGES = [0, 1, 2, 3, 7, -1, -7, 0.5, 1.0, 1e-9, -0.0, 1e300, -1e300, float("nan"), float("inf"), 5e-324, 10**6, 10**9]
EDGES += [2**31, 2**53, 2**63 - 1, 2**63, 10**30, -(10**30), 10**4400]

TEXTS = ["", "x", "yes", "1e-4", "0x_", "a\nb", "$x^{$", "\x00", "\ud800", "é\u202e", "x" * 5000, "../..", "/", "~"]
TEXTS += ["a:b", "os:getcwd", ":", "a.b:", "<<", "{what}"]

NAMES = [
    "random",
    "optimal",
    "dark_room",
    "q_learning",
    "ppo",
    "imitation",
    "rl2",
    "pixels",
    "gymnasium",
    "CartPole-v1",
]

STRANGE = [*WRONG, *EDGES, *TEXTS, *NAMES]

NUMBERS = [0, 1, 2, 3, 4, 5, 9, 17, 64, 100, 1000, 10**5, 10**6, 10**7, 10**9, 10**12, 10**15, 2**63 - 1]
NUMBERS += [0.0, 1e-12, 0.1, 0.5, 0.9, 0.999999999, 1.5, 10.0, 1e3, 1e6, 1e12, 1e30, 1e38, 1e300]
"""Numbers that many keys accept, small and huge."""

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
    return {as_text(strange(rng, 3)).strip(): strange(rng, depth + 1) for _ in range(rng.integers(0, 4))}


def as_text(value: Any) -> str:
    """The value as YAML."""
    try:
        return str(yaml.safe_dump(value))
    except ValueError:  # an integer of too many digits to print
        return "9" * 4500
