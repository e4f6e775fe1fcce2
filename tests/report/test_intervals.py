import math

import numpy as np
import pytest
from scipy import stats

from litlab.report.intervals import bootstrap_interval, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 10), (972, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_scipy(k: int, n: int, confidence: float) -> None:
    trusted = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((trusted.low, trusted.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_wilson_ends_exactly_at_nothing_and_all(n: int) -> None:
    assert wilson(0, n)[0] == 0.0
    assert wilson(n, n)[1] == 1.0


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(k, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, confidence)
    one = np.ones(1)
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval(lambda a, p: 0.0, one, one, np.random.default_rng(0), 1, confidence)


def mae(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.abs(actual - predicted).mean())


def test_bootstrap_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    actual, noise = rng.normal(size=400), rng.normal(size=400)
    low, high = bootstrap_interval(mae, actual, actual + noise, rng, resamples=4000)
    trusted = stats.bootstrap(
        (np.abs(noise),), np.mean, n_resamples=4000, method="percentile", rng=rng
    ).confidence_interval
    width = trusted.high - trusted.low
    assert (low, high) == pytest.approx((trusted.low, trusted.high), abs=0.06 * width)


def test_bootstrap_draws_pairs_along_the_first_axis() -> None:
    actual = np.arange(60.0).reshape(30, 2)
    ends = bootstrap_interval(mae, actual, actual + 3, np.random.default_rng(0), resamples=50)
    assert ends == (3.0, 3.0)  # unpaired draws would not all be off by 3


def test_bootstrap_is_repeatable_and_leaves_global_state_alone() -> None:
    actual, predicted = np.arange(20.0), np.arange(20.0)[::-1]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (
        bootstrap_interval(mae, actual, predicted, np.random.default_rng(7)) for _ in range(2)
    )
    assert first == again
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_bootstrap_leaves_undefined_resamples_out() -> None:
    actual = np.array([0.0, 1.0])

    def only_both(a: np.ndarray, p: np.ndarray) -> float:
        return 5.0 if len(set(a)) == 2 else math.nan

    rng = np.random.default_rng(0)
    assert bootstrap_interval(only_both, actual, actual, rng, 100) == (5.0, 5.0)
    ends = bootstrap_interval(lambda a, p: math.nan, actual, actual, rng, 10)
    assert all(math.isnan(end) for end in ends)


@pytest.mark.parametrize(("n", "m", "resamples"), [(0, 0, 10), (3, 2, 10), (3, 3, 0)])
def test_bootstrap_refuses_what_it_cannot_draw(n: int, m: int, resamples: int) -> None:
    with pytest.raises(ValueError, match=r"length|resamples"):
        bootstrap_interval(mae, np.ones(n), np.ones(m), np.random.default_rng(0), resamples)


def test_a_metric_that_is_infinite_has_no_finite_ends() -> None:
    values = np.arange(5.0)
    ends = bootstrap_interval(lambda *_: math.inf, values, values, np.random.default_rng(0), 20)
    assert not any(map(math.isfinite, ends))
