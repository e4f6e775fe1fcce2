import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leakage_helpers import look, of
from scipy import stats

from litlab.data.leakage import drift
from litlab.data.leakage.drift import kolmogorov_smirnov, share_p_values, total_variation

RNG = np.random.default_rng(0)


@pytest.mark.filterwarnings("ignore:ks_2samp. Exact calculation unsuccessful")
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(30, 500),
    m=st.integers(30, 500),
    shift=st.sampled_from([0.0, 0.2, 0.5]),
    digits=st.sampled_from([0, 1, 8]),
    seed=st.integers(0, 1000),
)
def test_kolmogorov_smirnov_is_scipys(n, m, shift, digits, seed) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n).round(digits), rng.normal(shift, size=m).round(digits)
    distance, p = kolmogorov_smirnov(a, b)
    expected = stats.ks_2samp(a, b, method="asymp")
    assert distance == pytest.approx(expected.statistic)
    exact = stats.ks_2samp(a, b, method="exact").pvalue
    assert p == pytest.approx(exact, rel=0.35, abs=0.03)
    assert kolmogorov_smirnov(b, a) == pytest.approx((distance, p))


def test_equal_samples_have_distance_zero() -> None:
    assert kolmogorov_smirnov(np.ones(20), np.ones(30)) == pytest.approx((0, 1))
    assert kolmogorov_smirnov(np.zeros(50), np.ones(50))[0] == 1


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.4, 0.4, 0.2)])
def test_total_variation_has_pearsons_p(shares) -> None:
    a, b = np.array([250, 150, 100]), RNG.multinomial(400, shares)
    distance, p = total_variation(a, b)
    assert distance == pytest.approx(np.abs(a / 500 - b / 400).sum() / 2)
    assert p == pytest.approx(stats.chi2_contingency([a, b], correction=False).pvalue)


def test_rare_categories_count_together() -> None:
    a, b = np.array([500, 500, 1, 0, 0, 2]), np.array([500, 500, 0, 1, 2, 0])
    distance, p = total_variation(a, b)
    assert distance < 0.01
    assert p > 0.9
    assert total_variation(np.array([7, 0]), np.array([9, 0])) == (0, 1)


def test_a_shares_p_value_is_the_z_tests() -> None:
    a, b = np.array([30, 2]), np.array([60, 1])
    p = share_p_values(a, 100, b, 120)
    expected = stats.chi2_contingency([[30, 70], [60, 60]], correction=False).pvalue
    assert p[0] == pytest.approx(expected)
    assert p[1] == 1  # too few to say


@pytest.mark.parametrize("kind", ["tabular", "sequence", "image"])
@pytest.mark.parametrize("seed", range(3))
def test_one_distribution_does_not_drift(kind, seed) -> None:
    rng = np.random.default_rng(seed)
    size = {"tabular": (2000, 30), "sequence": (1000, 3, 20), "image": (1000, 3, 8, 8)}[kind]
    x = rng.normal(100, 30, size).clip(0, 255)
    x = x.astype(np.uint8) if kind == "image" else x.astype(np.float32)
    assert not look(kind, x).findings


def drifted(report):
    (found,) = of(report, "drift")
    assert not found.stops
    report.refuse([])
    return found


def test_a_column_that_drifts_is_named() -> None:
    x = RNG.normal(size=(1000, 4))
    x[800:, 2] += 1
    found = drifted(look("tabular", x, columns=("age", "height", "weight", "pulse")))
    assert found.count == 1
    assert found.details[0].startswith("weight (train-test 0.")
    assert "weight" in found.message
    assert "column 2 (train-test" in drifted(look("tabular", x)).message


def test_a_category_that_drifts_is_named() -> None:
    codes = RNG.integers(0, 4, (1000, 2))
    codes[600:800, 1] = RNG.choice([0, 1, 2, 3], 200, p=[0.7, 0.1, 0.1, 0.1])
    x = np.concatenate([RNG.normal(size=(1000, 1)), codes], axis=1)
    table = pd.DataFrame(x)
    found = drifted(
        look(
            "tabular",
            x,
            content=lambda rows: table.iloc[rows],
            cardinalities=(4, 4),
            columns=("age", "job", "town"),
        )
    )
    assert [detail.split()[0] for detail in found.details] == ["town"]
    assert "(train-val 0." in found.details[0]


def test_darker_pictures_drift() -> None:
    x = RNG.integers(0, 200, (600, 1, 12, 12)).astype(np.uint8)
    x[480:] //= 2
    found = drifted(look("image", x))
    assert {detail.split()[0] for detail in found.details} == {"brightness", "contrast"}


def test_longer_texts_and_other_words_drift() -> None:
    texts = [f"unit{i} of the many words here" for i in range(500)]
    texts[400:] = [f"unit{i} of a few" for i in range(400, 500)]
    ids = [np.arange(len(text.split())) for text in texts]
    found = drifted(look("text", ids, content=texts))
    names = {detail.split()[0] for detail in found.details}
    assert names == {"length", "'the'", "'many'", "'words'", "'here'"}


def test_a_small_effect_is_no_drift_however_certain(monkeypatch) -> None:
    monkeypatch.setattr(drift, "SAMPLES", 10**6)
    x = RNG.normal(size=(40_000, 1))
    x[32_000:] += 0.1
    assert kolmogorov_smirnov(x[:24_000, 0], x[32_000:, 0])[1] < 1e-6
    assert not look("tabular", x, chunk=10**5).findings


def test_what_is_kept_is_bounded_and_does_not_depend_on_chunks(monkeypatch) -> None:
    monkeypatch.setattr(drift, "SAMPLES", 50)
    x = RNG.normal(size=(1000, 3))
    reports = []
    for chunk in (7, 100, 1000):
        one = drift.Drift("tabular", (), ())
        for start in range(0, 1000, chunk):
            rows = np.arange(start, min(start + chunk, 1000))
            one.add("train", rows, x[rows], x[rows])
        kept = one._kept["train"]
        assert len(kept.keys) == len(kept.features) == 50
        reports.append(kept.features)
    np.testing.assert_array_equal(reports[0], reports[1])
    np.testing.assert_array_equal(reports[0], reports[2])


def test_class_shares_that_differ_by_more_than_chance() -> None:
    y = np.arange(1000) % 2
    y[800:] = np.arange(200) % 4 == 0
    (found,) = look("tabular", RNG.normal(size=(1000, 2)), y).findings
    assert (found.check, found.stops, found.count) == ("imbalance", False, 2)
    assert "c0: 50.0% of train, 75.0% of test" in found.message


def test_chance_is_no_imbalance() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        assert not look("tabular", rng.normal(size=(300, 2)), rng.integers(0, 5, 300)).findings
