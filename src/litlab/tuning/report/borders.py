"""Detects that the best trials are at the end of a range, and suggests a wider one."""

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from scipy.stats import binomtest

NEAR = 0.05  # of the range
WITHIN = 0.25  # of the range: where the best trials lie if it is no accident
LEVEL = 0.2  # how probable as many there may be if they lay anywhere
# What is a share of 1, by the last part of its path.
SHARES = ("drop", "momentum", "smoothing", "beta", "decay_rate", "prob", "fraction", "gamma")


def border_line(
    study: str, path: str, distribution: BaseDistribution, best: Sequence[FrozenTrial]
) -> str:
    """Return what to say of a setting whose best value is at an end of its range, or nothing.

    Args:
        study: The study's name.
        path: The setting's.
        distribution: Its range.
        best: The best quarter of the trials, the best one first.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution) or distribution.single():
        return ""
    if path not in best[0].params:
        return ""
    places = [place(distribution, t.params[path]) for t in best if path in t.params]
    if NEAR < places[0] < 1 - NEAR:
        return ""
    end = "low" if places[0] <= NEAR else "high"
    among = sum(_at_end(p, end) for p in places)
    if binomtest(among, len(places), _expected(distribution, end), "greater").pvalue > LEVEL:
        return ""
    new = beyond(path, distribution, end)
    if new is None:
        return ""
    return (
        f"the best {path}, {short(best[0].params[path])}, is at the {end} end of its range "
        f"({short(distribution.low)} to {short(distribution.high)}): values beyond may be "
        f"better; try {typed(study, path, **{end: new})}"
    )


def _at_end(where: float, end: str) -> bool:
    return where <= WITHIN if end == "low" else where >= 1 - WITHIN


def _expected(distribution: FloatDistribution | IntDistribution, end: str) -> float:
    """Return the share of a range's values that lie at an end: of 3, 5 and 7 a third."""
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log or not step or high - low > 100 * step:
        return WITHIN
    every = [low + i * step for i in range(round((high - low) / step) + 1)]
    return sum(_at_end(place(distribution, v), end) for v in every) / len(every)


def place(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    """Return where a value lies in its range, on the range's own scale, from 0 to 1."""
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    return (scale(value) - low) / (high - low)


def beyond(
    path: str, distribution: FloatDistribution | IntDistribution, end: str
) -> float | int | None:
    """Return a wider end of the range, or None if there is none: below 0, or a share above 1."""
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return _beyond_whole(distribution, end)
    if distribution.log:
        return _round(low / math.sqrt(10) if end == "low" else high * math.sqrt(10))
    share = any(word in path.rsplit(".", 1)[-1] for word in SHARES) and 0 <= low <= high <= 1
    width = (high - low) / 2
    if end == "low":
        if low >= 0 and low - width <= 0:  # to 0 where that is known to be allowed
            allowed = share or path.endswith("weight_decay")
            return None if low == 0 else (0.0 if allowed else low / 2)
        return _digits(low - width)
    if share:
        return None if high >= 0.95 else _digits(min(high + width, (1 + high) / 2))
    return _digits(high + width)


def _beyond_whole(distribution: IntDistribution, end: str) -> int | None:
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        new = max(1, low // 2) if end == "low" else high * 2
        return None if new == low else new
    steps = max(1, (high - low) // step // 2)
    if end == "high":
        return high + steps * step
    if low >= 0:  # counts stay above 0
        steps = min(steps, (low - 1) // step) if low else 0
    return low - steps * step if steps else None


def typed(study: str, path: str, **ends: float) -> str:
    """Return what to type for a study of a changed range, which is another study.

    Args:
        study: The name of the one that was.
        path: The setting's.
        ends: The new `low`, `high`.
    """
    words = [f"study.space.{path}.{end}={short(value)}" for end, value in ends.items()]
    return " ".join([f"study.name={study}-2", *words])


def short(value: Any) -> str:
    """Return a value as a sentence has it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _digits(value: float) -> float:
    return float(f"{value:.2g}")


def _round(value: float) -> float:
    """Return the nearest of 1, 2, 3, 5, 10 times a power of ten, by ratio."""
    power = 10.0 ** math.floor(math.log10(value))
    nearest = min((1, 2, 3, 5, 10), key=lambda m: abs(math.log(value / power / m)))
    return float(f"{nearest * power:.4g}")
