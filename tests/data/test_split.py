from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold, train_test_split

from litlab.config.schema import DataConfig
from litlab.data.prepare.split import cut, own_test_split, split_hash
from litlab.data.prepare.validate import check_splits
from litlab.data.raw import Raw
from litlab.data.spec import SPLITS
from litlab.utils.errors import ConfigError, DataError
from made_data import make_config, make_raw


def indices(raw, **settings):
    return {name: rows.index for name, rows in cut(raw, make_config(**settings)).items()}


def with_columns(number=60, test=0, **columns):
    """A raw with further columns; the last `test` of the samples are a publisher's test split."""
    raw = make_raw(number=number)
    x, y = raw.parts["all"]
    cuts = {"all": slice(None)}
    if test:
        cuts = {"train": slice(number - test), "test": slice(number - test, None)}
    raw.parts = {name: (x[rows], y[rows]) for name, rows in cuts.items()}
    raw.columns = {
        name: {key: np.asarray(values)[rows] for key, values in columns.items()}
        for name, rows in cuts.items()
    }
    return raw


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
    everything = np.concatenate([rows.index for rows in splits.values()])
    assert sorted(everything.tolist()) == list(range(number))
    for rows in splits.values():
        assert rows.part == "all"
        np.testing.assert_array_equal(rows.rows, rows.index)
        assert (np.diff(rows.rows) > 0).all()
    # Shares are rounded up by scikit-learn; val is a share of what the test split leaves.
    size = {name: len(rows.rows) for name, rows in splits.items()}
    assert size["test"] == int(np.ceil(test * number))
    assert size["val"] == int(np.ceil(val * (number - size["test"])))


def test_stratified_splits_keep_proportions() -> None:
    y = np.repeat([0, 1, 2], [140, 40, 20])
    raw = make_raw(number=200)
    raw.parts["all"] = (raw.parts["all"][0], y)
    for rows in cut(raw, make_config()).values():
        share = np.bincount(y[rows.rows], minlength=3) / len(rows.rows)
        np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.02)
    loose = cut(raw, make_config(stratify=False))["test"].rows
    assert np.bincount(y[loose], minlength=3).tolist() != [28, 8, 4]


def test_the_split_is_scikit_learns() -> None:
    raw = make_raw(number=101)
    labels = raw.parts["all"][1]
    rest, test = train_test_split(np.arange(101), test_size=0.2, random_state=3, stratify=labels)
    rest = np.sort(rest)
    train, val = train_test_split(rest, test_size=0.3, random_state=3, stratify=labels[rest])
    found = indices(raw, split_seed=3, val_fraction=0.3)
    for name, expected in (("train", train), ("val", val), ("test", test)):
        np.testing.assert_array_equal(found[name], np.sort(expected))
    assert split_hash(found).startswith("1559439f6388c105")


def test_regression_is_never_stratified() -> None:
    raw = make_raw(targets=1)
    config = make_config(stratify=True)
    cut(raw, config)  # the default is no mistake of the user's
    config._typed = frozenset({"data.stratify"})
    with pytest.warns(UserWarning, match=r"data\.stratify=true is ignored"):
        splits = cut(raw, config)
    assert len(splits["test"].rows) == 12
    cut(raw, make_config(stratify=True))  # a default, and nothing is said


def test_the_publishers_test_split_is_kept() -> None:
    train, test = make_raw(number=50).parts["all"], make_raw(number=30).parts["all"]
    raw = make_raw(parts={"train": train, "test": test})
    splits = cut(raw, make_config(test_fraction=None))
    assert splits["test"].part == "test"
    assert splits["test"].rows.tolist() == list(range(30))
    assert splits["test"].index.tolist() == list(range(50, 80))
    together = np.concatenate([splits["train"].index, splits["val"].index])
    assert sorted(together.tolist()) == list(range(50))


