"""The encoder of tables, against scikit-learn's: what it learns, it learns from train alone."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OrdinalEncoder, QuantileTransformer

from litlab.data.encode import table
from litlab.data.encode.table import TableEncoder, quantiles_of, to_normal
from litlab.data.spec import Column
from litlab.utils.errors import DataError


def chunks(frame: pd.DataFrame, size: int = 7):
    return lambda: (frame.iloc[i : i + size] for i in range(0, len(frame), size))


def frame_of(rows: int = 100, seed: int = 0, holes: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.normal(5, 3, rows),
            "b": rng.exponential(size=rows).round(1),
            "c": rng.choice(["red", "blue", "Green"], rows),
            "d": rng.choice([f"v{i}" for i in range(9)], rows),
        }
    )
    if holes:
        frame = frame.mask(rng.random(frame.shape) < 0.2)
    return frame


def fitted(train: pd.DataFrame, size: int = 7, **settings) -> TableEncoder:
    numeric = [name for name in train if train[name].dtype.kind == "f"]
    encoder = TableEncoder(numeric, [n for n in train if n not in numeric], **settings)
    encoder.fit(chunks(train, size))
    return encoder


@pytest.mark.parametrize("impute", ["refuse", "median", "mean"])
def test_it_is_sklearns_imputer_and_ordinal_encoder(impute) -> None:
    holes = impute != "refuse"
    train, test = frame_of(holes=holes), frame_of(50, seed=1, holes=holes)
    train = train[train["d"] != "v3"]  # test has a value that train lacks
    encoder = fitted(train, impute=impute)
    assert encoder.describe()["features"] == ("a", "b", "c", "d")
    assert encoder.describe()["shape"] == (4,)
    numbers = SimpleImputer(strategy="median" if impute == "refuse" else impute)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    categories = [train[["c", "d"]].fillna("<missing>"), test[["c", "d"]].fillna("<missing>")]
    ordinal.fit(categories[0].astype(object))
    numbers.fit(train[["a", "b"]])
    for part, filled in zip((train, test), categories, strict=True):
        found = encoder.encode(part)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[:, :2], numbers.transform(part[["a", "b"]]), rtol=1e-6)
        np.testing.assert_array_equal(found[:, 2:], ordinal.transform(filled.astype(object)) + 1)
    unseen = int((test["d"] == "v3").sum())
    assert unseen
    assert f"cells with values not seen in train: d {unseen}" in encoder.notes()


def sklearns(train, values, number):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer samples than quantiles
        transformer = QuantileTransformer(
            n_quantiles=number, output_distribution="normal", subsample=None
        )
        return transformer.fit(train).transform(values)


@pytest.mark.parametrize("rows", [3, 60, 5000])
def test_quantiles_are_sklearns(rows) -> None:
    train, test = frame_of(rows)[["a", "b"]], frame_of(300, seed=1)[["a", "b"]]
    test.iloc[0], test.iloc[1] = [1e9, 1e9], [-1e9, -1e9]
    encoder = fitted(train, size=999, scale="quantile")
    for part in (train, test):
        expected = sklearns(train, part, 1000)
        np.testing.assert_allclose(encoder.encode(part), expected, rtol=1e-6, atol=1e-6)
    assert np.abs(encoder.encode(test)).max() == pytest.approx(5.1993, abs=1e-4)


# Numbers of a size that data have: on the scale of sklearn's 1e-7 the two differ in rounding.
@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (30, 1), elements=st.integers(-8, 8)), st.integers(2, 40))
def test_quantiles_of_repeated_values_are_sklearns(column, number) -> None:
    grid = np.linspace(-9, 9, 73)[:, None]
    expected = sklearns(column, grid, min(number, 30))[:, 0]
    quantiles = quantiles_of(column[:, 0], number)
    np.testing.assert_allclose(to_normal(grid[:, 0], quantiles), expected, atol=1e-9)


@pytest.mark.parametrize("rows", [2, 999, 1000, 1001, 5000])
def test_quantiles_are_numpys_percentiles(rows) -> None:
    rng = np.random.default_rng(rows)
    for sample in (rng.normal(size=rows), rng.integers(0, 9, rows) / 7, rng.exponential(size=rows)):
        steps = np.linspace(0, 1, min(1000, rows)) * 100
        expected = np.maximum.accumulate(np.percentile(sample, steps))
        np.testing.assert_array_equal(quantiles_of(sample), expected)


def test_gaps_are_filled_before_they_are_mapped() -> None:
    train = frame_of(500, holes=True)[["a", "b"]]
    encoder = fitted(train, impute="median", scale="quantile")
    gaps = pd.DataFrame({"a": [np.nan], "b": [np.nan]})
    medians = pd.DataFrame([train.median()])
    np.testing.assert_array_equal(encoder.encode(gaps), encoder.encode(medians))
    assert np.abs(encoder.encode(gaps)[0, 0]) < 0.01  # the middle


@pytest.mark.parametrize("scale", ["standard", "quantile"])
def test_only_train_is_learnt_from_and_chunks_do_not_matter(scale) -> None:
    train, test = frame_of(holes=True), frame_of(50, seed=1, holes=True)
    encoder = fitted(train, impute="median", scale=scale)
    before = encoder.describe()
    encoder.encode(test)
    assert encoder.describe() == before
    for size in (1, 33, 1000):
        again = fitted(train, size, impute="median", scale=scale)
        assert again.describe() == before


def test_a_constant_column_is_kept_and_said() -> None:
    train = pd.DataFrame({"a": [3.0] * 4, "b": [1.0, 2, 3, 4], "c": ["x"] * 4, "d": list("abab")})
    for scale in ("standard", "quantile"):
        encoder = fitted(train, scale=scale)
        np.testing.assert_array_equal(encoder.encode(train)[:, [0, 2]], [[3, 1]] * 4)
        assert encoder.notes() == [
            "column 'a' is constant in train: it carries no information",
            "column 'c' is always 'x' in train: it carries no information",
        ]


def test_a_column_without_a_value_in_train() -> None:
    train = pd.DataFrame({"a": [np.nan] * 4, "b": [1.0, 2, 3, 4]})
    encoder = fitted(train, impute="mean", scale="quantile")
    assert encoder.encode(train)[:, 0].tolist() == [0] * 4
    assert encoder.notes() == [
        "column 'a' has no values in train: it is filled with zeros",
        "missing cells filled: a 4",
    ]


def test_numbers_that_float32_cannot_tell_apart_are_pointed_out() -> None:
    train = pd.DataFrame({"time": 1.6e9 + np.arange(50.0)})
    (note,) = fitted(train).notes()
    assert "too close for float32: subtract 1600000000" in note
    assert not fitted(train, scale="quantile").notes()
    assert not fitted(train - 1.6e9).notes()


def test_missing_cells_are_refused_where_nothing_was_fitted_for_them() -> None:
    encoder = fitted(frame_of())
    with pytest.raises(DataError) as caught:
        encoder.encode(frame_of(holes=True)[["d", "c", "b", "a"]])
    counts = frame_of(holes=True).isna().sum()
    assert caught.value.what == "missing cells: " + ", ".join(f"{n} {counts[n]}" for n in "abcd")


@pytest.mark.parametrize("scale", ["standard", "quantile"])
@pytest.mark.parametrize("impute", ["refuse", "median"])
def test_it_is_made_again_from_what_the_spec_keeps(scale, impute) -> None:
    train = frame_of(holes=impute != "refuse")
    encoder = fitted(train, scale=scale, impute=impute)
    columns = [c.model_dump(mode="json") for c in encoder.describe()["columns"]]
    again = TableEncoder.of([Column.model_validate(c) for c in json.loads(json.dumps(columns))])
    np.testing.assert_array_equal(again.encode(train), encoder.encode(train))
    assert again.describe() == encoder.describe()


def test_extra_columns_and_their_order_do_not_matter() -> None:
    encoder = fitted(frame_of())
    other = frame_of().assign(extra="z")[["d", "extra", "b", "c", "a"]]
    np.testing.assert_array_equal(encoder.encode(other), encoder.encode(frame_of()))


@pytest.mark.parametrize("kept", [["a", "b"], ["c", "d"]])
def test_only_numbers_or_only_categories(kept) -> None:
    encoder = fitted(frame_of()[kept])
    assert encoder.encode(frame_of()).shape == (100, 2)
    assert encoder.encode(frame_of(0)).shape == (0, 2)


def test_medians_and_quantiles_of_many_rows_are_those_of_a_sample(monkeypatch) -> None:
    train = frame_of(20_000)[["a", "b"]]
    exact = fitted(train, 500, impute="median", scale="quantile")
    monkeypatch.setattr(table, "SAMPLE_ROWS", 2000)
    drawn = fitted(train, 500, impute="median", scale="quantile")
    summary = table._Summary(2)
    for chunk in chunks(train, 500)():
        summary.add(chunk.to_numpy())
    assert len(summary.sample()) == 2000
    assert summary.count.tolist() == [20_000] * 2
    np.testing.assert_allclose(summary.total, train.sum())
    # A sample of n puts a share p within 4 sqrt(p (1 - p) / n) of its place.
    ranks = [(train["a"] < q).mean() for q in drawn.columns["a"].quantiles]
    assert np.abs(ranks - np.linspace(0, 1, 1000)).max() < 4 * 0.5 / 2000**0.5
    assert drawn.columns["a"].fill == pytest.approx(exact.columns["a"].fill, abs=0.3)
    assert drawn.columns["a"].fill != exact.columns["a"].fill
    again = fitted(train, 77, impute="median", scale="quantile")
    assert again.describe() == drawn.describe()


def test_wide_tables_have_smaller_samples() -> None:
    assert table._Summary(10).size == 100_000
    assert table._Summary(10_000).size == 2**23 // 10_000
