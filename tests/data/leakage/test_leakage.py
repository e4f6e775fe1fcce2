import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leakage_helpers import look, of, stopping

from litlab.data.leakage.drift import cells, rounded
from litlab.data.leakage.duplicates import Spool
from litlab.data.leakage.report import LeakageReport
from litlab.utils.errors import DataError
from made_data import make_raw, prepare_raw

KINDS = ["image", "sequence", "tabular"]


def made(kind, number=60):
    raw = make_raw(kind, number=number)
    return raw.parts["all"]


@pytest.mark.parametrize("kind", KINDS)
def test_clean_data_raise_nothing(kind) -> None:
    report = look(kind, *made(kind, 200))
    assert report.findings == ()
    assert report.sizes == {"train": 120, "val": 40, "test": 40}
    assert report.class_counts["train"] == (40, 40, 40)
    report.refuse([])
    first, second, *_ = report.lines()
    sizes = "train 120 (40 per class), val 40 (13 to 14 per class), test 40 (13 to 14 per class)"
    assert first == f"leakage check: {sizes}"
    assert second.startswith("leakage check: nothing found by exact_duplicates, label_noise")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [7, 1000])
def test_a_copy_in_two_splits_stops(kind, chunk) -> None:
    x, y = made(kind)
    for copy, first in ((40, 3), (55, 3), (50, 39)):  # val of train, test of train, test of val
        x[copy], y[copy] = x[first], y[first]
    report = look(kind, x, y, chunk=chunk)
    (found,) = of(report, "exact_duplicates")
    assert found.stops
    assert found.count == 3
    assert found.counts == {"train-val": 1, "train-test": 1, "val-test": 2}
    assert found.pairs == (
        (("train", 3), ("val", 40)),
        (("val", 39), ("test", 50)),
        (("train", 3), ("test", 55)),
    )
    with pytest.raises(DataError, match=r"3 samples are in two splits: 1 of val also in train"):
        report.refuse([])
    with pytest.raises(DataError) as caught:
        report.refuse(["near_duplicates"])
    assert caught.value.exit_code == 3
    assert "(train 3 = val 40, val 39 = test 50, train 3 = test 55)" in caught.value.what
    assert "data.allow=[near_duplicates,exact_duplicates]" in caught.value.fix
    report.refuse(["exact_duplicates"])


def test_the_first_five_pairs_are_shown() -> None:
    x, y = made("tabular")
    x[48:58], y[48:58] = x[:10], y[:10]
    with pytest.raises(DataError, match=r"train 4 = test 52, \.\.\.\)") as caught:
        look("tabular", x, y).refuse([])
    assert caught.value.what.count(" = ") == 5


@pytest.mark.parametrize("kind", KINDS)
def test_repeats_within_a_split_are_told_and_do_not_stop(kind) -> None:
    x, y = made(kind)
    x[5] = x[9] = x[2]
    y[5] = y[9] = y[2]
    report = look(kind, x, y)
    (found,) = of(report, "exact_duplicates")
    assert (found.stops, found.count, found.counts) == (False, 2, {"train": 2})
    report.refuse([])
    assert "2 samples repeat another of the same split: 2 in train" in report.lines()[1]


@pytest.mark.parametrize("kind", KINDS)
def test_one_input_with_two_labels_is_no_duplicate_but_suspect(kind) -> None:
    x, y = made(kind)
    x[58], y[58] = x[2], (y[2] + 1) % 3
    report = look(kind, x, y)
    (found,) = report.findings
    assert (found.check, found.stops, found.count) == ("label_noise", False, 2)
    assert found.counts == {"train": 1, "test": 1}
    assert found.pairs == ((("train", 2), ("test", 58)),)


def test_label_noise_of_a_regression() -> None:
    x, y = make_raw(targets=2).parts["all"]
    x[7] = x[2]
    (found,) = look("tabular", x, y).findings
    assert found.check == "label_noise"
    y[7] = y[2]
    (found,) = look("tabular", x, y).findings
    assert found.check == "exact_duplicates"


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.integers(0, 15), min_size=10, max_size=60),
    seed=st.integers(0, 100),
)
def test_duplicates_are_counted_as_by_brute_force(x, seed) -> None:
    y = np.random.default_rng(seed).integers(0, 2, len(x))
    report = look("tabular", np.array(x, float)[:, None] + 0.25, y)
    number, fifth = len(x), len(x) // 5
    split = np.repeat([0, 1, 2], [number - 2 * fifth, fifth, fifth])
    keys = list(zip(x, y.tolist(), strict=True))

    def again(i, same_split):
        return any(keys[j] == keys[i] and (split[j] == split[i]) == same_split for j in range(i))

    across = {i for i in range(number) if again(i, False)}
    within = {i for i in range(number) if again(i, True)}
    noisy = {i for i in range(number) for j in range(number) if x[i] == x[j] and y[i] != y[j]}
    found = {(f.check, f.stops): f.count for f in report.findings}
    assert found.get(("exact_duplicates", True), 0) == len(across)
    assert found.get(("exact_duplicates", False), 0) == len(within)
    assert found.get(("label_noise", False), 0) == len(noisy)


def test_a_report_survives_json() -> None:
    x, y = made("tabular")
    x[50], y[50], x[7] = x[3], y[3], x[8]
    report = look("tabular", x, y)
    assert len(report.findings) == 2
    assert LeakageReport.model_validate_json(report.model_dump_json()) == report


