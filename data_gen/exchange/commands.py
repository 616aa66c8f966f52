"""The verbs `icrl import` and `icrl export`."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from icrl.run.folder import folder_of_data
from icrl.support.errors import UserError
from icrl.support.terminal import say

# Imports of a verb's own modules wait until it runs: some take seconds, and some need a package of their own.


def import_minari(arguments: argparse.Namespace) -> None:
    """Minari data sets become a data folder: each is a history, and a task."""
    from data_gen.exchange.minari_data import import_minari as take

    made = take(
        arguments.ids,
        Path(arguments.to),
        tasks=_tasks(arguments.tasks),
        same_task=arguments.same_task,
        steps=arguments.steps,
        cut=arguments.cut,
        episode_length=arguments.episode_length,
        keys=arguments.keys.split(",") if arguments.keys else None,
        download=arguments.download,
        overwrite=arguments.overwrite,
    )
    say(f"import: {made.info.num_histories:,} histories of {made.info.history_steps:,} steps: {arguments.to}")
    for name in arguments.ids:
        if made.left_out[name]:
            say(f"  {name}: {made.left_out[name]:,} steps are left out")
        if made.truncated[name]:
            say(f"  {name}: {made.truncated[name]:,} episodes have no end of their own, and are truncated")
    say(f"next: a config with data: {{folder: {arguments.to}}}")


def import_xland(arguments: argparse.Namespace) -> None:
    """A file of XLand-100B's layout becomes a data folder, with its expert's actions as labels."""
    from data_gen.exchange.xland import import_xland as take

    made = take(
        Path(arguments.file),
        Path(arguments.to),
        tasks=None if arguments.tasks is None else range(arguments.tasks),
        histories=arguments.histories,
        steps=arguments.steps,
        episode_length=arguments.episode_length,
        overwrite=arguments.overwrite,
    )
    histories, steps, tasks = (made[name] for name in ("num_histories", "num_steps", "num_train_tasks"))
    say(f"import: {histories:,} histories of {steps:,} steps, on {tasks:,} tasks: {arguments.to}")
    say(f"next: a config with data: {{folder: {arguments.to}}}")


def export_minari(arguments: argparse.Namespace) -> None:
    """A run's learning histories, or a data folder's, become a Minari data set, or one of each task."""
    from data_gen.exchange.minari_export import export_minari as give

    folder = folder_of_data(Path(arguments.run))
    try:
        histories = [int(number) for number in arguments.histories.split(",")] if arguments.histories else None
    except ValueError as error:
        raise UserError(f"--histories {arguments.histories}: expected numbers such as 0,1,2") from error
    credit = {name: getattr(arguments, name) for name in ("author", "author_email", "code_permalink")}
    made = give(folder, arguments.id, by_task=arguments.by_task, histories=histories, **credit)
    say(f"export: {len(made)} Minari data sets, {made[0]}{' ...' if made[1:] else ''}")


def _tasks(text: str | None) -> dict[str, Any] | None:
    try:
        given = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise UserError(f"--tasks: is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(given, str):
        return {"name": given}
    if given is not None and not isinstance(given, dict):
        raise UserError(
            f"--tasks {text}: expected the tasks as a config has them, such as {{name: dark_room, size: 7}}"
        )
    return given


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The parsers of these verbs; each leaves its function in `act`."""
    taken = verbs.add_parser("import", help="Other projects' data sets become a data folder.", allow_abbrev=False)
    formats = taken.add_subparsers(dest="format", required=True, metavar="FORMAT")
    about = import_minari.__doc__
    parser = formats.add_parser("minari", help=about, description=about, allow_abbrev=False)
    parser.add_argument("ids", metavar="ID", nargs="+", help="such as mujoco/hopper/expert-v0")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="the data folder")
    parser.add_argument("--tasks", metavar="YAML", help="the family that they are of, as a config has it")
    parser.add_argument("--same-task", action="store_true", help="they are histories of one task")
    parser.add_argument("--steps", type=int, metavar="N", help="of every history (default: those of the shortest)")
    parser.add_argument("--cut", action="store_true", help="make several histories of what is longer")
    parser.add_argument("--episode-length", type=int, metavar="N", help="default: what the environments or --tasks say")
    parser.add_argument("--keys", metavar="KEY,KEY", help="of a Dict observation, those to keep")
    parser.add_argument("--download", action="store_true", help="fetch a data set that is not here")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is there")
    parser.set_defaults(act=import_minari)
    about = import_xland.__doc__
    parser = formats.add_parser("xland", help=about, description=about, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", help="such as xland-trivial-20b.hdf5")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="the data folder")
    parser.add_argument("--tasks", type=int, metavar="N", help="the first so many (default: all)")
    parser.add_argument("--histories", type=int, metavar="N", help="of each task, the first so many (default: all)")
    parser.add_argument("--steps", type=int, metavar="N", help="of each history, the first so many (default: all)")
    parser.add_argument("--episode-length", type=int, metavar="N", help="default: the time limit of XLand-MiniGrid")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is there")
    parser.set_defaults(act=import_xland)
    given = verbs.add_parser("export", help="Learning histories for other projects.", allow_abbrev=False)
    formats = given.add_subparsers(dest="format", required=True, metavar="FORMAT")
    about = export_minari.__doc__
    parser = formats.add_parser("minari", help=about, description=about, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/demo, or a data folder")
    parser.add_argument("--id", required=True, metavar="ID", help="such as dark-room/q-learning-v0")
    parser.add_argument("--by-task", action="store_true", help="a data set of each task, which names its environment")
    parser.add_argument("--histories", metavar="N,N", help="numbers of those to export (default: all)")
    for name in ("author", "author-email", "code-permalink"):
        parser.add_argument(f"--{name}", metavar="TEXT", help="for the data set's metadata")
    parser.set_defaults(act=export_minari)
