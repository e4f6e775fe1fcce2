"""A study from its first trial to the file that remains of it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab import config as configuration
from litlab.assemble import build_task
from litlab.callbacks.budget import seconds as span
from litlab.checkpoint.manifest import config_hash
from litlab.data.open import open_or_prepare
from litlab.errors import ConfigError, Interrupted
from litlab.output import number, say
from litlab.paths import runs_folder
from litlab.run_lock import running
from litlab.signals import Signals
from litlab.tuning import conclude
from litlab.tuning.clock import Clock
from litlab.tuning.composer import Composer
from litlab.tuning.devices import slots
from litlab.tuning.finalists import Finals
from litlab.tuning.objectives import objectives_of
from litlab.tuning.outcome import Outcome
from litlab.tuning.pool import Job, Pool
from litlab.tuning.record import ParentRun, as_run, warm_up
from litlab.tuning.settings import StudySettings
from litlab.tuning.space import Space
from litlab.tuning.storage import Storage
from litlab.tuning.study import FINISHED, Start, TrialStudy

LEAST_SILENCE = 5  # seconds


class Tuner:
    """Runs a study until it has as many finished trials as were asked for.

    Args:
        settings: The study's.
        base: Overrides of the configuration that is tuned.
        join: Whether to help with a study that was begun on another machine.

    Raises:
        ConfigError: A path or a range of the space is not one of the configuration.
    """

    def __init__(self, settings: StudySettings, base: Sequence[str], *, join: bool = False) -> None:
        # A thread pool that has begun is lost to forked processes, which would wait for it.
        cores = torch.get_num_threads()
        torch.set_num_threads(1)
        self.settings, self.base, self.join = settings, list(base), join
        if join and settings.storage is None:
            fix = "study.storage=postgresql://...; on one machine, study.workers=4"
            raise ConfigError("other machines cannot reach a file of this one", "--join", fix)
        self.config = configuration.load(self.base)
        if self.config.monitor.startswith("train/"):
            fix = "monitor=val/loss, say"
            raise ConfigError("a study goes by validation", f"monitor={self.config.monitor}", fix)
        self.space = Space(settings.space)
        self.composer = Composer(self.base)
        self.space.check(self.composer)
        _, self.spec = open_or_prepare(self.config.data, self.config.trust)
        task = build_task(self.config, self.spec, trial=False)
        names = settings.objectives or [self.config.monitor]
        self.objectives = objectives_of(names, task.parts.metrics)
        self.folder = runs_folder() / settings.name
        measure = any(o.name == "latency" for o in self.objectives)
        shared = slots(self.config.trainer, settings.workers, cores)
        self.pool = Pool(self.folder, shared, self.spec.checksum, measure=measure)
        self.study = self._open()
        self.parent = ParentRun(self.config, settings, self.study)
        self.begun = 0  # trainings, by this command

    def _open(self) -> TrialStudy:
        settings = self.settings
        silence = span(settings.stale_after)
        if silence < LEAST_SILENCE:
            where, fix = f"study.stale_after={settings.stale_after}", f"{LEAST_SILENCE}s or more"
            raise ConfigError("machines do not say so often that they are there", where, fix)
        storage = Storage(settings.name, settings.storage, silence)
        values, outside = self.space.current(self.base)
        for path, value in outside.items():
            now = _short(values[path])
            say(
                f"the first trial has {path}={now}: the configuration's {value} is not in the space"
            )
        tuned, epochs = config_hash(self.config), self.config.trainer.max_epochs
        start = Start(values, outside, tuned, self.spec.checksum, epochs)
        with storage.reached():
            return TrialStudy(settings, self.space, self.objectives, storage, start, join=self.join)

    @property
    def page(self) -> Path:
        """Where the study's report is."""
        return self.folder / conclude.PAGE

    def run(self) -> Outcome:
        """Run the trials that are missing, train the best again, and say what was found.

        Raises:
            Interrupted: Ctrl-C or SIGTERM: trials have saved, and the same command goes on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        status, outcome, pages = "FAILED", None, []
        with running(self.folder), self._noted() as signals:
            try:
                self.parent.start()
                warm_up(self.config)
                finals = Finals(self.study, self.config, self.composer, self.parent)
                try:
                    self._trials(signals)
                    if signals.came is None:
                        finals.run(self.pool, signals)
                finally:
                    self._stop()
                self._raise(signals, "the same command goes on from here")
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
            Interrupted: Ctrl-C or SIGTERM: its trials have saved, and others take them over.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._noted() as signals:
            warm_up(self.config)
            try:
                self._trials(signals)
            finally:
                self._stop()
            self._raise(signals, "the study goes on without this machine")
        return self.begun

    @contextmanager
    def _noted(self) -> Iterator[Signals]:
        """Within it signals are remembered, and a storage that fails is explained."""
        with Signals() as signals, signals.noted(), self.study.storage.reached():
            self.pool.stops = lambda: signals.came is not None
            try:
                yield signals
            finally:
                self.study.leave()

    def _is_drawn(self) -> bool:
        """Whether the page shows all that has ended."""
        if self.begun or not self.page.is_file():
            return False
        ends = [t.datetime_complete.timestamp() for t in self.study.trials() if t.datetime_complete]
        return self.page.stat().st_mtime >= max(ends)

    def _draw(self, outcome: Outcome) -> list[Path]:
        """Draw the study; it is complete without."""
        try:
            return conclude.write_pages(self.study, outcome, self.folder)
        except Exception as error:
            say(f"warning: the study's report is not drawn: {type(error).__name__}: {error}")
            return []

    @staticmethod
    def _raise(signals: Signals, saved: str) -> None:
        if signals.came is not None:
            raise signals.interrupted(saved)

    def _trials(self, signals: Signals) -> None:
        clock = Clock(self.study, self.settings.time_limit, helps=self.join)
        self._say_what_is_left()
        waits = False
        while signals.came is None:
            while signals.came is None and self.pool.free and self._begin(new=clock.in_time):
                self._beat()
            if not self.pool.jobs:
                others = self.study.count(TrialState.RUNNING)
                if not others:
                    break
                if not waits:
                    say(f"waiting for {others} trials of other machines")
                waits = True
                time.sleep(1.0)
            self._listen()
            self._beat()
            clock.note()
        clock.note(now=True)

    def _say_what_is_left(self) -> None:
        done, total = self.study.count(*FINISHED), self.study.total
        if total < self.settings.n_trials:
            say(f"the grid has {total} combinations, the configuration as it is included")
        if len(self.objectives) > 1 and self.settings.pruner != "none":
            say(f"several objectives: no trial is pruned (study.pruner={self.settings.pruner})")
        if done > total:
            say(f"{done} trials have finished, more than the {total} asked for")
        elif done == total:
            say(f"all {total} trials have finished; study.n_trials={2 * total} would add as many")

    def _beat(self) -> None:
        self.study.beat([job.key[0] for job in self.pool.jobs if not job.given_up])

    def _begin(self, *, new: bool) -> bool:
        begun = self.study.begin(new=new)
        if begun is None:
            return False
        trial, values, again = begun
        if again:
            say(f"trial {trial.number} was interrupted; it goes on")
        try:
            config = self.composer(values)
        except ConfigError as error:  # a combination that the configuration refuses
            self._told(trial, values, {"failed": str(error)})
            return True
        name = f"trial-{trial.number:04d}"
        tags = self.parent.tags(trial=trial.number)
        config = as_run(config, f"{self.settings.name}-{trial.number:04d}", tags)
        self.pool.begin(name, config, (trial, values), fresh=not again)
        self.begun += 1
        return True

    def _listen(self) -> None:
        for job, said in self.pool.listen(self._epoch):
            if said is None:
                self.study.release(job.key[0])
            else:
                self._tell(job, said)

    def _epoch(self, job: Job, epoch: int, value: float) -> bool:
        trial: Trial = job.key[0]
        if not self.study.holds(trial):
            say(f"trial {trial.number} was taken over by another machine: this one was silent")
            self.pool.give_up(job)
            return False
        return self.study.report(trial, epoch, value)

    def _tell(self, job: Job, said: Mapping[str, Any]) -> None:
        trial, values = job.key
        self._told(trial, values, said)

    def _told(self, trial: Trial, values: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        told = self.study.tell(trial, said)
        if told is None:
            say(f"trial {trial.number} was finished elsewhere; its result counts once")
        else:
            self._show(told, values, said)

    def _show(self, told: FrozenTrial, values: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        text = "  ".join(f"{path}={_short(value)}" for path, value in values.items())
        done = f"{self.study.count(*FINISHED)}/{self.study.total}"
        if told.state == TrialState.FAIL:
            what = f"failed: {told.user_attrs['failed']}"
        elif told.state == TrialState.PRUNED:
            value = number(told.value) if told.value is not None else "no value"
            what = f"{self.objectives[0].name} {value} (pruned)  {said['seconds']:.1f} s"
        else:
            pairs = zip(self.objectives, told.values, strict=True)
            what = "  ".join(f"{o.name} {number(v)}" for o, v in pairs)
            what += f"  {said['seconds']:.1f} s"
        say(f"trial {told.number:>3} {done:>7}  {what}  {text}")

    def _stop(self) -> None:
        """Let every training save and end, and leave the trials to whoever comes first."""
        for job, said in self.pool.stop():
            if isinstance(job.key, str):  # a finalist's: it is looked for by its folder
                continue
            if said is None:
                self.study.release(job.key[0])
            else:
                self._tell(job, said)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