def test_what_is_found_depends_on_no_chunks() -> None:
    x, y = made("image", 300)
    x[200:210], x[290:] = x[:10], x[20:30]
    whole = look("image", x, y)
    assert whole.findings
    assert look("image", x, y, chunk=13) == whole


def test_values_equal_to_six_digits_are_equal() -> None:
    x, y = made("tabular")
    x = x.astype(np.float64)
    x[50], y[50] = x[3] * (1 + 3e-9), y[3]
    x[51], y[51] = np.round(x[4], 7), y[4]
    assert of(look("tabular", x, y), "exact_duplicates")[0].count == 2
    x[50] = x[3] * (1 + 1e-4)
    assert of(look("tabular", x, y), "exact_duplicates")[0].count == 1


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e-4, 1e-4))
def test_rounding_is_to_six_digits(value, change) -> None:
    other = value * (1 + change)
    if not np.isfinite(other):
        return
    same = rounded(np.array([[value, 0]]))[0, 0] == rounded(np.array([[other, 0]]))[0, 0]
    if value == int(value) or other == int(other):
        assert same or value != other
    else:
        assert same == (f"{value:.5e}" == f"{other:.5e}") or abs(change) < 1e-5


def test_whole_numbers_are_equal_only_if_they_are() -> None:
    seconds = np.array([1_700_000_001.0, 1_700_000_002.0, -1_700_000_001.0, 3, 3.0000001, -0.0, 0])
    keys = rounded(seconds[None])[0].tolist()
    assert len(set(keys[:4])) == 4
    assert keys[3] == keys[4]
    assert keys[5] == keys[6]
    unusual = rounded(np.array([[np.nan, np.inf, -np.inf, 5e-324, 1.5e-310, 0.1, 1e300 / 3]]))
    assert len(set(unusual[0].tolist())) == 7


def test_many_random_numbers_of_one_column_are_different() -> None:
    x, y = np.random.default_rng(0).normal(size=(40_000, 1)), np.zeros(40_000, int)
    assert not look("tabular", x, y, chunk=10**5).findings
    table = pd.DataFrame({"x": x[:, 0]})
    assert not look("tabular", x, y, content=lambda rows: table.iloc[rows]).findings
    x[39_999] = x[3]
    assert of(look("tabular", x, y), "exact_duplicates")[0].count == 1


def test_a_cell_is_its_value_whatever_its_columns_type() -> None:
    read = pd.DataFrame({"a": [1, 2, 3], "b": ["x", " y", None], "c": [1.5, None, 2]})
    as_text = pd.DataFrame({"a": ["1", "2", "3"], "b": ["x ", "y", None], "c": ["1.5", None, "2"]})
    np.testing.assert_array_equal(cells(read), cells(as_text))
    other = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "z", "None"], "c": [1.5, 0, 2.5]})
    assert (cells(read) == cells(other)).tolist() == [
        [True, True, True],
        [True, False, False],
        [True, False, False],
    ]
    when = pd.to_datetime(["2024-01-01", "2024-01-01", "2024-01-02"])
    first, second, third = cells(pd.DataFrame({"when": when}))[:, 0].tolist()
    assert first == second != third


def test_rows_are_compared_as_the_source_has_them() -> None:
    table = pd.DataFrame({"age": np.arange(60) + 0.5, "job": ["a", "b", "c"] * 20})
    table.loc[57] = table.loc[3]
    stored = np.zeros((60, 2), np.float32)  # after an encoder that tells nothing apart
    report = look("tabular", stored, content=lambda rows: table.iloc[rows], cardinalities=(4,))
    assert of(report, "exact_duplicates")[0].pairs == ((("train", 3), ("test", 57)),)


def test_a_group_in_two_splits_stops() -> None:
    x, y = made("tabular")
    person = np.array([f"p{i // 3}" for i in range(60)], object)
    assert not look("tabular", x, y, group=person).findings
    person[59] = "p0"
    report = look("tabular", x, y, group=person, chunk=7)
    (found,) = report.findings
    assert (found.check, found.stops, found.count) == ("group_leak", True, 1)
    assert found.pairs == ((("train", 0), ("test", 59)),)
    with pytest.raises(DataError, match=r"1 group of data\.group in more than one split"):
        report.refuse([])
    report.refuse(["group_leak"])


def test_groups_may_be_numbers() -> None:
    x, y = made("tabular")
    numbers = np.arange(60) // 3
    assert not look("tabular", x, y, group=numbers).findings
    numbers[40] = 0
    assert stopping(look("tabular", x, y, group=numbers)) == {"group_leak"}


def test_prepare_finds_a_group_in_a_publishers_test_split(tmp_path, monkeypatch) -> None:
    train, test = make_raw(number=50).parts["all"], make_raw(number=30).parts["all"]
    raw = make_raw(parts={"train": train, "test": test})
    raw.columns = {"train": {"person": np.arange(50)}, "test": {"person": np.arange(49, 79)}}
    with pytest.raises(DataError, match=r"1 group of data\.group .* = test 50\)"):
        prepare_raw(raw, tmp_path / "a", monkeypatch, test_fraction=None, group="person")
    raw.columns["test"]["person"] += 1
    prepare_raw(raw, tmp_path / "a", monkeypatch, test_fraction=None, group="person")


def test_a_spool_grows_in_a_file(tmp_path) -> None:
    spool = Spool(np.uint32, tmp_path)
    assert len(spool.whole()) == 0
    spool.add(np.arange(5))
    spool.add(np.arange(6).reshape(2, 3))
    assert spool.whole().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == []
