"""The study's own process: starts trials, listens to them, and leaves the best as an experiment."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
from optuna.trial import Trial, TrialState

from litlab import config as configuration
from litlab.assemble import build_task
from litlab.callbacks.budget import seconds as span
from litlab.checkpoint.manifest import config_hash
from litlab.data.open import open_or_prepare
from litlab.errors import ConfigError, EnvironmentFault
from litlab.output import number, say
from litlab.paths import runs_folder
from litlab.run_lock import running
from litlab.schema import Config
from litlab.signals import Signals
from litlab.tuning.record import ParentRun
from litlab.tuning.settings import StudySettings
from litlab.tuning.space import Space, config_of
from litlab.tuning.study import FINISHED, TrialStudy
from litlab.tuning.worker import Worker, start

ATTEMPTS = 3  # of a trial whose process is killed


@dataclass(frozen=True)
class Outcome:
    """What a study has come to.

    Attributes:
        trials: How many are complete, pruned, failed.
        best: Number, value and settings of the best.
        first: The current configuration's value; None if that trial did not finish.
        storage: Where `optuna-dashboard` finds it.
    """

    study: str
    storage: str
    trials: dict[str, int]
    best: dict[str, Any]
    first: float | None


@dataclass
class _Job:
    trial: Trial
    values: dict[str, Any]
    config: Config
    worker: Worker
    attempts: int = 1


class Tuner:
    """Runs a study until it has as many finished trials as were asked for.

    Args:
        settings: The study's.
        base: Overrides of the configuration that is tuned.

    Raises:
        ConfigError: A path or a range of the space is not one of the configuration.
    """

    def __init__(self, settings: StudySettings, base: Sequence[str]) -> None:
        # A thread pool that has begun is lost to forked processes, which would wait for it.
        cores = torch.get_num_threads()
        torch.set_num_threads(1)
        self.threads = max(1, cores // settings.workers)
        self.settings, self.base = settings, list(base)
        self.config = configuration.load(self.base)
        if self.config.monitor.startswith("train/"):
            fix = "monitor=val/loss, say"
            raise ConfigError("a study goes by validation", f"monitor={self.config.monitor}", fix)
        self.space = Space(settings.space)
        self.space.check(self.base)
        _, spec = open_or_prepare(self.config.data, self.config.trust)
        mode = build_task(self.config, spec, trial=False).parts.mode
        self.direction = "maximize" if mode == "max" else "minimize"
        current = self.space.current(self.base)
        epochs = self.config.trainer.max_epochs
        tuned = config_hash(self.config)
        self.study = TrialStudy(settings, self.space, self.direction, current, epochs, tuned)
        self.folder = runs_folder() / settings.name
        self.jobs: list[_Job] = []
        self.stopping = False
        self.parent = ParentRun(self.config, settings)

    def run(self) -> Outcome:
        """Run the trials that are missing.

        Raises:
            Interrupted: Ctrl-C or SIGTERM: trials have saved, and the same command goes on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        limit = self.settings.time_limit
        deadline = time.monotonic() + span(limit) if limit else float("inf")
        with running(self.folder), Signals() as signals, signals.noted():
            self.parent.start()
            waiting = self.study.interrupted()
            if waiting:
                say(f"going on with {len(waiting)} trials that were interrupted")
            status, outcome = "FAILED", None
            try:
                try:
                    self._loop(waiting, deadline, signals)
                finally:
                    self._stop()
                if signals.came is not None:
                    status = "KILLED"
                    raise signals.interrupted("the same command goes on from here")
                outcome, status = self._outcome(), "FINISHED"
            finally:
                self.parent.finish(status, outcome)
        return outcome

    def _loop(self, waiting: list[Trial], deadline: float, signals: Signals) -> None:
        while signals.came is None:
            in_time = time.monotonic() < deadline
            while len(self.jobs) < self.settings.workers and in_time and self._missing(waiting):
                self._begin(waiting.pop(0) if waiting else None)
            if not self.jobs:
                return
            self._listen()
            self.stopping = signals.came is not None

    def _missing(self, waiting: list[Trial]) -> bool:
        return bool(waiting) or (
            self.study.count(*FINISHED) + len(self.jobs) < self.settings.n_trials
        )

    def _begin(self, trial: Trial | None) -> None:
        if trial is None:
            trial, values = self.study.ask()
        else:
            values = self.space.suggest(trial)
        config = config_of(self.space, self.base, values)
        name = f"{self.settings.name}-{trial.number:04d}"
        tags = {**config.tracking.tags, **self.parent.tags(trial.number)}
        tracking = config.tracking.model_copy(update={"tags": tags})
        changes: dict[str, Any] = {"name": name, "tracking": tracking}
        changes["trainer"] = config.trainer.model_copy(update={"progress": "none"})
        config = config.model_copy(update=changes)
        self.jobs.append(_Job(trial, values, config, self._fork(config, trial.number)))

    def _fork(self, config: Config, trial_number: int) -> Worker:
        folder = self.folder / f"trial-{trial_number:04d}"
        log = self.folder / f"trial-{trial_number:04d}.log"
        return start(config, folder, trial_number, self.threads, log)

    def _listen(self) -> None:
        """Take in what the trials say for a second at most."""
        by_line = {job.worker.line: job for job in self.jobs}
        for line in wait(list(by_line), timeout=1.0):
            job = by_line[line]  # type: ignore[index]
            try:
                said = job.worker.line.recv()
            except (EOFError, ConnectionResetError):
                self._ended(job)
                continue
            if "epoch" in said:
                self._answer(job, said)
            else:
                job.worker.said = said

    def _answer(self, job: _Job, said: dict[str, Any]) -> None:
        prune = self.study.report(job.trial, said["epoch"], said["value"])
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, as its line will say
            job.worker.line.send(prune)

    def _ended(self, job: _Job) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(job.worker.pid, 0)[1])
        job.worker.line.close()
        self.jobs.remove(job)
        said = job.worker.said
        stopped = said.get("code") in (130, 143)
        if self.stopping and (stopped or not said):
            return  # it stays a trial that is running, to go on with
        if (stopped or not said) and job.attempts < ATTEMPTS:
            say(f"trial {job.trial.number}: its process ended with {_reason(code)}; it goes on")
            job.worker, job.attempts = self._fork(job.config, job.trial.number), job.attempts + 1
            self.jobs.append(job)
            return
        if stopped or not said:
            said = {"failed": f"its process ended with {_reason(code)}, {ATTEMPTS} times"}
        state = self.study.tell(job.trial, said, self.config.monitor)
        self._show(job, said, state)

    def _show(self, job: _Job, said: dict[str, Any], state: TrialState) -> None:
        values = "  ".join(f"{path}={_short(value)}" for path, value in job.values.items())
        done = f"{self.study.count(*FINISHED)}/{self.settings.n_trials}"
        if "failed" in said:
            what = f"failed: {said['failed']}"
        else:
            measured = said["metrics"].get(self.config.monitor, float("nan"))
            pruned = " (pruned)" if state == TrialState.PRUNED else ""
            what = f"{self.config.monitor} {number(measured)}{pruned}  {said['seconds']:.1f} s"
        say(f"trial {job.trial.number:>3} {done:>7}  {what}  {values}")

    def _stop(self) -> None:
        """Let every trial save and end."""
        self.stopping = True
        for job in self.jobs:
            job.worker.stop()
        for job in list(self.jobs):
            while job in self.jobs:
                try:
                    said = job.worker.line.recv()
                    if "epoch" in said:
                        job.worker.line.send(False)
                    else:
                        job.worker.said = said
                except (EOFError, OSError):
                    self._ended(job)

    def _outcome(self) -> Outcome:
        study = self.study.study
        counts = {
            "complete": self.study.count(TrialState.COMPLETE),
            "pruned": self.study.count(TrialState.PRUNED),
            "failed": self.study.count(TrialState.FAIL),
        }
        if not counts["complete"]:
            reasons = [t.user_attrs.get("failed") for t in study.trials]
            reason = next((r for r in reasons if r), "all were pruned")
            what = f"no trial was completed; the first reason: {reason}"
            fix = f"see the logs in {self.folder}"
            raise EnvironmentFault(what, f"study {self.settings.name}", fix)
        best = study.best_trial
        found = {"number": best.number, "value": best.value, "params": best.params}
        found["run_id"] = best.user_attrs.get("run_id")
        first = study.trials[0]
        began = first.value if first.state == TrialState.COMPLETE else None
        storage = f"sqlite:///{self.study.file}"
        return Outcome(self.settings.name, storage, counts, found, began)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
