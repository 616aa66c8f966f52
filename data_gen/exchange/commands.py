"""The verbs `icrl import` and `icrl export`."""

import argparse
from pathlib import Path
from typing import Any

from icrl.run.folder import folder_of_data
from icrl.support.errors import UserError
from icrl.support.terminal import say
from icrl.support.yaml12 import YAMLFault, read_yaml

# Each verb imports its own modules only when it runs: some take seconds, and some need an optional package.


def import_minari(arguments: argparse.Namespace) -> None:
    """Import Minari data sets into a data folder. Each data set becomes one history and one task."""
    from data_gen.exchange.minari_data import import_minari as run_import

    imported = run_import(
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
    say(f"import: {imported.info.num_histories:,} histories of {imported.info.history_steps:,} steps: {arguments.to}")
    for name in arguments.ids:
        if imported.left_out[name]:
            say(f"  {name}: {imported.left_out[name]:,} steps are left out")
        if imported.truncated[name]:
            say(f"  {name}: {imported.truncated[name]:,} episodes without an end flag are marked as truncated")
    say(f"next: a config with data: {{folder: {arguments.to}}}")


def import_xland(arguments: argparse.Namespace) -> None:
    """Import a file in XLand-100B's layout into a data folder. The expert's actions become the labels."""
    from data_gen.exchange.xland import import_xland as run_import

    info = run_import(
        Path(arguments.file),
        Path(arguments.to),
        tasks=None if arguments.tasks is None else range(arguments.tasks),
        histories=arguments.histories,
        steps=arguments.steps,
        episode_length=arguments.episode_length,
        overwrite=arguments.overwrite,
    )
    histories, steps, tasks = (info.num_histories, info.history_steps, info.num_train_tasks)
    say(f"import: {histories:,} histories of {steps:,} steps, on {tasks:,} tasks: {arguments.to}")
    say(f"next: a config with data: {{folder: {arguments.to}}}")


def export_minari(arguments: argparse.Namespace) -> None:
    """Export the learning histories of a run or data folder as one Minari data set, or as one per task."""
    from data_gen.exchange.minari_export import export_minari as run_export

    folder = folder_of_data(Path(arguments.run))
    try:
        histories = [int(number) for number in arguments.histories.split(",")] if arguments.histories else None
    except ValueError as error:
        raise UserError(f"--histories {arguments.histories}: expected numbers such as 0,1,2") from error
    credit = {name: getattr(arguments, name) for name in ("author", "author_email", "code_permalink")}
    ids = run_export(folder, arguments.id, by_task=arguments.by_task, histories=histories, **credit)
    say(f"export: {len(ids)} Minari data sets, {ids[0]}{' ...' if ids[1:] else ''}")


def _tasks(text: str | None) -> dict[str, Any] | None:
    try:
        given = read_yaml(text) if text else None
    except YAMLFault as error:
        raise UserError(f"--tasks: not valid YAML: {error}") from error
    if isinstance(given, str):
        return {"name": given}
    if given is not None and not isinstance(given, dict):
        raise UserError(f"--tasks {text}: expected the tasks section of a config, such as {{name: dark_room, size: 7}}")
    return given


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the parsers of both verbs. Each parser stores its function in `act`."""
    imports = verbs.add_parser(
        "import", help="Import another project's data set into a data folder.", allow_abbrev=False
    )
    formats = imports.add_subparsers(dest="format", required=True, metavar="FORMAT")
    about = import_minari.__doc__
    parser = formats.add_parser("minari", help=about, description=about, allow_abbrev=False)
    parser.add_argument("ids", metavar="ID", nargs="+", help="data set, such as mujoco/hopper/expert-v0")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="the data folder")
    parser.add_argument("--tasks", metavar="YAML", help="task family of the data sets, as in a config")
    parser.add_argument("--same-task", action="store_true", help="all data sets are histories of one task")
    parser.add_argument("--steps", type=int, metavar="N", help="steps per history (default: those of the shortest)")
    parser.add_argument("--cut", action="store_true", help="cut longer data sets into several histories")
    parser.add_argument(
        "--episode-length",
        type=int,
        metavar="N",
        help="most steps per episode (default: the limit in --tasks or the environments' specs)",
    )
    parser.add_argument("--keys", metavar="KEY,KEY", help="keys of a Dict observation to keep (default: all)")
    parser.add_argument("--download", action="store_true", help="download missing data sets")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    parser.set_defaults(act=import_minari)
    about = import_xland.__doc__
    parser = formats.add_parser("xland", help=about, description=about, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", help="HDF5 file, such as xland-trivial-20b.hdf5")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="the data folder")
    parser.add_argument("--tasks", type=int, metavar="N", help="import only the first N tasks")
    parser.add_argument("--histories", type=int, metavar="N", help="import only the first N histories per task")
    parser.add_argument("--steps", type=int, metavar="N", help="import only the first N steps per history")
    parser.add_argument(
        "--episode-length",
        type=int,
        metavar="N",
        help="most steps per episode (default: the time limit of XLand-MiniGrid)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    parser.set_defaults(act=import_xland)
    exports = verbs.add_parser("export", help="Export learning histories for other projects.", allow_abbrev=False)
    formats = exports.add_subparsers(dest="format", required=True, metavar="FORMAT")
    about = export_minari.__doc__
    parser = formats.add_parser("minari", help=about, description=about, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/demo, or a data folder")
    parser.add_argument("--id", required=True, metavar="ID", help="data set to write, such as dark-room/q-learning-v0")
    parser.add_argument("--by-task", action="store_true", help="write one data set per task, each with its environment")
    parser.add_argument("--histories", metavar="N,N", help="numbers of the histories to export (default: all)")
    for name in ("author", "author-email", "code-permalink"):
        parser.add_argument(f"--{name}", metavar="TEXT", help="for the data set's metadata")
    parser.set_defaults(act=export_minari)
