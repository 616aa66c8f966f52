"""The verbs `icrl push` and `icrl pull`."""

import argparse
from pathlib import Path

from data_gen.experiment import open_run
from icrl.run.folder import CARD, CHECKSUMS, CONFIG, INFO, SUMMARY, TASK_FILES, folder_of_data
from icrl.support.errors import UserError
from icrl.support.hub import Kind, Repository, fetch, repository, snapshot
from icrl.support.terminal import say

# A verb imports its own modules when it runs: torch alone takes seconds to import.

_LAYOUT = {
    "dataset": (INFO, "*.npz", "*.h5", "data/*.parquet", CARD, CONFIG, "*.png"),
    "model": (
        *("config.json", CHECKSUMS, "*.safetensors", "model.safetensors.index.json"),
        *(CARD, SUMMARY, "experiment.yaml", TASK_FILES[-1], "*.png", "*.html"),
    ),
}
"""Patterns of the files that are pulled: data, weights and pages, but no code."""


def push_data(arguments: argparse.Namespace) -> None:
    """Pushes a run's learning histories, or a data folder, to a data set on the hub."""
    from publish.data import data_parcel, describe_parquet, push_parquet
    from publish.push import push

    path, to = Path(arguments.run), _target(arguments, "dataset")
    folder = folder_of_data(path)
    name = path.resolve().name
    if arguments.format == "parquet":
        say(describe_parquet(folder, to))
        if not arguments.dry_run:
            say(f"push: done: {push_parquet(folder, name, to, arguments.public, arguments.license)}")
        return
    push(data_parcel(folder, name, to, arguments.license), to, arguments.public, arguments.dry_run)


def push_model(arguments: argparse.Namespace) -> None:
    """Pushes a run's trained model to the hub, with its evaluation."""
    from publish.model import model_parcel
    from publish.push import push

    experiment, to = open_run(arguments.run), _target(arguments, "model")
    push(model_parcel(experiment, to, arguments.license), to, arguments.public, arguments.dry_run)


def pull(arguments: argparse.Namespace) -> None:
    """Downloads a data set or a model from the hub, without any code. Existing files are not downloaded again."""
    kind: Kind = "dataset" if arguments.kind == "data" else "model"
    wanted = repository(arguments.repo, kind, "REPO")
    remote, (main, *_) = snapshot(wanted), _LAYOUT[kind]
    names = remote.matching(_LAYOUT[kind])
    if main not in names:
        raise UserError(f"{kind} {wanted}: has no {main}, so this project did not push it")
    to = Path(arguments.to) if arguments.to else None
    if to is not None and to.exists() and not (to / main).is_file() and (to.is_file() or any(to.iterdir())):
        raise UserError(f"--to {to}: holds something else; choose an empty folder, or one that a pull has created")
    total = sum(remote.sizes[name] for name in names)
    say(f"pull: {len(names)} files, {total:,} bytes, of {kind} {wanted} at {remote.commit}")
    path = fetch(remote, names, to)
    if to is not None:  # shards of an earlier commit would be read together with the new ones
        for old in {*to.glob("**/train-*.h5"), *to.glob("**/train-*.parquet")} - {to / name for name in names}:
            old.unlink()
    say(f"pull: done: {path}")
    key = f"data: {{folder: {path}}}" if kind == "dataset" else f"--checkpoint {path}"
    say(f"next: {'a config with ' if kind == 'dataset' else 'icrl evaluate CONFIG '}{key}")


def _target(arguments: argparse.Namespace, kind: Kind) -> Repository:
    to = repository(arguments.repo, kind, "--repo")
    if to.revision is not None:
        raise UserError(f"--repo: {arguments.repo}: give the branch as --revision {to.revision}")
    return Repository(to.id, kind, arguments.revision)


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the parsers of these verbs. Each sets its function as `act`."""
    pushed = verbs.add_parser("push", help="Pushes data or a model to the hub.", allow_abbrev=False)
    kinds = pushed.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, act in (("data", push_data), ("model", push_model)):
        parser = kinds.add_parser(name, help=act.__doc__, description=act.__doc__, allow_abbrev=False)
        parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/demo")
        parser.add_argument("--repo", required=True, metavar="USER/NAME", help="created if it does not exist")
        parser.add_argument("--public", action="store_true", help="make a new repository public, not private")
        parser.add_argument("--revision", metavar="BRANCH", help="created if it does not exist (default: main)")
        parser.add_argument("--license", metavar="ID", help="the hub's identifier of a licence, such as cc-by-4.0")
        parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")
        parser.set_defaults(act=act)
        if name == "data":
            parser.add_argument("--format", choices=("hdf5", "parquet"), default="hdf5", help="default %(default)s")
    pulled = verbs.add_parser("pull", help=pull.__doc__, description=pull.__doc__, allow_abbrev=False)
    pulled.add_argument("kind", choices=("data", "model"))
    pulled.add_argument("repo", metavar="REPO", help="USER/NAME or USER/NAME@REVISION")
    pulled.add_argument("--to", metavar="FOLDER", help="default: the cache of the hub's client")
    pulled.set_defaults(act=pull)