def test_the_publishers_validation_split_is_kept() -> None:
    parts = {name: make_raw(number=20 + i).parts["all"] for i, name in enumerate(SPLITS)}
    splits = cut(make_raw(parts=parts), make_config(test_fraction=None))
    for name in SPLITS:
        assert splits[name].part == name
        assert splits[name].rows.tolist() == list(range(len(parts[name][0])))
    assert splits["test"].index.tolist() == list(range(41, 63))


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


def test_a_test_share_that_would_be_ignored_is_refused_where_it_was_typed() -> None:
    part = make_raw().parts["all"]
    raw, config = make_raw(parts={"train": part, "test": part}), make_config(test_fraction=0.2)
    assert len(cut(raw, config)["test"].rows) == 60
    (decision,) = own_test_split(raw, config)
    assert (decision.setting, decision.value) == ("data.test_fraction", None)
    assert not own_test_split(raw, make_config(test_fraction=None))
    config._typed = frozenset({"data.test_fraction"})
    with pytest.raises(ConfigError, match="comes with its own test split"):
        cut(raw, config)


@pytest.mark.parametrize("stratify", [True, False])
def test_a_class_of_one_sample_is_named(stratify: bool) -> None:
    x, y = make_raw().parts["all"]
    trained = 0
    for rare in range(12):  # wherever it falls without stratifying
        labels = y % 2
        labels[rare] = 2
        raw, config = make_raw(parts={"all": (x, labels)}), make_config(stratify=stratify)

        def check(raw: Raw = raw, config: DataConfig = config, labels: Any = labels) -> Any:
            rows = cut(raw, config)
            check_splits(raw, {split: labels[r.rows] for split, r in rows.items()})
            return rows["train"].rows

        rows = cut(raw, make_config(stratify=False))["train"].rows
        if not stratify and rare in rows:
            assert rare in check()
            trained += 1
            continue
        with pytest.raises(DataError, match="class 2") as caught:
            check()
        assert "remove" in caught.value.fix
    assert bool(trained) == (not stratify)


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


def test_a_samples_group_is_in_one_split() -> None:
    rng = np.random.default_rng(0)
    person = rng.integers(0, 40, 400).astype(str)
    raw = with_columns(400, person=person)
    found = indices(raw, group="person", stratify=False)
    members = [set(person[index]) for index in found.values()]
    assert sum(map(len, members)) == len(set(person))
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(400))
    assert abs(len(found["test"]) - 80) <= 10  # within one group
    assert abs(len(found["val"]) - 64) <= 10


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    number=st.integers(8, 120),
    groups=st.integers(3, 20),
    share=st.floats(0.05, 0.6),
    stratify=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_groups_are_never_shared(data, number, groups, share, stratify, seed) -> None:
    codes = np.array(
        data.draw(st.lists(st.integers(0, groups - 1), min_size=number, max_size=number))
    )
    assume(len(set(codes.tolist())) >= 3)
    raw = with_columns(number, group=codes)
    change = {"test_fraction": share, "val_fraction": share, "split_seed": seed}
    found = indices(raw, group="group", stratify=stratify, **change)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(number))
    members = [set(codes[index].tolist()) for index in found.values()]
    assert all(members)
    assert sum(map(len, members)) == len(set().union(*members))


@pytest.mark.parametrize("seed", range(5))
def test_groups_keep_the_classes_shares_where_they_can(seed) -> None:
    group = np.repeat(np.arange(200), 5)  # a group has one class, as a patient has one diagnosis
    raw = with_columns(1000, group=group)
    raw.parts = {"all": (raw.parts["all"][0], np.repeat([0, 1, 2], [700, 200, 100]))}
    found = indices(raw, group="group", split_seed=seed)
    for index in found.values():
        share = np.bincount(raw.parts["all"][1][index], minlength=3) / len(index)
        np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.03)


def test_a_single_group_cannot_be_cut() -> None:
    with pytest.raises(DataError, match="they are one group") as caught:
        cut(with_columns(person=["x"] * 60), make_config(group="person"))
    assert caught.value.where == "data.group"


