"""The loop over a study's trials."""

import time
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.training.callbacks.budget import seconds as span
from litlab.tuning.results.record import ParentRun, as_run
from litlab.tuning.study.composer import Composer
from litlab.tuning.study.settings import shown
from litlab.tuning.study.study import ENDED, TrialStudy
from litlab.tuning.workers.pool import MACHINE, Job, Pool
from litlab.utils.errors import ConfigError, EnvironmentFault
from litlab.utils.output import number, say
from litlab.utils.signals import Signals

# How long a study may still begin trials.


SPENT = "seconds"  # attribute of a study: how long its time limit has run


class TimeLimit:
    """The time limit of a study, earlier commands' time included.

    A limit that has run out begins anew with the next command, so that this resumes too; but not
    with one that only helps.

    Args:
        study: Remembers the time.
        limit: Such as "10m".
        helps: Whether this command has joined another's study.
    """

    def __init__(self, study: TrialStudy, limit: str | None, *, helps: bool) -> None:
        self.study, self.limit = study, float(span(limit)) if limit else float("inf")
        self.helps = helps
        before = float(study.study.user_attrs.get(SPENT, 0.0))
        self.before = 0.0 if before >= self.limit and not helps else before
        self.began = self.noted = time.monotonic()

    @property
    def _spent(self) -> float:
        return self.before + time.monotonic() - self.began

    @property
    def in_time(self) -> bool:
        """Whether another trial may be begun."""
        return self._spent < self.limit

    def note(self, *, now: bool = False) -> None:
        """Remember the time, every few seconds; a study without a limit needs none."""
        if (
            self.limit < float("inf")
            and not self.helps
            and (now or time.monotonic() - self.noted > 5.0)
        ):
            self.noted = time.monotonic()
            self.study.study.set_user_attr(SPENT, round(self._spent, 1))


class Trials:
    """Begins trials, listens to them and records their results.

    Attributes:
        begun: How many this command has begun or taken up.

    Args:
        study: Knows what is missing.
        composer: Makes their configurations.
        pool: Trains them.
        parent: Their parent in MLflow.
        helps: Whether another command has begun the study and will end it.
    """

    def __init__(
        self,
        study: TrialStudy,
        composer: Composer,
        pool: Pool,
        parent: ParentRun,
        *,
        helps: bool,
    ) -> None:
        self.study, self.settings, self.composer = study, study.settings, composer
        self.pool, self.parent, self.helps = pool, parent, helps
        self.begun = 0

    def run(self, signals: Signals) -> None:
        """Run what is missing, until it has ended here or elsewhere, or a signal comes."""
        clock = TimeLimit(self.study, self.settings.time_limit, helps=self.helps)
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
        done = self.study.count(*ENDED)
        if not clock.in_time and done < self.study.total:
            limit = f"the time limit of {self.settings.time_limit} has passed"
            say(
                f"{limit}, with {done} of {self.study.total} trials; run the same command to resume"
            )

    def _say_what_is_left(self) -> None:
        done, total = self.study.count(*ENDED), self.study.total
        if total < self.settings.n_trials:
            say(f"the grid has {total} combinations, the first trial's included")
        if len(self.study.objectives) > 1 and self.settings.pruner != "none":
            say(f"several objectives: no trial is pruned (study.pruner={self.settings.pruner})")
        failed = self.study.count(TrialState.FAIL)
        ended = f"have ended, {failed} of them failed" if failed else "have ended"
        if done > total:
            say(f"{done} trials {ended}: more than the {total} asked for")
        elif done == total:
            more = f"; study.n_trials={2 * total} would add as many"
            grid = self.settings.sampler == "grid"
            say(f"all {total} trials {ended}{'' if grid else more}")

    def _beat(self) -> None:
        self.study.beat([job.key[0] for job in self.pool.jobs if not job.given_up])

    def _begin(self, *, new: bool) -> bool:
        begun = self.study.begin(new=new)
        if begun is None:
            return False
        trial, values, again = begun
        if again:
            say(f"trial {trial.number} was interrupted; it is resumed")
        try:
            config = self.composer(values)
        except ConfigError as error:  # a combination that the configuration refuses
            self._record(trial, values, {"failed": error.reason, "code": error.exit_code})
            return True
        name = f"trial-{trial.number:04d}"
        tags = self.parent.tags(trial=trial.number)
        config = as_run(config, f"{self.settings.name}-{trial.number:04d}", tags)
        self.pool.begin(name, config, (trial, values), fresh=not again)
        self.begun += 1
        return True

    def _listen(self) -> None:
        for job, said in self.pool.listen(self._epoch):
            if said is not None and said.get("code") == MACHINE:
                self._check(job.key[0])
            if said is None:
                self.study.release(job.key[0])
            else:
                self._tell(job, said)

    def _check(self, trial: Trial) -> None:
        """Stop the study where it is the store that fails: every trial would."""
        try:
            self.parent.check()
        except EnvironmentFault:
            self.study.release(trial)
            raise

    def _epoch(self, job: Job, epoch: int, value: float) -> bool:
        trial: Trial = job.key[0]
        if not self.study.holds(trial):
            say(f"trial {trial.number} was taken over by another machine: no heartbeat here")
            self.pool.give_up(job)
            return False
        return self.study.report(trial, epoch, value)

    def _tell(self, job: Job, said: Mapping[str, Any]) -> None:
        trial, values = job.key
        self._record(trial, values, said)

    def _record(self, trial: Trial, values: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        ended = self.study.tell(trial, said)
        if ended is None:
            say(f"trial {trial.number} was finished elsewhere; its result counts once")
        else:
            self._show(ended, values, said)

    def _show(self, ended: FrozenTrial, values: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        text = "  ".join(f"{path}={short(value)}" for path, value in values.items())
        done = f"({self.study.count(*ENDED)} of {self.study.total})"
        if ended.state == TrialState.FAIL:
            what = f"failed: {ended.user_attrs['failed']}"
        elif ended.state == TrialState.PRUNED:
            value = number(ended.value) if ended.value is not None else "no value"
            what = f"{self.study.objectives[0].name} {value} (pruned)  {said['seconds']:.1f} s"
        else:
            pairs = zip(self.study.objectives, ended.values, strict=True)
            what = "  ".join(f"{o.name} {shown(o.name, v)}" for o, v in pairs)
            what += f"  {said['seconds']:.1f} s"
        say(f"trial {ended.number:>3} {done:>10}  {what}  {text}")

    def stop(self) -> None:
        """Let every training save and end, and leave the trials to whoever comes first."""
        for job, said in self.pool.stop():
            if isinstance(job.key, str):  # a finalist's: it is looked for by its folder
                continue
            if said is None:
                self.study.release(job.key[0])
            else:
                self._tell(job, said)


def short(value: Any) -> str:
    """Return a value as one line of a trial has it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
