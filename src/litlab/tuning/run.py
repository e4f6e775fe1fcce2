"""One study, from its settings to what remains of it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from litlab.config.compose import COMPOSED, load
from litlab.config.schema import Config
from litlab.evaluation.run import Run
from litlab.runs.folder import BEST, RUN_FILE, RunRecord
from litlab.training.dvc_stage import stop_with_dvc
from litlab.tuning.results.conclude import how_to_use, write_experiment
from litlab.tuning.results.outcome import Outcome
from litlab.tuning.study.settings import StudySettings, settings_of
from litlab.tuning.study.space import overrides, typed
from litlab.tuning.tune import Tuner
from litlab.utils.errors import ConfigError, require
from litlab.utils.paths import short

PROBE_SECONDS = 5.0


@dataclass(frozen=True, repr=False)
class Study:
    """A finished study.

    Attributes:
        outcome: Numbers of trials, the best, finalists on other seeds, advice.
        monitor: The value that it went by.
        folder: Its folder under runs/, which holds the trials.
        page: Its report, to be opened in a browser.
        experiment: The YAML with the best settings: `litlab train experiment=<study>-best`.
        base: Overrides of the configuration that was tuned.
    """

    outcome: Outcome
    monitor: str
    folder: Path
    page: Path
    experiment: Path
    base: tuple[str, ...]

    @property
    def best(self) -> dict[str, Any]:
        """The best settings by dotted name; empty if the baseline did best."""
        return {path: typed(value) for path, value in self.outcome.best["params"].items()}

    @property
    def config(self) -> Config:
        """The configuration with the best settings, to be trained."""
        return load(overrides(self.base, self.best))

    @property
    def runs(self) -> list[Run]:
        """The runs of all trials that were trained, in their order."""
        folders = sorted(file.parent for file in self.folder.glob(f"*/{RUN_FILE}"))
        trust = tuple(load(self.base).trust)
        return [
            Run(folder, folder / BEST, RunRecord.load(folder), trust=trust) for folder in folders
        ]

    @property
    def next_command(self) -> str:
        """The command line that makes the best settings the pipeline's order."""
        return how_to_use(self.experiment, list(self.base))

    def __repr__(self) -> str:
        trials = ", ".join(f"{n} {state}" for state, n in self.outcome.trials.items() if n)
        top = f"{self.monitor} {self.outcome.top['value']:.4g}"
        return f"Study({self.outcome.study}, {trials}, {top}, {short(self.page)})"


def run_study(
    settings: StudySettings, base: Sequence[str], *, rename_existing: bool = False
) -> Study:
    """Run a study to its end, and write down what remains of it.

    Args:
        settings: The study's.
        base: Overrides of the configuration that is tuned.
        rename_existing: Whether to rename a study of that name that has other settings.

    Raises:
        LitlabError: See `Tuner`.
    """
    stop_with_dvc()
    tuner = Tuner(settings, base, rename_existing=rename_existing)
    outcome = tuner.run()
    monitor = tuner.config.monitor
    path = write_experiment(outcome, list(base), monitor)
    return Study(outcome, monitor, tuner.folder, tuner.page, path, tuple(base))


def help_study(settings: StudySettings, base: Sequence[str]) -> int:
    """Run trials of a study that was begun on another machine; return how many.

    Raises:
        LitlabError: See `Tuner`.
    """
    stop_with_dvc()
    return Tuner(settings, base, join=True).help()


def tune(
    config: Config, study: str | None = None, *, rename_existing: bool = False, **settings: Any
) -> Study:
    """Search for better settings.

    The same call again resumes the study, until it has `n_trials` in all. Trials are trained
    in processes of their own, which are forked.

    Args:
        config: What `litlab.compose` returned: the first trial, and what the others vary.
        study: A study of conf/study to take settings from, such as "quick".
        rename_existing: Whether to rename a study of that name that has other settings.
        settings: In place of the study's, or all of them where none is named: `name`, `space`
            (such as `{"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}`), `n_trials`,
            `time_limit` (such as "10m"), `workers`, `sampler`, `pruner`, `objectives`, `finalists`,
            ...; see `litlab.tuning.study.settings.StudySettings`.

    Raises:
        ConfigError: There is no such study or setting, or `config` was changed after it was
            composed: give the changes to `litlab.compose`.
        DataError: The data cannot be prepared.
        EnvironmentFault: The disk or a store fails.
        Interrupted: Ctrl-C or SIGTERM: trials have saved, and the same call resumes.
    """
    require(config, Config, "litlab.tune(config)", COMPOSED)
    if study is not None:
        require(study, str, "litlab.tune(study)", 'give the name of a study, such as "quick"')
    composed = config._overrides
    if composed is None or load(composed).model_dump() != config.model_dump():
        what = "the configuration was changed after it was composed, or read from a file"
        raise ConfigError(what, "litlab.tune", "give all changes to litlab.compose")
    own, base = settings_of(study, settings, list(composed))
    before = torch.get_num_threads()
    try:
        if before > 1 and not _threads_survive_a_fork():
            # Trials would wait for the threads that this process has used before, for ever.
            torch.set_num_threads(1)
        return run_study(own, base, rename_existing=rename_existing)
    finally:
        torch.set_num_threads(before)


def _threads_survive_a_fork() -> bool:
    """Whether a forked process can use torch's threads, tried in one.

    It cannot where this one has used them: OpenMP's pool is not there, and is waited for.
    """
    child = os.fork()
    if child == 0:
        try:
            torch.ones(2**20).exp().sum()
        finally:
            os._exit(0)
    until = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False
