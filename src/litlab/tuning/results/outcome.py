"""What a study has come to."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from scipy.special import stdtrit  # scipy.stats takes half a second to import

from litlab.utils.output import number

OUTSIDE = "outside"  # attribute of a study: values of the configuration that its space leaves out


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained again, on seeds it was not chosen by.

    Attributes:
        number: Of the trial that has these settings.
        params: The settings, by dotted path; none are those of the baseline.
        seeds: Those it was trained with.
        values: Objective to one value a seed.
    """

    number: int
    params: dict[str, Any]
    seeds: tuple[int, ...]
    values: dict[str, tuple[float, ...]]

    @property
    def is_baseline(self) -> bool:
        """Whether it is the configuration that was tuned, and no trial's."""
        return not self.params

    @property
    def label(self) -> str:
        """What it is called in a list."""
        return "baseline" if self.is_baseline else f"trial {self.number}"

    def mean(self, objective: str) -> float:
        """Return the mean over the seeds."""
        return statistics.fmean(self.values[objective])

    def interval(self, objective: str) -> tuple[float, float] | None:
        """Return the 95 % interval of that mean, by Student's t; None with a single seed."""
        return interval(self.values[objective])


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a study has come to.

    Attributes:
        study: Its name.
        storage: Where `optuna-dashboard` finds it, without credentials.
        trials: How many are complete, pruned, failed.
        best: What the experiment has: number, value, settings and run of a trial; with finalists,
            of the one that did best on their seeds.
        first: The current configuration's value; None if no trial has finished that is just it.
        top: The trial with the best score, on its one seed.
        finalists: The best, trained again, in the order of their means; the baseline
            among them.
        pareto: With several objectives: trials that no other is better than in all of them.
        advice: What to beware of, and what to try next.
        failed: A trial's number and the reason why it failed; of a finalist, the seed as well. The
            baseline has no number.
    """

    study: str
    storage: str
    trials: dict[str, int]
    best: dict[str, Any]
    first: float | None
    top: dict[str, Any]
    finalists: list[Finalist] = field(default_factory=list)
    pareto: list[dict[str, Any]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        trials = ", ".join(f"{n} {state}" for state, n in self.trials.items() if n)
        top = f"best {number(self.top['value'])} in trial {self.top['number']}"
        return f"Outcome({self.study}, {trials}, {top}, {len(self.finalists)} finalists)"


def failed_label(failed: dict[str, Any]) -> str:
    """Return what a training that failed is called in a list."""
    label = "baseline" if failed["trial"] is None else f"trial {failed['trial']}"
    return f"{label}, seed {failed['seed']}" if "seed" in failed else label


def interval(values: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of values that scatter as a normal does.

    Args:
        values: One a seed.
    """
    if len(values) < 2:
        return None
    mean, n = statistics.fmean(values), len(values)
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half
