import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litlab.data.prepare.split import cut
from litlab.data.prepare.stratify_labels import iterative_parts
from litlab.data.prepare.validate import check_raw, check_splits
from litlab.utils.errors import DataError
from made_data import make_config, make_raw


def several(number: int = 200, shares: tuple[float, ...] = (0.5, 0.2, 0.05), **more):
    y = (np.random.default_rng(0).random((number, len(shares))) < shares).astype(np.uint8)
    parts = {"all": (make_raw(number=number).parts["all"][0], y)}
    return make_raw(number=number, task="multi_label", **{"parts": parts, **more}), y


def test_each_split_has_its_share_of_each_label() -> None:
    raw, y = several()
    splits = cut(raw, make_config(val_fraction=0.25, test_fraction=0.2))
    together = np.sort(np.concatenate([rows.rows for rows in splits.values()]))
    assert together.tolist() == list(range(200))
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    for split, share in shares.items():
        assert len(splits[split].rows) == pytest.approx(share * 200, abs=2)
        found = y[splits[split].rows].sum(0)
        assert np.abs(found - share * y.sum(0)).max() < 2
    again = cut(raw, make_config(val_fraction=0.25, test_fraction=0.2))
    assert all((splits[s].rows == again[s].rows).all() for s in shares)


def test_folds_share_a_rare_label() -> None:
    raw, y = several()
    folds = [cut(raw, make_config(num_folds=5, fold=k))["val"].rows for k in range(5)]
    rest = np.concatenate(folds)
    assert len(rest) == len(set(rest.tolist()))
    for label in range(3):
        counts = [int(y[rows, label].sum()) for rows in folds]
        assert max(counts) - min(counts) <= 2


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 99))
def test_parts_are_of_the_size_asked_for(number, labels, seed) -> None:
    y = np.random.default_rng(seed).integers(0, 2, (number, labels))
    parts = iterative_parts(y, [0.7, 0.3], seed)
    assert set(parts.tolist()) <= {0, 1}
    assert abs((parts == 1).sum() - 0.3 * number) <= labels + 1


@pytest.mark.parametrize("y", [np.full((60, 3), 2), np.zeros((60, 2)), np.zeros(60, int)])
def test_targets_that_are_no_labels_are_refused(y) -> None:
    raw, _ = several(60, parts={"all": (make_raw().parts["all"][0], y)})
    with pytest.raises(DataError, match="for 3 labels"):
        check_raw(raw, "made")


def test_labels_that_a_split_lacks_are_named() -> None:
    raw, _ = several()
    some, none = np.array([[1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 0]])
    messages = check_splits(raw, {"train": some, "val": none, "test": some})
    assert messages == [
        "nothing can be learnt of the labels class 1, class 2: all of train has it, or none",
        "val has no samples with the labels class 0: they are not measured",
    ]
    with pytest.raises(DataError, match="the same labels"):
        check_splits(raw, {"train": none, "val": none, "test": none})
