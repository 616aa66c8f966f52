"""YAML as this project reads and writes it: the scalars of YAML 1.2, every key once, and a bounded size.

PyYAML reads YAML 1.1, where `1e-4` is text, `yes` is true and the second of two equal keys silently replaces the first.
Its loader is kept, with the scalars of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), and with
checks between parsing and building: a short text can stand for gigabytes by aliases of aliases.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

from icrl.support.errors import UserError

_MOST_CHARACTERS = 1_000_000
"""Most characters of a text, after its aliases are expanded. The longest shipped config has 5,000."""

MOST_LEVELS = 50
"""Most levels of lists and mappings inside one another. The deepest shipped config has 6."""

MOST_DIGITS = 400
"""Most characters of a number. The largest float has 309 digits."""

_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    "float": (
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
}
"""Letters of the scalars that are not text, by kind, and the characters that they begin with."""


class YAMLFault(UserError):
    """Text that is not YAML, or more than this project reads."""


@dataclass(frozen=True)
class Written:
    """A scalar that is not text, and its letters, for keys that are text: `1.10` is a number, but also a name."""

    value: Any
    letters: str


_OLD = frozenset(("y", "n", "yes", "no", "on", "off"))
_OLD_NUMBER = re.compile(r"^[-+]?(?:0b[01_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+|[0-9]+_[0-9_]*)$")
"""Words and numbers of YAML 1.1 that are text in 1.2."""


def read_yaml(text: str, with_letters: bool = False, unclear: list[str] | None = None) -> Any:
    """The plain values that `text` stands for.

    Args:
        text: one YAML document.
        with_letters: give every scalar value that is not text as `Written`.
        unclear: a list that gets, in a few words each, the texts that readers of YAML 1.1 take for another value.

    Raises YAMLFault, in one line, for a text that is not YAML, has a key twice, or is too large.
    """
    if len(text) > _MOST_CHARACTERS:
        raise YAMLFault(f"has {len(text):,} characters, the limit is {_MOST_CHARACTERS:,}")
    try:
        loader = _Loader(text)
        loader.with_letters, loader.unclear = with_letters, unclear
        return loader.get_single_data()
    except YAMLFault:
        raise
    except Exception as error:  # besides YAMLError: ValueError for \U0FFFFFFF, and what else strange text brings about
        raise YAMLFault(" ".join(str(error).split())[:300]) from error


def write_yaml(values: Any, **style: Any) -> str:
    """`values` as YAML that readers of 1.1 and of 1.2 understand alike: text that is a number to either is quoted."""
    return str(yaml.dump(values, Dumper=_Dumper, **{"sort_keys": False, **style}))


class _Loader(yaml.SafeLoader):
    with_letters = False
    unclear: list[str] | None = None
    level = 0
    # Replaced, not extended: dates, sets and binary data have no place in a config.
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        key: yaml.SafeLoader.yaml_constructors[key] for key in (f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map", None)
    }
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Counts levels, since composing and everything after is recursive."""
        self.level += 1
        if self.level > MOST_LEVELS:
            raise YAMLFault(f"has more than {MOST_LEVELS} levels of lists and mappings{_at(self.peek_event())}")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _expanded_size(node, {})
            if self.unclear is not None:
                self.unclear += _unclear(node, set())
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping; only its values are `Written`."""
        built = super().construct_mapping(node, deep)
        return {key.value if isinstance(key, Written) else key: value for key, value in built.items()}


class _Dumper(yaml.SafeDumper):
    """Represents numbers as PyYAML does, and quotes text that would be another value to YAML 1.1 or 1.2."""


def _written(dumper: _Dumper, scalar: Written) -> Any:
    """The letters of a scalar, as they were."""
    kind = {bool: "bool", int: "int", float: "float"}[type(scalar.value)]
    return dumper.represent_scalar(f"{_TAG}{kind}", scalar.letters)


_Dumper.add_representer(Written, _written)


def _expanded_size(node: Any, known: dict[int, int | None]) -> int:
    """Characters of a node with its aliases expanded. `known` are the sizes so far, None for nodes around this one.

    Raises YAMLFault above the limit, for a node inside itself, and for a key that is twice in a mapping.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise YAMLFault(f"has an alias inside what the alias stands for{_at(node)}")
        return size
    known[id(node)] = None
    size = 1
    if isinstance(node, yaml.ScalarNode):
        size += len(node.value)
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        for key, value in node.value:
            size += _expanded_size(key, known) + _expanded_size(value, known)
    else:
        size += sum(_expanded_size(part, known) for part in node.value)
    if size > _MOST_CHARACTERS:
        raise YAMLFault(f"stands for more than {_MOST_CHARACTERS:,} characters, by aliases of aliases")
    known[id(node)] = size
    return size


def _unclear(node: Any, seen: set[int]) -> Iterator[str]:
    """Yields, for each value without quotes that is text here and something else to YAML 1.1, a few words."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        text = node.value
        if node.style is None and node.tag == f"{_TAG}str" and (text.lower() in _OLD or _OLD_NUMBER.match(text)):
            yield f"{text[:60]!r}{_at(node)} is text in YAML 1.2; put it in quotes, or write a number, true or false"
        return
    for part in node.value:
        yield from _unclear(part[1] if isinstance(node, yaml.MappingNode) else part, seen)


def _check_keys(node: Any) -> None:
    """Raises YAMLFault if a key is twice in a mapping: PyYAML would keep the last one only."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YAMLFault(f"has a list or a mapping as a key{_at(key)}")
        kind = key.tag.removeprefix(_TAG)
        number = kind in _CONVERT and len(key.value) <= MOST_DIGITS and _PLAIN[kind][0].match(key.value)
        name = _CONVERT[kind](key.value) if number else (key.tag, key.value)  # 1, 0x1 and true are one key to Python
        if name in seen:
            raise YAMLFault(f"has the key {key.value[:60]!r} twice in one mapping{_at(key)}; merge the two")
        seen.add(name)


def _at(node: Any) -> str:
    mark = getattr(node, "start_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""


def _scalar(kind: str, convert: Callable[[str], Any]) -> Callable[[_Loader, Any], Any]:
    """A constructor of one kind of scalar; an explicit tag such as `!!int` may stand before any text."""

    def construct(loader: _Loader, node: Any) -> Any:
        letters = str(loader.construct_scalar(node))
        if not _PLAIN[kind][0].match(letters):
            raise YAMLFault(f"{letters[:60]!r} is not a YAML {kind}{_at(node)}")
        if len(letters) > MOST_DIGITS:
            raise YAMLFault(f"has a number of {len(letters):,} digits, the limit is {MOST_DIGITS}{_at(node)}")
        value = convert(letters)
        return Written(value, letters) if loader.with_letters and value is not None else value

    return construct


def _integer(letters: str) -> int:
    return int(letters, {"0o": 8, "0x": 16}.get(letters[:2], 10))


def _float(letters: str) -> float:
    special = letters[-1] in "fFnN"
    return float(letters.replace(".", "") if special else letters)


_CONVERT: dict[str, Callable[[str], Any]] = {
    "null": lambda letters: None,
    "bool": lambda letters: letters.lower() == "true",
    "int": _integer,
    "float": _float,
}
for _kind, (_pattern, _first) in _PLAIN.items():
    _Loader.add_constructor(f"{_TAG}{_kind}", _scalar(_kind, _CONVERT[_kind]))
    for _resolving in (_Loader, _Dumper):
        _resolving.add_implicit_resolver(f"{_TAG}{_kind}", _pattern, _first)
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"^<<$"), ["<"])
