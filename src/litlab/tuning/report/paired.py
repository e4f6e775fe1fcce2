"""What finalists say, seed by seed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from litlab.tuning.results.outcome import OUTSIDE, Finalist, interval


@dataclass(frozen=True)
class Difference:
    """How far a finalist is from the baseline, on the same seeds.

    Attributes:
        mean: Of the differences, the finalist's value less the other's.
        interval: Its 95 % interval; None with a single seed.
        seeds: How many both were trained with.
    """

    mean: float
    interval: tuple[float, float] | None
    seeds: int


def as_it_was(finalists: Sequence[Finalist]) -> Finalist | None:
    """Return the baseline."""
    return next((f for f in finalists if f.as_it_was), None)


def first_trial(study: optuna.Study) -> str:
    """Return what the first trial is called: it may be only nearly the baseline."""
    return "first trial" if study.user_attrs.get(OUTSIDE) else "baseline"


def difference(finalist: Finalist, other: Finalist, objective: str) -> Difference | None:
    """Return how far apart two are, paired by seed; None if they share none.

    Args:
        finalist: One.
        other: The one it is measured from.
        objective: By name.
    """
    values = dict(zip(other.seeds, other.values[objective], strict=True))
    own = zip(finalist.seeds, finalist.values[objective], strict=True)
    apart = tuple(value - values[seed] for seed, value in own if seed in values)
    if not apart:
        return None
    return Difference(statistics.fmean(apart), interval(apart), len(apart))
