"""A study from its settings to its outcome."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from litlab.config import auto_data
from litlab.config import compose as configuration
from litlab.config.compose import follow_targets
from litlab.config.schema import Config
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.changes import training_settings
from litlab.runs.checkpoint.metadata import config_hash
from litlab.runs.lock import running
from litlab.runs.recorder import flatten
from litlab.tasks.build import build_task
from litlab.tasks.own_module import (
    UNUSED_WITH_OWN_DATA,
    build_own_data,
    build_own_module,
    is_own_data,
    is_own_module,
    mode_of,
    spec_of,
    unused_groups,
)
from litlab.training.callbacks.budget import seconds as span
from litlab.training.preflight import preflight
from litlab.training.preflight import study as rules_of_studies
from litlab.tuning.results import conclude
from litlab.tuning.results.finalists import FinalistResults
from litlab.tuning.results.outcome import Outcome
from litlab.tuning.results.record import ParentRun, warm_up
from litlab.tuning.study.composer import Composer
from litlab.tuning.study.settings import Objective, StudySettings, objectives_of
from litlab.tuning.study.space import Space
from litlab.tuning.study.storage import Storage, owners_folder, rename_study
from litlab.tuning.study.study import AnotherStudyError, Start, TrialStudy
from litlab.tuning.trials import Trials, short
from litlab.tuning.workers.devices import slots
from litlab.tuning.workers.pool import FIX, Pool
from litlab.utils.errors import ConfigError, EnvironmentFault, Interrupted
from litlab.utils.output import say
from litlab.utils.paths import runs_folder
from litlab.utils.redact import redact
from litlab.utils.signals import Signals

LEAST_SILENCE = 5  # seconds


class Tuner:
    """Runs a study until it has as many finished trials as were asked for.

    Args:
        settings: The study's.
        base: Overrides of the configuration that is tuned.
        join: Whether to help with a study that was begun on another machine.
        rename_existing: Whether to rename a study of that name that is of other settings.

    Raises:
        ConfigError: A path or a range of the space is not one of the configuration.
    """

    def __init__(
        self,
        settings: StudySettings,
        base: Sequence[str],
        *,
        join: bool = False,
        rename_existing: bool = False,
    ) -> None:
        # A thread pool that has begun is lost to forked processes, which would wait for it.
        cores = torch.get_num_threads()
        torch.set_num_threads(1)
        self.settings, self.base, self.join = settings, auto_data.expand(base), join
        self.rename_existing = rename_existing
        if join and settings.storage is None:
            fix = "study.storage=postgresql://...; on one machine, study.workers=4"
            raise ConfigError("other machines cannot reach a file of this one", "--join", fix)
        self.config = self._load()
        preflight(self.config, [rules_of_studies])
        self.space = Space(settings.space)
        self.composer = Composer(self.base)
        self.space.check(self.composer)
        self.spec = _spec(self.config)
        self._follow_data()
        names = settings.objectives or [self.config.monitor]
        self.objectives = _objectives(self.config, self.spec, names, list(settings.space))
        self.folder = runs_folder() / settings.name
        measure = any(o.name == "latency" for o in self.objectives)
        shared = slots(self.config.trainer, settings.workers, cores)
        self.pool = Pool(self.folder, shared, self.spec.checksum, measure=measure)
        self.study = self._open()
        self.parent = ParentRun(self.config, settings, self.study)
        self.trials = Trials(self.study, self.composer, self.pool, self.parent, helps=join)

    def _load(self) -> Config:
        try:
            return configuration.load(self.base)
        except ConfigError as error:
            if self.settings.objectives and error.where.startswith("monitor"):
                where = f"study.objectives={self.settings.objectives}"
                raise ConfigError(error.what, where, error.fix) from None
            raise

    def _follow_data(self) -> None:
        """Tune with the task of the data's targets, where the user chose none."""
        followed = follow_targets(self.config, self.spec.task, self.spec.name)
        if followed is not self.config and followed._overrides is not None:
            self.base, self.config = list(followed._overrides), followed
            self.composer = Composer(self.base)

    def _open(self) -> TrialStudy:
        settings = self.settings
        silence = span(settings.stale_after)
        if silence < LEAST_SILENCE:
            what = f"study.stale_after must be at least {LEAST_SILENCE:g} s"
            raise ConfigError(what, f"study.stale_after={settings.stale_after}", "raise it")
        with _disk(settings.name):
            storage = Storage(settings.name, settings.storage, silence)
        values, outside = self.space.current(self.base)
        for path, value in outside.items():
            now = short(values[path])
            say(f"the first trial has {path}={now}: the configured {value} is outside the space")
        tuned, epochs = config_hash(self.config), self.config.trainer.max_epochs
        flat = flatten(training_settings(redact(self.config.model_dump(mode="json"))))
        start = Start(values, outside, tuned, self.spec.checksum, epochs, flat)
        arguments = (settings, self.space, self.objectives)
        with _disk(settings.name), storage.reached():
            try:
                return TrialStudy(*arguments, storage, start, join=self.join)
            except AnotherStudyError:
                if not self.rename_existing or storage.shared:
                    raise
            with self._alone():
                say(f"the study with other settings was renamed to {rename_study(settings.name)}")
            storage = Storage(settings.name, None, silence)
            return TrialStudy(*arguments, storage, start)

    @property
    def page(self) -> Path:
        """Where the study's report is."""
        return self.folder / conclude.PAGE

    def run(self) -> Outcome:
        """Run the trials that are missing, train the best again, and say what was found.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or SIGHUP: trials have saved, and the same command resumes.
        """
        status, outcome, pages = "FAILED", None, []
        with self._alone(), self._noted() as signals:
            try:
                self.parent.start()
                warm_up(self.config)
                finals = FinalistResults(self.study, self.config, self.composer, self.parent)
                try:
                    self.trials.run(signals)
                    if signals.came is None:
                        finals.run(self.pool, signals)
                finally:
                    self.trials.stop()
                self._raise(signals, "run the same command to resume")
                outcome = conclude.outcome_of(self.study, self.folder, finals)
                status = "FINISHED"
                if finals.trained or not self._is_drawn():
                    pages = self._draw(outcome)
            except Interrupted:
                status = "KILLED"
                raise
            finally:
                self.parent.finish(status, outcome, pages)
        return outcome

    def help(self) -> int:
        """Run trials of a study that another command has begun and will end.

        Returns:
            How many it has run.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or SIGHUP: its trials have saved; others take over.
        """
        with self._noted() as signals:
            warm_up(self.config)
            try:
                self.trials.run(signals)
            finally:
                self.trials.stop()
            self._raise(signals, "the study continues without this machine")
        return self.trials.begun

    def _alone(self) -> AbstractContextManager[None]:
        """Within it no other command of this machine runs the study, whatever happens to runs/."""
        return running(owners_folder(self.settings.name), "the study is in progress")

    @contextmanager
    def _noted(self) -> Iterator[Signals]:
        """Within it signals are remembered, and a storage or disk that fails is explained."""
        reached = self.study.storage.reached()
        with _disk(self.settings.name), Signals() as signals, signals.noted(), reached:
            self.pool.stops = lambda: signals.came is not None
            try:
                yield signals
            finally:
                self.study.leave()

    def _is_drawn(self) -> bool:
        """Whether the page shows all that has ended."""
        if self.trials.begun or not self.page.is_file():
            return False
        ends = [t.datetime_complete.timestamp() for t in self.study.trials() if t.datetime_complete]
        return self.page.stat().st_mtime >= max(ends)

    def _draw(self, outcome: Outcome) -> list[Path]:
        """Write the study's page; a failure there does not fail the study."""
        try:
            return conclude.write_pages(self.study, outcome, self.folder)
        except Exception as error:
            say(f"warning: the study's report could not be drawn: {type(error).__name__}: {error}")
            return []

    @staticmethod
    def _raise(signals: Signals, saved: str) -> None:
        if signals.came is not None:
            raise signals.interrupted(saved)


