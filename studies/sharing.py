"""Sharing within a study: the data, meta-learners, token caches and models that several runs need are made once.

Runs whose fingerprints of a stage are equal would make the same bytes. The first makes them in its own run folder, and
the others wait for their turn; then they get hard links to its files. So a run folder is complete by itself, all of it
is on disk once, and what one run links survives the deletion of the other: the operating system keeps a file as long
as a folder has it. Files are never changed in place, only replaced, so no run can change what another has. Where a
file system has no hard links, files are copied.

Nothing is linked unless it is verified by its checksums. A run whose data is damaged is passed over.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from ad_model.build import context_length
from ad_model.going_on import plan_training
from ad_model.token_cache import cache_name, token_cache
from data_gen.experiment import Experiment
from data_gen.meta.store import learner_folder, meta_learners, source_weights, trained_checkpoint
from data_gen.storage.card import dataset_card
from data_gen.storage.folder import check_task_files, checked_shards, load_info
from data_gen.storage.info import DataInfo
from eval.stages import Stage
from icrl.run.fingerprints import data_fingerprint, meta_fingerprint
from icrl.run.folder import CARD, RunFolder, locked
from icrl.support.errors import UserError
from icrl.support.files import new_folder, write_file
from studies.folder import StudyFolder, turn
from studies.keys import is_trained, is_validated, training_key


class Sharing:
    """Shares what a run needs with the other runs of its study. `around` is for `eval.stages.run_stages`."""

    def __init__(self, study: StudyFolder) -> None:
        self.study = study
        self.linked: list[str] = []
        """The things that this run got from others."""

    def around(self, stage: Stage, experiment: Experiment) -> AbstractContextManager[None]:
        """The block that a stage runs in: what another run has made is linked before the stage begins."""
        blocks: dict[Stage, Callable[[Experiment], AbstractContextManager[None]]] = {
            "meta-train": self._meta,
            "generate": self._data,
            "train": self._training,
        }
        return blocks[stage](experiment) if stage in blocks else contextlib.nullcontext()

    @contextlib.contextmanager
    def _meta(self, experiment: Experiment) -> Iterator[None]:
        """Meta-learners. All turns are taken in order of their names, so that no two runs wait for each other."""
        config, own = experiment.config, experiment.folder
        missing = {
            f"meta-{meta_fingerprint(config, each)}": each
            for each in meta_learners(config).values()
            if trained_checkpoint(config, own, each) is None
        }
        with ExitStack() as turns:
            for name in sorted(missing):
                turns.enter_context(turn(self.study, name))
            for learner in missing.values():
                home = learner_folder(config, own, learner)

                def made(other: RunFolder, name: str = home.name) -> Path:
                    trained = trained_checkpoint(config, other, learner)  # noqa: B023  (called at once)
                    if trained is None:
                        raise UserError("not meta-trained")
                    if config.evaluation.checkpoint == "best" and not is_validated(trained.parent, config):
                        raise UserError("not validated in the same way")
                    return other.meta / name

                self._link(experiment, "meta-learner", made, home)
            yield

    @contextlib.contextmanager
    def _data(self, experiment: Experiment) -> Iterator[None]:
        """Data that is generated. Given data is linked by its own stage."""
        config, own = experiment.config, experiment.folder
        if config.data.given or own.data_info.exists():
            yield
            return
        wanted = data_fingerprint(config)
        with turn(self.study, f"data-{wanted}"):
            trained = source_weights(config, own)

            def made(other: RunFolder) -> Path:
                info = load_info(other)
                if info.fingerprint != wanted or info.meta_learners != trained:
                    raise UserError("other data")
                check_task_files(other.data, info)
                for _ in checked_shards(other, info):
                    pass
                return other.data

            def add_card(folder: Path, other: RunFolder) -> None:
                write_file(folder / CARD, dataset_card(config.name, load_info(other)))

            self._link(experiment, "data", made, own.data, leave_out=(CARD,), add=add_card)
            yield

    @contextlib.contextmanager
    def _training(self, experiment: Experiment) -> Iterator[None]:
        """The trained model, where only the evaluation differs; else the token cache."""
        config, own = experiment.config, experiment.folder
        info = load_info(own)
        if plan_training(config, own.checkpoints, info.identity).complete:
            yield
            return
        with turn(self.study, f"training-{training_key(config)}"):

            def made(other: RunFolder) -> Path:
                if not is_trained(other.checkpoints, config, info.identity):
                    raise UserError("not trained")
                return other.checkpoints

            def add_log(folder: Path, other: RunFolder) -> None:
                if other.training_log.is_file():
                    write_file(own.training_log, other.training_log.read_bytes())

            if not self._link(experiment, "training", made, own.checkpoints, add=add_log):
                self._cache(experiment, info)
            yield

    def _cache(self, experiment: Experiment, info: DataInfo) -> None:
        """Links or builds the token cache."""
        config, own = experiment.config, experiment.folder
        if config.data.streaming:
            return
        length, settings = context_length(config.model, info.episode_length), config.training
        wanted = settings.objective.build().columns
        name = cache_name(info, settings.subsample, length, settings.selection, wanted)
        if (own.cache / name).exists():
            return
        with turn(self.study, f"cache-{name}"):

            def made(other: RunFolder) -> Path:
                if not (other.cache / name).is_dir():
                    raise UserError("no such cache")
                return other.cache / name

            if not self._link(experiment, "token cache", made, own.cache / name):
                with locked(own):
                    token_cache(own, settings.subsample, length, settings.selection, wanted)

    def _link(
        self,
        experiment: Experiment,
        what: str,
        made: Callable[[RunFolder], Path],
        to: Path,
        leave_out: tuple[str, ...] = (),
        add: Callable[[Path, RunFolder], None] = lambda folder, other: None,
    ) -> bool:
        """Links the first intact folder that `made` finds in another run to `to`; False if there is none.

        What this run has begun itself is replaced: the other run has finished it. `made` raises UserError for a run
        that lacks it. `add` writes more files beside the links.
        """
        own = experiment.folder
        for path in sorted(self.study.runs.glob("*/")):
            other = RunFolder(path)
            if path.resolve() == own.path.resolve():
                continue
            try:
                source = made(other)
            except UserError:
                continue
            with locked(own), new_folder(to) as temporary:
                link_files(source, temporary, leave_out)
                add(temporary, other)
            self.linked.append(what)
            return True
        return False


def link_files(source: Path, target: Path, leave_out: tuple[str, ...] = ()) -> None:
    """Hard links to all files of `source` in the folder `target`, without hidden ones; copies where there are no links.

    Symbolic links are not followed: they may lead anywhere.
    """
    for place, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        there = target / Path(place).relative_to(source)
        there.mkdir(exist_ok=True)
        for name in files:
            path = Path(place) / name
            if name.startswith(".") or name in leave_out:
                continue
            if path.is_symlink():
                raise UserError(f"{path}: is a link to another folder, which is not followed; delete it")
            try:
                (there / name).hardlink_to(path)
            except OSError:
                shutil.copy2(path, there / name)
