"""The best configurations, trained again on seeds that they were not chosen by."""

import statistics
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from litlab.config.schema import Config
from litlab.tuning.results.outcome import OUTSIDE, Finalist
from litlab.tuning.results.record import ParentRun, as_run
from litlab.tuning.study.composer import Composer
from litlab.tuning.study.settings import shown
from litlab.tuning.study.study import TrialStudy
from litlab.tuning.workers.pool import MACHINE, Job, Pool
from litlab.utils.output import say
from litlab.utils.paths import runs_folder
from litlab.utils.signals import Signals


class FinalistResults:
    """Trains the best trials' settings, and the baseline, on several seeds.

    A trial is chosen for its score among many, so its score is too good: chance chose with it. What
    the same settings reach on other seeds is not; compared with the baseline on the same seeds, it
    shows what the study gained.

    Args:
        study: The trials.
        config: The baseline.
        composer: Composes what differs from it.
        parent: The study's run in MLflow.
    """

    def __init__(
        self, study: TrialStudy, config: Config, composer: Composer, parent: ParentRun
    ) -> None:
        self.study, self.config, self.composer, self.parent = study, config, composer, parent
        settings = study.settings
        self.seeds = [config.seed + 1 + place for place in range(settings.finalist_seeds)]
        self.trained = 0
        self.failed: dict[str, Mapping[str, Any]] = {}  # here; the next command tries them again

    @cached_property
    def candidates(self) -> list[tuple[int, dict[str, Any]]]:
        """Numbers and settings of the trials to be trained; without settings, the baseline."""
        wanted = self.study.settings.finalists
        complete = self.study.trials(TrialState.COMPLETE)
        if not wanted or not complete:
            return []
        if not self.study.study.user_attrs.get(OUTSIDE):  # the first trial is the baseline
            complete = [t for t in complete if t.number != 0]
        choose = _front if len(self.study.objectives) > 1 else _top
        best = choose(self.study, complete, wanted)
        return [(0, {}), *((t.number, t.params) for t in best)] if best else []

    def run(self, pool: Pool, signals: Signals) -> None:
        """Train what has not been trained yet."""
        waiting = [
            (number, params, seed)
            for seed in self.seeds
            for number, params in self.candidates
            if self._key(number, params, seed) not in self.study.study.user_attrs
        ]
        if waiting:
            self._announce(len(waiting))
        while signals.came is None and (waiting or pool.jobs):
            while waiting and pool.free and signals.came is None:
                self._begin(pool, *waiting.pop(0))
            for job, said in pool.listen(lambda *_: False):
                if said is not None:
                    self._note(job, said)

    def _announce(self, many: int) -> None:
        times = [t.user_attrs["seconds"] for t in self.study.trials(TrialState.COMPLETE)]
        each = statistics.median(times) / self.study.settings.workers
        what = f"{len(self.candidates) - 1} best and the baseline"
        say(
            f"training the {what} on {len(self.seeds)} new seeds: {many} trainings, "
            f"about {each * many:.0f} s"
        )

    def _begin(self, pool: Pool, trial: int, params: Mapping[str, Any], seed: int) -> None:
        config = self.composer(params)
        config = config.model_copy(update={"seed": seed})
        name = self._key(trial, params, seed)
        run_name = f"{self.study.settings.name}-{name}"
        tags = self.parent.tags(trial=trial, finalist_seed=seed)
        pool.begin(name, as_run(config, run_name, tags), name, fresh=False)
        self.trained += 1

    def _key(self, trial: int, params: Mapping[str, Any], seed: int) -> str:
        """Return the name of a training: of its result in the study, and of its folder."""
        if params:
            return f"final-{trial:04d}-seed-{seed}"
        earlier = f"final-as-it-was-seed-{seed}"  # its name in studies of earlier versions
        folder = runs_folder() / self.study.settings.name / earlier
        if earlier in self.study.study.user_attrs or folder.exists():
            return earlier
        return f"final-baseline-seed-{seed}"

    def _note(self, job: Job, said: Mapping[str, Any]) -> None:
        said = self.study.checked(said)
        if "failed" in said:
            if said.get("code") == MACHINE:
                self.parent.check()
            say(f"{job.name} failed: {said['failed']}")
            self.failed[job.key] = said
            return
        values = {o.name: o.value(said) for o in self.study.objectives}
        self.study.study.set_user_attr(job.key, values)
        say(f"{job.name}  " + "  ".join(f"{name} {shown(name, v)}" for name, v in values.items()))

    def failures(self) -> list[dict[str, Any]]:
        """Return which trainings failed, as the outcome has them."""
        return [
            {"trial": number if params else None, "seed": seed, "reason": said["failed"]}
            for seed in self.seeds
            for number, params in self.candidates
            if (said := self.failed.get(self._key(number, params, seed)))
        ]

    def ranked(self) -> list[Finalist]:
        """Return those of which every seed was trained, the best mean first."""
        found, attributes = [], self.study.study.user_attrs
        for trial, params in self.candidates:
            kept = [attributes.get(self._key(trial, params, seed)) for seed in self.seeds]
            if all(kept):
                names = [o.name for o in self.study.objectives]
                values = {name: tuple(k[name] for k in kept if k) for name in names}
                found.append(Finalist(trial, dict(params), tuple(self.seeds), values))
        first = self.study.objectives[0]
        return sorted(
            found, key=lambda f: f.mean(first.name), reverse=first.direction == "maximize"
        )


def _top(study: TrialStudy, complete: list[FrozenTrial], wanted: int) -> list[FrozenTrial]:
    """Take the best; where the first trial is the baseline, it is trained in any case."""
    upwards = study.objectives[0].direction == "maximize"
    ordered = sorted(complete, key=lambda t: t.value or 0.0, reverse=upwards)
    different: list[FrozenTrial] = []
    for trial in ordered:
        if all(trial.params != other.params for other in different):
            different.append(trial)
    return different[:wanted]


def _front(study: TrialStudy, complete: list[FrozenTrial], wanted: int) -> list[FrozenTrial]:
    """Take trials of the Pareto front, from the best of the first objective to the worst."""
    upwards = study.objectives[0].direction == "maximize"
    numbers = {t.number for t in complete}
    front = [t for t in study.study.best_trials if t.number in numbers]
    front.sort(key=lambda t: t.values[0], reverse=upwards)
    if not front:
        return []
    places = np.unique(np.linspace(0, len(front) - 1, wanted).round().astype(int))
    return [front[place] for place in places]
