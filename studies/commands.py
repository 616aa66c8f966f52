"""The verbs `icrl study` and `icrl compare`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icrl.run.command import expanded
from icrl.support.errors import ConfigError, UserError
from icrl.support.terminal import say

# A verb imports its own modules when it runs: torch alone takes seconds to import.

OUTPUT = "runs/studies"
"""Folder of the studies' folders. Not `studies`, which is a package of this project in a checkout."""

_EPILOG = """\
examples:
  icrl study seeds                                    a shipped study: the demo with five training seeds
  icrl study my_study.yaml --dry-run                  how many runs, what they share, what they cost
  icrl study my_study.yaml --part 1/4                 every fourth run, for one job of an array
  icrl study --base demo --axis training.learning_rate=1e-3,3e-3 --axis model.context_episodes=3,5 \\
             --seeds training=3 --name lr_context     a study without a file

A run that is complete is skipped, and a run that was killed continues, so the same command resumes a study. Any other
key is an override for every run: --training.steps 200."""


def study(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    """Runs one experiment for each cell and seed of a study, and writes one table and one report."""
    from studies.cells import runs_of
    from studies.estimate import describe_plan
    from studies.folder import StudyFolder
    from studies.plan import Part, check_runs
    from studies.reading import Words, is_study_folder, read_study
    from studies.run import run_study
    from studies.table import check_figures

    part = Part.of(arguments.part)
    executor = _executor(arguments)
    words = Words(
        base=arguments.base,
        name=arguments.name,
        axes=arguments.axis,
        seeds=arguments.seeds,
        show=arguments.show,
        combine=arguments.combine,
        threads=arguments.threads,
        overrides=[expanded(word) for word in rest],
    )
    if arguments.study is None and arguments.base is None:
        raise ConfigError("STUDY: name a study's file or a shipped study, or give --base CONFIG")
    asked = read_study(arguments.study, words)
    there = Path(arguments.study).parent if arguments.study and is_study_folder(arguments.study) else Path(OUTPUT)
    folder = StudyFolder((Path(arguments.output) if arguments.output else there) / asked.spec.name)
    planned = runs_of(asked, folder.runs)
    check_figures(planned)
    if arguments.overwrite and not part.whole:
        raise ConfigError("--overwrite: deletes all runs of the study, so it goes without --part")
    if arguments.overwrite and not arguments.dry_run:
        folder.remove_runs()
    check_runs(planned)
    if arguments.dry_run:
        say(describe_plan(planned, part.runs(planned.runs), folder, executor))
        return
    run_study(planned, part, folder, executor)


def compare(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    """Compares runs and studies: one page and one table, with differences paired by task."""
    from studies.compare import compare_all, write_page
    from studies.entries import load_entries

    if rest:
        raise ConfigError(f"unrecognized arguments: {' '.join(rest)}")
    entries = load_entries([Path(path) for path in arguments.paths])
    if len(entries) < 2:
        raise UserError(f"{arguments.paths[0]}: is a single run; name at least two runs, or a study with two cells")
    keys = [key.strip() for key in arguments.show.split(",")] if arguments.show else []
    comparison = compare_all(entries, arguments.agent, arguments.split, keys)
    say(comparison.text())
    say(f"page: {write_page(comparison, Path(arguments.to))}")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the parsers of these verbs. Each sets its function as `act_on`, which also gets the words left over."""
    studied = verbs.add_parser(
        "study",
        help=study.__doc__,
        description=study.__doc__,
        allow_abbrev=False,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    studied.usage = "icrl study [STUDY] [options] [--KEY VALUE ...]"
    studied.add_argument(
        "--study", metavar="STUDY", help="a study's YAML file, its folder, or the name of a shipped study such as seeds"
    )
    asked = studied.add_argument_group("what is asked, beside or instead of a file")
    asked.add_argument("--base", metavar="CONFIG", help="the config of all runs: a file, or a name such as demo")
    asked.add_argument("--name", metavar="NAME", help="name of the study's folder")
    asked.add_argument(
        "--axis",
        metavar="KEY=VALUES",
        action="append",
        default=[],
        help="an axis: KEY=1,2,3, or NAME={GROUP: {KEY: VALUE}, GROUP: ...}; once for each axis",
    )
    asked.add_argument(
        "--seeds",
        metavar="KIND=N",
        action="append",
        default=[],
        help="seeds 0 to N-1 (or KIND=4,5,6) of split, data, training or evaluation, or of seed, which is all of them",
    )
    asked.add_argument("--combine", choices=("product", "pairs"), help="how axes make cells (default: product)")
    asked.add_argument("--show", metavar="FIGURES", help="figures of the report, such as final_episodes,final_steps")
    asked.add_argument("--threads", type=_count, metavar="N", help="threads of every run (default: 1)")
    how = studied.add_argument_group("how it is done; results do not depend on it")
    how.add_argument("--dry-run", action="store_true", help="tell how many runs, what they share and cost; run nothing")
    how.add_argument("--part", metavar="I/N", help="do only every N-th run, from the I-th on")
    how.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="runs at once (default: one per accelerator, or the cores / threads)",
    )
    how.add_argument("--executor", choices=("processes", "dask"), default="processes", help="default: %(default)s")
    how.add_argument("--scheduler", metavar="ADDRESS", help="of the Dask cluster, such as tcp://host:8786")
    how.add_argument("--output", metavar="FOLDER", help=f"folder of the study's folder (default: {OUTPUT})")
    how.add_argument("--overwrite", action="store_true", help="delete all runs of the study first")
    studied.set_defaults(act_on=study)
    compared = verbs.add_parser("compare", help=compare.__doc__, description=compare.__doc__, allow_abbrev=False)
    compared.add_argument("paths", metavar="RUN|STUDY", nargs="+", help="run folders, and folders of studies")
    compared.add_argument("--agent", metavar="NAME", default="transformer", help="the agent (default: %(default)s)")
    compared.add_argument("--split", metavar="SPLIT", help="test, validation or train (default: test, if there is one)")
    compared.add_argument("--show", metavar="FIGURES", help="figures, such as final_episodes,reached_0.8")
    compared.add_argument("--to", metavar="FILE", default="compare.html", help="the page (default: %(default)s)")
    compared.set_defaults(act_on=compare)


def _executor(arguments: argparse.Namespace) -> "Executor":  # type: ignore[name-defined]  # noqa: F821
    from studies.runner import Executor

    if arguments.executor == "dask" and arguments.scheduler is None:
        raise ConfigError("--executor dask: needs the address of the cluster: --scheduler tcp://HOST:PORT")
    if arguments.executor == "dask" and arguments.workers is not None:
        raise ConfigError("--workers: the Dask cluster decides how many runs there are at once; leave it out")
    if arguments.executor == "processes" and arguments.scheduler is not None:
        raise ConfigError("--scheduler: is the address of a Dask cluster; add --executor dask")
    return Executor(arguments.executor, arguments.workers, arguments.scheduler)


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return number
