"""The console command `icrl`.

icrl run --config configs/demo.yaml
icrl run --config configs/demo.yaml --name small --tasks.size 7 --seed 1
icrl info runs/demo
icrl tasks dark_room --size 7
icrl agents ppo
icrl push data runs/demo --repo USER/NAME
icrl import minari ID --to FOLDER
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data_gen.exchange import commands as neighbours
from icrl.config.loader import load_agent, load_tasks
from icrl.run.command import Invocation, add_arguments, invocation
from icrl.support.errors import UserError
from icrl.support.terminal import reported, say
from publish import commands as hub
from publish.commands import open_run

# Imports of a verb's own modules wait until it runs: torch alone takes seconds.


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(words)
    if arguments.verb == "info":
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return reported(lambda: info(Path(arguments.run)))
    if arguments.verb == "tasks":
        return reported(lambda: tasks(arguments.name, Path(arguments.picture), rest))
    if arguments.verb == "agents":
        return reported(lambda: agents(arguments.name, rest))
    if "act" in arguments:
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return reported(lambda: arguments.act(arguments))
    verb: Callable[[Invocation], object] = VERBS[arguments.verb]
    return reported(lambda: verb(invocation(arguments, rest)))


def meta_train(call: Invocation) -> None:
    """The meta-learners among the agents are meta-trained on the training tasks."""
    from data_gen.meta.training import main as run

    run(call)


def generate(call: Invocation) -> None:
    """Source agents leave learning histories on the training tasks."""
    from data_gen.__main__ import main as run

    run(call)


def train(call: Invocation) -> None:
    """A transformer learns to predict the next action of the histories."""
    from ad_model.train import main as run

    run(call)


def evaluate(call: Invocation) -> None:
    """The frozen transformer and every baseline live on held-out tasks; writes the report."""
    from eval.__main__ import main as run

    run(call)


def run(call: Invocation) -> None:
    """Meta-trains what needs it, generates, trains and evaluates, skipping what is complete for the same config."""
    from ad_model.build import check_model, check_spaces
    from eval.evaluate import check_agents

    check_model(call.config.model)  # now, rather than after the data is made
    check_spaces(call.config.model, call.config.tasks.build())
    check_agents(call.config)
    for stage in (meta_train, generate, train, evaluate):
        stage(replace(call, alone=False))


def info(path: Path) -> None:
    """Says what a run folder holds, whether its data can teach anything, and what to type next."""
    from data_gen.meta.store import meta_learner_lines
    from data_gen.scoring.report import data_report, describe, describe_scores
    from data_gen.scoring.scores import history_scores
    from data_gen.storage.folder import is_streamed, load_info
    from eval.results import describe as evaluation_lines
    from eval.results import load_summary
    from icrl.run.checkpoints import checkpoint_steps

    folder, config = open_run(path)
    for line in meta_learner_lines(config, folder):
        say(line)
    data = load_info(folder)
    steps = data["num_histories"] * data["num_steps"]
    say(f"data: {data['num_histories']:,} histories, {steps:,} steps, {len(data['shards'])} shards: {folder.data}")
    if is_streamed(data):
        say(f"  streamed from {data['given']['repo']} at {data['given']['commit']}")
    else:
        say(describe(data_report(folder, data), config.training.target))
        say(describe_scores(history_scores(folder, data), data["sources"], config.training.selection))
    checkpoints = checkpoint_steps(folder.checkpoints)
    done = checkpoints[-1] if checkpoints else 0
    say(f"training: {done} of {config.training.steps} updates{f': {folder.checkpoints}' if done else ''}")
    if not folder.summary.exists():
        say("evaluation: none yet")
        say(f"next: icrl {'evaluate' if done == config.training.steps else 'train'} --config {folder.config}")
        return
    say(f"evaluation: {folder.summary}")
    say(evaluation_lines(load_summary(folder)))
    say(f"report: {folder.report}")


def tasks(name: str | None, picture: Path, overrides: list[str]) -> None:
    """Lists the task families; with a NAME, shows that one, and writes a picture of a few of its tasks."""
    from data_gen.catalogue import describe, draw_tasks, table

    if name is None:
        if overrides:
            raise UserError(f"parameters such as {overrides[0]} need the NAME of a family: icrl tasks NAME ...")
        say(table())
        say("one in full, with a picture: icrl tasks NAME [--PARAMETER VALUE ...]")
        return
    family = load_tasks(name, overrides)
    say(describe(name, family))
    path = picture / f"{name.replace(':', '.')}.png"
    say(f"picture: {path}" if draw_tasks(family, name, path) else "picture: this family draws none")


def agents(name: str | None, overrides: list[str]) -> None:
    """Lists the agents, which are sources and baselines; with a NAME, shows that one and its parameters."""
    from data_gen.catalogue import agents_table, describe_agent

    if name is None:
        if overrides:
            raise UserError(f"parameters such as {overrides[0]} need the NAME of an agent: icrl agents NAME ...")
        say(agents_table())
        say("one in full: icrl agents NAME [--PARAMETER VALUE ...]")
        return
    say(describe_agent(name, load_agent(name, overrides)))


VERBS: dict[str, Callable[[Invocation], object]] = {
    "meta-train": meta_train,
    "generate": generate,
    "train": train,
    "evaluate": evaluate,
    "run": run,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="icrl",
        description="The pipeline for in-context reinforcement learning.",
        epilog="Start with: icrl run --config configs/demo.yaml",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        add_arguments(verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__, allow_abbrev=False))
    shown = verbs.add_parser("info", help=info.__doc__, description=info.__doc__, allow_abbrev=False)
    shown.add_argument("run", metavar="RUN", help="a run folder, such as runs/demo")
    listed = verbs.add_parser("tasks", help=tasks.__doc__, description=tasks.__doc__, allow_abbrev=False)
    listed.add_argument("name", metavar="NAME", nargs="?", help="a family, such as dark_room, or module:Class")
    listed.add_argument("--picture", metavar="FOLDER", default="runs/tasks", help="where to (default %(default)s)")
    listed.epilog = "Any parameter of the family can be set: icrl tasks dark_room --size 7"
    known = verbs.add_parser("agents", help=agents.__doc__, description=agents.__doc__, allow_abbrev=False)
    known.add_argument("name", metavar="NAME", nargs="?", help="an agent, such as ppo, or module:Class")
    hub.add_verbs(verbs)
    neighbours.add_verbs(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
