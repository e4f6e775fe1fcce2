import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import make_config, make_raw

from litlab.data.spec import SPLITS
from litlab.data.split import cut, split_hash
from litlab.errors import ConfigError, DataError


def indices(raw, **settings):
    return {name: part[2] for name, part in cut(raw, make_config(**settings)).items()}


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(20, 200),
    test=st.floats(0.1, 0.4),
    val=st.floats(0.1, 0.4),
    seed=st.integers(0, 2**32 - 1),
    stratify=st.booleans(),
)
def test_splits_are_disjoint_and_complete(number, test, val, seed, stratify) -> None:
    raw = make_raw(number=number, classes=2)
    config = make_config(test_fraction=test, val_fraction=val, split_seed=seed, stratify=stratify)
    splits = cut(raw, config)
    assert tuple(splits) == SPLITS
    everything = np.concatenate([index for _, _, index in splits.values()])
    assert sorted(everything.tolist()) == list(range(number))
    x, y = raw.parts["all"]
    for inputs, targets, index in splits.values():
        np.testing.assert_array_equal(inputs, x[index])
        np.testing.assert_array_equal(targets, y[index])
    # Shares are rounded up by scikit-learn; val is a share of what the test split leaves.
    size = {name: len(part[0]) for name, part in splits.items()}
    assert size["test"] == int(np.ceil(test * number))
    assert size["val"] == int(np.ceil(val * (number - size["test"])))


def test_stratified_splits_keep_proportions() -> None:
    y = np.repeat([0, 1, 2], [140, 40, 20])
    raw = make_raw(number=200)
    raw.parts["all"] = (raw.parts["all"][0], y)
    for _, targets, _ in cut(raw, make_config()).values():
        share = np.bincount(targets, minlength=3) / len(targets)
        np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.02)
    loose = cut(raw, make_config(stratify=False))["test"][1]
    assert np.bincount(loose, minlength=3).tolist() != [28, 8, 4]


def test_regression_is_never_stratified() -> None:
    raw = make_raw(targets=1)
    with pytest.warns(UserWarning, match=r"data\.stratify=true is ignored"):
        splits = cut(raw, make_config(stratify=True))
    assert len(splits["test"][0]) == 12
    cut(raw, make_config(stratify=False))  # and nothing is said


def test_the_publishers_test_split_is_kept() -> None:
    train, test = make_raw(number=50).parts["all"], make_raw(number=30).parts["all"]
    raw = make_raw(parts={"train": train, "test": test})
    splits = cut(raw, make_config(test_fraction=None))
    np.testing.assert_array_equal(splits["test"][0], test[0])
    assert splits["test"][2].tolist() == list(range(50, 80))
    together = np.concatenate([splits["train"][2], splits["val"][2]])
    assert sorted(together.tolist()) == list(range(50))


def test_the_publishers_validation_split_is_kept() -> None:
    parts = {name: make_raw(number=20 + i).parts["all"] for i, name in enumerate(SPLITS)}
    splits = cut(make_raw(parts=parts), make_config(test_fraction=None))
    for name in SPLITS:
        np.testing.assert_array_equal(splits[name][0], parts[name][0])


def test_a_test_split_is_cut_from_train_where_only_val_is_given() -> None:
    parts = {"train": make_raw(number=50).parts["all"], "val": make_raw(number=21).parts["all"]}
    splits = indices(make_raw(parts=parts))
    assert splits["val"].tolist() == list(range(50, 71))
    assert len(splits["test"]) == 10
    assert splits["test"].max() < 50


def test_the_split_is_a_function_of_its_seed() -> None:
    raw = make_raw()
    first, again, other = indices(raw), indices(raw), indices(raw, split_seed=1)
    for name in SPLITS:
        np.testing.assert_array_equal(first[name], again[name])
    assert split_hash(first) == split_hash(again) != split_hash(other)


def test_the_global_generator_has_no_say() -> None:
    raw = make_raw()
    np.random.seed(1)  # noqa: NPY002
    first = split_hash(indices(raw))
    np.random.seed(2)  # noqa: NPY002
    assert first == split_hash(indices(raw))


@given(st.permutations(range(9)))
def test_the_hash_is_of_membership_and_not_of_order(order) -> None:
    given_order = np.array(order)
    straight = {"train": np.arange(5), "val": np.arange(5, 7), "test": np.arange(7, 9)}
    mixed = {
        name: given_order[np.isin(given_order, members)].astype(np.int32)
        for name, members in straight.items()
    }
    assert split_hash(mixed) == split_hash(straight)


def test_the_hash_sees_a_sample_change_its_split() -> None:
    a = {"train": np.array([0, 1, 2]), "val": np.array([3]), "test": np.array([4])}
    for b in (
        {"train": np.array([0, 1, 3]), "val": np.array([2]), "test": np.array([4])},
        {"train": np.array([0, 1, 2]), "val": np.array([4]), "test": np.array([3])},
        {"train": np.array([0, 1]), "val": np.array([2, 3]), "test": np.array([4])},
    ):
        assert split_hash(a) != split_hash(b)


def test_a_missing_test_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="no test split of its own") as caught:
        cut(make_raw(), make_config(test_fraction=None))
    assert caught.value.where == "data.test_fraction"


def test_a_test_share_that_would_be_ignored_is_refused() -> None:
    part = make_raw().parts["all"]
    with pytest.raises(ConfigError, match="comes with its own test split"):
        cut(make_raw(parts={"train": part, "test": part}), make_config(test_fraction=0.2))


@pytest.mark.parametrize(
    ("number", "change", "where"),
    [
        (1, {"stratify": False}, "data.test_fraction"),
        (2, {"stratify": False}, "data.val_fraction"),
        (60, {"test_fraction": 0.01}, "data.test_fraction"),  # one sample for three classes
    ],
)
def test_too_few_samples(number, change, where) -> None:
    with pytest.raises(DataError, match="cannot cut") as caught:
        cut(make_raw(number=number), make_config(**change))
    assert caught.value.where == where
