"""The console command `icrl`.

icrl run demo
icrl run dark_room/ppo --name small --data.episodes 100 --seed 1
icrl info runs/demo
icrl tasks dark_room --size 7
icrl agents ppo
icrl push data runs/demo --repo USER/NAME
icrl import minari ID --to FOLDER
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import icrl
from data_gen.exchange import commands as exchange
from icrl.config.loader import load_agent, load_tasks
from icrl.config.schema import ExperimentConfig
from icrl.run.command import Invocation, add_arguments, invocation, named_config
from icrl.support.errors import UserError
from icrl.support.terminal import leave, reported, say
from publish import commands as hub
from studies import commands as studies

# A verb imports its own modules when it runs: torch alone takes seconds to import.


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = list(sys.argv[1:] if words is None else words)
    # `icrl train CONFIG` is short for `icrl train --config CONFIG`, `icrl study STUDY` for `icrl study --study STUDY`.
    if given and (given[0] in VERBS or given[0] == "study"):
        given = [given[0], *named_config(given[1:], "--study" if given[0] == "study" else "--config")]
    parser = _parser()
    if not given:
        parser.print_help()
        return 0
    # Words that the parser does not know are overrides; verbs without overrides reject them.
    arguments, rest = parser.parse_known_args(given)
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
        return reported(lambda: arguments.act(arguments), "run the same command again")
    if "act_on" in arguments:
        return reported(lambda: arguments.act_on(arguments, rest), "run the same command again to continue")
    verb: Callable[[Invocation], object] = VERBS[arguments.verb]
    return reported(lambda: verb(invocation(arguments, rest)))


def meta_train(call: Invocation) -> None:
    """Meta-trains the meta-learners among the sources and baselines on the training tasks."""
    from data_gen.meta.__main__ import main as run

    run(call)


def generate(call: Invocation) -> None:
    """Runs the source agents on the training tasks and records their learning histories."""
    from data_gen.__main__ import main as run

    run(call)


def train(call: Invocation) -> None:
    """Trains a transformer on the learning histories."""
    from ad_model.train import main as run

    run(call)


def evaluate(call: Invocation) -> None:
    """Evaluates the frozen transformer and every baseline on held-out tasks, and writes the report."""
    from eval.__main__ import main as run

    run(call)


def run(call: Invocation) -> None:
    """Runs all stages: meta-train, generate, train and evaluate. Skips stages that are complete for the same config."""
    from eval.stages import run_stages

    run_stages(call)


def run_experiment(config: ExperimentConfig) -> None:
    """Runs all stages of an experiment, like `icrl run`, and skips stages that are complete for the same config.

    Raises UserError for any problem that the user can fix.
    """
    run(Invocation(config, config.name))


def info(path: Path) -> None:
    """Shows the state of a run folder, how far its histories improve, and the next command."""
    from data_gen.experiment import open_run
    from data_gen.meta.store import meta_learner_lines
    from data_gen.scoring.report import data_report, describe, describe_scores
    from data_gen.scoring.scores import history_scores
    from data_gen.storage.folder import load_info
    from eval.summary import load_summary
    from eval.summary_text import describe as evaluation_lines
    from icrl.run.checkpoints import TrainingRecord, checkpoint_path, checkpoint_record, checkpoint_steps
    from icrl.run.fingerprints import data_fingerprint
    from icrl.run.progress import finished, training_lines

    experiment = open_run(path)
    config, folder = experiment.config, experiment.folder
    for line in meta_learner_lines(config, folder):
        say(line)
    # data
    data = load_info(folder)
    if config.data.given is None and data.fingerprint != data_fingerprint(config):
        say(f"warning: {folder.config}: is not the config that {folder.data} was made with; run that config again")
    say(f"data: {data.num_histories:,} histories, {data.total_steps:,} steps, {len(data.shards)} shards: {folder.data}")
    if data.streamed and data.given is not None:
        say(f"  streamed from {data.given.repo} at {data.given.commit}")
    else:
        say(describe(data_report(folder, data), config.training.imitates))
        say(describe_scores(history_scores(folder, data), data.sources, config.training.selection))
    # training
    complete = False
    if not (steps := checkpoint_steps(folder.checkpoints)):
        say(f"training: 0 of {config.training.steps} updates")
    else:
        record = checkpoint_record(checkpoint_path(folder.checkpoints, steps[-1]), TrainingRecord)
        complete = finished(record, config)
        for line in training_lines(record, config, folder):
            say(line)
    # evaluation
    if not folder.summary.exists():
        say("evaluation: not done yet")
        say(f"next: icrl {'evaluate' if complete else 'train'} {folder.config}")
        return
    say(f"evaluation: {folder.summary}")
    say(evaluation_lines(load_summary(folder)))
    say(f"report: {folder.report}")


def tasks(name: str | None, picture: Path, overrides: list[str]) -> None:
    """Lists the task families. With NAME, describes that family and draws a few of its tasks."""
    from data_gen.tasks.catalogue import describe_family, draw_tasks, family_table

    if name is None:
        if overrides:
            raise UserError(f"{overrides[0]}: parameters need the NAME of a family: icrl tasks NAME ...")
        say(family_table())
        say("details and a picture: icrl tasks NAME [--PARAMETER VALUE ...]")
        return
    family = load_tasks(name, overrides)
    say(describe_family(name, family))
    path = picture / f"{name.replace(':', '.')}.png"
    say(f"picture: {path}" if draw_tasks(family, name, path) else "picture: this family does not draw its tasks")


def agents(name: str | None, overrides: list[str]) -> None:
    """Lists the agents, which serve as sources and baselines. With NAME, describes that agent and its parameters."""
    from icrl.config.components import AGENTS
    from icrl.config.describe import component_table, describe_component

    if name is None:
        if overrides:
            raise UserError(f"{overrides[0]}: parameters need the NAME of an agent: icrl agents NAME ...")
        say(component_table(AGENTS))
        say("details: icrl agents NAME [--PARAMETER VALUE ...]")
        return
    say(describe_component(name, load_agent(name, overrides)))


VERBS: dict[str, Callable[[Invocation], object]] = {
    "meta-train": meta_train,
    "generate": generate,
    "train": train,
    "evaluate": evaluate,
    "run": run,
}


def _parser() -> argparse.ArgumentParser:
    """The parser of the console command, with one subparser per verb."""
    parser = argparse.ArgumentParser(
        prog="icrl",
        description="The pipeline for in-context reinforcement learning.",
        epilog="Start with: icrl run demo",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"icrl {icrl.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        add_arguments(verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__, allow_abbrev=False))
    shown = verbs.add_parser("info", help=info.__doc__, description=info.__doc__, allow_abbrev=False)
    shown.add_argument("run", metavar="RUN", help="a run folder, such as runs/demo")
    listed = verbs.add_parser("tasks", help=tasks.__doc__, description=tasks.__doc__, allow_abbrev=False)
    listed.add_argument("name", metavar="NAME", nargs="?", help="a family, such as dark_room, or module:Class")
    listed.add_argument(
        "--picture", metavar="FOLDER", default="runs/tasks", help="folder of the picture (default %(default)s)"
    )
    listed.epilog = "Any parameter of the family can be set: icrl tasks dark_room --size 7"
    known = verbs.add_parser("agents", help=agents.__doc__, description=agents.__doc__, allow_abbrev=False)
    known.add_argument("name", metavar="NAME", nargs="?", help="an agent, such as ppo, or module:Class")
    studies.add_verbs(verbs)
    hub.add_verbs(verbs)
    exchange.add_verbs(verbs)
    return parser


if __name__ == "__main__":
    leave(main())
