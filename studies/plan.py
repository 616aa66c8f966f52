"""The plan of a study: which runs there are to do, in which order, and what they share."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_gen.experiment import Experiment
from data_gen.meta.store import meta_learners
from eval.before import check_run
from icrl.run.fingerprints import data_fingerprint, evaluation_fingerprint, meta_fingerprint
from icrl.support.errors import ConfigError, UserError
from studies.cells import Run, Study
from studies.folder import StudyFolder, new_record, read_run_record
from studies.keys import training_key
from studies.worker import Job, forget_accelerator


@dataclass(frozen=True)
class Part:
    """A part of a study's runs, for a job array: every N-th run, from the I-th on."""

    index: int = 1
    count: int = 1

    @classmethod
    def of(cls, text: str | None) -> "Part":
        """The part written as `I/N`. Raises ConfigError."""
        if text is None:
            return cls()
        index, slash, count = text.partition("/")
        if not slash or not (index.isascii() and index.isdecimal() and count.isascii() and count.isdecimal()):
            raise ConfigError(f"--part {text!r}: write it as I/N, such as 1/4 for the first of four parts")
        if not 1 <= int(index) <= int(count):
            raise ConfigError(f"--part {text}: there are the parts 1/{count} to {count}/{count}")
        return cls(int(index), int(count))

    def runs(self, runs: Sequence[Run]) -> list[Run]:
        """The runs of this part."""
        return [*runs[self.index - 1 :: self.count]]

    @property
    def whole(self) -> bool:
        """True if this is all of the study."""
        return self.count == 1


@dataclass(frozen=True)
class Shared:
    """Numbers of what a study's runs need, after sharing."""

    meta_trainings: int
    data_sets: int
    trainings: int
    evaluations: int

    def __str__(self) -> str:
        parts = [
            counted(self.meta_trainings, "meta-training") if self.meta_trainings else "",
            counted(self.data_sets, "data set"),
            counted(self.trainings, "training"),
            counted(self.evaluations, "evaluation"),
        ]
        return ", ".join(filter(None, parts))


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def shared(runs: Sequence[Run], complete: Sequence[Run] = ()) -> Shared:
    """The things that these runs need beyond those of the `complete` ones, each counted once."""
    needed, there = needs(runs), needs(complete)
    return Shared(*(len(own - made) for own, made in zip(needed, there, strict=True)))


def needs(runs: Sequence[Run]) -> tuple[set[str], ...]:
    """Fingerprints of the meta-trainings, data sets, trainings and evaluations of some runs."""
    return (
        {meta_fingerprint(run.config, each) for run in runs for each in meta_learners(run.config).values()},
        {data_fingerprint(run.config) for run in runs},
        {training_key(run.config) for run in runs},
        {evaluation_fingerprint(run.config) for run in runs},
    )


def check_runs(study: Study) -> None:
    """Checks every run as `icrl run` does before its first stage. Raises UserError with one line per problem.

    Runs of one cell differ by their seeds alone: those that share the split are checked in full once.
    """
    problems: dict[str, list[Run]] = {}
    code = 0
    checked: dict[tuple[str, int], Experiment] = {}
    for run in study.runs:
        try:
            forget_accelerator()
            experiment = Experiment(run.config)
            seen = checked.setdefault((run.cell.name, run.seed("split")), experiment)
            if seen is experiment or experiment.folder.path.exists():
                check_run(experiment)
        except UserError as error:
            code = max(code, error.exit_code)
            for line in str(error).splitlines():
                problems.setdefault(line, []).append(run)
    if problems:
        lines = [
            f"{study.asked.where}: {line} (run {runs[0].name}{f', and {len(runs) - 1} more' if runs[1:] else ''})"
            for line, runs in problems.items()
        ]
        raise (ConfigError if code == ConfigError.exit_code else UserError)("\n".join(lines))


def jobs_of(study: Study, runs: Sequence[Run], folder: StudyFolder) -> list[Job]:
    """The jobs of the runs that are not complete, in a good order: first those that make what others wait for."""
    missing = [run for run in runs if not is_complete(run, folder)]
    data, trained = set[str](), set[str]()
    rank: dict[str, int] = {}
    for run in missing:
        of_data, of_training = data_fingerprint(run.config), training_key(run.config)
        rank[run.name] = 0 if of_data not in data else 1 if of_training not in trained else 2
        data.add(of_data)
        trained.add(of_training)
    return [
        Job(
            run.config,
            folder.path.resolve(),
            new_record(run, study.spec.name, evaluation_fingerprint(run.config)),
            study.spec.threads,
        )
        for run in sorted(missing, key=lambda run: rank[run.name])
    ]


def is_complete(run: Run, folder: StudyFolder) -> bool:
    """True if a run is complete for this config: all stages, and the report."""
    own = folder.run(run.name)
    record = read_run_record(own)
    return (
        record is not None
        and (record.state, record.fingerprint) == ("complete", evaluation_fingerprint(run.config))
        and own.summary.exists()
        and own.report.exists()
    )
