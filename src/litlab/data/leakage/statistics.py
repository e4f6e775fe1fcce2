"""Two-sample statistics of many features at once."""

import numpy as np

from litlab.data.spec import Array

LEVEL = 0.001  # chance of a false alarm for a whole check: each of its tests has its part of that


def kolmogorov_smirnov(a: Array, b: Array) -> tuple[float, float]:
    """Return the largest distance of two samples' distribution functions, and its p-value.

    The p-value is the asymptotic one with Stephens' correction (1970) for small samples, as in
    Numerical Recipes, section 14.3.3.
    """
    values = np.concatenate([a, b])
    order = np.argsort(values, kind="stable")
    steps = np.where(order < len(a), 1 / len(a), -1 / len(b)).cumsum()
    last = np.append(values[order][1:] != values[order][:-1], True)
    distance = min(float(np.abs(steps[last]).max()), 1.0)
    root = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    x = (root + 0.12 + 0.11 / root) * distance
    k = np.arange(1, 101)
    p = 2 * float(((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)).sum())
    return distance, float(np.clip(p if x > 0.2 else 1.0, 0, 1))


def total_variation(a: Array, b: Array) -> tuple[float, float]:
    """Return half the sum of the differences of two categories' shares, and Pearson's p-value.

    Args:
        a: How often each category is in the first sample `(C,)`.
        b: The same of the second.
    """
    from scipy.special import chdtrc

    distance = float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)
    table = np.stack([a, b]).astype(np.float64)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    rare = expected.min(0) < 5  # too few for the approximation: counted together
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return distance, 1.0
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    return distance, float(chdtrc(table.shape[1] - 1, statistic))


def share_p_values(a: Array, number: int, b: Array, other: int) -> Array:
    """Return p-values of the shares `a / number` and `b / other` being one and the same `(C,)`.

    By the normal approximation; 1 where fewer than 5 are to be expected on either side.
    """
    from scipy.special import ndtr

    pooled = (a + b) / (number + other)
    expected = np.minimum(pooled, 1 - pooled) * min(number, other)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / number + 1 / other))
    z = np.abs(a / number - b / other) / error
    p: Array = np.where(expected >= 5, 2 * ndtr(-z), 1.0)
    return p
