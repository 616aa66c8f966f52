"""What the commands share: `--config FILE`, dotted overrides, `--overwrite`, and errors for people."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from configs.errors import THE_DISKS_FAULT, UserError
from configs.loader import load_config
from configs.schema import ExperimentConfig

SHORTHANDS = {
    "workers": "runtime.workers",
    "executor": "runtime.executor",
    "scheduler": "runtime.scheduler",
    "device": "runtime.device",
    "checkpoint": "evaluation.checkpoint",
}
"""Overrides that are long to type."""


@dataclass(frozen=True)
class Invocation:
    """A command as it was called."""

    config: ExperimentConfig
    config_file: str
    overwrite: bool = False
    overrides: list[str] = field(default_factory=list)
    alone: bool = True
    """Whether the person has to type the next verb."""

    def next_command(self, verb: str) -> str:
        """What to type for another verb with the same config."""
        return shlex.join(["icrl", verb, "--config", self.config_file, *self.overrides])


def say(text: str) -> None:
    """Prints for the person at the keyboard; under a multi-process launch, from the first process alone."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every verb that takes a config."""
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, a YAML file")
    parser.add_argument("--overwrite", action="store_true", help="delete this stage's outputs first")
    shorthands = ", ".join(f"--{short} for --{full}" for short, full in SHORTHANDS.items())
    parser.epilog = f"Any key of the config can be set: --tasks.size 7, --seed 1, --name NAME. Short: {shorthands}."


def invocation(arguments: argparse.Namespace, rest: Sequence[str]) -> Invocation:
    """Loads the config that the arguments name, with the `rest` as overrides. Raises ConfigError."""
    words = [_expanded(word) for word in rest]
    config = load_config(arguments.config, words)
    return Invocation(config, arguments.config, arguments.overwrite, words)


def run_module(program: str, description: str, run: Callable[[Invocation], object]) -> int:
    """The main function of `python -m ...`: parses, runs, reports; returns the exit code."""
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    add_arguments(parser)
    arguments, rest = parser.parse_known_args()
    return reported(lambda: run(invocation(arguments, rest)))


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code; one of several of a launch without taking its interpreter apart.

    PyTorch's communication threads may want the interpreter while it is dismantled, or while a process group is
    destroyed; now and then a finished run then never ended. Files and trackers are closed by now.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def reported(run: Callable[[], object]) -> int:
    """Runs it, and turns what the user can mend into lines on stderr and an exit code."""
    sys.path.append(str(Path.cwd()))  # for components of the user's own, named as module:Class
    try:
        run()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command again, without --overwrite, to go on", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"error: out of memory: {error}; more data.shards make each of them smaller", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in THE_DISKS_FAULT and not error.filename:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        return 1
    return 0


def _expanded(word: str) -> str:
    if word == "--trust-remote-code":
        return "--evaluation.trust_remote_code=true"
    key, equals, value = word.removeprefix("--").partition("=")
    if key not in SHORTHANDS or not (equals or word.startswith("--")):
        return word
    return f"--{SHORTHANDS[key]}{equals}{value}"
