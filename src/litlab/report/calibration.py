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