def test_samples_without_a_group_are_refused() -> None:
    person = np.array([None, "b", "c"] * 20, object)
    with pytest.raises(DataError, match=r"20 samples without a group, first rows \[0, 3"):
        cut(with_columns(person=person), make_config(group="person"))


def test_a_publishers_test_split_keeps_its_groups() -> None:
    raw = with_columns(60, 20, person=np.repeat(np.arange(20), 3))
    found = indices(raw, group="person", test_fraction=None)
    assert found["test"].tolist() == list(range(40, 60))
    person = np.repeat(np.arange(20), 3)
    assert not set(person[found["train"]]) & set(person[found["val"]])


@pytest.mark.parametrize("setting", ["group", "time"])
def test_a_column_that_does_not_exist(setting) -> None:
    with pytest.raises(DataError, match="no column 'persn'") as caught:
        cut(with_columns(person=np.arange(60)), make_config(**{setting: "persn"}, stratify=False))
    assert (caught.value.where, caught.value.exit_code) == (f"data.{setting}", 3)
    assert caught.value.fix == "did you mean 'person'?"
    with pytest.raises(ConfigError, match="no columns to split by"):
        cut(make_raw(), make_config(**{setting: "persn"}, stratify=False))


def test_a_publishers_split_without_the_group_is_refused() -> None:
    raw = with_columns(60, 20, person=np.arange(60))
    raw.columns["test"].clear()
    with pytest.raises(DataError, match="part 'test' has no column 'person'"):
        cut(raw, make_config(group="person", test_fraction=None))


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 30), min_size=6, max_size=80),
    share=st.floats(0.05, 0.6),
)
def test_time_runs_from_train_over_val_to_test(times, share) -> None:
    times = np.array(times)
    assume(len(np.unique(times)) >= 3)
    raw = with_columns(len(times), when=times)
    change = {"test_fraction": share, "val_fraction": share, "stratify": False}
    found = indices(raw, time="when", **change)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(times)))
    assert times[found["train"]].max() < times[found["val"]].min()
    assert times[found["val"]].max() < times[found["test"]].min()


def test_a_split_by_time_has_the_shares_asked_for() -> None:
    when = np.random.default_rng(0).permutation(100)
    found = indices(with_columns(100, when=when), time="when", stratify=False)
    assert [len(found[name]) for name in SPLITS] == [64, 16, 20]
    assert set(when[found["test"]]) == set(range(80, 100))


@pytest.mark.parametrize(
    "when",
    [
        np.datetime64("2024-02-27") + np.arange(60),
        (np.datetime64("2024-02-27") + np.arange(60)).astype(str).astype(object),
        np.arange(60).astype(str).astype(object),
        np.arange(60) - 59.5,
    ],
)
def test_what_a_time_may_be(when) -> None:
    order = np.random.default_rng(1).permutation(60)
    found = indices(with_columns(60, when=when[order]), time="when", stratify=False)
    assert set(order[found["test"]]) == set(range(48, 60))


def test_what_no_time_can_be() -> None:
    when = np.array(["2024-01-31", "31.1.2024", None] * 20, object)
    with pytest.raises(DataError, match=r"40 samples without a readable time.*31\.1\.2024"):
        cut(with_columns(when=when), make_config(time="when", stratify=False))
    with pytest.raises(DataError, match="all have the same time"):
        cut(with_columns(when=np.zeros(60)), make_config(time="when", stratify=False))


def test_a_split_by_time_keeps_no_class_shares() -> None:
    config = make_config(time="when")
    config._typed = frozenset({"data.stratify"})
    with pytest.warns(
        UserWarning, match=r"data\.stratify=true is ignored, because a split by time"
    ):
        cut(with_columns(when=np.arange(60)), config)


