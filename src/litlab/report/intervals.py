from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Bins(NamedTuple):
    """Predictions counted by confidence, in bins `(low, high]` of equal width; each `(bins,)`.

    `right` and `confidence` are means within a bin, and NaN where a bin is empty.
    """

    number: NDArray[np.int64]
    right: NDArray[np.float64]
    confidence: NDArray[np.float64]


def calibration_bins(correct: NDArray[Any], confidence: NDArray[Any], bins: int = 10) -> Bins:
    """Count how often predictions are right, by their confidence in [0, 1]; both `(N,)`.

    A confidence that is not finite belongs to no bin and is left out.

    Raises:
        ValueError: The arrays differ in length, or a confidence lies outside [0, 1].
    """
    right, given = np.asarray(correct, np.float64), np.asarray(confidence, np.float64)
    if right.shape != given.shape:
        raise ValueError(f"correct {right.shape} and confidence {given.shape} differ in shape")
    right, given = right[np.isfinite(given)], given[np.isfinite(given)]
    if len(given) and (given.min() < 0 or given.max() > 1 + 1e-6):
        raise ValueError(f"confidence must be in [0, 1], got {given.min()} to {given.max()}")
    which = np.clip(np.ceil(given * bins).astype(np.int64) - 1, 0, bins - 1)
    number = np.bincount(which, minlength=bins)
    divisor = np.where(number > 0, number, np.nan)
    return Bins(
        number,
        np.bincount(which, weights=right, minlength=bins) / divisor,
        np.bincount(which, weights=given, minlength=bins) / divisor,
    )


def calibration_error(correct: NDArray[Any], confidence: NDArray[Any], bins: int = 10) -> float:
    """Return the expected calibration error: `|right - confidence|` of each bin, by its size.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3. NaN
    where there is nothing to count.
    """
    number, right, given = calibration_bins(correct, confidence, bins)
    seen = number > 0
    if not seen.any():
        return float("nan")
    gaps = np.abs(right[seen] - given[seen])
    return float((gaps * number[seen]).sum() / number.sum())


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, such as the accuracy on n test samples.

    It stays inside [0, 1] and keeps its coverage near 0 and 1, where the textbook interval
    `p ± z sqrt(p (1 - p) / n)` shrinks to nothing. No continuity correction.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927), 209-212.

    Raises:
        ValueError: There are no samples, more successes than samples, or `confidence` is not
            between 0 and 1.
    """
    from scipy.stats import binomtest  # slow to import

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    _check_confidence(confidence)
    found = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def bootstrap_interval(
    metric_fn: Callable[[NDArray[Any], NDArray[Any]], float],
    actual: NDArray[Any],
    predicted: NDArray[Any],
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of any metric of `(actual, predicted)`.

    Samples (the first axis) are drawn with replacement in pairs, so the interval holds for
    new test samples and one trained network; it says nothing of another training seed.
    Resamples on which the metric is NaN (a class that was not drawn) are left out; where it is
    NaN on all of them, so are both ends.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.

    Raises:
        ValueError: The arrays differ in length or are empty, `resamples` is below 1, or
            `confidence` is not between 0 and 1.
    """
    n = len(actual)
    if n == 0 or len(predicted) != n:
        raise ValueError(
            f"actual and predicted need one length above 0, got {n} and {len(predicted)}"
        )
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    _check_confidence(confidence)
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(0, n, n)
        values[i] = metric_fn(actual[drawn], predicted[drawn])
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    with np.errstate(invalid="ignore"):  # infinities
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, got {confidence}")