def _spec(config: Config) -> DataSpec:
    """Prepare the data where they are not yet, and return what is known of them."""
    if is_own_data(config):
        return spec_of(build_own_data(config), config.data.name)
    return open_or_prepare(config.data, config.trust)[1]


def _objectives(
    config: Config, spec: DataSpec, names: Sequence[str], paths: Sequence[str]
) -> list[Objective]:
    """Return what is looked for; a LightningModule of the user's own has its monitored value."""
    if is_own_data(config):
        owner = config.data.source["_target_"]
        _refuse_unused(paths, UNUSED_WITH_OWN_DATA, owner, "vary data.source.NAME instead")
    if not is_own_module(config):
        task = build_task(config, spec, trial=False)
        return objectives_of(names, task.parts.metrics)
    owner = config.task["_target_"]
    _refuse_unused(paths, unused_groups(config), owner, "vary task.NAME instead")
    mode = mode_of(config, build_own_module(config, spec))
    monitored = Objective(config.monitor, "maximize" if mode == "max" else "minimize")
    costs = [name for name in names if name != config.monitor]
    if "latency" in costs:
        what, fix = "the latency of a LightningModule of your own is not measured", "leave it out"
        raise ConfigError(what, "study.objectives", fix)
    return [monitored, *objectives_of(costs, {})]


def _refuse_unused(paths: Sequence[str], groups: Sequence[str], owner: str, fix: str) -> None:
    unused = [path for path in paths if path.partition(".")[0] in groups]
    if unused:
        what = f"{owner} has its own: varying it changes nothing"
        raise ConfigError(what, f"study.space.{unused[0]}", fix)


@contextmanager
def _disk(study: str) -> Iterator[None]:
    """Explain a disk that fails.

    Raises:
        EnvironmentFault: It is full, or cannot be written to.
    """
    try:
        yield
    except OSError as error:
        where = str(error.filename or f"study {study}")
        what = f"the study cannot continue: {error.strerror or error}"
        raise EnvironmentFault(what, where, FIX) from error