def test_a_stream_of_text_is_cut_by_place() -> None:
    raw = make_raw("text", number=50, task="language_model")
    with pytest.raises(ConfigError, match="k-fold would leak"):
        indices(raw, stratify=False, num_folds=5, fold=0)
    found = indices(raw, stratify=False)
    assert found["train"].tolist() == list(range(32))
    assert found["val"].tolist() == list(range(32, 40))
    assert found["test"].tolist() == list(range(40, 50))


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(30, 120),
    folds=st.integers(2, 6),
    kind=st.sampled_from(["random", "stratified", "group", "both"]),
    seed=st.integers(0, 1000),
)
def test_every_sample_is_val_in_one_fold(number, folds, kind, seed) -> None:
    person = np.random.default_rng(seed).integers(0, 12, number)
    person[:12] = np.arange(12)
    raw = with_columns(number, person=person)
    change = {
        "num_folds": folds,
        "split_seed": seed,
        "stratify": kind in ("stratified", "both"),
        "group": "person" if kind in ("group", "both") else None,
    }
    runs = [indices(raw, fold=fold, **change) for fold in range(folds)]
    for run in runs:
        np.testing.assert_array_equal(run["test"], runs[0]["test"])
        assert sorted(np.concatenate(list(run.values())).tolist()) == list(range(number))
        if change["group"]:
            assert not set(person[run["train"]]) & set(person[run["val"]])
    together = np.concatenate([run["val"] for run in runs])
    assert sorted([*together.tolist(), *runs[0]["test"].tolist()]) == list(range(number))


def test_folds_are_scikit_learns_and_of_one_size() -> None:
    raw = make_raw(number=100)
    rest = np.setdiff1d(np.arange(100), indices(raw)["test"])
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    expected = [rest[val] for _, val in folds.split(rest, raw.parts["all"][1][rest])]
    for fold in range(4):
        found = indices(raw, num_folds=4, fold=fold, val_fraction=0.5)
        np.testing.assert_array_equal(found["val"], expected[fold])
        assert len(found["val"]) == 20


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"fold": 0}, "data.num_folds"),
        ({"num_folds": 3}, "data.fold"),
        ({"num_folds": 3, "fold": 3}, "data.fold"),
        ({"num_folds": 3, "fold": 0, "time": "when"}, "data.time, data.num_folds"),
        ({"group": "when", "time": "when"}, "data.time, data.group"),
    ],
)
def test_settings_that_contradict_each_other(change, where) -> None:
    with pytest.raises(ConfigError) as caught:
        cut(with_columns(when=np.arange(60)), make_config(**change))
    assert (caught.value.where, caught.value.exit_code) == (where, 2)
    assert caught.value.fix


def test_a_publishers_validation_split_leaves_nothing_to_fold_or_to_order() -> None:
    raw = make_raw(parts={name: make_raw().parts["all"] for name in SPLITS})
    with pytest.raises(ConfigError, match="its own val split") as caught:
        cut(raw, make_config(test_fraction=None, num_folds=3, fold=0))
    assert "data.num_folds=null" in caught.value.fix
    with pytest.raises(ConfigError, match="nothing to split by time"):
        cut(raw, make_config(test_fraction=None, time="when"))


def test_too_few_samples_or_groups_for_the_folds() -> None:
    with pytest.raises(DataError, match="cannot make 60 folds of 48 samples"):
        cut(make_raw(), make_config(num_folds=60, fold=0, stratify=False))
    raw = with_columns(person=np.arange(60) % 4)
    with pytest.raises(DataError, match="3 groups are too few for 5 folds") as caught:
        cut(raw, make_config(num_folds=5, fold=0, group="person"))
    assert caught.value.fix == "set it to at most 3"


def test_rare_classes_are_no_warning_of_scikit_learns() -> None:
    raw = make_raw()
    raw.parts = {"all": (raw.parts["all"][0], (np.arange(60) < 4).astype(int))}
    assert len(indices(raw, num_folds=5, fold=0)["val"])
