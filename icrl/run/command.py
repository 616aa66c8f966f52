"""The command line that all verbs share: the config, dotted overrides, and `--overwrite`."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from icrl.config.loader import load_config
from icrl.config.schema import ExperimentConfig
from icrl.support.terminal import reported

SHORTHANDS = {
    "workers": "runtime.workers",
    "executor": "runtime.executor",
    "scheduler": "runtime.scheduler",
    "device": "runtime.device",
    "checkpoint": "evaluation.checkpoint",
}
"""Short forms of long overrides."""


@dataclass(frozen=True)
class Invocation:
    """A command as the user called it."""

    config: ExperimentConfig
    config_file: str
    overwrite: bool = False
    overrides: list[str] = field(default_factory=list)
    alone: bool = True
    """True if the user has to call the next stage; False within `icrl run`."""

    def next_command(self, verb: str) -> str:
        """The command line of another verb with the same config."""
        return shlex.join(["icrl", verb, self.config_file, *self.overrides])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that all verbs with a config share."""
    parser.usage = f"{parser.prog} CONFIG [--overwrite] [--KEY VALUE ...]"
    parser.add_argument(
        "--config",
        required=True,
        metavar="CONFIG",
        help="the experiment: a YAML file, or the name of a shipped config such as demo or dark_room/ppo",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete this stage's outputs first")
    shorthands = ", ".join(f"--{short} for --{full}" for short, full in SHORTHANDS.items())
    parser.epilog = (
        f"Any key of the config can be set: --tasks.size 7, --seed 1, --name NAME. Short forms: {shorthands}."
    )


def named_config(words: Sequence[str], option: str = "--config") -> list[str]:
    """The words of a verb, with `option` inserted if the first word is its value: the config itself."""
    first = words[0] if words else ""
    positional = first and not first.startswith("-") and "=" not in first
    return [option, *words] if positional else list(words)


def invocation(arguments: argparse.Namespace, rest: Sequence[str]) -> Invocation:
    """Loads the config that the arguments name, with `rest` as overrides. Raises ConfigError."""
    words = [expanded(word) for word in rest]
    config = load_config(arguments.config, words)
    return Invocation(config, arguments.config, arguments.overwrite, words)


def run_module(program: str, description: str, run: Callable[[Invocation], object]) -> int:
    """The main function of `python -m ...`: parses the words, calls `run`, reports errors, returns the exit code."""
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    add_arguments(parser)
    arguments, rest = parser.parse_known_args(named_config(sys.argv[1:]))
    return reported(lambda: run(invocation(arguments, rest)))


def expanded(word: str) -> str:
    """A word of the command line, with a short form as the override that it stands for."""
    if word in ("--trust-remote-code", "--allow-seen-tasks"):
        return f"--evaluation.{word.removeprefix('--').replace('-', '_')}=true"
    key, equals, value = word.removeprefix("--").partition("=")
    if key not in SHORTHANDS or not (equals or word.startswith("--")):
        return word
    return f"--{SHORTHANDS[key]}{equals}{value}"
