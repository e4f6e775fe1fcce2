"""A study that goes on: trials begun, told and counted, by one command or by several machines."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.errors import ConfigError, EnvironmentFault
from litlab.paths import runs_folder
from litlab.tuning.objectives import Objective
from litlab.tuning.ownership import OWNER, RELEASED, Owner
from litlab.tuning.samplers import make_pruner, make_sampler
from litlab.tuning.settings import StudySettings
from litlab.tuning.space import Space
from litlab.tuning.storage import Storage, study_file

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
FACTS = ("run_id", "seconds", "parameters", "epochs", "latency", "failed")
PATIENCE = 60.0  # seconds that who joins waits for the study to be begun


class TrialStudy:
    """An Optuna study whose trials are begun, told and counted here.

    Args:
        settings: What is asked for.
        space: What is varied.
        objectives: What is looked for.
        storage: Where the study lies.
        current: The current configuration's values: the first trial.
        config: A hash of the configuration that is tuned: of one study, all trials are of the same.
        max_epochs: Of a whole training.
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
        current: Mapping[str, Any],
        config: str,
        max_epochs: int,
        *,
        join: bool = False,
    ) -> None:
        self.settings, self.space, self.objectives = settings, space, objectives
        self.storage = storage
        pruner = "none" if len(objectives) > 1 else settings.pruner
        self.pruner = make_pruner(pruner, max_epochs)
        began = {"space": settings.space, "config": config, "objectives": _names(objectives)}
        self.study = self._joined() if join else self._begun(began, current)
        self._same(began)
        self.owner = Owner(settings.name)
        # One number a command, so that two machines do not draw the same.
        shift = 100_003 * len(self.study.trials) + (hash(self.owner.word) if join else 0)
        self.study.sampler = make_sampler(settings, space, current, shift)
        self.total = settings.n_trials
        cells = getattr(self.study.sampler, "cells", None)
        if cells is not None:
            self.total = min(self.total, len(cells) + 1)
        self._beaten = 0.0

    def _begun(self, began: Mapping[str, Any], current: Mapping[str, Any]) -> optuna.Study:
        with self.storage.alone():
            study = optuna.create_study(
                study_name=self.settings.name,
                storage=self.storage.backend,
                pruner=self.pruner,
                directions=[o.direction for o in self.objectives],
                load_if_exists=True,
            )
            if not study.trials:
                self._no_leftovers()
                for key, value in began.items():
                    study.set_user_attr(key, value)
                study.enqueue_trial(dict(current))
        return study

    def _no_leftovers(self) -> None:
        folder = runs_folder() / self.settings.name
        if any(folder.glob("trial-*/")):
            if not self.storage.shared:
                study_file(self.settings.name).unlink()
            what, fix = "the folder holds trials of an earlier study", "give the study another name"
            raise ConfigError(what, str(folder), f"{fix} (study.name=...), or remove it")

    def _joined(self) -> optuna.Study:
        """Wait for the study, where all machines were started at once."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                study = optuna.load_study(
                    study_name=self.settings.name, storage=self.storage.backend, pruner=self.pruner
                )
                if study.trials:
                    return study
            except KeyError:
                pass
            if time.monotonic() > until:
                what = f"no study '{self.settings.name}' to join"
                fix = "begin it on one machine, without --join"
                raise EnvironmentFault(what, self.storage.url, fix)
            time.sleep(0.5)

    def _same(self, began: Mapping[str, Any]) -> None:
        had = self.study.user_attrs
        where = f"study.name={self.settings.name}"
        another = "or give this one another name"
        if had.get("config") != began["config"]:
            raise ConfigError(
                "the study of that name is of another configuration (data, model, any setting)",
                where,
                f"repeat its overrides, {another}",
            )
        for key in ("space", "objectives"):
            if had.get(key) != began[key]:
                what = f"the study of that name has another {key.removesuffix('s')}"
                raise ConfigError(what, where, f"repeat what it began with, {another}")

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in one of these states, all if none is named."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of these states."""
        return len(self.trials(*states))

    def begin(self) -> tuple[Trial, dict[str, Any], bool] | None:
        """Take up an interrupted trial, or ask for a new one; None if there is neither.

        Returns:
            The trial, its values, and whether it had been begun before.
        """
        with self.storage.alone():
            taken = self._take_over()
            running = self.count(*FINISHED, TrialState.RUNNING)
            if taken is None and running >= self.total:
                return None
            trial = taken or self.study.ask()
            trial.set_user_attr(OWNER, self.owner.word)
            self.storage.beat(trial._trial_id)
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
        """Say that these trials are going on, if it is time to."""
        every = self.storage.backend.heartbeat_interval
        if self.storage.shared and every and time.monotonic() - self._beaten >= every:
            self._beaten = time.monotonic()
            for trial in trials:
                if self.holds(trial):
                    self.storage.beat(trial._trial_id)

    def holds(self, trial: Trial) -> bool:
        """Return whether a trial is still this command's: not finished, not taken over."""
        frozen = self.storage.backend.get_trial(trial._trial_id)
        return not frozen.state.is_finished() and self.owner.owns(frozen)

    def release(self, trial: Trial) -> None:
        """Leave a trial that was stopped to whoever comes first."""
        if self.holds(trial):
            trial.set_user_attr(OWNER, RELEASED)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Note an epoch's value; return whether the trial is to end here."""
        if len(self.objectives) > 1:  # Optuna prunes by one
            return False
        if epoch not in self.storage.backend.get_trial(trial._trial_id).intermediate_values:
            trial.report(value, epoch)
        return trial.should_prune()

    def tell(self, trial: Trial, said: Mapping[str, Any]) -> FrozenTrial | None:
        """Close a trial with what its process ended with; None if it counts elsewhere.

        It was taken over where this machine stood still for too long, and its result counts once.
        """
        if not self.holds(trial):
            return None
        said = self._checked(said)
        for name in FACTS:
            if name in said:
                trial.set_user_attr(name, said[name])
        try:
            if "failed" in said:
                self.study.tell(trial, state=TrialState.FAIL)
            elif said["pruned"]:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, [o.value(said) for o in self.objectives])
        except (ValueError, RuntimeError):  # finished elsewhere since we looked
            if self.holds(trial):
                raise
            return None
        return self.storage.backend.get_trial(trial._trial_id)

    def _checked(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
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


def _names(objectives: Sequence[Objective]) -> list[str]:
    return [f"{o.direction} {o.name}" for o in objectives]
