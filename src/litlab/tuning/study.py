"""A study that goes on: trials asked for, told, and taken up again after an interruption."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.errors import ConfigError
from litlab.paths import runs_folder, store_root
from litlab.tuning.samplers import make_pruner, make_sampler
from litlab.tuning.settings import StudySettings
from litlab.tuning.space import Space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class TrialStudy:
    """An Optuna study in a file of the project, whose trials are begun, told and counted here.

    Args:
        settings: What is asked for.
        space: What is varied.
        direction: "minimize" or "maximize".
        current: The current configuration's values: the first trial.
        config: A hash of the configuration that is tuned: of one study, all trials are of the same.
        max_epochs: Of a whole training.

    Raises:
        ConfigError: A study of that name looked for something else.
    """

    def __init__(
        self,
        settings: StudySettings,
        space: Space,
        direction: str,
        current: Mapping[str, Any],
        max_epochs: int,
        config: str,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.settings, self.space = settings, space
        self.file = study_file(settings.name)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.storage = optuna.storages.RDBStorage(f"sqlite:///{self.file}")
        self.study = optuna.create_study(
            study_name=settings.name,
            storage=self.storage,
            pruner=make_pruner(settings.pruner, max_epochs),
            direction=direction,  # type: ignore[arg-type]
            load_if_exists=True,
        )
        if not self.study.trials:
            self._no_leftovers()
            self.study.set_user_attr("space", settings.space)
            self.study.set_user_attr("config", config)
            self.study.enqueue_trial(dict(current))
        self._same(direction, config)
        # Not the seed alone: a study that goes on would draw again what it has drawn.
        seed = settings.seed + 100_003 * len(self.study.trials)
        if settings.sampler == "random":  # keyed by the trial's number as it is
            seed = settings.seed
        several = settings.workers > 1
        self.study.sampler = make_sampler(settings.sampler, seed, several=several)

    def _no_leftovers(self) -> None:
        folder = runs_folder() / self.settings.name
        if any(folder.glob("trial-*")):
            what = "the folder holds trials of an earlier study"
            self.file.unlink()
            raise ConfigError(what, str(folder), "give the study another name, or remove it")

    def _same(self, direction: str, config: str) -> None:
        if self.study.user_attrs.get("config") != config:
            raise ConfigError(
                "the study of that name is of another configuration (data, model, any setting)",
                f"study.name={self.settings.name}",
                f"give the same overrides, or another study.name; or remove {self.file}",
            )
        began = self.study.user_attrs.get("space")
        if began != self.settings.space or self.study.direction.name.lower() != direction:
            raise ConfigError(
                "the study of that name has another space or objective",
                f"study.name={self.settings.name}",
                f"give it another name, or remove {self.file}",
            )

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of these states."""
        return sum(t.state in states for t in self.study.get_trials(deepcopy=False))

    def interrupted(self) -> list[Trial]:
        """Return the trials that were running when an earlier command ended."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [Trial(self.study, t._trial_id) for t in trials]

    def ask(self) -> tuple[Trial, dict[str, Any]]:
        """Begin a trial."""
        trial = self.study.ask()
        return trial, self.space.suggest(trial)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Note an epoch's value; return whether the trial is to end here."""
        if epoch not in self._frozen(trial).intermediate_values:
            trial.report(value, epoch)
        return trial.should_prune()

    def tell(self, trial: Trial, said: Mapping[str, Any], monitor: str) -> TrialState:
        """Close a trial with what its process ended with."""
        if self._frozen(trial).state.is_finished():  # told by another command meanwhile
            return self._frozen(trial).state
        for name in ("run_id", "seconds", "parameters", "epochs", "failed"):
            if name in said:
                trial.set_user_attr(name, said[name])
        if "failed" in said:
            self.study.tell(trial, state=TrialState.FAIL)
        elif said["pruned"]:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, float(said["metrics"][monitor]))
        return self._frozen(trial).state

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.storage.get_trial(trial._trial_id)


def study_file(name: str) -> Path:
    """Return where a study is stored."""
    return store_root() / ".litlab" / "studies" / f"{name}.db"
