"""A resumable study: trials are started, finished and counted by one or several machines."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.tuning.results.outcome import OUTSIDE
from litlab.tuning.study.samplers import make_pruner, make_sampler
from litlab.tuning.study.settings import Objective, StudySettings
from litlab.tuning.study.space import Space
from litlab.tuning.study.storage import OWNER, RELEASED, Owner, Storage, study_file
from litlab.utils.errors import ConfigError, EnvironmentFault
from litlab.utils.paths import runs_folder

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
FACTS = ("run_id", "seconds", "parameters", "epochs", "latency", "failed", "code")
SETTINGS = "settings"  # attribute of the study: those of the configuration, by dotted name
MOST_SHOWN = 4  # settings in one line
RUN = "run_id"  # attribute of the study: its run in MLflow
PATIENCE = 60.0  # seconds that a joining machine waits for the study to start
IDENTITY = {  # attributes of the study, and what is said where they differ
    "config": "has another configuration (data, model, any setting)",
    "data": "has other data: they have changed since",
    "space": "has another space",
    "objectives": "has another objective",
    "order": "has another sampler or seed, by which its trials are numbered",
}


@dataclass(frozen=True)
class Start:
    """The configuration that is tuned.

    Attributes:
        values: Of what is varied: the first trial's.
        outside: Values of the configuration that the space leaves out.
        config: A hash of its settings: of one study, all trials are of the same.
        data: Checksum of the data.
        max_epochs: Of a whole training.
        settings: Those behind the hash, by dotted name, to say which differ.
    """

    values: Mapping[str, Any]
    outside: Mapping[str, Any]
    config: str
    data: str
    max_epochs: int
    settings: Mapping[str, str] = field(default_factory=dict)


class AnotherStudyError(ConfigError):
    """The study of that name has trials of something else."""


class TrialStudy:
    """An Optuna study whose trials are begun, told and counted here.

    Args:
        settings: What is asked for.
        space: What is varied.
        objectives: What is looked for.
        storage: Where the study lies.
        start: The configuration that is tuned.
        join: Whether to take part in a study that another command has begun.

    Raises:
        ConfigError: A study of that name looked for something else.
        EnvironmentFault: Nobody has begun the study that is to be joined.
    """

    def __init__(
        self,
        settings: StudySettings,
        space: Space,
        objectives: Sequence[Objective],
        storage: Storage,
        start: Start,
        *,
        join: bool = False,
    ) -> None:
        self.settings, self.space, self.objectives = settings, space, objectives
        self.storage = storage
        pruner = "none" if len(objectives) > 1 else settings.pruner
        self.pruner = make_pruner(pruner, start.max_epochs)
        make_sampler(settings, space, start.values, 0)  # refused before anything is stored
        self._is_of = _identity(settings, objectives, start)
        self.study = self._joined() if join else self._begun(start)
        self._same(start.settings)
        self.owner = Owner(settings.name)
        self.owner.sweep({str(t.user_attrs.get(OWNER)) for t in self.trials(TrialState.RUNNING)})
        # One number a command, so that two machines do not draw the same.
        shift = 100_003 * len(self.study.trials) + (hash(self.owner.word) if join else 0)
        self.study.sampler = make_sampler(settings, space, start.values, shift)
        self.total = settings.n_trials
        cells = getattr(self.study.sampler, "cells", None)
        if cells is not None:
            self.total = min(self.total, len(cells) + 1)
        if not join:
            self.study.set_user_attr("n_trials", self.total)
        self._beaten = 0.0

    def _begun(self, start: Start) -> optuna.Study:
        with self.storage.alone():
            study = self._made()
            waiting = all(t.state == TrialState.WAITING for t in study.trials)
            if study.trials and waiting and not self.storage.shared:
                # Nothing has run: what it was to be may change.
                optuna.delete_study(study_name=self.settings.name, storage=self.storage.backend)
                study = self._made()
            if not study.trials:
                self._no_leftovers()
                more = {OUTSIDE: dict(start.outside), SETTINGS: dict(start.settings)}
                for key, value in {**self._is_of, **more}.items():
                    study.set_user_attr(key, value)
                study.enqueue_trial(dict(start.values))
        return study

    def _made(self) -> optuna.Study:
        return optuna.create_study(
            study_name=self.settings.name,
            storage=self.storage.backend,
            pruner=self.pruner,
            directions=[o.direction for o in self.objectives],
            load_if_exists=True,
        )

    def _no_leftovers(self) -> None:
        folder = runs_folder() / self.settings.name
        if not self.storage.shared and any(folder.glob("*/")):
            study_file(self.settings.name).unlink()
            what, fix = "the folder holds trials of an earlier study", "give the study another name"
            raise ConfigError(what, str(folder), f"{fix} (study.name=...), or remove it")

    def _joined(self) -> optuna.Study:
        """Wait until the study runs, where all machines were started at once."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                study = optuna.load_study(
                    study_name=self.settings.name, storage=self.storage.backend, pruner=self.pruner
                )
                if study.trials and RUN in study.user_attrs:
                    return study
            except KeyError:
                pass
            if time.monotonic() > until:
                what = f"no study '{self.settings.name}' to join"
                fix = "start it on one machine, without --join"
                raise EnvironmentFault(what, self.storage.url, fix)
            time.sleep(0.5)

    def _same(self, settings: Mapping[str, str]) -> None:
        had, name = self.study.user_attrs, self.settings.name
        fix = "use the settings it was started with; or begin a new study: "
        fix += f"study.name={name}-2, or --rename-existing, which renames the old one"
        for key, what in IDENTITY.items():
            if had.get(key) != self._is_of[key]:
                if key == "config" and had.get(SETTINGS):
                    what = f"was started with {_differing(had[SETTINGS], settings)}"
                raise AnotherStudyError(f"the study of that name {what}", f"study.name={name}", fix)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in one of these states, all if none is named."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of these states."""
        return len(self.trials(*states))

    def begin(self, *, new: bool = True) -> tuple[Trial, dict[str, Any], bool] | None:
        """Take up an interrupted trial, or ask for a new one; None if there is neither.

        Args:
            new: Whether a new one may be begun.

        Returns:
            The trial, its values, and whether it had been begun before.
        """
        with self.storage.alone():
            taken = self._take_over()
            begun = self.count(*ENDED, TrialState.RUNNING)
            if taken is None and (not new or begun >= self.total):
                return None
            trial = taken or self.study.ask()
            self.storage.beat(trial._trial_id)  # first: what has no heartbeat never goes stale
            trial.set_user_attr(OWNER, self.owner.word)
            if self.settings.sampler == "qmc":  # which counts its points in the storage
                self.space.suggest(trial)
        return trial, self.space.suggest(trial), taken is not None

    def _take_over(self) -> Trial | None:
        running = self.trials(TrialState.RUNNING)
        if not running:
            return None
        stale = self.storage.stale(self.study._study_id) if self.storage.shared else set()
        for trial in running:
            free = self.owner.may_take(trial, stale) if self.storage.shared else True
            if free and not self.owner.owns(trial):
                return Trial(self.study, trial._trial_id)
        return None

    def beat(self, trials: Sequence[Trial]) -> None:
        """Send these trials' heartbeat, if it is time to."""
        every = self.storage.backend.heartbeat_interval
        if self.storage.shared and every and time.monotonic() - self._beaten >= every:
            self._beaten = time.monotonic()
            for trial in trials:
                if self.holds(trial):
                    self.storage.beat(trial._trial_id)

    def holds(self, trial: Trial) -> bool:
        """Return whether a trial is still this command's: not finished, not taken over."""
        frozen = self._frozen(trial)
        return not frozen.state.is_finished() and self.owner.owns(frozen)

    def release(self, trial: Trial) -> None:
        """Leave a trial that was stopped to whoever comes first."""
        with self.storage.alone():
            if self.holds(trial):
                trial.set_user_attr(OWNER, RELEASED)

    def leave(self) -> None:
        """Give up what marks this command as alive; its trials, if it still has any, go with it."""
        running = self.trials(TrialState.RUNNING)
        self.owner.leave(keep=any(self.owner.owns(t) for t in running))
        self.storage.close()

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Record an epoch's value; return whether to end the trial."""
        if len(self.objectives) > 1:  # Optuna prunes by one
            return False
        try:
            if epoch not in self._frozen(trial).intermediate_values:
                trial.report(value, epoch)
        except optuna.exceptions.UpdateFinishedTrialError:  # elsewhere, since we looked
            return False
        return trial.should_prune()

    def tell(self, trial: Trial, said: Mapping[str, Any]) -> FrozenTrial | None:
        """Close a trial with what its process ended with; None if it counts elsewhere.

        It was taken over where this machine stood still for too long, and its result counts once.
        """
        said = self.checked(said)
        with self.storage.alone():
            if not self.holds(trial):
                return None
            for name in FACTS:
                if name in said:
                    trial.set_user_attr(name, said[name])
            if "failed" in said:
                self.study.tell(trial, state=TrialState.FAIL)
            elif said["pruned"]:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, [o.value(said) for o in self.objectives])
        return self._frozen(trial)

    def checked(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a training ended with; it has failed if it has no finite value."""
        if "failed" in said or said["pruned"]:
            return said
        for objective in self.objectives:
            try:
                value = objective.value(said)
            except KeyError:
                return {**said, "failed": f"it has no {objective.name}"}
            if not math.isfinite(value):  # Optuna would take infinity for a value like any other
                return {**said, "failed": f"{objective.name} is {value}"}
        return said

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.storage.backend.get_trial(trial._trial_id)


def _differing(had: Mapping[str, str], has: Mapping[str, str]) -> str:
    """Return the settings whose values differ, with the old value and the new."""
    keys = [key for key in {**had, **has} if had.get(key) != has.get(key)]
    shown = [f"{key}={had.get(key, 'null')}, not {has.get(key, 'null')}" for key in keys]
    return "; ".join(shown[:MOST_SHOWN]) + ("; ..." if len(shown) > MOST_SHOWN else "")


def _identity(
    settings: StudySettings, objectives: Sequence[Objective], start: Start
) -> dict[str, Any]:
    """Return what is the same of all trials of a study."""
    keyed = settings.sampler in ("random", "grid")  # whose trials go by their numbers
    return {
        "config": start.config,
        "data": start.data,
        "space": settings.space,
        "objectives": [f"{o.direction} {o.name}" for o in objectives],
        "order": f"{settings.sampler}, seed {settings.seed}" if keyed else "",
    }
